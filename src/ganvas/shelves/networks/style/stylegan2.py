"""The generator and critic of StyleGAN2 (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN").

Both compute what NVIDIA's `networks_stylegan2` does (repository stylegan3, and stylegan2-ada before it) on the same
weights, in float32; what runs in half precision is the recipe's `train.precision`, not a number of resolutions. Written
from the papers and from what the released networks compute. Differences in how:

- Gains of activations and blocks are folded into weights and biases: leaky ReLU is homogeneous.
- Demodulation is a matrix product of squares, and no kernel of a single sample is made; see `ganvas.nn.modulated`.
- Sides need not be equal or powers of two: the constant has H/2^n x W/2^n pixels, n = floor(log2(min(H, W) / 4)), and
  widths are those of the power of two with as many doublings.
- Images are unbounded, as published: a limit would hide from the critic what lies beyond. `Model.sample` clamps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import sqrt
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Len, Lt
from torch import Tensor, nn

from ganvas.nn.endless import moved_period
from ganvas.nn.equalized import LEAKY_GAIN, EqualizedConv2d, EqualizedLinear, equalized, in_full, leaky
from ganvas.nn.fir import downsample2d, filter_taps, upsample2d
from ganvas.nn.mapping import USUAL_MAPPING, MappingNetwork, MappingOptions
from ganvas.nn.minibatch import minibatch_std
from ganvas.nn.modulated import modulated_conv2d
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import halvings, require_classes
from ganvas.shelves.networks.heads import build_head
from ganvas.shelves.networks.style.spaces import LayerNoise, MixingGenerator, noise_for
from ganvas.types import Critic, CriticHead, DataSpec, Latent, LatentSpec, Movable, Scores

Architecture = Literal["skip", "resnet", "orig"]
Count = Annotated[int, Gt(0)]
Taps = Annotated[tuple[float, ...], Len(1)]

DEEPEST = 10  # 4096 pixels


def channels_at(n: int, base: int, most: int) -> list[int]:
    """Channels at 4, 8, ..., 4 · 2^n pixels: `base` / pixels, `most` at most."""
    return [max(1, min(base // (4 << i), most)) for i in range(n + 1)]


# ---------------------------------------------------------------------------------------------------- generator


class StyledConv(nn.Module):
    """Modulated 3x3 convolution that may double the resolution, then noise, bias and leaky ReLU."""

    taps: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_: int,
        out: int,
        w_dim: int,
        size: tuple[int, int],
        *,
        up: int = 1,
        taps: Sequence[float],
        noise: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.up, self.noise, self.clamp = up, noise, clamp
        self.affine = EqualizedLinear(w_dim, in_, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out, in_, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("taps", filter_taps(taps), persistent=False)
        if noise:
            self.register_buffer("noise_const", torch.randn(size))
            self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, style: Tensor, noise: LayerNoise, gain: float = 1.0) -> Tensor:
        """(N, in, h, w) and style (N, in) -> (N, out, up · h, up · w); `gain` multiplies the output and its limit."""
        scale = LEAKY_GAIN * gain
        x = modulated_conv2d(x, self.weight, style, up=self.up, taps=self.taps, gain=scale)
        if self.noise and (added := noise_for(x, self.noise_const, noise)) is not None:
            x = x + added * (self.noise_strength * scale)
        x = x + (self.bias * scale)[:, None, None]
        return leaky(x, clamp=None if self.clamp is None else self.clamp * gain)


class ToImage(nn.Module):
    """Modulated 1x1 convolution to image channels, not demodulated."""

    def __init__(self, in_: int, channels: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = EqualizedLinear(w_dim, in_, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, in_, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, in, H, W) and style (N, in) -> (N, C, H, W)."""
        gain = 1 / sqrt(self.weight.shape[1])
        y = modulated_conv2d(x, self.weight, style, demodulate=False, gain=gain) + self.bias[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class GeneratorBlock(nn.Module):
    """The layers of one resolution: doubled and convolved twice; the first one starts from a learnt constant."""

    taps: Tensor

    def __init__(
        self,
        in_: int | None,
        out: int,
        w_dim: int,
        size: tuple[int, int],
        channels: int,
        *,
        architecture: Architecture,
        last: bool,
        taps: Sequence[float],
        noise: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.register_buffer("taps", filter_taps(taps), persistent=False)

        def conv(in_: int, up: int) -> StyledConv:
            return StyledConv(in_, out, w_dim, size, up=up, taps=taps, noise=noise, clamp=clamp)

        if in_ is None:
            self.const = nn.Parameter(torch.randn(out, *size))
        self.conv0 = None if in_ is None else conv(in_, 2)
        self.conv1 = conv(out, 1)
        residual = in_ is not None and architecture == "resnet"
        self.skip = EqualizedConv2d(in_, out, 1, bias=False, up=2, taps=taps) if residual and in_ else None
        self.to_image = ToImage(out, channels, w_dim, clamp) if last or architecture == "skip" else None

    @property
    def convs(self) -> list[StyledConv]:
        return [conv for conv in (self.conv0, self.conv1) if conv is not None]

    @property
    def affines(self) -> list[EqualizedLinear]:
        """What makes the styles of this block, in the order of its layers."""
        convs = [conv.affine for conv in self.convs]
        return convs if self.to_image is None else [*convs, self.to_image.affine]

    def forward(
        self, x: Tensor | None, image: Tensor | None, styles: Sequence[Tensor], noise: LayerNoise
    ) -> tuple[Tensor, Tensor | None]:
        """Features (N, in, h, w), image (N, C, h, w) and as many styles as `affines` -> both at (2h, 2w).

        Features of the first block are (C, h, w), in the place of its constant.
        """
        if self.conv0 is None or x is None:
            start = self.const if x is None else x
            x = self.conv1(start.expand(len(styles[0]), -1, -1, -1), styles[0], noise)
        elif self.skip is not None:
            y = self.skip(x, sqrt(0.5))
            x = y + self.conv1(self.conv0(x, styles[0], noise), styles[1], noise, sqrt(0.5))
        else:
            x = self.conv1(self.conv0(x, styles[0], noise), styles[1], noise)
        if image is not None:
            image = upsample2d(image, self.taps)
        if self.to_image is not None:
            y = in_full(self.to_image(x, styles[-1]))
            image = y if image is None else image + y
        return x, image


class Synthesis(nn.Module):
    """w -> image: one w for each of L layers, each turned into the style of its layer, and the layers themselves."""

    def __init__(self, blocks: Sequence[GeneratorBlock]) -> None:
        super().__init__()
        self.blocks: Sequence[GeneratorBlock] = nn.ModuleList(blocks)  # type: ignore[assignment]
        starts, layer = [], 0  # the last layer of a block shares its w with the first of the next one
        for block in blocks:
            starts.append(layer)
            layer += len(block.convs)
        self.starts = starts
        self.style_dims = [affine.weight.shape[0] for block in blocks for affine in block.affines]

    def styles(self, ws: Tensor) -> list[Tensor]:
        """ws (N, L, w_dim) -> the style (N, channels) of every layer, in order."""
        styles = []
        for start, block in zip(self.starts, self.blocks, strict=True):
            styles += [affine(ws[:, start + i]) for i, affine in enumerate(block.affines)]
        return styles

    def render(self, styles: Sequence[Tensor], noise: LayerNoise, start: Tensor | None = None) -> Tensor:
        """Styles as `styles` gives them -> images (N, C, H, W) float32; `start` (C, h, w) replaces the constant."""
        x = start
        image: Tensor | None = None
        used = 0
        for block in self.blocks:
            block_styles = styles[used : used + len(block.affines)]
            x, image = block(x, image, block_styles, noise)
            used += len(block_styles)
        assert image is not None
        return image

    def forward(self, ws: Tensor, noise: LayerNoise = "const") -> Tensor:
        """ws (N, L, w_dim) -> images (N, C, H, W) float32."""
        return self.render(self.styles(ws), noise)


@network(
    "stylegan2-generator",
    system="stylegan2",
    paper="Karras et al. 2020 (StyleGAN2), section 2 and figure 7",
    tiny={"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "mapping": {"layers": 2}},
)
class StyleGAN2Generator(MixingGenerator, Movable):
    """Style-based generator with modulated convolutions and no progressive growing.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 4096 pixels.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (L, w_dim), one w for each of L = 2n + 2 layers; s (S,), the styles of all
    layers one after the other (Wu et al. 2021, "StyleSpace"). Each follows from the one before, see `to_space`.

    In training, noise is random, a share of the batches mixes two w, and `w_avg` follows the mean of w. In eval mode
    noise is a constant of the network, so that a latent has one image.

    Parameters
    ----------
    spec : what to make.
    z_dim, w_dim : length of z, drawn from N(0, 1), and of w.
    channel_base, channel_max : a map of p pixels has channel_base / p channels, at most channel_max.
    architecture : how the image comes about: "skip" sums up one of each resolution, "resnet" adds features and makes
        one image at the end, "orig" does neither.
    conditioning : "mapping" lets the mapping network see the class; None ignores labels.
    mapping : layers, widths and learning rate of the mapping network, see `MappingNetwork`.
    mixing : the share of training batches whose layers after a random one get the w of another z.
    average_decay : of `w_avg`, a training batch.
    noise : whether layers add noise of a learnt strength.
    filter : taps of the resampling filter.
    clamp : features are limited to [−clamp, clamp], which half precision needs; published: 256.

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
        architecture: Architecture = "skip",
        conditioning: Literal["mapping"] | None = None,
        mapping: MappingOptions = USUAL_MAPPING,
        mixing: Annotated[float, Ge(0), Le(1)] = 0.9,
        average_decay: Annotated[float, Ge(0), Lt(1)] = 0.998,
        noise: bool = True,
        filter: Taps = (1.0, 3.0, 3.0, 1.0),
        clamp: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        n = halvings(spec, DEEPEST)
        require_classes(conditioning, spec)
        widths = channels_at(n, channel_base, channel_max)
        classes = spec.num_classes if conditioning else 0
        super().__init__(
            MappingNetwork(z_dim, w_dim, classes=classes, beta=average_decay, **asdict(mapping)),
            z_dim,
            w_dim,
            2 * n + 2,
            mixing=mixing,
        )
        self.synthesis = Synthesis(
            [
                GeneratorBlock(
                    widths[i - 1] if i else None, widths[i], w_dim, (spec.height >> n - i, spec.width >> n - i),
                    spec.channels, architecture=architecture, last=i == n, taps=filter, noise=noise, clamp=clamp,
                )
                for i in range(n + 1)
            ]
        )  # fmt: skip
        self.latents = {**self.latents, "s": LatentSpec((sum(self.synthesis.style_dims),), "none")}

    def draw(self, ws: Tensor, noise: LayerNoise | None = None) -> Tensor:
        """ws (N, L, w_dim) -> images (N, C, H, W)."""
        return self.synthesis(ws, noise or self.usual_noise)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ spaces

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """The same points in a later space, in the order z, w, w+, s.

        Raises
        ------
        UsageError : there is no such space, or it comes before the one that the points are in.
        """
        if space != "s" or latent.space == "s":
            return super().to_space(latent, space, label)
        ws = super().to_space(latent, "w+", label).values
        return Latent(torch.cat(self.synthesis.styles(ws), 1), "s")  # (N, S)

    def noised(self, latent: Latent, label: Tensor | None = None, *, noise: LayerNoise) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces; nothing is mixed and `w_avg` stays.

        Parameters
        ----------
        noise : "random", the network's "const", or "none"; a torch.Generator: random, of its numbers.

        Raises
        ------
        UsageError : there is no such space.
        """
        if latent.space == "s":
            return self.synthesis.render(torch.split(latent.values, self.synthesis.style_dims, 1), noise)
        return super().noised(latent, label, noise=noise)

    def moved(self, latent: Latent, move: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of the same points with the learnt constant moved, as a period of an endless picture.

        Noise stays where it is.

        Parameters
        ----------
        move : (3, 3), where a place (x, y, 1) goes, in shorter sides of the image from its middle, y down.
        """
        styles = torch.split(self.to_space(latent, "s", label).values, self.synthesis.style_dims, 1)
        start = moved_period(self.synthesis.blocks[0].const, move)
        return self.synthesis.render(styles, self.usual_noise, start)


# ---------------------------------------------------------------------------------------------------- critic


class CriticBlock(nn.Module):
    """The layers of one resolution: two 3x3 convolutions, the second of which halves it, and perhaps a skip."""

    taps: Tensor

    def __init__(
        self, in_: int, out: int, channels: int | None, *, architecture: Architecture, taps: Sequence[float],
        clamp: float | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.architecture = architecture
        self.register_buffer("taps", filter_taps(taps), persistent=False)
        self.from_image = None
        if channels is not None:
            self.from_image = EqualizedConv2d(channels, in_, 1, activate=True, clamp=clamp)
        self.conv0 = EqualizedConv2d(in_, in_, 3, activate=True, clamp=clamp)
        self.conv1 = EqualizedConv2d(in_, out, 3, down=2, taps=taps, activate=True, clamp=clamp)
        self.skip = None
        if architecture == "resnet":
            self.skip = EqualizedConv2d(in_, out, 1, bias=False, down=2, taps=taps)

    def forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features (N, in, h, w), if there are any yet, and what is still read of the image -> both at (h/2, w/2)."""
        if self.from_image is not None:
            y = self.from_image(image)
            x = y if x is None else x + y
            image = downsample2d(image, self.taps) if self.architecture == "skip" and image is not None else None
        assert x is not None
        if self.skip is None:
            return self.conv1(self.conv0(x)), image
        return self.skip(x, sqrt(0.5)) + self.conv1(self.conv0(x), sqrt(0.5)), image


class MinibatchStd(nn.Module):
    """Features with maps of how much they vary over a group of the batch; see `minibatch_std`."""

    def __init__(self, group: int | None, channels: int) -> None:
        super().__init__()
        self.group, self.channels = group, channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, D + channels, h, w)."""
        maps = minibatch_std(in_full(x), self.group, self.channels).to(x.dtype)
        return torch.cat([x, maps[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


class Epilogue(nn.Module):
    """From the smallest map to features: variation over the batch, a convolution, a linear layer."""

    def __init__(
        self, width: int, channels: int | None, size: tuple[int, int], *, group: int | None, statistics: int,
        clamp: float | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.from_image = None if channels is None else EqualizedConv2d(channels, width, 1, activate=True)
        self.minibatch_std = MinibatchStd(group, statistics) if statistics else None
        self.conv = EqualizedConv2d(width + statistics, width, 3, activate=True, clamp=clamp)
        self.linear = EqualizedLinear(width * size[0] * size[1], width, activate=True)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """(N, D, h, w) and perhaps an image of that size -> (N, D)."""
        if self.from_image is not None:
            x = x + self.from_image(image)
        if self.minibatch_std is not None:
            x = self.minibatch_std(x)
        return self.linear(self.conv(x).flatten(1))  # type: ignore[no-any-return]


@network(
    "stylegan2-discriminator",
    system="stylegan2",
    paper="Karras et al. 2020 (StyleGAN2), section 4.1 and figure 7",
    tiny={"channel_base": 128, "channel_max": 8},
)
class StyleGAN2Discriminator(Critic):
    """Residual critic with filtered resampling and a map of the batch's variation.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 4096 pixels.
    Scores depend on the batch by way of the variation; `minibatch_channels: 0` leaves it out.

    Parameters
    ----------
    spec : what to score.
    channel_base, channel_max : a map of p pixels has channel_base / p channels, at most channel_max. D, the length of
        the features, is the width at 4 pixels.
    architecture : "resnet" adds skips over each block, "skip" reads the image anew at each resolution, "orig" neither.
    conditioning : how labels reach the critic; `mapped-projection` is the published way.
    minibatch_group : data among which the variation is taken; None: the whole batch.
    minibatch_channels : into how many means the variation is cut; 0 leaves it out.
    filter : taps of the resampling filter.
    clamp : features are limited to [−clamp, clamp], which half precision needs; published: 256.

    Raises
    ------
    BadValue : a size that cannot be halved so often, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        channel_base: Count = 32768,
        channel_max: Count = 512,
        architecture: Architecture = "resnet",
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        minibatch_group: Count | None = 4,
        minibatch_channels: Annotated[int, Ge(0)] = 1,
        filter: Taps = (1.0, 3.0, 3.0, 1.0),
        clamp: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        widths = channels_at(n, channel_base, channel_max)
        reads = spec.channels if architecture == "skip" else None  # below the first block
        self.blocks = nn.ModuleList(
            CriticBlock(
                widths[i], widths[i - 1], spec.channels if i == n else reads, architecture=architecture, taps=filter,
                clamp=clamp,
            )
            for i in range(n, 0, -1)
        )  # fmt: skip
        self.epilogue = Epilogue(
            widths[0], reads, (spec.height >> n, spec.width >> n), group=minibatch_group,
            statistics=minibatch_channels, clamp=clamp,
        )  # fmt: skip
        self.head = build_head(conditioning, widths[0], spec, equalized)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, D)."""
        x: Tensor | None = None
        image: Tensor | None = data
        for block in self.blocks:
            x, image = block(x, image)
        features = self.epilogue(x, image)  # (N, D)
        return self.head(features, label)
