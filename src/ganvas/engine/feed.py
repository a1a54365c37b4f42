"""Real batches in an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ganvas.types import Batch, Dataset


class Feed:
    """An endless stream of batches. Its whole state is `position`, the number of data read so far."""

    def __init__(self, dataset: Dataset, batch: int, seed: int, device: torch.device, *, channels_last: bool) -> None:
        self.dataset = dataset
        self.batch = batch
        self.seed = seed
        self.device = device
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.position = 0
        self._order: tuple[int, np.ndarray] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.dataset.batch(self.indices(), np.random.default_rng([self.seed, 1, self.position]))
        self.position += self.batch
        data = batch.data.to(self.device)
        if data.dim() == 4:
            data = data.contiguous(memory_format=self.memory_format)
        return Batch(data, None if batch.label is None else batch.label.to(self.device))

    def indices(self) -> np.ndarray:
        """Data `position` to `position + batch` of the stream; a batch may cross into the next epochs."""
        n, taken, pieces = len(self.dataset), 0, []
        while taken < self.batch:
            epoch, offset = divmod(self.position + taken, n)
            piece = self.order(epoch)[offset : offset + self.batch - taken]
            pieces.append(piece)
            taken += len(piece)
        return np.concatenate(pieces)

    def order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset)))
        return self._order[1]


def micro_batches(batch: Batch, pieces: int) -> list[Batch]:
    """A batch cut into at most `pieces` parts of nearly equal size, none empty."""
    if pieces == 1:
        return [batch]
    data = batch.data.tensor_split(min(pieces, len(batch)))
    label = [None] * len(data) if batch.label is None else batch.label.tensor_split(len(data))
    return [Batch(each, own) for each, own in zip(data, label, strict=True)]
