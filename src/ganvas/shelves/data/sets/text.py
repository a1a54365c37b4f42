"""Windows of text files, for models of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

from ganvas.errors import BadValue, DataError
from ganvas.files.texts import read_text
from ganvas.parts import data_spec, dataset
from ganvas.shelves.data.reading.store import digest_of
from ganvas.shelves.data.reading.windows import Split, classes_of, files_at, part_of, windows
from ganvas.types import Batch, Dataset, DataSpec, label_of

_ENGLISH = ("\n", *map(chr, range(ord(" "), ord("~") + 1)))  # printable ASCII


@dataset("text")
class Text(Dataset):
    """Windows of a text file, or of all `.txt` files of a folder; each character is a token.

    Data are (N, length) int64. Window i of a file begins `i * stride` characters after its start, so that a stride
    below the length makes windows overlap; what is left at a file's end is not seen. Folders in the folder are classes.

    Parameters
    ----------
    path : a UTF-8 file, or a folder of them.
    length : characters of a window.
    stride : characters from one window's start to the next; None: windows lie one beside the other.
    split : the first part of each file to train on, its end to test with, or all of it.
    test_share : how much of each file is its end.
    vocabulary : the characters that there are; None: those of the files, sorted, whatever the split.

    Raises
    ------
    DataError : no such file, no text long enough, a file that is not UTF-8, or a character outside of the vocabulary,
        with its line.
    """

    def __init__(
        self,
        *,
        path: Path,
        length: Annotated[int, Gt(0)] = 256,
        stride: Annotated[int, Gt(0)] | None = None,
        split: Split = "train",
        test_share: Annotated[float, Ge(0), Lt(1)] = 0.1,
        vocabulary: tuple[str, ...] | None = None,
    ) -> None:
        files = files_at(path, (".txt",))
        texts = [read_text(file) for file in files]
        entries = known(vocabulary, texts, str(path))
        numbers = {character: number for number, character in enumerate(entries)}
        all_tokens = [numbered(text, numbers, file) for text, file in zip(texts, files, strict=True)]
        pieces = [tokens[part_of(len(tokens), split, test_share)] for tokens in all_tokens]
        self.tokens = np.concatenate(pieces)  # of all files, one after the other
        self.windows = windows([len(piece) for piece in pieces], length, stride or length, str(path))
        self.class_names = classes_of(path, files)
        self.labels = self.windows.labels(self.class_names, files)
        self.spec = data_spec({"use": "text", "vocabulary": entries}, (length,), label_of(len(self.class_names)))
        self.fingerprint = digest_of(
            {
                "texts": texts, "classes": [file.parent.name for file in files] if self.class_names else [],
                "windows": [length, stride or length], "split": [split, test_share], "vocabulary": entries,
            }
        )  # fmt: skip

    @classmethod
    def preview(cls, *, length: int = 256, vocabulary: tuple[str, ...] | None = None, **_: object) -> DataSpec:
        """What these keys promise without a look at any file: the characters of plain English where none are given."""
        return data_spec({"use": "text", "vocabulary": list(vocabulary or _ENGLISH)}, (length,))

    def __len__(self) -> int:
        return len(self.windows.starts)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The windows (n, length) at `indices`."""
        rows = self.tokens[self.windows.rows(indices, self.spec.shape[0])]
        label = None if self.labels is None else torch.from_numpy(self.labels[indices])
        return Batch.labelled(torch.from_numpy(rows), label, indices)


def known(vocabulary: tuple[str, ...] | None, texts: list[str], where: str) -> list[str]:
    """The characters that there are.

    Raises
    ------
    BadValue : an entry of the vocabulary is no single character.
    DataError : the files hold none.
    """
    long = [entry for entry in vocabulary or () if len(entry) != 1]
    if long:
        raise BadValue(f"{long[0]!r} is no single character", key="vocabulary", hint="give one character an entry")
    entries = list(vocabulary) if vocabulary else sorted(set().union(*texts))
    if not entries:
        raise DataError("there is no text in it", where=where, hint="give a file with text")
    return entries


def numbered(text: str, numbers: dict[str, int], file: Path) -> NDArray[np.int64]:
    """The tokens (L,) of a text.

    Raises
    ------
    DataError : a character that the vocabulary has not, with its line.
    """
    foreign = set(text) - numbers.keys()
    if foreign:
        first = min(text.index(character) for character in foreign)
        raise DataError(
            f"the vocabulary has no {text[first]!r} (U+{ord(text[first]):04X})",
            where=f"{file}:{text.count(chr(10), 0, first) + 1}", hint="data.vocabulary=~ takes those of the files",
        )  # fmt: skip
    return np.fromiter((numbers[character] for character in text), dtype=np.int64, count=len(text))
