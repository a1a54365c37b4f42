"""The order of data that can only be read forward, shard by shard.

In each epoch the shards are permuted by (seed, epoch) and dealt out to the processes like cards. What a process has in
its hand is read in that order, `block` data at a time, and each block is permuted by (seed, epoch, rank, block). So a
position in the stream is an epoch, a block and a place in it, and going on from there reads one block again, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.parts import image_spec
from ganvas.shelves.data.reading.encoded import LOOKED_AT, Decoder, Encoded
from ganvas.shelves.data.reading.listing import OnCorrupt
from ganvas.shelves.data.reading.options import PixelOptions
from ganvas.shelves.data.reading.store import require_two
from ganvas.types import Batch, Census, DataSpec, Stream, StreamedDataset

Block = list[Encoded]


class Shards(Protocol):
    """A set in pieces that are read from their beginning on."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def counts(self) -> Sequence[int]:
        """How many images each shard holds."""
        ...

    def read(self, shard: int, start: int) -> Iterator[Encoded]:
        """The images of one shard from its `start`-th on."""
        ...


class StreamedImages(StreamedDataset):
    """A `types.StreamedDataset` over shards.

    Parameters
    ----------
    where : the set, for errors.
    class_names : names of the labels that the shards give; empty without labels.
    block : so many encoded images are held and shuffled among each other, besides as many that are read ahead.

    Raises
    ------
    DataError : fewer than two images, or images that do not come to one form; see `Decoder`.
    """

    spec: DataSpec
    fingerprint: str
    class_names: tuple[str, ...]

    def __init__(
        self,
        shards: Shards,
        options: PixelOptions,
        *,
        where: str,
        class_names: tuple[str, ...],
        fingerprint: str,
        block: int,
        corrupt: OnCorrupt,
    ) -> None:
        require_two(sum(shards.counts), where=where)
        self._shards, self._where, self._block, self._flip = shards, where, block, options.flip
        self._counts = np.array(shards.counts, dtype=np.int64)
        self.class_names = class_names
        self.fingerprint = fingerprint
        first = list(islice(self._read(range(len(self._counts)), 0), LOOKED_AT))
        self._decoder = Decoder(first, options, where=where, corrupt=corrupt)
        self.census = Census(
            found=len(self), used=len(self), sizes=self._decoder.sizes, modes=self._decoder.modes,
            notes=self._decoder.notes,
        )  # fmt: skip
        self.spec = image_spec(self._decoder.shape, num_classes=len(class_names))

    def __len__(self) -> int:
        return int(self._counts.sum())

    def stream(self, *, seed: int, rank: int, world: int, position: int) -> ImageStream:
        """See `types.StreamedDataset`.

        Raises
        ------
        DataError : there are fewer shards than processes.
        """
        if len(self._counts) < world:
            raise DataError(
                f"{world} processes cannot share {len(self._counts)} shards", where=self._where,
                hint=f"cut the data into {world} shards or more, best many times as many",
            )  # fmt: skip
        return ImageStream(self._blocks(seed, rank, world, position), self._decoder, flip=self._flip)

    def walk(self, batch: int, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """See `types.StreamedDataset`. Everything is read, but only what is given is decoded."""
        images = self._read(range(len(self._counts)), 0)
        for number in count():
            if not (piece := list(islice(images, batch))):
                return
            if number % step == first:
                yield self._decoder.batch(piece, _within(piece), np.random.default_rng(0), flip=False)

    def dealt(self, seed: int, epoch: int, rank: int, world: int) -> NDArray[np.int64]:
        """The shards that a process reads in an epoch, in their order."""
        return np.random.default_rng([seed, 0, epoch]).permutation(len(self._counts))[rank::world]

    def _blocks(self, seed: int, rank: int, world: int, position: int) -> Iterator[tuple[Block, int]]:
        """Shuffled blocks, each with the place in it where reading starts; endless."""
        epoch, left = 0, position
        while left >= (in_epoch := int(self._counts[self.dealt(seed, epoch, rank, world)].sum())):
            epoch, left = epoch + 1, left - in_epoch
        while True:
            number, place = divmod(left, self._block)
            images = self._read(self.dealt(seed, epoch, rank, world), number * self._block)
            while block := list(islice(images, self._block)):
                order = np.random.default_rng([seed, 2, epoch, rank, number]).permutation(len(block))
                yield [block[index] for index in order], place
                number, place = number + 1, 0
            epoch, left = epoch + 1, 0

    def _read(self, shards: Sequence[int] | NDArray[np.int64] | range, start: int) -> Iterator[Encoded]:
        """The images of these shards, one shard after the other, from the `start`-th on.

        Raises
        ------
        DataError : a shard holds another number of images than it was said to, so no position in it can be trusted.
        """
        for shard in map(int, shards):
            stated = int(self._counts[shard])
            if start >= stated:
                start -= stated
                continue
            seen = start
            for image in self._shards.read(shard, start):
                seen += 1
                if seen > stated:
                    break
                yield image
            if seen != stated:
                raise DataError(
                    f"it holds {'more than ' if seen > stated else ''}{min(seen, stated)} images, not {stated}",
                    where=self._shards.names[shard], hint="mend sizes.json, or copy the shard again",
                )  # fmt: skip
            start = 0


class ImageStream(Stream):
    """A `types.Stream`; one block is at hand, the next is read ahead."""

    def __init__(self, blocks: Iterator[tuple[Block, int]], decoder: Decoder, *, flip: bool) -> None:
        self._blocks = _ahead(blocks)
        self._decoder = decoder
        self._flip = flip
        self._block: Block = []
        self._place = 0

    def take(self, count: int, rng: np.random.Generator) -> Batch:
        """See `types.Stream`. A corrupt image is replaced by the one behind it in its block."""
        places: list[tuple[Block, int]] = []
        while len(places) < count:
            if self._place == len(self._block):
                self._block, self._place = next(self._blocks)
            places.append((self._block, self._place))
            self._place += 1

        def instead(number: int, tries: int) -> Encoded:
            block, place = places[number]
            return block[(place + tries) % len(block)]

        images = [block[place] for block, place in places]
        return self._decoder.batch(images, instead, rng, flip=self._flip)


def _within(piece: Block) -> Callable[[int, int], Encoded]:
    return lambda number, tries: piece[(number + tries) % len(piece)]


def _ahead(blocks: Iterator[tuple[Block, int]]) -> Iterator[tuple[Block, int]]:
    """The same blocks, each of them read while the one before it is used."""
    with ThreadPoolExecutor(1, "ganvas-stream") as pool:
        coming = pool.submit(next, blocks)
        while True:
            block = coming.result()
            coming = pool.submit(next, blocks)
            yield block
