"""Attention pooling: a learnt query gathers what is in a set of tokens (Lee et al. 2019; Zhai et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.dot_product import attend, merge_heads, split_heads
from ganvas.nn.multi_head import Linear


class AttentionPooling(nn.Module):
    """MAP, multi-head attention pooling: one learnt query attends to all tokens, then an MLP with a residual.

    It takes the place of a class token, which has to travel through every block.

    Parameters
    ----------
    width : D of a token; a multiple of `heads`.
    heads : h.
    hidden : channels of the MLP between its two layers.
    linear : makes the linear maps from (inputs, outputs).
    """

    def __init__(self, width: int, heads: int, hidden: int, *, linear: Linear) -> None:
        super().__init__()
        self.heads = heads
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.query = linear(width, width)
        self.key_value = linear(width, 2 * width)
        self.out = linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = linear(width, hidden), linear(hidden, width)

    # Lee et al. 2019 (Set Transformer), eq. 11 with one seed: MAB(s, X); Zhai et al. 2022, section 3.2
    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, D), whatever the order of the tokens."""
        q = split_heads(self.query(self.token), self.heads).expand(len(x), -1, -1, -1)  # (N, h, 1, D/h)
        k, v = (split_heads(part, self.heads) for part in self.key_value(x).chunk(2, dim=2))  # (N, h, L, D/h)
        y = self.out(merge_heads(attend(q, k, v)))[:, 0]  # (N, D)
        pooled: Tensor = y + self.down(F.gelu(self.up(self.norm(y))))
        return pooled
