"""The orthonormal Haar transform of images: four bands of half the sides, and back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


# With a b over c d a square of four pixels: (a + b + c + d) / 2, (a + b − c − d) / 2, (a − b + c − d) / 2,
# (a − b − c + d) / 2. The matrix is symmetric and its own inverse.
def _butterfly(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    above, below = (a + b) / 2, (c + d) / 2
    left, right = (a - b) / 2, (c - d) / 2
    return above + below, above - below, left + right, left - right


def haar(x: Tensor) -> Tensor:
    """(N, C, 2h, 2w) -> (N, 4C, h, w): C channels each of the mean, of rows, of columns and of diagonals."""
    return torch.cat(_butterfly(x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]), 1)


def inverse_haar(bands: Tensor) -> Tensor:
    """(N, 4C, h, w) -> (N, C, 2h, 2w); `haar`'s inverse, which keeps the sum of squares as it does."""
    pixels = torch.stack(_butterfly(*bands.chunk(4, 1)), 2)  # (N, C, 4, h, w)
    return F.pixel_shuffle(pixels.flatten(1, 2), 2)
