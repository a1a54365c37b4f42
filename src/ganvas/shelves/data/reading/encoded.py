"""Images that stay encoded until a batch asks for them: nothing of a set is held but what tells where its images lie.

The pixels are those that `prepare` makes of the same files. What only a look at every image could tell is told when the
image is met: which one is corrupt, of another size, or richer in channels than those seen before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.shelves.data.reading.listing import OnCorrupt
from ganvas.shelves.data.reading.names import some
from ganvas.shelves.data.reading.options import PixelOptions
from ganvas.shelves.data.reading.pixels import Corrupt, Decoded, decoded, quantise, recolour, refit
from ganvas.shelves.data.reading.prepare import SMALL_PIXELS, as_asked, cores
from ganvas.shelves.data.reading.tally import Tally
from ganvas.types import Batch

LOOKED_AT = 64
"""Images that tell what all are brought to where size or channels are not given, evenly spread where that is cheap."""

TRIES = 100  # corrupt images in a row, after which the fault is not the images'


class Encoded(NamedTuple):
    """One image as it lies in its file. `data` is None where it could not be read; `reason` says why."""

    name: str  # for people: shard and member, or number of the row
    data: bytes | None
    label: int | None = None
    reason: str = ""


class Decoder:
    """Brings encoded images to one form (C, H, W).

    Parameters
    ----------
    where : the set, for errors.
    looked_at : images that settle what `options` leave open.
    corrupt : what happens at an image that cannot be read.

    Raises
    ------
    DataError : a corrupt image with `corrupt` "stop", none that can be read, different sizes without a size.
    """

    def __init__(
        self, looked_at: Sequence[Encoded], options: PixelOptions, *, where: str, corrupt: OnCorrupt = "stop"
    ) -> None:
        self._options, self._where, self._corrupt = options, where, corrupt
        self._warned_of: set[str] = set()
        self._reference = ""
        seen: list[tuple[str, tuple[int, ...]]] = []  # name, (H, W, C)
        corrupt_ones: list[tuple[Encoded, Corrupt]] = []
        tally = Tally(options)
        for image in looked_at:
            try:
                entry = _decoded(image)
            except Corrupt as reason:
                corrupt_ones.append((image, reason))
                continue
            tally.add(image.name, entry, quantise(entry.picture))
            seen.append((image.name, as_asked(entry.picture, options).shape))
        if len(corrupt_ones) > 1 and corrupt == "stop":
            said = [f"{image.name} ({reason})" for image, reason in corrupt_ones]
            raise DataError(
                f"{len(said)} of {len(looked_at)} images that were looked at are corrupt: {some(said)}", where=where,
                hint="mend or remove them, or set data.corrupt=skip to take others in their place",
            )  # fmt: skip
        for image, problem in corrupt_ones:
            self._met(image, problem)
        self.sizes, self.modes, self.notes = tally.sizes, tally.modes, tally.notes("scale the images to 0..255")
        for note in self.notes:
            warnings.warn(note, stacklevel=4)
        if not seen:
            raise DataError(
                f"none of the {len(looked_at)} images that were looked at can be read", where=where,
                hint="are these image files whole? data.corrupt=stop names the first and its fault",
            )  # fmt: skip
        self._reference, (height, width, _) = seen[0]
        self._size = options.height_width or (height, width)
        self._channels = options.channels or max(shape[2] for _, shape in seen)
        self._pool = None if height * width <= SMALL_PIXELS else ThreadPoolExecutor(cores(), "ganvas-decode")
        for name, shape in seen:
            self._check(name, shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what comes out."""
        return (self._channels, *self._size)

    def batch(
        self,
        images: Sequence[Encoded],
        instead: Callable[[int, int], Encoded],
        rng: np.random.Generator,
        *,
        flip: bool,
    ) -> Batch:
        """Images (n, C, H, W) float32 in [-1, 1] with their labels (n,) int64, or None.

        Parameters
        ----------
        instead : `instead(i, k)` is the k-th image (from 1) to take in place of a corrupt i-th one.

        Raises
        ------
        DataError : a corrupt image with `corrupt` "stop", or `TRIES` of them in a row; another size or more channels
            than those that were looked at, where `size` or `channels` is not given.
        """
        import torch

        chosen = list(images)
        pixels = np.empty((len(chosen), *self.shape), dtype=np.uint8)

        def fill(place: int) -> None:
            for tries in range(1, TRIES + 1):
                try:
                    pixels[place] = self.picture(chosen[place])
                    return
                except Corrupt as reason:
                    self._met(chosen[place], reason)
                    chosen[place] = instead(place, tries)
            raise DataError(
                f"{TRIES} images in a row cannot be read, the last is {chosen[place].name}", where=self._where,
                hint="copy or download the set again",
            )  # fmt: skip

        list((self._pool.map if self._pool else map)(fill, range(len(chosen))))
        if flip:
            mirrored = rng.random(len(pixels)) < 0.5
            pixels[mirrored] = pixels[mirrored][..., ::-1]
        labels = [image.label for image in chosen if image.label is not None]
        data = torch.from_numpy(pixels).to(torch.float32).div_(127.5).sub_(1.0)
        return Batch.labelled(data, torch.tensor(labels, dtype=torch.int64) if labels else None)

    def picture(self, image: Encoded) -> NDArray[np.uint8]:
        """One image (C, H, W).

        Raises
        ------
        Corrupt, DataError
        """
        picture = as_asked(_decoded(image).picture, self._options)
        self._check(image.name, picture.shape)
        picture = recolour(picture, self._channels)
        if picture.shape[:2] != self._size:
            picture = refit(picture, self._size, self._options.fit)
        return quantise(picture).transpose(2, 0, 1)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        height, width, channels = shape
        if self._options.size is None and (height, width) != self._size:
            raise DataError(
                f"the images have different sizes: {self._reference} is {self._size[1]}x{self._size[0]} "
                f"(width x height), {name} is {width}x{height}",
                where=self._where, hint="set a size for all, for example data.size=64",
            )  # fmt: skip
        if self._options.channels is None and channels > self._channels:
            raise DataError(
                f"{name} has {channels} channels, and the images at the start have {self._channels}",
                where=self._where, hint=f"set data.channels={channels}, or {self._channels} to bring all to that",
            )  # fmt: skip

    def _met(self, image: Encoded, reason: Corrupt) -> None:
        """A corrupt image: stop, or warn of it once."""
        if self._corrupt == "stop":
            raise DataError(
                f"this image is corrupt: {reason}", where=image.name,
                hint="mend or remove it, or set data.corrupt=skip to take others in the place of such images",
            )  # fmt: skip
        if image.name not in self._warned_of:
            self._warned_of.add(image.name)
            warnings.warn(f"another image stands in for the corrupt {image.name}: {reason}", stacklevel=3)


def _decoded(image: Encoded) -> Decoded:
    if image.data is None:
        raise Corrupt(image.reason)
    return decoded(image.data)


def spread(count: int) -> NDArray[np.int64]:
    """The numbers of at most `LOOKED_AT` images, evenly over `count` of them."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64))
