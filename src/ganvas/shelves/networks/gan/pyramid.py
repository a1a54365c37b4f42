"""What convolutional pairs share: how often an image can be halved, and where attention stands in the pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue, UsageError
from ganvas.nn.attention import SelfAttention
from ganvas.nn.codes import CodeReader, Codes
from ganvas.nn.init import Init, layer_init, orthogonal
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d
from ganvas.nn.spectral import PowerIteration
from ganvas.nn.stages import Conditions, StackedGenerator
from ganvas.types import DataSpec, LatentSpec

Attention = int | str | tuple[int | str, ...] | None
Block = Callable[[int, int, Callable[[int], nn.Module], Init], nn.Module]


def halvings(spec: DataSpec, deepest: int) -> int:
    """n = floor(log2(min(H, W) / 4)): how often an image is halved until its shorter side is 4 to 7 pixels.

    Raises
    ------
    BadValue : the data are no images, a side is below 8, not divisible by 2^n, or n is beyond `deepest`.
    """
    require_images(spec)
    shortest = min(spec.height, spec.width)
    n = int(math.log2(shortest / 4)) if shortest >= 8 else 0
    size = f"{spec.height}x{spec.width}"
    if n == 0:
        raise BadValue(f"images of {size} are too small; the shorter side must be 8 or more", hint="data.size=32")
    if n > deepest:
        raise BadValue(f"images of {size} are too large; the widths end at {4 * 2**deepest}", hint="data.size=32")
    if spec.height % 2**n or spec.width % 2**n:
        raise BadValue(
            f"images of {size} cannot be halved {n} times; {2**n} must divide both sides", hint="data.size=32"
        )
    return n


def bottom_of(spec: DataSpec, n: int, key: str = "widths") -> tuple[int, int]:
    """(h, w) of images that are halved `n` times because of the widths that are listed under `key`.

    Raises
    ------
    BadValue : the data are no images, or 2^n does not divide a side.
    """
    require_images(spec)
    if spec.height % 2**n or spec.width % 2**n:
        raise BadValue(
            f"images of {spec.height}x{spec.width} cannot be halved {n} times, as these {n + 1} widths ask for;"
            f" {2**n} must divide both sides",
            key=key,
            hint="data.size=32",
        )
    return spec.height >> n, spec.width >> n


def require_images(spec: DataSpec) -> None:
    """Refuse data that are not (C, H, W).

    Raises
    ------
    BadValue : they are not.
    """
    if len(spec.shape) != 3:
        raise BadValue(f"this network makes or reads images (C, H, W), not {spec.shape}", hint="data.size=32")


class PyramidGenerator(StackedGenerator):
    """What SNGAN's generator and StudioGAN's DCGAN share: a linear layer, then blocks that double the map.

    Parameters
    ----------
    spec : what to make.
    channels : before, between and after the blocks.
    bottom : (h, w) of the first map.
    block : makes one of them from channels in and out, what makes a norm, and the initialisation of layers.
    norm_eps : added to the variance in batch norms.

    Raises
    ------
    BadValue : a resolution that does not occur, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        channels: Sequence[int],
        stem: tuple[int, int],
        block: Block,
        *,
        z_dim: int,
        codes: Codes | None,
        conditioning: str | None,
        attention: Attention,
        spectral_norm: bool,
        power_iteration: PowerIteration | None,
        norm_eps: float,
    ) -> None:
        super().__init__()
        require_classes(conditioning, spec)
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        self.init = init = layer_init(orthogonal, spectral_norm=spectral_norm, power_iteration=power_iteration)
        self.codes = codes
        self.reader = CodeReader(codes, z_dim, init)
        self.latents = {"z": LatentSpec((self.reader.latent_dim,), "normal")}
        condition_dim = self.classes + self.reader.condition_dim

        def norm(channels: int) -> nn.Module:
            if condition_dim:
                return ConditionalBatchNorm2d(channels, condition_dim, eps=norm_eps, init=init)
            return BatchNorm2d(channels, eps=norm_eps)

        h, w = stem
        self.stem_shape = (channels[0], h, w)
        after = attention_blocks(attention, [(h << i, w << i) for i in range(1, len(channels))])
        self.project = init(nn.Linear(z_dim, channels[0] * h * w))
        blocks = (block(in_, out, norm, init) for in_, out in pairwise(channels))
        self.blocks = with_attention(blocks, channels[1:], after, init)

    def begin(self, latent: Tensor, label: Tensor | None) -> tuple[Tensor, Conditions]:
        z, codes = self.reader(latent)  # (N, z_dim)
        y = (one_hot(label, self.classes, latent),) if self.classes else ()
        condition = torch.cat([*y, *codes], 1) if y or codes else None  # (N, classes + codes)
        h = self.project(z).unflatten(1, self.stem_shape)  # (N, ch, H/2^n, W/2^n)
        return h, [condition] * self.stages


def with_attention(
    blocks: Iterable[nn.Module], channels: Sequence[int], after: frozenset[int], init: Init
) -> nn.ModuleList:
    """Blocks, of which some (numbered from 1) are followed by self-attention on the channels that they give."""
    layers = nn.ModuleList()
    for number, (block, out) in enumerate(zip(blocks, channels, strict=True), start=1):
        layers.append(block)
        if number in after:
            layers.append(SelfAttention(out, init))
    return layers


def attention_blocks(attention: Attention, outputs: Sequence[tuple[int, int]]) -> frozenset[int]:
    """Numbers (from 1) of the blocks that self-attention follows.

    Parameters
    ----------
    attention : one place or several. A number is a resolution, the shorter side of a feature map, and means the first
        block whose output has it; "block3" is the third block, for those that share a resolution.
    outputs : (h, w) after each block.

    Raises
    ------
    BadValue : a place that does not occur, or whose map is too small to pool.
    """
    if attention is None:
        return frozenset()
    blocks = set()
    resolutions = [min(size) for size in outputs]
    usable = [resolution for resolution in resolutions if resolution >= 2]
    for place in attention if isinstance(attention, tuple) else (attention,):
        names = [f"block{number}" for number in range(1, len(outputs) + 1)]
        block = resolutions.index(place) if place in usable else names.index(place) if place in names else None
        if block is None or resolutions[block] < 2:
            known = ", ".join(str(resolution) for resolution in dict.fromkeys(usable))
            raise BadValue(
                f"there is no feature map of {place!r} to attend over; there are {known or 'none'} pixels"
                f" after {names[0]} to {names[-1]}",
                key="attention",
                hint=f"attention={usable[0]}" if usable else "leave attention out",
            )
        blocks.add(block + 1)
    return frozenset(blocks)


def sizes_after(halved: Sequence[bool], spec: DataSpec) -> list[tuple[int, int]]:
    """(h, w) of a critic's map after each block, of which some halve it."""
    return [(spec.height >> sum(halved[: i + 1]), spec.width >> sum(halved[: i + 1])) for i in range(len(halved))]


def one_hot(label: Tensor | None, num_classes: int, like: Tensor) -> Tensor:
    """Labels (N,) int64 -> (N, num_classes) in the type of `like`.

    Raises
    ------
    UsageError : there are no labels.
    """
    if label is None:
        raise UsageError("a conditional generator was given no labels", hint="pass label=(N,) int64")
    return F.one_hot(label, num_classes).to(like.dtype)


def require_classes(conditioning: str | None, spec: DataSpec) -> None:
    """Refuse a conditional generator for data without labels.

    Raises
    ------
    BadValue : `conditioning` is set and the data have no classes.
    """
    if conditioning is not None and spec.num_classes == 0:
        raise BadValue(
            f"conditioning {conditioning!r} needs labelled data and these have no classes",
            key="conditioning",
            hint="networks.generator.conditioning=null",
        )
