"""Maxout: the largest of several linear maps (Goodfellow et al. 2013)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Maxout(nn.Module):
    """h_i(x) = max_j x^T W_ij + b_ij over `pieces` linear maps per unit.

    Parameters
    ----------
    inputs, units, pieces : the linear layer has units * pieces rows, those of one unit side by side.
    wrap : start and weight normalisation of it.
    """

    def __init__(self, inputs: int, units: int, pieces: int, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = wrap(nn.Linear(inputs, units * pieces))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, units)."""
        largest: Tensor = self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)  # (N, units, pieces) -> (N, units)
        return largest
