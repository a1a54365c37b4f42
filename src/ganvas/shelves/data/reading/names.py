"""Names, labels and bytes as every reader of data understands them, whoever wrote them on whatever system.

macOS writes the letter é as two characters and Windows writes `\\` between folders; text files may begin with a byte
order mark; arrays of instruments have their bytes in the other order. None of this is content: what differs by it alone
is the same.
"""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError

NAMED = 5  # so many names are given in a message, then their number

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def spelled(name: str) -> str:
    """A name in the one form that names are compared in: composed letters (NFC), `/` between folders, no `./`."""
    return unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def text_of(content: bytes, where: str) -> str:
    """The text of a file: UTF-8, or UTF-16 where its first bytes say so, without the byte order mark.

    Raises
    ------
    DataError : it is neither.
    """
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"it is no UTF-8 text: {error.reason}", where=where, hint="save it as UTF-8") from None


def json_of(content: bytes, where: str, hint: str) -> Any:
    """What a JSON file holds.

    Raises
    ------
    DataError : it is no JSON.
    """
    try:
        return json.loads(text_of(content, where))
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not valid JSON: {error}", where=where, hint=hint) from None


def native(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers with their bytes in this machine's order; the array itself where they are."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def one_label_each(pairs: Iterable[tuple[str, Hashable]], where: str) -> dict[str, Any]:
    """name as it is `spelled` -> its label; a pair may be there twice.

    Raises
    ------
    DataError : one name has two labels.
    """
    labels: dict[str, Any] = {}
    for raw, label in pairs:
        name = spelled(raw)
        if name in labels and labels[name] != label:
            raise DataError(
                f"{name} has two labels, {labels[name]!r} and {label!r}", where=where, hint="keep the right one"
            )
        labels[name] = label
    return labels


def classes_in(values: NDArray[np.int64] | None) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """(labels (N,) counted from 0 without gaps, the names of their classes): what stands for a class is its number.

    Labels 1, 2 are two classes called "1" and "2"; a class that no datum has would be drawn and never learnt.
    """
    if values is None or not len(values):
        return values, ()
    present, labels = np.unique(values, return_inverse=True)
    return labels.reshape(-1).astype(np.int64), tuple(str(value) for value in present)


def by_spelling(names: Iterable[str], where: str, word: str) -> dict[str, str]:
    """A name as it is `spelled` -> as it lies in its place.

    Raises
    ------
    DataError : two differ by nothing that counts.
    """
    actual: dict[str, str] = {}
    for name in names:
        if (other := actual.setdefault(spelled(name), name)) != name:
            raise DataError(
                f"two {word}s have the same name but for the form of its letters: {other!r} and {name!r}",
                where=where, hint="rename one of them",
            )  # fmt: skip
    return actual


def counted(labels: NDArray[np.int64] | None, class_names: Sequence[str]) -> Mapping[str, int]:
    """class name -> how many data have it; empty without labels."""
    if labels is None:
        return {}
    counts = np.bincount(labels, minlength=len(class_names))
    return {name: int(count) for name, count in zip(class_names, counts, strict=True)}
