"""Layers with an equalised learning rate, and the leaky ReLU that keeps variance (Karras et al. 2018, section 4.1).

Weights start as N(0, 1) and are multiplied at run time by He's constant. Adam's steps do not depend on the scale of a
gradient, so that every weight learns at the same speed, whatever the fan-in of its layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ganvas.nn.fir import conv2d_resample, filter_taps
from ganvas.nn.init import zero_bias

LEAKY_SLOPE = 0.2
LEAKY_GAIN = sqrt(2)  # of StyleGAN2's leaky ReLU: keeps a mean square of 1, all but 4 %


def in_full(x: Tensor) -> Tensor:
    """Half precision -> float32; others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def leaky(x: Tensor, *, clamp: float | None = None) -> Tensor:
    """Leaky ReLU of slope 0.2, then clamped to [−clamp, clamp]. `x` is overwritten: hand in what nobody else holds.

    There is no gain: the function is homogeneous, so that `LEAKY_GAIN` belongs in the small tensors before it.
    """
    x = F.leaky_relu(x, LEAKY_SLOPE, inplace=True)
    return x if clamp is None else x.clamp(-clamp, clamp)


class EqualizedLinear(nn.Module):
    """Linear layer (N, ..., in) -> (N, ..., out) whose weight has a run-time gain, perhaps followed by a leaky ReLU.

    Parameters
    ----------
    bias : None for no bias, else its value at the start.
    lr_multiplier : how fast it learns, beside the other layers; the function at the start is the same.
    activate : leaky ReLU with gain √2 at the end.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: float | None = 0.0,
        lr_multiplier: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.lr_multiplier = lr_multiplier
        self.activate = activate
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((out_features,), bias / lr_multiplier))

    def forward(self, x: Tensor) -> Tensor:
        gain = self.lr_multiplier * (LEAKY_GAIN if self.activate else 1.0)
        weight = self.weight * (gain / sqrt(self.weight.shape[1]))
        x = F.linear(x, weight, None if self.bias is None else self.bias * gain)
        return leaky(x) if self.activate else x


class EqualizedConv2d(nn.Module):
    """Convolution with a run-time gain on its weight, perhaps with resampling and a leaky ReLU.

    (N, in, H, W) -> (N, out, up · H / down, up · W / down)

    Parameters
    ----------
    kernel : side of the square kernel in pixels, odd; the map keeps its size.
    up, down : factors of resampling, one of them 1.
    taps : the resampling filter, scaled to a sum of 1.
    clamp : outputs are limited to [−clamp, clamp]; what low precision needs.
    """

    taps: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bias: bool = True,
        up: int = 1,
        down: int = 1,
        taps: Sequence[float] = (1, 3, 3, 1),
        activate: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.down = up, down
        self.activate = activate
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("taps", filter_taps(taps), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """`gain` multiplies the output and its limit."""
        scale = gain * (LEAKY_GAIN if self.activate else 1.0)
        weight = self.weight * (scale / sqrt(prod(self.weight.shape[1:])))
        bias = None if self.bias is None else self.bias * scale
        x = conv2d_resample(x, weight, bias, taps=self.taps, up=self.up, down=self.down)
        limit = None if self.clamp is None else self.clamp * gain
        if self.activate:
            return leaky(x, clamp=limit)
        return x if limit is None else x.clamp(-limit, limit)


class _RunTimeGain(nn.Module):
    """W ↦ gain · W."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.gain


def equalized(module: nn.Module) -> nn.Module:
    """The same as an initialisation of torch's own layers, for heads: weight N(0, 1) times √(1 / fan-in), bias 0.

    Parameters
    ----------
    module : a linear layer, convolution or embedding; an embedding's fan-in is its length.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    nn.init.normal_(weight)
    zero_bias(module)
    gain = _RunTimeGain(1 / sqrt(prod(weight.shape[1:])))
    # unsafe: the parametrization is known to keep shape and type, and checking would run it three times.
    parametrize.register_parametrization(module, "weight", gain, unsafe=True)
    return module
