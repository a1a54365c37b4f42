"""Images on another grid, the way that published scores were made.

The three resizers are linear in each row and column, so each is a pair of matrices:

- `legacy`: TensorFlow 1's bilinear without antialiasing and without half-pixel centres, which the FID Inception's graph
  begins with (Heusel et al. 2017). Aliases when it shrinks.
- `clean`: Pillow's bicubic, which widens its filter when it shrinks, in floats and cut to [0, 255] (Parmar et al. 2022,
  "On Aliased Resizing").
- `antialias`: Pillow's bilinear with the same widening.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor

Resizer = Literal["clean", "legacy", "antialias"]

NAMES: dict[Resizer, str] = {
    "clean": "clean (Pillow bicubic)",
    "legacy": "legacy (TensorFlow 1 bilinear)",
    "antialias": "antialias (Pillow bilinear)",
}
"""How each is told in a score's row."""


def resample(images: Tensor, size: tuple[int, int], resizer: Resizer) -> Tensor:
    """(N, C, H, W) of values in [0, 255] -> (N, C, *size), rounded nowhere; the same images where they fit already."""
    if images.shape[2:] == size:
        return images
    columns = matrix(resizer, images.shape[3], size[1]).to(images)
    rows = matrix(resizer, images.shape[2], size[0]).to(images)
    wide = images @ columns.T  # (N, C, H, W'): first along rows, as Pillow does
    if resizer == "clean":  # the only filter that overshoots
        return (rows @ wide).clamp(0, 255)
    return rows @ wide  # (N, C, H', W')


@functools.lru_cache(maxsize=32)
def matrix(resizer: Resizer, before: int, after: int) -> Tensor:
    """The weights (after, before) of old pixels in new ones along one axis, float64; each row sums to 1."""
    if resizer == "legacy":
        place = torch.arange(after, dtype=torch.float64) * (before / after)  # new pixel i lies at i * before / after
        left = place.floor().long().clamp(max=before - 1)
        right = (left + 1).clamp(max=before - 1)
        share = place - left
        weights = torch.zeros(after, before, dtype=torch.float64)
        row = torch.arange(after)
        weights[row, left] += 1 - share
        weights[row, right] += share
        return weights
    widening = max(before / after, 1.0)
    reach = widening * (2.0 if resizer == "clean" else 1.0)
    centre = (torch.arange(after, dtype=torch.float64)[:, None] + 0.5) * (before / after)  # (after, 1)
    first = (centre - reach + 0.5).floor().clamp(min=0)
    last = (centre + reach + 0.5).floor().clamp(max=before)
    pixel = torch.arange(before, dtype=torch.float64)[None]  # (1, before)
    distance = ((pixel - centre + 0.5) / widening).abs()
    weights = _cubic(distance) if resizer == "clean" else (1 - distance).clamp(min=0)
    weights = weights * ((pixel >= first) & (pixel < last))
    return weights / weights.sum(dim=1, keepdim=True)


# Keys 1981, eq. 4 with a = -1/2
def _cubic(x: Tensor) -> Tensor:
    """The cubic convolution kernel at distances x >= 0."""
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
