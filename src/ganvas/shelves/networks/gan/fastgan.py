"""The pair of FastGAN for few images: skip-layer excitation, and a critic that must be able to rebuild what it sees.

Liu et al. 2021, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis", sections 3.1
and 3.2. Details are those of the authors' code, which differ from the text in some:

- Excitation leads over four doublings of the resolution from 4x4 on (4 -> 64, 8 -> 128, 16 -> 256, 32 -> 512).
- Images end in a tanh at 1024 pixels and in nothing below.
- The critic judges 5x5 places on a large and on a small copy of the image; each place has a logit of its own, and the
  losses are means over all of them.
- Reconstructions are scored by a perceptual distance (LPIPS) there. Its weights are not ours to ship: here it is the
  mean absolute error, and its weight is a key.

One thing is ours: the authors' generator makes the small copy of its image by a layer of its own, here the critic
shrinks the generated image as it does real ones. `small_image` carries that layer for imported weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.init import Init, layer_init, normal
from ganvas.parts import network
from ganvas.shelves.networks.gan.pyramid import halvings, require_images
from ganvas.types import Critic, DataSpec, Generator, LatentSpec, Objective, OwnHead, Scores, Turn

LEAK = 0.2
DEEPEST = 8  # 1024 pixels
GATED = 4  # doublings between a map and the one that it gates
GATED_DOWN = 3  # the same in the critic
# Channels of each map from 4 pixels on, as multiples of the width.
MULTIPLES = (16, 8, 4, 2, 2, 1, 0.5, 0.25, 0.125)
# Channels after each of the critic's blocks on the large copy, before the first one, and on the small copy.
BLOCK_MULTIPLES = (0.5, 1, 2, 4, 8)
STEM_MULTIPLES = (0.125, 0.25)
SMALL_MULTIPLES = (0.5, 1, 2, 4)
DECODER_WIDTHS = (128, 64, 64, 32)  # channels after each doubling
SMALL = 128  # pixels of the critic's small copy, at most

Norm = Callable[[int], nn.Module]


def scaled_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm whose gain starts from N(1, 0.02²), as all of FastGAN's do."""
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


def multiplied(width: int, multiples: Sequence[float]) -> list[int]:
    """Channels, at least one."""
    return [max(1, int(width * multiple)) for multiple in multiples]


class Noise(nn.Module):
    """x + w · noise, one noise map for all channels: fresh while training, else the same one for every image.

    So what a trained generator makes depends on the latent alone.
    """

    fixed: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        drawn = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(size[0]), device="cpu")
        self.register_buffer("fixed", drawn.to(self.weight.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        shape = (len(x), 1, *x.shape[2:])
        noise = draws.normal("layer noise", shape, like=x) if self.training else self.fixed.to(x.dtype)
        return x + self.weight.to(x.dtype) * noise


class First(nn.Sequential):
    """The first map: transposed convolution, norm, GLU."""

    def __init__(self, z_dim: int, out: int, size: tuple[int, int], init: Init, norm: Norm = scaled_norm) -> None:
        super().__init__(init(nn.ConvTranspose2d(z_dim, 2 * out, size, bias=False)), norm(2 * out), nn.GLU(1))

    def forward(self, latent: Tensor) -> Tensor:
        """(N, z_dim) -> (N, out, h, w)."""
        x = latent[:, :, None, None]
        for layer in self:
            x = layer(x)
        return x


class UpBlock(nn.Sequential):
    """Doubles the resolution: nearest pixels, then one or two of (3x3 convolution, norm, GLU).

    Parameters
    ----------
    size : (h, w) of the output.
    doubled : two convolutions instead of one, and noise after each.
    norm : makes a norm for so many channels.
    """

    def __init__(
        self,
        in_: int,
        out: int,
        size: tuple[int, int],
        init: Init,
        *,
        doubled: bool = False,
        norm: Norm = scaled_norm,
    ) -> None:
        layers: list[nn.Module] = [nn.Upsample(scale_factor=2)]
        for channels in (in_, out) if doubled else (in_,):
            layers.append(init(nn.Conv2d(channels, 2 * out, 3, padding=1, bias=False)))
            layers += [Noise(size)] if doubled else []
            layers += [norm(2 * out), nn.GLU(1)]
        super().__init__(*layers)


# Liu et al. 2021, eq. 1: y = F(x_low, {W_i}) · x_high
class Excitation(nn.Module):
    """Skip-layer excitation: a small map gates each channel of a large one by a number in (0, 1)."""

    def __init__(self, in_: int, out: int, init: Init) -> None:
        super().__init__()
        self.conv1 = init(nn.Conv2d(in_, out, 4, bias=False))
        self.conv2 = init(nn.Conv2d(out, out, 1, bias=False))

    def gate(self, low: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, 1, 1)."""
        out: Tensor = self.conv2(F.silu(self.conv1(F.adaptive_avg_pool2d(low, 4)))).sigmoid()
        return out

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return high * self.gate(low)


def pyramid_sizes(spec: DataSpec) -> list[tuple[int, int]]:
    """(h, w) of a generator's maps, from 4 to 7 pixels on the shorter side up to the image.

    Raises
    ------
    BadValue : a size that cannot be halved so often.
    """
    n = halvings(spec, DEEPEST)
    return [(spec.height >> i, spec.width >> i) for i in range(n, -1, -1)]


def gates_of(channels: Sequence[int], init: Init) -> nn.ModuleDict:
    """An excitation for every map that has one `GATED` doublings before it, but the ninth; keys are their numbers."""
    last = min(len(channels), DEEPEST)
    return nn.ModuleDict({str(i): Excitation(channels[i - GATED], channels[i], init) for i in range(GATED, last)})


def excited(
    first: Tensor, blocks: nn.ModuleList, gates: nn.ModuleDict, run: Callable[[nn.Module, Tensor], Tensor]
) -> Iterator[Tensor]:
    """All maps of a generator, each after its excitation; `run` applies a block."""
    maps = [first]
    yield first
    for i, block in enumerate(blocks, 1):
        h = run(block, maps[-1])  # (N, ch, 2h, 2w)
        if str(i) in gates:
            h = gates[str(i)](maps[i - GATED], h)
        maps.append(h)
        yield h


@network("fastgan-generator", system="fastgan", paper="Liu et al. 2021, section 3.1", tiny={"width": 4, "z_dim": 8})
class FastGANGenerator(Generator):
    """Generator of FastGAN: spectral norm, GLU, noise, and small maps that gate the channels of large ones.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024
    pixels. Up to 512 pixels nothing bounds the values, as in the authors' code.

    Parameters
    ----------
    spec : what to make.
    width : channels of the map of 128 pixels; 4 pixels have 16 times as many, 1024 an eighth.
    z_dim : length of the latent vector, drawn from N(0, 1).
    small_image : also carry the authors' layer that makes a 128-pixel image, for `pair`. It does not learn here.

    Raises
    ------
    BadValue : a size that cannot be halved so often, or `small_image` below 128 pixels.
    """

    conditional = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 64,
        z_dim: Annotated[int, Gt(0)] = 256,
        small_image: bool = False,
    ) -> None:
        super().__init__()
        sizes = pyramid_sizes(spec)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.bounded = len(sizes) > DEEPEST
        init = layer_init(normal, spectral_norm=True)
        channels = multiplied(width, MULTIPLES[: len(sizes)])
        self.first = First(z_dim, channels[0], sizes[0], init)
        self.blocks = nn.ModuleList(
            UpBlock(channels[i - 1], channels[i], sizes[i], init, doubled=i % 2 == 1) for i in range(1, len(sizes))
        )
        self.gates = gates_of(channels, init)
        self.to_image = init(nn.Conv2d(channels[-1], spec.channels, 3, padding=1, bias=False))
        self.small_at = MULTIPLES.index(1)
        self.to_small: nn.Module | None = None
        if small_image:
            if len(sizes) <= self.small_at:
                raise BadValue("images below 128 pixels have no small copy", key="small_image", hint="data.size=256")
            self.to_small = init(nn.Conv2d(channels[self.small_at], spec.channels, 1, bias=False))

    def maps(self, latent: Tensor) -> list[Tensor]:
        """z (N, z_dim) -> the maps of all resolutions."""
        return list(excited(self.first(latent), self.blocks, self.gates, lambda block, h: block(h)))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W)."""
        image: Tensor = self.to_image(self.maps(latent)[-1])  # (N, C, H, W)
        return image.tanh() if self.bounded else image

    def pair(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """z (N, z_dim) -> images (N, C, H, W) and the authors' small ones, (N, C, 128, 128) of square images.

        Raises
        ------
        BadValue : built without `small_image`.
        """
        if self.to_small is None:
            raise BadValue("this generator makes no small image", key="small_image", hint="small_image=true")
        maps = self.maps(latent)
        image, small = self.to_image(maps[-1]), self.to_small(maps[self.small_at])
        return (image.tanh(), small.tanh()) if self.bounded else (image, small)


# ---------------------------------------------------------------------------------------------------- the critic


class DownBlock(nn.Sequential):
    """Halves the resolution: strided 4x4 convolution, norm, leaky ReLU."""

    def __init__(self, in_: int, out: int, init: Init) -> None:
        super().__init__(
            init(nn.Conv2d(in_, out, 4, stride=2, padding=1, bias=False)),
            scaled_norm(out),
            nn.LeakyReLU(LEAK, inplace=True),
        )


class TwoWayDownBlock(nn.Module):
    """Halves the resolution, as the mean of a strided branch of two convolutions and a pooled one of one."""

    def __init__(self, in_: int, out: int, init: Init) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *DownBlock(in_, out, init),
            init(nn.Conv2d(out, out, 3, padding=1, bias=False)),
            scaled_norm(out),
            nn.LeakyReLU(LEAK, inplace=True),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            init(nn.Conv2d(in_, out, 1, bias=False)),
            scaled_norm(out),
            nn.LeakyReLU(LEAK, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h/2, w/2)."""
        out: Tensor = (self.main(x) + self.direct(x)) / 2
        return out


class Decoder(nn.Sequential):
    """An image in (-1, 1) from a map: `doublings` blocks on the map pooled to `size`."""

    def __init__(self, in_: int, channels: int, size: tuple[int, int], doublings: int, init: Init, width: int) -> None:
        widths = [in_, *(max(1, base * width // 32) for base in DECODER_WIDTHS[:doublings])]
        sizes = [(size[0] << i, size[1] << i) for i in range(doublings + 1)]
        super().__init__(
            nn.AdaptiveAvgPool2d(size),
            *(UpBlock(widths[i - 1], widths[i], sizes[i], init) for i in range(1, doublings + 1)),
            init(nn.Conv2d(widths[-1], channels, 3, padding=1, bias=False)),
            nn.Tanh(),
        )


class Rebuilt(Mapping[str, Tensor]):
    """What a critic rebuilds, made when first asked for: generated images are never decoded."""

    def __init__(self, ways: Mapping[str, Callable[[], Tensor]]) -> None:
        self.ways = ways
        self.computed: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.computed:
            self.computed[name] = self.ways[name]()
        return self.computed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ways)

    def __len__(self) -> int:
        return len(self.ways)


class RebuildingHead(OwnHead):
    """Decoders of a critic's maps, and the error of what they make of real images (Liu et al. 2021, eq. 2).

    Three images are compared: the whole one from the last map, the whole one from the small copy's map, and a random
    quarter from the same quarter of the last but one map.
    """

    TARGETS: Mapping[str, str] = {"rebuilt": "whole", "rebuilt_small": "whole", "rebuilt_quarter": "quarter"}

    def __init__(self, weight: float, decoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.weight = weight
        self.decoders = nn.ModuleDict(decoders)

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """`reconstruction`: the mean absolute error on real images, as the critic saw them."""
        extra = turn.real_scores.extra
        if not self.decoders:
            return {}
        errors = [F.l1_loss(extra[rebuilt], extra[target].detach()) for rebuilt, target in self.TARGETS.items()]
        return {"reconstruction": self.weight * torch.stack(errors).sum()}


def quarter(x: Tensor, number: int) -> Tensor:
    """(N, C, h, w) -> (N, C, h/2, w/2): upper left, upper right, lower left or lower right."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    return x[:, :, (slice(h), slice(h, None))[number // 2], (slice(w), slice(w, None))[number % 2]]


@network(
    "fastgan-discriminator",
    system="fastgan",
    paper="Liu et al. 2021, section 3.2",
    tiny={"width": 4, "decoder_width": 4},
)
class FastGANDiscriminator(Critic):
    """Critic of FastGAN: it judges places on two scales, and learns to rebuild real images from its maps.

    Images of any channel count of 32 to 1024 pixels on the shorter side. Sides are halved k times,
    k = floor(log2(min(H, W) / 8)), and must be divisible by 2^k; below 256 pixels the first blocks of the published
    network are left out. Labels are not looked at.

    Parameters
    ----------
    spec : what to score.
    width : channels of the map of 64 pixels; 8 pixels have 8 times as many.
    reconstruction : weight of the mean absolute error of what is rebuilt; 0 leaves the decoders out.
    decoder_width : channels of the decoders' last map.

    Raises
    ------
    BadValue : a size that cannot be halved so often.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 64,
        reconstruction: Annotated[float, Ge(0)] = 1.0,
        decoder_width: Annotated[int, Gt(0)] = 32,
    ) -> None:
        super().__init__()
        k = depth(spec)
        init = layer_init(normal, spectral_norm=True)
        count = min(k, len(BLOCK_MULTIPLES))
        multiples = (*STEM_MULTIPLES, *BLOCK_MULTIPLES)
        channels = multiplied(width, multiples[-count - 1 :])
        self.stem = stem(spec.channels, width, channels[0], k - count, init)
        self.blocks = nn.ModuleList(TwoWayDownBlock(a, b, init) for a, b in pairwise(channels))
        self.gates = nn.ModuleDict(
            {str(i): Excitation(channels[i - GATED_DOWN], channels[i], init) for i in range(GATED_DOWN, count + 1)}
        )
        self.judge_large = nn.Sequential(
            init(nn.Conv2d(channels[-1], 2 * channels[-1], 1, bias=False)),
            scaled_norm(2 * channels[-1]),
            nn.LeakyReLU(LEAK, inplace=True),
            init(nn.Conv2d(2 * channels[-1], 1, 4, bias=False)),
        )
        shrink = max(1, math.ceil(math.log2(min(spec.height, spec.width) / SMALL)))
        self.small_size = (spec.height >> shrink, spec.width >> shrink)
        doublings = k - shrink
        small = multiplied(width, SMALL_MULTIPLES[-doublings:])
        self.small_blocks = nn.Sequential(
            init(nn.Conv2d(spec.channels, small[0], 4, stride=2, padding=1, bias=False)),
            nn.LeakyReLU(LEAK, inplace=True),
            *(DownBlock(a, b, init) for a, b in pairwise(small)),
        )
        self.judge_small = init(nn.Conv2d(small[-1], 1, 4, bias=False))
        decoders = {}
        if reconstruction:
            inputs = {"rebuilt": channels[-1], "rebuilt_small": small[-1], "rebuilt_quarter": channels[-2]}
            smallest = (spec.height >> k, spec.width >> k)
            decode = partial(Decoder, size=smallest, doublings=doublings, init=init, width=decoder_width)
            decoders = {name: decode(maps, spec.channels) for name, maps in inputs.items()}
        self.head = RebuildingHead(reconstruction, decoders)

    def large_maps(self, data: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the maps of all resolutions, the smallest one last."""
        maps = [self.stem(data)]
        for i, block in enumerate(self.blocks, 1):
            h = block(maps[-1])  # (N, ch, h/2, w/2)
            maps.append(self.gates[str(i)](maps[i - GATED_DOWN], h) if str(i) in self.gates else h)
        return maps

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] -> logits of all places (N, P) and their means (N,), features (N, 8 width)."""
        maps = self.large_maps(data)
        small = self.small_blocks(F.interpolate(data, self.small_size))
        pieces = torch.cat([self.judge_large(maps[-1]).flatten(1), self.judge_small(small).flatten(1)], 1)  # (N, P)
        number = int(draws.integers("part", 0, 4, (), like=data)) if self.training else 0
        extra = self.rebuild(data, maps, small, number) if self.head.decoders else {}
        return Scores(pieces.mean(1), maps[-1].mean((2, 3)), extra, pieces)

    def rebuild(self, data: Tensor, maps: Sequence[Tensor], small: Tensor, number: int) -> Rebuilt:
        """What the decoders make of the maps of `data`, and what they should have made; nothing until it is asked for.

        `number` is that of the quarter, see `quarter`.
        """
        assert isinstance(self.head, RebuildingHead)
        decoders = self.head.decoders
        return Rebuilt(
            {
                "rebuilt": lambda: decoders["rebuilt"](maps[-1]),
                "rebuilt_small": lambda: decoders["rebuilt_small"](small),
                "rebuilt_quarter": lambda: decoders["rebuilt_quarter"](quarter(maps[-2], number)),
                "whole": lambda: F.interpolate(data, self.small_size),
                "quarter": lambda: F.interpolate(quarter(data, number), self.small_size),
            }
        )


def depth(spec: DataSpec) -> int:
    """k = floor(log2(min(H, W) / 8)), how often the critic halves an image.

    Raises
    ------
    BadValue : below 32 pixels, above 1024, or 2^k does not divide a side.
    """
    require_images(spec)
    shortest, size = min(spec.height, spec.width), f"{spec.height}x{spec.width}"
    if not 32 <= shortest < 2048:
        raise BadValue(
            f"images of {size} do not fit this critic; its shorter side must be 32 to 2047", hint="data.size=32"
        )
    k = int(math.log2(shortest / 8))
    if spec.height % 2**k or spec.width % 2**k:
        raise BadValue(
            f"images of {size} cannot be halved {k} times; {2**k} must divide both sides", hint="data.size=32"
        )
    return k


def stem(in_: int, width: int, out: int, halvings: int, init: Init) -> nn.Sequential:
    """The critic's first layers: one or two strided convolutions for large images, else one that keeps the size."""
    activate = partial(nn.LeakyReLU, LEAK, inplace=True)
    if halvings == 0:
        return nn.Sequential(init(nn.Conv2d(in_, out, 3, padding=1, bias=False)), activate())
    first = out if halvings == 1 else multiplied(width, STEM_MULTIPLES)[0]
    layers: list[nn.Module] = [init(nn.Conv2d(in_, first, 4, stride=2, padding=1, bias=False)), activate()]
    return nn.Sequential(*layers, *(DownBlock(first, out, init) if halvings == 2 else ()))
