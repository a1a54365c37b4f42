"""Smaller variants of a trained network: weights in fewer bits, fewer weights, fewer heads, factors of low rank.

Each is a function of a network that returns another one for inference on the CPU and leaves the first as it is. Nothing
is trained afterwards, so they say what a network bears without. They act on torch's linear layers and convolutions,
into which `ganvas.nn.plain` turns those with a run-time gain or a parametrization; modulated convolutions stay.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ganvas.errors import MissingCapability
from ganvas.nn.multi_head import MultiHeadAttention, TiedL2Attention
from ganvas.nn.plain import with_linears

Variant = Callable[[nn.Module], nn.Module]

_MATRICES: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)  # exactly: what inherits may do more
_LEVELS = 127  # of int8, alike on both sides of 0


def _layers(net: nn.Module, kinds: tuple[type[nn.Module], ...] = _MATRICES) -> Iterator[tuple[str, nn.Module]]:
    """The layers below a network, by name.

    Raises
    ------
    MissingCapability : there are none.
    """
    layers = [(name, layer) for name, layer in net.named_modules() if name and type(layer) in kinds]
    if not layers:
        raise MissingCapability(f"this network has no {' or '.join(kind.__name__ for kind in kinds)} to work on")
    yield from layers


# --------------------------------------------------------------------------------------------------- fewer bits


class LowPrecision(nn.Module):
    """A layer whose weights and arithmetic are of half precision; what enters and leaves it stays as it was."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.to(self.dtype))
        return out.to(x.dtype)


def in_half(net: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Linear layers and convolutions in bfloat16 or float16; norms, attention and sums stay in float32."""
    variant = with_linears(net)
    for name, layer in _layers(variant):
        variant.set_submodule(name, LowPrecision(layer, dtype))
    return variant


class Int8Linear(nn.Module):
    """A linear layer that multiplies 8-bit integers: one scale for each output, one for each token as it comes.

    y ≈ s_x s_w (round(x / s_x) · round(W / s_w)) + bias, s the largest magnitude of a row over 127.
    """

    scale: Tensor  # (out,)

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = _scale(linear.weight)  # (out, 1)
        self.weight = nn.Parameter(_rounded(linear.weight, scale).T.contiguous(), requires_grad=False)  # (in, out)
        self.register_buffer("scale", scale[:, 0])
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, ..., in) -> (N, ..., out)."""
        rows = x.flatten(0, -2)  # (T, in)
        scale = _scale(rows)  # (T, 1)
        # Exact, in int32. The kernel's name is private, but it is the one that torch's quantisation library calls.
        sums = torch._int_mm(_rounded(rows, scale), self.weight)  # (T, out)
        y: Tensor = sums * scale * self.scale
        y = y if self.bias is None else y + self.bias
        return y.to(x.dtype).reshape(*x.shape[:-1], -1)


def _scale(rows: Tensor) -> Tensor:
    return rows.detach().abs().amax(-1, keepdim=True).clamp_min(1e-12) / _LEVELS


def _rounded(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows.detach() / scale).round().to(torch.int8)


def int8_dynamic(net: nn.Module) -> nn.Module:
    """Linear layers on 8-bit integers, the scale of what enters them taken from it (Jacob et al. 2018, eq. 1).

    torch's own `quantize_dynamic` is deprecated; this one needs nothing else, and its sums are the same on every CPU.
    """
    variant = with_linears(net)
    for name, layer in _layers(variant, (nn.Linear,)):
        assert isinstance(layer, nn.Linear)
        variant.set_submodule(name, Int8Linear(layer))
    return variant


# --------------------------------------------------------------------------------------------------- fewer weights


def prune_magnitude(net: nn.Module, sparsity: float = 0.5) -> nn.Module:
    """The smallest weights of each linear layer and convolution at 0 (Han et al. 2015): round(sparsity · n) of its n.

    A dense layer is no smaller and no faster for it.
    """
    variant = with_linears(net)
    for _, layer in _layers(variant):
        weight = layer.weight
        assert isinstance(weight, Tensor)
        count = round(sparsity * weight.numel())
        smallest = weight.abs().flatten().argsort(stable=True)[:count]
        weight.data = weight.flatten().index_fill(0, smallest, 0.0).reshape(weight.shape)
    return variant


def zeros(net: nn.Module) -> float:
    """The share of weights of linear layers and convolutions that are 0."""
    weights = [layer.weight for layer in net.modules() if type(layer) in _MATRICES]
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    total = sum(weight.numel() for weight in tensors)
    return sum(int((weight == 0).sum()) for weight in tensors) / total if total else 0.0


def prune_heads(net: nn.Module, share: float = 0.5) -> nn.Module:
    """Without the least heads of each attention, whose layers become that much smaller; at least one stays.

    A head's weight is how much it can write: the norm of its output map times that of its values. Networks with the
    attentions of `ganvas.nn.multi_head`.

    Raises
    ------
    MissingCapability : it has none of them.
    """
    variant = with_linears(net)
    for _, attention in _layers(variant, (MultiHeadAttention, TiedL2Attention)):
        assert isinstance(attention, (MultiHeadAttention, TiedL2Attention))
        heads_left = attention.heads - min(attention.heads - 1, round(share * attention.heads))
        keep_heads(attention, _importance(attention).topk(heads_left).indices.sort().values)
    return variant


def _importance(attention: MultiHeadAttention | TiedL2Attention) -> Tensor:
    """(h,)."""
    value = attention.qkv if isinstance(attention, MultiHeadAttention) else attention.value
    out = attention.out
    assert isinstance(value, nn.Linear)
    assert isinstance(out, nn.Linear)
    V = value.weight[-out.in_features :].reshape(attention.heads, -1)  # (h, d * D)
    W = out.weight.T.reshape(attention.heads, -1)  # (h, d * D)
    weight: Tensor = V.norm(dim=1) * W.norm(dim=1)
    return weight


def keep_heads(attention: MultiHeadAttention | TiedL2Attention, heads: Tensor) -> None:
    """Leave these heads (k,) alone in an attention of linear layers."""
    out = attention.out
    assert isinstance(out, nn.Linear)
    channels = torch.arange(out.in_features).reshape(attention.heads, -1)[heads].flatten()  # (k * d,)
    if isinstance(attention, MultiHeadAttention):
        rows = channels + out.in_features * torch.arange(3)[:, None]  # of queries, keys and values
        attention.qkv = _rows(attention.qkv, rows.flatten())
    else:
        attention.query, attention.value = _rows(attention.query, channels), _rows(attention.value, channels)
    smaller = nn.Linear(len(channels), out.out_features, bias=out.bias is not None)
    smaller.weight, smaller.bias = nn.Parameter(out.weight[:, channels]), out.bias
    attention.out = smaller.requires_grad_(False)
    attention.heads = len(heads)


def _rows(linear: nn.Module, rows: Tensor) -> nn.Linear:
    assert isinstance(linear, nn.Linear)
    smaller = nn.Linear(linear.in_features, len(rows), bias=linear.bias is not None)
    smaller.weight = nn.Parameter(linear.weight[rows])
    if linear.bias is not None:
        smaller.bias = nn.Parameter(linear.bias[rows])
    return smaller.requires_grad_(False)


# --------------------------------------------------------------------------------------------------- low rank


def factorised(linear: nn.Linear, rank: int) -> nn.Sequential:
    """Two layers whose product is the nearest matrix of this rank (Eckart & Young 1936): r (m + n) weights for mn."""
    U, S, Vh = torch.linalg.svd(linear.weight.double(), full_matrices=False)
    root = S[:rank].sqrt()
    first = nn.Linear(linear.in_features, rank, bias=False)
    second = nn.Linear(rank, linear.out_features, bias=linear.bias is not None)
    first.weight = nn.Parameter((root[:, None] * Vh[:rank]).float())
    second.weight = nn.Parameter((U[:, :rank] * root).float())
    if linear.bias is not None:
        second.bias = linear.bias
    return nn.Sequential(first, second).requires_grad_(False)


def low_rank(net: nn.Module, share: float = 0.5) -> nn.Module:
    """Linear layers m x n as two of rank r = ⌊share · mn / (m + n)⌋, which have at most `share` of the weights."""
    variant = with_linears(net)
    for name, layer in _layers(variant, (nn.Linear,)):
        assert isinstance(layer, nn.Linear)
        m, n = layer.weight.shape
        rank = int(share * m * n / (m + n))
        if rank >= 1:  # else the layer is a vector or next to one
            variant.set_submodule(name, factorised(layer, rank))
    return variant


VARIANTS: Mapping[str, Variant] = {
    "bf16": in_half,
    "fp16": partial(in_half, dtype=torch.float16),
    "int8 dynamic": int8_dynamic,
    "half the weights at 0": prune_magnitude,
    "half the heads": prune_heads,
    "half in low rank": low_rank,
}
"""By the name that a report gives them."""
