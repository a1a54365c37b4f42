"""Maps as one period of an endless picture, and where they are after it has been moved."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def moved_period(x: Tensor, move: Tensor) -> Tensor:
    """The map (C, H, W) after the endless picture of which it is a period has been moved: (C, H, W).

    Between its pixels the picture is their Fourier series, so that a shift by whole pixels is exact.

    Parameters
    ----------
    move : (3, 3), where a place (x, y, 1) goes, in shorter sides of the map from its middle, y down.
    """
    H, W = x.shape[-2:]
    unit = min(H, W)
    rows, columns = (torch.arange(n, device=x.device) + 0.5 - n / 2 for n in (H, W))
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 0).flatten(1) / unit  # (2, H · W): x, y
    back = torch.linalg.inv(move.to(places))
    across, along = (back[:2, :2] @ places + back[:2, 2:]) * unit + torch.tensor([[W], [H]], device=x.device) / 2 - 0.5
    series = torch.fft.fft2(x, norm="forward").flatten(-2)  # (C, H · W)
    f, g = torch.meshgrid(torch.fft.fftfreq(H, device=x.device), torch.fft.fftfreq(W, device=x.device), indexing="ij")
    turns = f.flatten()[:, None] * along + g.flatten()[:, None] * across  # (H · W, H · W)
    picture: Tensor = series @ torch.polar(torch.ones_like(turns), 2 * math.pi * turns)  # (C, H · W)
    return picture.real.view_as(x)
