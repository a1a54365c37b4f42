"""The pair of R3GAN: residual blocks that begin as the identity, no normalisation and no style.

Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline", section 4.3 and appendix D. The pair is
trained with the relativistic pairing loss and penalties on both sides, which are `relativistic-paired`, `r1` and `r2`.

A block is 1x1 to twice the width, grouped 3x3, 1x1 back; leaky ReLUs with a bias stand in between, and the last
convolution starts at 0. First values follow Fixup (Zhang et al. 2019): with L blocks of m = 3 convolutions, the others
have the standard deviation gain · L^(-1/(2m-2)) / sqrt(fan-in).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.init import zero_bias
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import halvings, one_hot, require_classes, require_images
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores

Positive = Annotated[int, Gt(0)]
PerStage = Positive | tuple[Positive, ...]

LEAK = 0.2
GAIN = math.sqrt(2 / (1 + LEAK**2))  # keeps the variance through a leaky ReLU
LAYERS = 3  # m, convolutions of a block
DEEPEST = 8  # 1024 pixels
LOWPASS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)  # [1, 2, 1] over a pixel's two halves


# He et al. 2015, eq. 10
def msr(module: nn.Module, gain: float = 1.0) -> nn.Module:
    """Weight from N(0, gain² / fan-in) for a convolution or linear layer, and zero bias."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    nn.init.normal_(weight, 0.0, gain / math.sqrt(weight[0].numel()))
    return zero_bias(module)


class Filter(nn.Module):
    """A separable low-pass filter that runs while pixels are doubled or halved, with zeros beyond the border."""

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("taps", torch.tensor(LOWPASS), persistent=False)

    def upsample(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, 2h, 2w)."""
        C = x.shape[1]
        taps = (2 * self.taps).to(x.dtype)  # zeros stand between the pixels
        return F.conv_transpose2d(x, torch.outer(taps, taps).expand(C, 1, 4, 4), stride=2, padding=1, groups=C)

    def downsample(self, x: Tensor) -> Tensor:
        """(N, C, 2h, 2w) -> (N, C, h, w)."""
        C = x.shape[1]
        taps = self.taps.to(x.dtype)
        x = F.conv2d(x, taps[:, None].expand(C, 1, 4, 1), stride=(2, 1), padding=(1, 0), groups=C)
        return F.conv2d(x, taps.expand(C, 1, 1, 4), stride=(1, 2), padding=(0, 1), groups=C)


class BiasedLeakyReLU(nn.Module):
    """leaky(x + b), one b per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.to(x.dtype)[:, None, None], LEAK)


class ResidualBlock(nn.Module):
    """x + conv1x1(act(conv3x3(act(conv1x1(x))))), the middle one grouped and wider; the identity at first."""

    def __init__(self, width: int, cardinality: int, expansion: int, blocks: int) -> None:
        super().__init__()
        inner = width * expansion
        gain = GAIN * blocks ** (-1 / (2 * LAYERS - 2))
        self.conv1 = msr(nn.Conv2d(width, inner, 1, bias=False), gain)
        self.act1 = BiasedLeakyReLU(inner)
        self.conv2 = msr(nn.Conv2d(inner, inner, 3, padding=1, groups=cardinality, bias=False), gain)
        self.act2 = BiasedLeakyReLU(inner)
        self.conv3 = msr(nn.Conv2d(inner, width, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.act1(self.conv1(x)))  # (N, inner, h, w)
        out: Tensor = x + self.conv3(self.act2(h))  # (N, width, h, w)
        return out


class Transition(nn.Module):
    """A doubled or halved map, and a 1x1 convolution on the smaller one where the width changes."""

    def __init__(self, in_: int, out: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.filter = Filter()
        self.conv = msr(nn.Conv2d(in_, out, 1, bias=False)) if in_ != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, 2h, 2w) or (N, out, h/2, w/2)."""
        if self.up:
            return self.filter.upsample(self.conv(x))
        out: Tensor = self.conv(self.filter.downsample(x))
        return out


class GenerativeBasis(nn.Module):
    """The first map: learnt maps, each scaled by a linear function of the latent."""

    def __init__(self, in_: int, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(width, *size))
        self.linear = msr(nn.Linear(in_, width, bias=False))

    def forward(self, latent: Tensor) -> Tensor:
        """(N, in) -> (N, width, h, w)."""
        out: Tensor = self.basis * self.linear(latent)[:, :, None, None]
        return out


class DiscriminativeBasis(nn.Module):
    """The features: each channel's inner product with a learnt map."""

    def __init__(self, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.basis = msr(nn.Conv2d(width, width, size, groups=width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, width)."""
        out: Tensor = self.basis(x).flatten(1)
        return out


def plan(
    spec: DataSpec, width: PerStage, cardinality: PerStage, blocks: PerStage, expansion: int, *, reverse: bool
) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    """(width, cardinality, blocks) of each stage from the first map on, and (h, w) of the smallest map.

    Numbers stand for equal values in all stages. Lists run with the data: from the smallest map, or with `reverse`
    from the largest.

    Raises
    ------
    BadValue : a size that cannot be halved so often, lists of different length, a width that the groups do not divide.
    """
    require_images(spec)
    given = {"width": width, "cardinality": cardinality, "blocks": blocks}
    lengths = {key: len(value) for key, value in given.items() if isinstance(value, tuple)}
    if len(set(lengths.values())) > 1:
        raise BadValue(
            "the lists have different lengths: " + ", ".join(f"{key} {length}" for key, length in lengths.items()),
            key=next(iter(lengths)), hint="one number a stage, or a single number for all of them",
        )  # fmt: skip
    n = next(iter(lengths.values())) - 1 if lengths else halvings(spec, DEEPEST)
    if spec.height % 2**n or spec.width % 2**n:
        raise BadValue(
            f"images of {spec.height}x{spec.width} cannot be halved {n} times, as {n + 1} stages ask for;"
            f" {2**n} must divide both sides",
            key=next(iter(lengths), "width"), hint="data.size=32",
        )  # fmt: skip
    filled = [value if isinstance(value, tuple) else (value,) * (n + 1) for value in given.values()]
    stages = list(zip(*filled, strict=True))
    for channels, groups, _ in stages:
        if channels * expansion % groups:
            raise BadValue(
                f"{groups} groups do not divide {channels} x {expansion} channels", key="cardinality",
                hint=f"cardinality={math.gcd(groups, channels * expansion)}",
            )  # fmt: skip
    return stages[::-1] if reverse else stages, (spec.height >> n, spec.width >> n)


@network(
    "r3gan-generator",
    system="r3gan",
    paper="Huang et al. 2024, section 4.3",
    tiny={"width": 8, "cardinality": 4, "blocks": 1, "z_dim": 8, "embedding_dim": 4},
)
class R3GANGenerator(Generator):
    """Generator of R3GAN: scaled basis maps, then stages of inverted bottlenecks with grouped convolutions.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)); listed values set n
    to one less than their number. Nothing bounds the values: where training has not settled, they leave [-1, 1].

    Parameters
    ----------
    spec : what to make.
    width : channels of each stage's map, from the smallest map on, or one number for all.
    cardinality : groups of each stage's 3x3 convolutions.
    blocks : residual blocks of each stage.
    expansion : how many times wider the inside of a block is.
    z_dim : length of the latent vector, drawn from N(0, 1).
    conditioning : "embedding" joins the latent with a learnt vector of the class; None ignores labels.
    embedding_dim : length of that vector.

    Raises
    ------
    BadValue : a size that cannot be halved so often, lists of different length, a width that the groups do not divide,
        labels asked for and not there.
    """

    bounded = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: PerStage = 768,
        cardinality: PerStage = 96,
        blocks: PerStage = 2,
        expansion: Positive = 2,
        z_dim: Positive = 64,
        conditioning: Literal["embedding"] | None = None,
        embedding_dim: Positive = 64,
    ) -> None:
        super().__init__()
        stages, stem = plan(spec, width, cardinality, blocks, expansion, reverse=False)
        require_classes(conditioning, spec)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        if self.classes:
            self.embed = msr(nn.Linear(self.classes, embedding_dim, bias=False))
        total = sum(depth for _, _, depth in stages)
        before: int | None = None
        self.stages = nn.ModuleList()
        for channels, groups, count in stages:
            first: nn.Module = (
                GenerativeBasis(z_dim + (embedding_dim if self.classes else 0), channels, stem)
                if before is None
                else Transition(before, channels, up=True)
            )
            self.stages.append(
                nn.Sequential(first, *(ResidualBlock(channels, groups, expansion, total) for _ in range(count)))
            )
            before = channels
        self.to_image = msr(nn.Conv2d(stages[-1][0], spec.channels, 1, bias=False))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> images (N, C, H, W)."""
        h = latent
        if self.classes:
            h = torch.cat([h, self.embed(one_hot(label, self.classes, latent))], 1)  # (N, z_dim + embedding_dim)
        for stage in self.stages:
            h = stage(h)  # (N, ch, 2h, 2w)
        image: Tensor = self.to_image(h)  # (N, C, H, W)
        return image


@network(
    "r3gan-discriminator",
    system="r3gan",
    paper="Huang et al. 2024, section 4.3",
    tiny={"width": 8, "cardinality": 4, "blocks": 1},
)
class R3GANDiscriminator(Critic):
    """Critic of R3GAN, the generator mirrored: stages of blocks, each halved at its end, then one basis map a channel.

    Images of any channel count, sized as for `r3gan-generator`. The authors' conditional critic has the head
    `inner-product`.

    Parameters
    ----------
    spec : what to score.
    width, cardinality, blocks : as of the generator, and listed in its order: the last one is that of the full image.
    expansion : how many times wider the inside of a block is.
    conditioning : how labels reach the critic.

    Raises
    ------
    BadValue : a size that cannot be halved so often, lists of different length, a width that the groups do not divide,
        labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: PerStage = 768,
        cardinality: PerStage = 96,
        blocks: PerStage = 2,
        expansion: Positive = 2,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        stages, stem = plan(spec, width, cardinality, blocks, expansion, reverse=True)
        total = sum(depth for _, _, depth in stages)
        after = [channels for channels, _, _ in stages[1:]]
        self.from_image = msr(nn.Conv2d(spec.channels, stages[0][0], 1, bias=False))
        self.stages = nn.ModuleList()
        for i, (channels, groups, count) in enumerate(stages):
            last = Transition(channels, after[i], up=False) if i < len(after) else DiscriminativeBasis(channels, stem)
            self.stages.append(
                nn.Sequential(*(ResidualBlock(channels, groups, expansion, total) for _ in range(count)), last)
            )
        self.head = build_head(conditioning, stages[-1][0], spec, partial(msr, gain=1.0), bias=False)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width)."""
        h = self.from_image(data)
        for stage in self.stages:
            h = stage(h)  # (N, ch, h/2, w/2), at last (N, width)
        return self.head(h, label)
