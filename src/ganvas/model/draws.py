"""What chance gives, on the CPU and in blocks with a seed of their own: point i is the same however many are drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ganvas.runtime.devices import derive_seed
from ganvas.types import LatentSpec

BLOCK = 64
"""Latents and labels that are drawn with one seed."""


def noise(spec: LatentSpec, n: int, *, seed: int) -> Tensor:
    """n points (n, *shape) of a prior; point i depends on (seed, i) alone."""
    shape = (BLOCK, *spec.shape)

    def block(generator: torch.Generator) -> Tensor:
        if spec.prior == "uniform":
            return torch.rand(shape, generator=generator) * 2 - 1
        return torch.randn(shape, generator=generator)

    return _in_blocks(block, n, seed) if n else torch.empty(0, *spec.shape)


def labels(n: int, classes: int, *, seed: int) -> Tensor:
    """n uniform class labels (n,) int64; label i depends on (seed, i) alone."""

    def block(generator: torch.Generator) -> Tensor:
        return torch.randint(classes, (BLOCK,), generator=generator)

    return _in_blocks(block, n, seed, "label") if n else torch.empty(0, dtype=torch.int64)


def _in_blocks(block: Callable[[torch.Generator], Tensor], n: int, seed: int, *purpose: str) -> Tensor:
    """The first n rows of blocks, each with a generator of its own."""
    count = -(-n // BLOCK)
    seeds = [derive_seed(seed, number, *purpose) for number in range(count)]
    return torch.cat([block(torch.Generator().manual_seed(block_seed)) for block_seed in seeds])[:n]
