"""Additive attention at linear cost (Morales-Juarez & Fuentes-Pineda 2024; after Wu et al. 2021, Fastformer)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ganvas.nn.init import Init


class AdditiveAttention(nn.Module):
    """All tokens' queries become one global query a head, and that scales every token's key and value.

    Each token sees the others through `heads` vectors only, so the cost is linear in their number.

    Parameters
    ----------
    width : D of a token; a multiple of `heads`.
    heads : h; each works on D / h channels.
    init : initial weights and normalisation of the three linear maps.
    """

    def __init__(self, width: int, heads: int, init: Init) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = init(nn.Linear(width, 3 * width))
        self.score = init(nn.Linear(width, heads))  # the learnt vectors w of all heads, on the whole query
        self.out = init(nn.Linear(width, width))

    def weights(self, q: Tensor) -> Tensor:
        """Queries (N, L, D) -> alpha (N, L, h), which sums to 1 over the L tokens."""
        a = self.score(q) * (q.shape[2] // self.heads) ** -0.5
        return torch.softmax(a, dim=1)

    # Morales-Juarez & Fuentes-Pineda 2024, section 3.1: g = sum_j alpha_j q_j, r_j = v_j * (k_j * g)
    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        q, k, v = self.qkv(x).chunk(3, dim=2)  # (N, L, D) each
        alpha = self.weights(q)
        g = torch.einsum("nlh,nlhd->nhd", alpha, q.unflatten(2, (self.heads, -1)))  # (N, h, D/h)
        out: Tensor = self.out(v * k * g.flatten(1)[:, None])  # (N, L, D)
        return out
