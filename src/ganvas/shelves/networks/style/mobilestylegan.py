"""MobileStyleGAN: a small generator that makes wavelets, to be distilled from a StyleGAN2.

Belousov 2021, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image Synthesis" (arXiv
2104.04767). Written from the paper and from what its code (bes-dev/MobileStyleGAN.pytorch, several versions of which
differ) computes:

- Maps go up by an inverse Haar transform: of C channels a quarter are means, the rest are details, and C / 4 are left.
- Convolutions are depthwise, then pointwise. Demodulation takes a learnt vector for the style, so that it is one number
  for each output channel whatever the latent is, and part of the weights where those are fixed. That is how the first
  versions of the code are; the last one keeps the style within [-1, 1] instead.
- Heads make the Haar bands of an image with twice their map's sides. Only the last one is needed for images; the
  others are there to be taught, see task `distill-generator`.

How widths go with sizes, and which w is whose, is as in `stylegan2-generator`: the same channel keys make a student of
a teacher, and a student's w+ are the teacher's first ones.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from math import prod, sqrt
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.equalized import in_full, leaky
from ganvas.nn.haar import inverse_haar
from ganvas.nn.mapping import USUAL_MAPPING, MappingNetwork, MappingOptions
from ganvas.nn.modulated import EPS
from ganvas.parts import network
from ganvas.shelves.networks.gan.pyramid import halvings, require_classes
from ganvas.shelves.networks.style.spaces import LayerNoise, NoisyGenerator, noise_for
from ganvas.shelves.networks.style.stylegan2 import DEEPEST, channels_at
from ganvas.types import DataSpec

Count = Annotated[int, Gt(0)]


def style_layer(w_dim: int, channels: int) -> nn.Linear:
    """w -> the factor of each channel, 1 on average at the start."""
    layer = nn.Linear(w_dim, channels)
    nn.init.ones_(layer.bias)
    return layer


def modulated(x: Tensor, style: Tensor) -> Tensor:
    """(N, C, H, W) times (N, C)."""
    return x * style[:, :, None, None].to(x.dtype)


class FixedDemodulation(nn.Module, ABC):
    """Modulated convolution of 3x3 pixels with one demodulation for all styles.

    Attributes
    ----------
    typical : p (in,), the style that the demodulation is for; None where it is part of the weights.
    """

    typical: nn.Parameter | None

    def __init__(self, in_: int, w_dim: int) -> None:
        super().__init__()
        self.affine = style_layer(w_dim, in_)
        self.typical = nn.Parameter(torch.ones(in_))
        self.scale = 1 / sqrt(9 * in_)

    @abstractmethod
    def energy(self) -> Tensor:
        """Sums of squares over the pixels of the kernels, (out, in)."""

    @abstractmethod
    def convolve(self, x: Tensor, gain: Tensor | None) -> Tensor:
        """(N, in, H, W) -> (N, out, H, W), output channels times `gain` (out,)."""

    @abstractmethod
    def multiply(self, gain: Tensor) -> None:
        """Multiply the weights of the output channels by `gain` (out,), for good."""

    # Belousov 2021, section 3.3: 1 / sqrt(sum_ik (p_i w_oik)^2 + eps), with the weights' run-time scale among them
    def demodulation(self) -> Tensor | None:
        """What output channels are multiplied by, (out,); None where the weights contain it."""
        if self.typical is None:
            return None
        return (self.energy() @ (self.scale * self.typical).square() + EPS).rsqrt()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in, H, W) and w (N, w_dim) -> (N, out, H, W)."""
        return self.convolve(modulated(x, self.affine(w) * self.scale), self.demodulation())

    @torch.no_grad()
    def fold(self) -> None:
        """Make the demodulation part of the weights: nothing is learnt after this."""
        gain = self.demodulation()
        if gain is not None:
            self.multiply(gain)
            self.typical = None


class DenseConv(FixedDemodulation):
    """One kernel for each pair of channels."""

    def __init__(self, in_: int, out: int, w_dim: int) -> None:
        super().__init__(in_, w_dim)
        self.weight = nn.Parameter(torch.randn(out, in_, 3, 3))

    def energy(self) -> Tensor:
        return self.weight.square().sum((2, 3))

    def convolve(self, x: Tensor, gain: Tensor | None) -> Tensor:
        weight = self.weight if gain is None else self.weight * gain[:, None, None, None]
        return F.conv2d(x, weight, padding=1)

    def multiply(self, gain: Tensor) -> None:
        self.weight.mul_(gain[:, None, None, None])


class SeparableConv(FixedDemodulation):
    """One kernel for each input channel, then a mix of channels: the dense kernels are their products."""

    def __init__(self, in_: int, out: int, w_dim: int) -> None:
        super().__init__(in_, w_dim)
        self.depthwise = nn.Parameter(torch.randn(in_, 1, 3, 3))
        self.pointwise = nn.Parameter(torch.randn(out, in_, 1, 1))

    def energy(self) -> Tensor:
        return self.pointwise.flatten(1).square() * self.depthwise.square().sum((1, 2, 3))

    def convolve(self, x: Tensor, gain: Tensor | None) -> Tensor:
        x = F.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
        return F.conv2d(x, self.pointwise if gain is None else self.pointwise * gain[:, None, None, None])

    def multiply(self, gain: Tensor) -> None:
        self.pointwise.mul_(gain[:, None, None, None])


class StyledConv(nn.Module):
    """Modulated convolution, then noise that is usually the same for all images, bias and leaky ReLU."""

    noise_const: Tensor

    def __init__(self, conv: FixedDemodulation, out: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = conv
        self.bias = nn.Parameter(torch.zeros(out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size))

    def forward(self, x: Tensor, w: Tensor, noise: LayerNoise) -> Tensor:
        """(N, in, H, W) and w (N, w_dim) -> (N, out, H, W)."""
        x = self.conv(x, w)
        if (added := noise_for(x, self.noise_const, noise)) is not None:
            x = x + added * self.noise_strength
        return leaky(x + self.bias[:, None, None])


class WaveletUpsample(nn.Module):
    """Modulated channels as Haar bands: twice the sides, a quarter of the channels."""

    def __init__(self, in_: int, w_dim: int) -> None:
        super().__init__()
        self.affine = style_layer(w_dim, in_)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, h, w) and w (N, w_dim) -> (N, C / 4, 2h, 2w)."""
        return inverse_haar(modulated(x, self.affine(w)))


class WaveletHead(nn.Module):
    """Features to the Haar bands of an image, by a modulated convolution of one pixel, and to the image."""

    def __init__(self, in_: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = style_layer(w_dim, in_)
        self.weight = nn.Parameter(torch.randn(4 * channels, in_, 1, 1))
        self.bias = nn.Parameter(torch.zeros(4 * channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in, h, w) and w (N, w_dim) -> images (N, C, 2h, 2w) float32."""
        style = self.affine(w) / sqrt(prod(self.weight.shape[1:]))
        return inverse_haar(in_full(F.conv2d(modulated(x, style), self.weight, self.bias)))  # bands (N, 4C, h, w)


class MobileBlock(nn.Module):
    """The layers of one size: up by wavelets and convolved twice; the first one starts from a learnt constant."""

    def __init__(
        self, in_: int | None, out: int, w_dim: int, size: tuple[int, int], channels: int, *, head: bool
    ) -> None:
        super().__init__()
        if in_ is None:
            self.const = nn.Parameter(torch.randn(out, *size))
            self.conv1 = StyledConv(DenseConv(out, out, w_dim), out, size)
        else:
            self.conv1 = StyledConv(SeparableConv(out, out, w_dim), out, size)
        self.upsample = None if in_ is None else WaveletUpsample(in_, w_dim)
        self.conv0 = None if in_ is None else StyledConv(SeparableConv(in_ // 4, out, w_dim), out, size)
        self.head = WaveletHead(out, channels, w_dim) if head else None

    def forward(self, x: Tensor | None, ws: Sequence[Tensor], noise: LayerNoise) -> Tensor:
        """(N, in, h, w) and one w (N, w_dim) for each convolution -> (N, out, 2h, 2w)."""
        if x is None or self.upsample is None or self.conv0 is None:
            start = self.const.expand(ws[0].shape[0], -1, -1, -1)
            return self.conv1(start, ws[0], noise)  # type: ignore[no-any-return]
        x = self.conv0(self.upsample(x, ws[0]), ws[0], noise)
        return self.conv1(x, ws[1], noise)  # type: ignore[no-any-return]


@network(
    "mobilestylegan-generator",
    system="mobilestylegan",
    paper="Belousov 2021 (MobileStyleGAN), section 3",
    tiny={
        "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "mapping": {"layers": 2}, "heads": "last",
    },
)  # fmt: skip
class MobileStyleGANGenerator(NoisyGenerator):
    """Student of StyleGAN2: separable convolutions whose demodulation is fixed, and wavelets instead of pixels.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 4096 pixels.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (L, w_dim), one w for each of L = 2n layers, the first ones of a StyleGAN2
    for images of that size. Its mapping network is that of `stylegan2-generator`.

    Parameters
    ----------
    spec : what to make.
    z_dim, w_dim : length of z, drawn from N(0, 1), and of w; the teacher's.
    channel_base, channel_max : a map of p pixels has channel_base / p channels, at most channel_max, in fours.
    conditioning : "mapping" lets the mapping network see the class; None ignores labels.
    mapping : layers, widths and learning rate of the mapping network, see `MappingNetwork`; the teacher's.
    average_decay : of the running mean of w, a training batch.
    heads : "all" makes an image at each size, which distillation compares; "last" has the one that is needed.

    Raises
    ------
    BadValue : a size that cannot be halved so often, labels asked for and not there.
    """

    bounded = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 512,
        w_dim: Count = 512,
        channel_base: Count = 32768,
        channel_max: Count = 512,
        conditioning: Literal["mapping"] | None = None,
        mapping: MappingOptions = USUAL_MAPPING,
        average_decay: Annotated[float, Ge(0), Lt(1)] = 0.998,
        heads: Literal["all", "last"] = "all",
    ) -> None:
        n = halvings(spec, DEEPEST)
        require_classes(conditioning, spec)
        classes = spec.num_classes if conditioning else 0
        super().__init__(
            MappingNetwork(z_dim, w_dim, classes=classes, beta=average_decay, **asdict(mapping)), z_dim, w_dim, 2 * n
        )
        widths = [max(4, width // 4 * 4) for width in channels_at(n, channel_base, channel_max)[:n]]
        self.blocks = nn.ModuleList(
            MobileBlock(
                widths[i - 1] if i else None, widths[i], w_dim, (spec.height >> n - i, spec.width >> n - i),
                spec.channels, head=heads == "all" or i == n - 1,
            )
            for i in range(n)
        )  # fmt: skip

    def draw(self, ws: Tensor, noise: LayerNoise | None = None) -> Tensor:
        """ws (N, L, w_dim) -> images (N, C, H, W) float32."""
        return self.images_of(ws, [len(self.blocks) - 1], noise or self.usual_noise)[0]

    def scales(self, latent: Tensor, label: Tensor | None = None) -> list[Tensor]:
        """z (N, z_dim) -> what every head makes, images (N, C, h, w) from small to whole; the mean of w stays."""
        heads = [i for i, block in enumerate(self.blocks) if block.head is not None]
        return self.images_of(self.broadcast(self.map(latent, label)), heads, self.usual_noise)

    def images_of(self, ws: Tensor, heads: Sequence[int], noise: LayerNoise) -> list[Tensor]:
        """The images (N, C, h, w) of these heads; ws (N, L, w_dim)."""
        layer_ws = ws.unbind(1)
        x: Tensor | None = None
        images = []
        for i, block in enumerate(self.blocks):
            x = block(x, layer_ws[2 * i - 1 : 2 * i + 1] if i else layer_ws[:1], noise)
            if i in heads:  # its w is that of the next block's first convolution, too
                images.append(block.head(x, layer_ws[2 * i + 1]))  # type: ignore[operator]
        return images

    def folded(self) -> MobileStyleGANGenerator:
        """A copy for inference and export: demodulation within the weights, and the last head alone."""
        net = copy.deepcopy(self).eval().requires_grad_(False)
        for module in net.modules():
            if isinstance(module, FixedDemodulation):
                module.fold()
        for block in net.blocks[:-1]:
            block.head = None  # type: ignore[assignment]
        return net
