"""Images as the bytes that a picture file holds, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def eight_bit(data: Tensor) -> Tensor:
    """Images in [-1, 1] as the bytes that a picture file would hold, (N, C, H, W) uint8; other data as they are."""
    if data.ndim != 4 or data.dtype == torch.uint8:
        return data
    return ((data.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def from_bytes(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> float32 in [-1, 1]; other data as they are."""
    return images.float().div_(127.5).sub_(1.0) if images.dtype == torch.uint8 else images
