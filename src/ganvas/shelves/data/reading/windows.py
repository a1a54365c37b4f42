"""Long files that are read as windows: which files, which part of each, and where windows begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.shelves.data.reading.names import some, spelled
from ganvas.shelves.data.reading.tree import is_dangling

Split = Literal["train", "test", "all"]


def files_at(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The file itself, or the files of these endings in a folder and in the folders in it, in the order of their names.

    Raises
    ------
    DataError : there is none.
    """
    place = path.expanduser()
    if place.is_file():
        return [place]
    if not place.exists():
        raise DataError("there is no such file or folder", where=str(path), hint="check the path")
    candidates = (*place.glob("*"), *place.glob("*/*"))
    named = sorted(file for file in candidates if file.suffix.lower() in suffixes)
    if missing := [file.name for file in named if is_dangling(file)]:
        raise DataError(
            f"{len(missing)} of {len(named)} files are missing, links to nowhere: {some(missing)}", where=str(path),
            hint="restore what they point to, or remove them",
        )  # fmt: skip
    files = [file for file in named if file.is_file()]
    if not files:
        endings = " or ".join(suffixes)
        raise DataError(f"no file in this folder ends in {endings}", where=str(path), hint=f"give a {endings} file")
    return files


def classes_of(path: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """The names of the folders in a folder where all files lie in such; else none."""
    place = path.expanduser()
    folders = {file.parent for file in files}
    return (
        ()
        if place in folders or place.parent in folders
        else tuple(sorted({spelled(folder.name) for folder in folders}))
    )


def part_of(length: int, split: Split, test_share: float) -> slice:
    """Which of so many places of a file a split is: test is the end."""
    cut = length - round(length * test_share)
    return {"train": slice(cut), "test": slice(cut, None), "all": slice(None)}[split]


@dataclass(frozen=True)
class Windows:
    """Windows in files that lie one after the other: where each begins, and the number (n,) of its file."""

    starts: NDArray[np.int64]
    files: NDArray[np.int64]

    def labels(self, class_names: Sequence[str], files: Sequence[Path]) -> NDArray[np.int64] | None:
        """The classes (n,) by the names of the files' folders; None without classes."""
        if not class_names:
            return None
        return np.array([class_names.index(spelled(file.parent.name)) for file in files], dtype=np.int64)[self.files]

    def rows(self, indices: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The places (n, length) of the windows at `indices`."""
        places: NDArray[np.int64] = self.starts[indices][:, None] + np.arange(length)
        return places


def windows(lengths: Sequence[int], length: int, stride: int, where: str) -> Windows:
    """Windows of files of these lengths, every `stride` places; none crosses from one file to the next.

    Raises
    ------
    DataError : no file is as long as a window.
    """
    starts = [np.arange(0, size - length + 1, stride, dtype=np.int64) for size in lengths]
    offsets = np.cumsum([0, *lengths[:-1]])
    files = np.concatenate([np.full(len(begin), i, dtype=np.int64) for i, begin in enumerate(starts)])
    if not len(files):
        raise DataError(
            f"the longest file has {max(lengths)} places in this split, a window has {length}", where=where,
            hint="make data.length smaller, or choose another data.split",
        )  # fmt: skip
    return Windows(np.concatenate([begin + offset for begin, offset in zip(starts, offsets, strict=True)]), files)
