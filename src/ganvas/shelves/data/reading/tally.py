"""What a look at every image tells of all of them: sizes, colour modes, pages, transparency, and how dark they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.shelves.data.reading.options import PixelOptions
from ganvas.shelves.data.reading.pixels import Decoded

DARK = 0.07
"""Images that use less of the range of values look black, or all of one grey, to a person and a network."""

PICTURES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".tga", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw", ".ppm"}
)
"""Endings of files that are pictures to their owner, and are not read."""

_FULL = 255
_MODES = {1: "grey", 3: "RGB", 4: "RGBA"}


class Tally:
    """Counts what comes by, from any thread."""

    def __init__(self, options: PixelOptions) -> None:
        self._options = options
        self._lock = Lock()
        self._sizes: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._transparent: list[str] = []
        self._paged: dict[str, int] = {}
        self._low, self._high, self._count = _FULL, 0, 0

    def add(self, name: str, entry: Decoded, pixels: NDArray[np.uint8]) -> None:
        """One image: as its file has it, and as it comes out."""
        height, width, channels = entry.picture.shape
        low, high = int(pixels.min()), int(pixels.max())
        with self._lock:
            self._count += 1
            self._sizes[f"{width}x{height}"] += 1
            self._modes[entry.mode or mode_of(channels)] += 1
            if channels == 4 and entry.mode:
                self._transparent.append(name)
            if entry.frames > 1:
                self._paged[name] = entry.frames
            self._low, self._high = min(self._low, low), max(self._high, high)

    @property
    def sizes(self) -> dict[str, int]:
        """Width x height, the most frequent first."""
        return dict(self._sizes.most_common())

    @property
    def modes(self) -> dict[str, int]:
        """Colour modes of the files, the most frequent first."""
        return dict(self._modes.most_common())

    def notes(self, darkness: str) -> list[str]:
        """What their owner may not expect."""
        notes = []
        if self._transparent and self._options.channels is None:
            notes.append(
                f"{len(self._transparent)} of {self._count} images have an alpha channel, such as "
                f"{min(self._transparent)}; what is transparent becomes white paper (data.channels=4 keeps it)"
            )
        if self._paged:
            name = min(self._paged)
            notes.append(
                f"{len(self._paged)} of {self._count} files have several pages or frames, {sum(self._paged.values())} "
                f"in all, such as {name} with {self._paged[name]}; only the first of each is used (save the others as "
                "files of their own)"
            )
        return [*notes, *dark(self._low, self._high, darkness)]


def mode_of(channels: int) -> str:
    """What colours with so many channels are called."""
    return _MODES.get(channels, f"{channels} channels")


def extremes(images: NDArray[Any]) -> tuple[int, int]:
    """The least and the largest value of bytes (N, ...), read in pieces."""
    rows = max(1, (16 << 20) // max(1, images[:1].nbytes))
    pieces = [images[start : start + rows] for start in range(0, len(images), rows)]
    return min(int(piece.min()) for piece in pieces), max(int(piece.max()) for piece in pieces)


def dark(low: int, high: int, remedy: str) -> list[str]:
    """A sentence where all values of all images lie in a sliver of 0..255."""
    if high - low >= DARK * _FULL:
        return []
    return [
        f"all values lie in {low}..{high} of the range 0..255: these images look {'black' if high < 128 else 'blank'}, "
        f"to a network as well; {remedy}"
    ]


def unread(left_out: Mapping[str, int]) -> list[str]:
    """A sentence where files that are pictures to their owner are not read."""
    pictures = {ending: count for ending, count in left_out.items() if ending in PICTURES and count}
    if not pictures:
        return []
    said = ", ".join(f"{count} {ending}" for ending, count in sorted(pictures.items()))
    return [f"picture files of kinds that are not read are left out: {said}; convert them to PNG to use them"]
