"""Real batches in an order that is a pure function of (seed, epoch), dealt out to the processes that train together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ganvas.runtime import ranks
from ganvas.types import Batch, Dataset, Stream, StreamedDataset

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""How tensors of so many axes lie where channels come last: (N, C, H, W) and (N, C, T, H, W)."""


class Feed:
    """An endless stream of batches. Its whole state is `position`, the number of data that all ranks have read so far.

    Of each batch, every rank gets the data that it would be dealt like cards: none is read twice, and how many ranks
    there are changes nothing about which data make up a batch. A streamed data set deals itself out, by whole shards.
    """

    def __init__(
        self,
        dataset: Dataset | StreamedDataset,
        batch: int,
        seed: int,
        device: torch.device,
        *,
        channels_last: bool,
    ) -> None:
        self.dataset = dataset
        self.batch = batch
        self.seed = seed
        self.device = device
        self.formats = CHANNELS_LAST if channels_last else {}
        self.position = 0
        self._order: tuple[int, np.ndarray] | None = None
        self._stream: tuple[int, Stream] | None = None  # the position where its next datum belongs
        self._ahead: tuple[int, Future[Batch]] | None = None  # the batch of that position, being made
        self._hand = ThreadPoolExecutor(1, thread_name_prefix="feed")

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        position, ahead = self.position, self._ahead
        batch = ahead[1].result() if ahead is not None else None
        if batch is None or ahead is None or ahead[0] != position:  # the first one, or put elsewhere by a resume
            batch = self.prepare(position)
        self.position = position + self.batch
        # The next one is made while the networks are busy with this one.
        self._ahead = (self.position, self._hand.submit(self.prepare, self.position))
        return batch.to(self.device, non_blocking=True)

    def prepare(self, position: int) -> Batch:
        """This rank's share of the batch at a position, as it will lie on the device."""
        # Other flips on other ranks; the first has those of a lone process.
        rank_seed = [ranks.rank()] if ranks.rank() else []
        rng = np.random.default_rng([self.seed, 1, position, *rank_seed])
        batch = self.read(position, rng)
        memory_format = self.formats.get(batch.data.dim(), torch.contiguous_format)
        batch = batch.with_data(batch.data.contiguous(memory_format=memory_format))
        # Pinned, so that the copy to a GPU need not be waited for.
        return batch.map(Tensor.pin_memory) if self.device.type == "cuda" else batch

    def read(self, position: int, rng: np.random.Generator) -> Batch:
        rank, world = ranks.rank(), ranks.world()
        if not isinstance(self.dataset, StreamedDataset):
            return self.dataset.batch(self.indices(position)[rank::world], rng)
        share = len(range(rank, self.batch, world))
        if self._stream is None or self._stream[0] != position:
            rank_position = position * share // self.batch
            self._stream = (
                position,
                self.dataset.stream(seed=self.seed, rank=rank, world=world, position=rank_position),
            )
        stream = self._stream[1]
        self._stream = (position + self.batch, stream)
        return stream.take(share, rng)

    def indices(self, position: int) -> np.ndarray:
        """Data `position` to `position + batch` of the stream; a batch may cross into the next epochs."""
        n, taken, pieces = len(self.dataset), 0, []
        while taken < self.batch:
            epoch, offset = divmod(position + taken, n)
            piece = self.order(epoch)[offset : offset + self.batch - taken]
            pieces.append(piece)
            taken += len(piece)
        return np.concatenate(pieces)

    def order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset)))
        return self._order[1]
