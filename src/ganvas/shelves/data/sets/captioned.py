"""Data with a sentence about each: captions of files, or sentences made from class names."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Gt
from numpy.typing import NDArray

from ganvas.errors import BadValue, DataError
from ganvas.parts import Slot, dataset, modality_of
from ganvas.shelves.data.reading.made_of import WithConditions, by_index, drawn, joined, with_more
from ganvas.shelves.data.reading.names import spelled, text_of
from ganvas.shelves.data.reading.store import digest_of
from ganvas.types import Batch, ConditionSpec, Dataset, DataSpec

FILES = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv")
"""Where captions are looked for beside the data, the first that there is."""

_FILL = " "  # what stands after the end of a text; the mask tells it from a space
_PLACE = "{name}"
_TOKENS = re.compile(r"\w+|[^\w\s]|\s")

By = Literal["characters", "words"]


@dataset("captioned")
class Captioned(WithConditions):
    """Each datum comes with a text about it: the condition `text` (N, length), and `text_mask` (N, length).

    Captions are rows `{"file_name": ..., "text": ...}` of a JSON-lines file, or of a CSV file with these columns, whose
    file names are those of the data relative to their folder or archive. A file may have several captions; one is drawn
    for each batch, and an evaluation keeps one. The mask is 1 where the text is and 0 behind its end, int64.

    Parameters
    ----------
    data : the set.
    captions : the file with the captions; None: captions.jsonl, captions.csv, metadata.jsonl or metadata.csv beside the
        data.
    template : makes the text from the name of the datum's class in place of captions, such as "a photo of {name}";
        underscores of class names become spaces.
    by : what a token is: a character, or a word, a punctuation mark or a space.
    length : tokens of a text; longer ones are cut. None: those of the longest.
    vocabulary : the tokens that there are, among them the space; None: those of all captions, sorted. A set that a
        trained model is scored on must have the model's.

    Raises
    ------
    BadValue : a template without {name} or for data without classes, or a set that is read as a stream.
    DataError : no captions, a file with other rows, data without a caption, or a token outside of the vocabulary.
    """

    def __init__(
        self,
        *,
        data: Annotated[Dataset, Slot("dataset")],
        captions: Path | None = None,
        template: str | None = None,
        by: By = "characters",
        length: Annotated[int, Gt(0)] | None = None,
        vocabulary: tuple[str, ...] | None = None,
    ) -> None:
        by_index(data, "data")
        if template is not None:
            everything, by_datum = from_classes(data, template, captions)
        else:
            everything, by_datum = from_file(data, captions)
        tokens = {text: tokens_of(text, by) for text in everything}
        known = vocabulary or tuple(sorted({token for caption in tokens.values() for token in caption} | {_FILL}))
        longest = max(map(len, tokens.values()))
        self.length = length or longest
        if longest > self.length:
            cut = sum(len(caption) > self.length for caption in tokens.values())
            warnings.warn(
                f"{cut} of {len(tokens)} captions are longer than {self.length} tokens and are cut there", stacklevel=2
            )
        self.texts, self.masks = encoded([tokens[text] for text in everything], known, self.length)  # (M, length) each
        numbers = {text: number for number, text in enumerate(everything)}
        self.counts = np.array([len(texts) for texts in by_datum])  # of captions of each datum
        self.starts = np.concatenate([[0], self.counts.cumsum()[:-1]])
        self.which = np.array([numbers[text] for texts in by_datum for text in texts])
        facts = {"texts": digest_of({"own": by_datum}), "vocabulary": known, "length": self.length}
        super().__init__(data, conditions(known, self.length), facts)

    @classmethod
    def preview(
        cls,
        *,
        data: DataSpec | None = None,
        length: int | None = None,
        vocabulary: tuple[str, ...] | None = None,
        **_: object,
    ) -> DataSpec | None:
        """What these keys promise; without a length and a vocabulary only the captions can say."""
        if data is None or length is None or vocabulary is None:
            return None
        return with_more(data, conditions(vocabulary, length))

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The data at `indices` with one of their captions each."""
        chosen = self.which[self.starts[indices] + drawn(indices, self.counts[indices], rng)]
        return joined(self.data.batch(indices, rng), text=self.texts[chosen], text_mask=self.masks[chosen])


def conditions(vocabulary: Sequence[str], length: int) -> dict[str, ConditionSpec]:
    """The conditions that captions bring.

    Raises
    ------
    BadValue : a vocabulary without a space.
    """
    if _FILL not in vocabulary:
        raise BadValue("the vocabulary has no space, which fills texts up", key="vocabulary", hint="add ' ' to it")
    text = modality_of({"use": "text", "vocabulary": list(vocabulary)})
    return {"text": ConditionSpec((length,), len(vocabulary), text), "text_mask": ConditionSpec((length,), 2)}


def tokens_of(text: str, by: By) -> list[str]:
    """The tokens of a text."""
    return list(text) if by == "characters" else _TOKENS.findall(text)


def encoded(
    texts: Sequence[Sequence[str]], vocabulary: Sequence[str], length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (M, length) int64 filled up with spaces, and the mask (M, length) int64, 1 where the text is.

    Raises
    ------
    DataError : a token that is not in the vocabulary.
    """
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokens = torch.full((len(texts), length), numbers[_FILL])
    mask = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        cut = text[:length]
        if foreign := [token for token in cut if token not in numbers]:
            raise DataError(
                f"the vocabulary has no {foreign[0]!r}, which is in the caption {''.join(text)!r}", where="captions",
                hint="add it to data.vocabulary, or leave that out to take all that the captions have",
            )  # fmt: skip
        tokens[row, : len(cut)] = torch.tensor([numbers[token] for token in cut], dtype=torch.int64)
        mask[row, : len(cut)] = 1
    return tokens, mask


# --------------------------------------------------------------------------------------------------- where texts are


def from_classes(data: Dataset, template: str, captions: Path | None) -> tuple[list[str], list[list[str]]]:
    """(all texts, the texts of each datum) made from class names.

    Raises
    ------
    BadValue : no place for the name, no classes, or captions given as well.
    """
    if captions is not None:
        raise BadValue("captions and a template are both given", key="template", hint="leave one of them out")
    if _PLACE not in template:
        raise BadValue(
            f"{template!r} has no place for the class", key="template", hint='write it as "a photo of {name}"'
        )
    if not data.class_names:
        raise BadValue("the data have no classes to make texts of", key="template", hint="give captions in a file")
    texts = [tidy(template.replace(_PLACE, name.replace("_", " "))) for name in data.class_names]
    labels: list[int] = []
    for start in range(0, len(data), 1024):
        batch = data.batch(np.arange(start, min(start + 1024, len(data))), np.random.default_rng(0))
        labels += [] if batch.label is None else batch.label.tolist()
    return list(dict.fromkeys(texts)), [[texts[label]] for label in labels]


def from_file(data: Dataset, captions: Path | None) -> tuple[list[str], list[list[str]]]:
    """(all texts of the file, the texts of each datum).

    Raises
    ------
    DataError : no captions, or data without one.
    """
    name, content = content_of(data, captions)
    by_file: dict[str, list[str]] = {}
    for file, text in rows_of(content, name):
        by_file.setdefault(file, []).append(tidy(text))
    listed = data.names(np.arange(len(data)))
    if listed is None:
        raise DataError(
            "the data have no file names that captions could be looked up by", where=name,
            hint='make the texts from class names: data.template="a photo of {name}"',
        )  # fmt: skip
    names = [spelled(file) for file in listed]
    if lacking := [file for file in names if file not in by_file]:
        raise DataError(
            f"{len(lacking)} of {len(names)} data have no caption, such as {lacking[0]}", where=name,
            hint=f"its file names are like {next(iter(by_file), 'none')}; the data's are relative to their folder",
        )  # fmt: skip
    return list(dict.fromkeys(text for texts in by_file.values() for text in texts)), [by_file[file] for file in names]


def content_of(data: Dataset, captions: Path | None) -> tuple[str, bytes]:
    """(name, content) of the file with the captions.

    Raises
    ------
    DataError : there is none, or it cannot be read.
    """
    if captions is not None:
        try:
            return str(captions), captions.expanduser().read_bytes()
        except OSError as error:
            raise DataError(
                f"it cannot be read: {error.strerror}", where=str(captions), hint="check data.captions"
            ) from None
    for name in FILES:
        if (content := data.beside(name)) is not None:
            return name, content
    raise DataError(
        f"no captions lie beside the data ({', '.join(FILES)})", where="captioned",
        hint='give their file, data.captions=FILE, or data.template="a photo of {name}"',
    )  # fmt: skip


def rows_of(content: bytes, where: str) -> Iterator[tuple[str, str]]:
    """(file name, text) of each row of a JSON-lines or CSV file.

    Raises
    ------
    DataError : it is neither, or a row lacks one of the two.
    """
    lines = text_of(content, where)
    read = _csv if where.lower().endswith(".csv") else _json
    for number, row in read(lines, where):
        file, text = row.get("file_name"), row.get("text")
        if not (isinstance(file, str) and isinstance(text, str) and text.strip()):
            raise DataError(
                "a row has no file_name and text", where=f"{where}:{number}",
                hint='rows are {"file_name": "folder/image.png", "text": "what it shows"}',
            )  # fmt: skip
        yield spelled(file), text


def _json(lines: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"it is no JSON: {error}", where=f"{where}:{number}", hint="one JSON object a line"
            ) from None
        yield number, row if isinstance(row, dict) else {}


def _csv(lines: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = csv.DictReader(io.StringIO(lines, newline=""))
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"it is no CSV: {error}", where=f"{where}:{rows.line_num}", hint="save it again") from None


def tidy(text: str) -> str:
    """A text in composed characters (NFC), with single spaces and none at its ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())
