"""Rows of numbers and categories as vectors, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.files.tables import Table


@dataclass(frozen=True)
class Columns:
    """What the columns of a table hold: a range [low, high] of numbers, or the names of categories."""

    order: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    names: Mapping[str, tuple[str, ...]]

    @cached_property
    def places(self) -> Mapping[str, slice]:
        """Where each column's values stand in a vector: one of a number, as many as there are categories."""
        widths = [len(self.names[name]) if name in self.names else 1 for name in self.order]
        ends = np.cumsum([0, *widths]).tolist()
        return {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(self.order)}

    @property
    def width(self) -> int:
        """Values of a vector."""
        return sum(place.stop - place.start for place in self.places.values())

    def encode(self, table: Table) -> NDArray[np.float32]:
        """The rows of a table as vectors (N, width) in [-1, 1] where its numbers are in their ranges.

        Raises
        ------
        DataError : a column is missing, or holds what is no number or none of its categories; the line is named.
        """
        vectors = np.empty((len(table), self.width), dtype=np.float32)
        for name, place in self.places.items():
            if name in self.ranges:
                low, high = self.ranges[name]
                vectors[:, place] = (2 * (table.numbers(name) - low) / (high - low) - 1)[:, None]
                continue
            numbers = {category: number for number, category in enumerate(self.names[name])}
            words = table.words(name)
            for row, word in enumerate(words):
                if word not in numbers:
                    raise DataError(
                        f"column {name!r} has no category {word!r}", where=f"{table.where}:{table.lines[row]}",
                        hint=f"they are {', '.join(numbers)}",
                    )  # fmt: skip
            vectors[:, place] = one_hot(np.array([numbers[word] for word in words]), len(numbers))
        return vectors

    def decode(self, vectors: NDArray[np.float32]) -> dict[str, list[Any]]:
        """Vectors (N, width) as columns of numbers and of names; a category is the one with the largest value."""
        columns: dict[str, list[Any]] = {}
        for name, place in self.places.items():
            part = vectors[:, place].astype(np.float64)
            if name in self.ranges:
                low, high = self.ranges[name]
                columns[name] = (low + (part[:, 0] + 1) * (high - low) / 2).tolist()
            else:
                columns[name] = [self.names[name][number] for number in part.argmax(axis=1).tolist()]
        return columns

    def decided(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (N, width) whose categories are 1 for one and −1 for the others."""
        decided = vectors.copy()
        for name in self.names:
            part = vectors[:, self.places[name]]
            decided[:, self.places[name]] = one_hot(part.argmax(axis=1), part.shape[1])
        return decided


def one_hot(which: NDArray[np.int64], kinds: int) -> NDArray[np.float32]:
    """(N,) -> (N, kinds): 1 at the one, −1 elsewhere."""
    return 2 * np.eye(kinds, dtype=np.float32)[which] - 1


def in_order(word: str) -> tuple[int, float, str]:
    """What names are sorted by: numbers by their value before all others, which are sorted as text."""
    try:
        return 0, float(word), word
    except ValueError:
        return 1, 0.0, word


def described(table: Table, names: Sequence[str], categorical: Sequence[str], most: int) -> Columns:
    """The columns of a table as its own values say: numbers where all of them are, else categories, `most` at most.

    Raises
    ------
    DataError : a column that is not there, or has too many categories or one.
    """
    ranges: dict[str, tuple[float, float]] = {}
    kinds: dict[str, tuple[str, ...]] = {}
    for name in (*names, *categorical):
        table.column(name)
    for name in names:
        if name not in categorical and table.is_numeric(name):
            values = table.numbers(name)
            low, high = float(values.min()), float(values.max())
            same = 0.5 if low == high else 0.0  # a column that never changes lies in the middle
            ranges[name] = (low - same, high + same)
            continue
        categories = sorted(set(table.words(name)), key=in_order)
        if not 2 <= len(categories) <= most:
            raise DataError(
                f"column {name!r} has {len(categories)} categories, and 2 to {most} can be learnt", where=table.where,
                hint=f"leave it out: data.columns=[{', '.join(other for other in names if other != name)}]",
            )  # fmt: skip
        kinds[name] = tuple(categories)
    return Columns(tuple(names), ranges, kinds)
