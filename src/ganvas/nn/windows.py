"""A grid of tokens in square windows that do not overlap, and back."""

from __future__ import annotations

from torch import Tensor


def split_windows(tokens: Tensor, h: int, w: int, window: int) -> Tensor:
    """(N, h*w, D) -> (N * windows, window², D); `window` divides h and w."""
    x = tokens.view(tokens.shape[0], h // window, window, w // window, window, -1)
    return x.transpose(2, 3).reshape(-1, window**2, tokens.shape[2])


def join_windows(windows: Tensor, h: int, w: int, window: int) -> Tensor:
    """(N * windows, window², D) -> (N, h*w, D)."""
    x = windows.view(-1, h // window, w // window, window, window, windows.shape[2])
    return x.transpose(2, 3).reshape(-1, h * w, windows.shape[2])
