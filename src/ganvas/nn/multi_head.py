"""Multi-head self-attention over tokens: by dot products (Vaswani et al. 2017), and by distances (Kim et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ganvas.nn.dot_product import attend, merge_heads, split_heads

Linear = Callable[[int, int], nn.Module]
"""Makes a linear map from (inputs, outputs)."""


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of each token to all.

    Parameters
    ----------
    width : D of a token; a multiple of `heads`.
    heads : h.
    linear : makes the map into queries, keys and values, and the one out.
    """

    def __init__(self, width: int, heads: int, *, linear: Linear) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)

    # Vaswani et al. 2017, eq. 1
    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))  # (N, h, L, D/h)
        out: Tensor = self.out(merge_heads(attend(q, k, v)))
        return out


class TiedL2Attention(nn.Module):
    """Attention by distance with one map for queries and keys: logits are −‖qᵢ − qⱼ‖² / √d.

    Where tokens lie far apart each attends to itself, so that its slope stays bounded, which that of dot products does
    not. With ‖qᵢ‖² dropped, for a softmax over j does not see it, this is dot-product attention of scale 2/√d whose
    logits have −‖qⱼ‖² / √d added.

    Parameters
    ----------
    width : D of a token; a multiple of `heads`.
    heads : h.
    linear : makes the maps into queries and into values, and the one out.
    """

    def __init__(self, width: int, heads: int, *, linear: Linear) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear(width, width)
        self.value = linear(width, width)
        self.out = linear(width, width)

    # Lee et al. 2022 (ViTGAN), eq. 6, with the minus sign that Kim et al. 2021, eq. 7, has; d = D / h
    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        q, v = split_heads(self.query(x), self.heads), split_heads(self.value(x), self.heads)  # (N, h, L, d)
        scale = float(q.shape[-1]) ** -0.5
        bias = -scale * q.square().sum(-1)[:, :, None]  # (N, h, 1, L)
        out: Tensor = self.out(merge_heads(attend(q, q, v, bias=bias, scale=2 * scale)))
        return out
