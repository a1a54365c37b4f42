"""Text: (length,) int64 tokens of a vocabulary, one after the other."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from torch import Tensor

from ganvas.errors import BadValue, DataError, UsageError
from ganvas.files.files import write_bytes
from ganvas.files.texts import read_text
from ganvas.parts import modality
from ganvas.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_COLUMNS = 80  # characters of a line on a sheet
_LINES = 24  # of one text on a sheet; what is longer ends in an ellipsis
_CELL = (6, 11)  # pixels of a character of Pillow's own font
_MARGIN = 8  # pixels around the text
_RULE = 200  # the grey of the lines between texts
_FILL = " "  # what stands behind the end of a text that is too short
_SHOWN = 8  # foreign characters that an error lists


@modality("text")
class Text(Modality):
    """Texts of so many tokens, int64 numbers of entries of a vocabulary, in UTF-8 files without any rounding.

    Where several entries fit, the longest one is read. Pictures are set in Pillow's own monospaced font, which has the
    characters of Latin-1; others are drawn as `?` there, and are seen in the report's player.

    Parameters
    ----------
    vocabulary : one entry a token, usually one character; the order is that of the numbers.

    Raises
    ------
    BadValue : an empty vocabulary, an empty entry, or one that is there twice.
    """

    axes = ("position",)
    suffixes = (".txt",)
    rows = 1
    protocol = "text-default"

    def __init__(self, *, vocabulary: tuple[str, ...]) -> None:
        if not vocabulary or "" in vocabulary or len(set(vocabulary)) < len(vocabulary):
            raise BadValue("a vocabulary has at least one entry, none empty and none twice", key="vocabulary")
        self.vocabulary = vocabulary
        self.categories = len(vocabulary)

    def node(self) -> dict[str, Any]:
        return {"use": self.part_name, "vocabulary": list(self.vocabulary)}

    def reading(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Length and vocabulary."""
        return {"length": shape[0], "vocabulary": list(self.vocabulary)}

    # ------------------------------------------------------------------ tokens and text

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each entry's number."""
        return {entry: number for number, entry in enumerate(self.vocabulary)}

    @cached_property
    def _entries(self) -> re.Pattern[str]:
        """Any entry, longer ones first."""
        return re.compile("|".join(map(re.escape, sorted(self.vocabulary, key=len, reverse=True))))

    def encode(self, text: str) -> Tensor:
        """The tokens (L,) int64 of a text.

        Raises
        ------
        DataError : characters that are in no entry; they are shown.
        """
        if max(map(len, self.vocabulary)) == 1:
            entries: Sequence[str] = text
            foreign = set(text) - self.numbers.keys()
        else:
            entries = self._entries.findall(text)
            foreign = set(self._entries.sub("", text))
        if foreign:
            shown = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in sorted(foreign)[:_SHOWN])
            more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
            line = text[: min(text.index(character) for character in foreign)].count("\n") + 1
            raise DataError(
                f"characters that the vocabulary has not: {shown}{more}; the first in line {line}",
                hint="take them out, or train with a vocabulary that has them",
            )
        return torch.tensor([self.numbers[entry] for entry in entries], dtype=torch.int64)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """The text of tokens (L,)."""
        return "".join(self.vocabulary[int(token)] for token in tokens)

    # ------------------------------------------------------------------ what every modality does

    def rounded(self, data: Tensor) -> Tensor:
        """(N, length) as they are."""
        return data

    def restored(self, rounded: Tensor) -> Tensor:
        """(N, length) as they are."""
        return rounded

    def show(self, data: Tensor, columns: int | None = None) -> Picture:
        """The texts below each other in a monospaced font, with a thin line between them."""
        font = ImageFont.load_default_imagefont()
        blocks = [_lines(self.decode(tokens)) for tokens in data]
        width = _COLUMNS * _CELL[0] + 2 * _MARGIN
        sheet = PILImage.new("L", (width, sum(len(block) * _CELL[1] + 2 * _MARGIN for block in blocks) or 1), 255)
        pen, top = ImageDraw.Draw(sheet), 0
        for i, block in enumerate(blocks):
            if i:
                pen.line([(0, top), (width, top)], fill=_RULE)
            for row, line in enumerate(block):
                drawable = line.encode("latin-1", "replace").decode("latin-1")
                pen.text((_MARGIN, top + _MARGIN + row * _CELL[1]), drawable, fill=0, font=font)
            top += len(block) * _CELL[1] + 2 * _MARGIN
        return sheet

    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """One text file of just as many tokens as the shape says."""
        text = read_text(file)
        try:
            tokens = self.encode(text)
        except DataError as error:
            raise DataError(error.problem, where=str(file), hint=error.hint) from None
        if tuple(tokens.shape) != tuple(shape):
            raise DataError(
                f"it is {len(tokens)} tokens long, not {shape[0]}", where=str(file), hint="cut it, or make it longer"
            )
        return tokens

    def write(self, data: Tensor, files: Sequence[Path]) -> None:
        """UTF-8 files, one text each, with nothing added at their ends."""
        for tokens, file in zip(data, files, strict=True):
            write_bytes(file, self.decode(tokens).encode())

    def from_text(self, text: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The tokens (length,) of a text, filled up with spaces, and a mask (length,) int64, 1 where the text is.

        Raises
        ------
        UsageError : it is too long, has other characters, or is too short and the vocabulary has no space.
        """
        try:
            tokens = self.encode(unicodedata.normalize("NFC", text))
        except DataError as error:
            raise UsageError(error.problem, where=repr(text), hint=error.hint) from None
        (length,), given = shape, len(tokens)
        if given > length or (given < length and _FILL not in self.numbers):
            raise UsageError(f"it is {given} tokens long, not {length}", where=repr(text), hint="give another text")
        filled = torch.full((length,), self.numbers.get(_FILL, 0))
        filled[:given] = tokens
        return filled, (torch.arange(length) < given).long()

    def player(self, data: Tensor) -> str:
        """Each text as a block that keeps its line ends."""
        return "\n".join(f"<pre>{html.escape(self.decode(tokens))}</pre>" for tokens in data)


def _lines(text: str) -> list[str]:
    """The lines of a text as they stand on a sheet: cut where they are too long, at most so many of them."""
    lines = [line[at : at + _COLUMNS] for line in text.split("\n") for at in range(0, max(len(line), 1), _COLUMNS)]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "…".encode("latin-1", "replace").decode("latin-1")]
