"""Feature maps as sequences of tokens and back. Tokens run row by row."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def tokens_of(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def map_of(tokens: Tensor, h: int, w: int) -> Tensor:
    """(N, h*w, C) -> (N, C, h, w)."""
    N, _, C = tokens.shape
    return tokens.transpose(1, 2).reshape(N, C, h, w)


def pixel_unfold(tokens: Tensor, h: int, w: int, factor: int = 2) -> Tensor:
    """A map of factor² fewer channels and `factor` times the sides: (N, h*w, C) -> (N, C / factor², h*f, w*f)."""
    return F.pixel_shuffle(map_of(tokens, h, w), factor)
