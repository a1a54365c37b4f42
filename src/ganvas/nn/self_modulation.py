"""Layer normalisation whose gain and bias a latent vector gives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfModulatedLayerNorm(nn.Module):
    """Each token is normalised, and all tokens of a datum get the gain and bias that its latent asks for.

    Lee et al. 2022 (ViTGAN), eq. 14, after Chen et al. 2019.

    Parameters
    ----------
    width : D of a token.
    condition_dim : length of the latent.
    linear : makes the maps, from (inputs, outputs).
    hidden : width of a layer with ReLU that gain and bias share; None for none.
    offset : added to the gain.
    eps : added to the variance.
    """

    def __init__(
        self,
        width: int,
        condition_dim: int,
        *,
        linear: Callable[[int, int], nn.Module],
        hidden: int | None = None,
        offset: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.hidden = linear(condition_dim, hidden) if hidden else None
        self.gain = linear(hidden or condition_dim, width)
        self.bias = linear(hidden or condition_dim, width)

    # SLN(h, w) = gamma(w) (h - mu) / sigma + beta(w)
    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        """Tokens (N, L, D) and latents (N, W) -> (N, L, D)."""
        if self.hidden is not None:
            w = F.relu(self.hidden(w))  # (N, hidden)
        gamma, beta = self.offset + self.gain(w)[:, None], self.bias(w)[:, None]  # (N, 1, D)
        return torch.addcmul(beta, F.layer_norm(h, h.shape[-1:], eps=self.eps), gamma)
