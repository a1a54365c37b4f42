"""Softmax attention through torch's fused kernels where they can serve."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(scale q kᵀ + bias) v.

    With gradients, the composite kernel is taken: gradient penalties, path length and latent optimisation differentiate
    twice, which the fused ones cannot. Without, any.

    Parameters
    ----------
    q, k, v : (N, h, L, d), (N, h, M, d), (N, h, M, d').
    bias : added to the logits; anything that broadcasts to (N, h, L, M).
    scale : None is 1 / sqrt(d).

    Returns
    -------
    (N, h, L, d').
    """
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, L, h*d) -> (N, h, L, d)."""
    N, L, width = x.shape
    return x.reshape(N, L, heads, width // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(N, h, L, d) -> (N, L, h*d)."""
    return x.transpose(1, 2).flatten(2)
