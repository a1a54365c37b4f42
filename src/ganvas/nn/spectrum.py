"""How the power of images is spread over spatial frequencies."""

from __future__ import annotations

import torch
from torch import Tensor


# Durall et al. 2020, eq. 2, with the mean over the angle in place of the integral, so that white noise is flat
def radial_profile(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, R): mean power of the grey image at each whole radius, R = min(H, W) // 2 + 1.

    Ring k holds the frequencies whose radius, in cycles a shorter side, is in [k, k + 1). Its mean over white noise of
    variance v is v. Rings are hard: for a spectrum to be trained through, see the regularizer `spectral-distribution`.
    """
    grey = images.mean(1)
    height, width = grey.shape[1:]
    side = min(height, width)
    power = torch.fft.fft2(grey, norm="ortho").abs().square()  # (N, H, W)
    down = torch.fft.fftfreq(height, device=images.device)[:, None] * side
    across = torch.fft.fftfreq(width, device=images.device)[None] * side
    ring = torch.hypot(down, across).add(1e-6).floor().long().flatten()  # the shift keeps whole radii in their ring
    inside = ring <= side // 2
    total = power.new_zeros(len(grey), side // 2 + 1)
    total.index_add_(1, ring[inside], power.flatten(1)[:, inside])
    counted: Tensor = total / torch.bincount(ring[inside], minlength=side // 2 + 1)
    return counted
