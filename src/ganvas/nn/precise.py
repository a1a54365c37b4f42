"""Losses are taken in float32 at least, whatever the precision of the passes."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """float32, or float64 where it is that already."""
    return values if values.dtype == torch.float64 else values.float()
