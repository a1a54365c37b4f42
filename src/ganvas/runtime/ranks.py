"""Several processes (ranks) that train one model, as layers and terms see them.

Each rank works on its own share of a batch. What is a statistic of the whole batch is taken over all of them here. With
one process everything in this module is the identity, so that nobody has to ask which it is.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Piece = TypeVar("Piece")


def world() -> int:
    """How many processes train together, 1 where there are no others."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world() > 1 else 0


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a tensor of equal shape over all ranks, without a gradient."""
    return sum_over_ranks(values) / world() if world() > 1 else values


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor of equal shape over all ranks, without a gradient."""
    if world() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def any_rank(value: bool, device: torch.device) -> bool:
    """Whether it is so on any rank."""
    return bool(sum_over_ranks(torch.tensor(float(value), device=device))) if world() > 1 else value


class _Sum(torch.autograd.Function):
    """y = Σ_r x_r on every rank. Every rank's loss depends on every rank's x, so gradients are summed, too."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return sum_over_ranks(values)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return summed(gradient)


def summed(values: Tensor) -> Tensor:
    """The sum over all ranks, through which gradients flow, of any order."""
    return values if world() == 1 else _Sum.apply(values.contiguous())  # type: ignore[no-untyped-call]


def var_mean(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(biased variance, mean) over these dimensions and all ranks, which hold equally many values; differentiable.

    Each rank's own moments are put together as in Chan et al. 1979, which loses no digits where the mean is large.
    """
    var, mean = torch.var_mean(values, dims, correction=0)
    if world() == 1:
        return var, mean
    moments = torch.stack([var, mean])[None]  # (1, 2, C)
    placed = torch.cat(
        [
            moments.new_zeros(rank(), *moments.shape[1:]),
            moments,
            moments.new_zeros(world() - rank() - 1, *moments.shape[1:]),
        ]
    )
    vars_, means = summed(placed).unbind(1)  # (W, C) each
    mean = means.mean(0)
    return (vars_ + (means - mean).square()).mean(0), mean


def everywhere(share: Tensor) -> Tensor:
    """The shares (n, ...) of all ranks as the one batch (W·n, ...) that they were dealt from, without a gradient."""
    if world() == 1:
        return share
    shares = [torch.empty_like(share) for _ in range(world())]
    dist.all_gather(shares, share.detach().contiguous())
    return torch.stack(shares, 1).flatten(0, 1)  # row i went to rank i mod W


def interleaved(made_here: list[Piece]) -> list[Piece]:
    """Pieces 0, 1, 2, … of some work, on every rank, of which rank r made r, r + W, r + 2W, …; on the CPU."""
    if world() == 1:
        return made_here
    count = int(sum_over_ranks(torch.tensor(len(made_here))))
    pieces: list[Piece] = []
    for i in range(count):
        box: list[Any] = [made_here[i // world()] if i % world() == rank() else None]
        dist.broadcast_object_list(box, src=i % world())
        pieces.append(box[0])
    return pieces
