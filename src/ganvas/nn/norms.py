"""Batch normalisation, with a fixed affine map or with one that a condition gives, and none. All take the condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ganvas.nn.init import Init


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that is handed a condition and does not look at it.

    So a block is written once, whether its norm is conditional or not.
    """

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return super().forward(x)


class NoNorm(nn.Module):
    """No normalisation, where a block hands a condition to its norms."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x itself."""
        return x


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation whose gain and bias are linear in a condition (de Vries et al. 2017; Dumoulin et al. 2017).

    Parameters
    ----------
    channels : C of the feature map.
    condition_dim : D of the condition; the number of classes where it is a one-hot label.
    eps : added to the variance. 1e-5 is torch's value, 1e-4 the one behind StudioGAN's scores.
    init : initial weights and normalisation of the two linear maps.
    """

    def __init__(self, channels: int, condition_dim: int, *, eps: float = 1e-5, init: Init) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.gain = init(nn.Linear(condition_dim, channels, bias=False))
        self.bias = init(nn.Linear(condition_dim, channels, bias=False))

    # Dumoulin et al. 2017, eq. 5: gamma_y (x - mu) / sigma + beta_y, with gamma_y = 1 + W_gamma y
    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) and a condition (N, D), which need not be one-hot -> (N, C, H, W)."""
        gamma = (1 + self.gain(condition))[:, :, None, None]  # (N, C, 1, 1)
        beta = self.bias(condition)[:, :, None, None]  # (N, C, 1, 1)
        return torch.addcmul(beta, self.norm(x), gamma)
