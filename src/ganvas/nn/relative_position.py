"""A learnt bias of attention for every distance between two places of a grid (Shaw et al. 2018; Liu et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def distances(h: int, w: int) -> Tensor:
    """Which of the (2h - 1)(2w - 1) distances two of the h*w places have: (L, L) int64, places row by row.

    That of i from j is (y_i - y_j + h - 1) (2w - 1) + x_i - x_j + w - 1.
    """
    y, x = (grid.flatten() for grid in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))  # (L,)
    return (y[:, None] - y + h - 1) * (2 * w - 1) + (x[:, None] - x + w - 1)


class RelativePositionBias(nn.Module):
    """E in softmax(q kᵀ / √d + E): one number for each head and distance.

    Parameters
    ----------
    h, w : rows and columns of the grid.
    heads : of attention.
    std : of the numbers at the start.
    """

    index: Tensor

    def __init__(self, h: int, w: int, heads: int, *, std: float = 0.02) -> None:
        super().__init__()
        table = torch.empty((2 * h - 1) * (2 * w - 1), heads)
        self.table = nn.Parameter(nn.init.trunc_normal_(table, std=std))
        self.register_buffer("index", distances(h, w), persistent=False)

    def forward(self) -> Tensor:
        """(1, heads, L, L)."""
        return self.table[self.index].permute(2, 0, 1)[None]
