"""Self-attention over the pixels of a feature map (Zhang et al. 2019, SAGAN)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from ganvas.nn.init import Init


class SelfAttention(nn.Module):
    """Each pixel looks at all others; keys and values are max-pooled 2x2, as in the authors' code.

    The residual gain `gamma` starts at 0, so that the layer starts as the identity. The softmax is written out because
    gradient penalties differentiate through it twice, which torch's fused attention cannot.

    Parameters
    ----------
    channels : C of the feature map; theta and phi have C // 8, g has C // 2 (at least 1).
    init : initial weights and normalisation of the four 1x1 convolutions.
    """

    def __init__(self, channels: int, init: Init) -> None:
        super().__init__()
        inner, value = max(1, channels // 8), max(1, channels // 2)
        self.theta = init(nn.Conv2d(channels, inner, 1, bias=False))
        self.phi = init(nn.Conv2d(channels, inner, 1, bias=False))
        self.g = init(nn.Conv2d(channels, value, 1, bias=False))
        self.out = init(nn.Conv2d(value, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(1))

    # Zhang et al. 2019, eq. 1
    def weights(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the attention map beta (N, H*W, H//2 * W//2); each row sums to 1."""
        query = self.theta(x).flatten(2)  # (N, C/8, H*W)
        key = F.max_pool2d(self.phi(x), 2).flatten(2)  # (N, C/8, H*W/4)
        return torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (N, H*W, H*W/4)

    # Zhang et al. 2019, eq. 2-3: y = x + gamma o
    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with H, W >= 2 -> (N, C, H, W)."""
        beta = self.weights(x)
        value = F.max_pool2d(self.g(x), 2).flatten(2)  # (N, C/2, H*W/4)
        o = (value @ beta.transpose(1, 2)).reshape(len(x), -1, *x.shape[2:])  # (N, C/2, H, W)
        return torch.addcmul(x, self.gamma, self.out(o))
