"""The residual pair of BigGAN: latents in chunks, one class embedding for all norms, spectral norm on both sides.

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B, tables 4-6. Two
implementations are in use, the first author's (ajbrock/BigGAN-PyTorch) and PyTorch-StudioGAN's. They compute the same
but for three details, and each can be had:

- For images of 64 pixels, which the paper has no table for, the author's generator has widths (16, 16, 8, 4, 2) and
  StudioGAN's (16, 8, 4, 2, 1). The first is the table here; the second is reached by listing the widths.
- StudioGAN's batch norms have eps = 1e-4, the author's 1e-5: `norm_eps`.
- StudioGAN's critic skips from relu(x), because its activations work in place, the author's from x: `skip`.

BigGAN-deep is in `biggan_deep.py`, the blocks are in `nn/residual.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue, UsageError
from ganvas.nn.attention import SelfAttention
from ganvas.nn.codes import CodeReader, Codes
from ganvas.nn.init import layer_init, orthogonal
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d
from ganvas.nn.residual import GeneratorBlock, Skip
from ganvas.nn.spectral import PowerIteration
from ganvas.nn.stages import Conditions, StackedGenerator
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import (
    Attention,
    attention_blocks,
    bottom_of,
    halvings,
    one_hot,
    require_classes,
    with_attention,
)
from ganvas.shelves.networks.gan.sngan import DEEPEST, ResidualCritic
from ganvas.shelves.networks.gan.sngan import GENERATOR_WIDTHS as SNGAN_WIDTHS
from ganvas.types import CriticHead, DataSpec, LatentSpec

Positive = Annotated[int, Gt(0)]
Widths = Positive | tuple[Positive, ...]

# Brock et al. 2019, tables 4a, 5a and 6a (128, 256 and 512 pixels), as parts of 16: channels between the generator's
# blocks by their number. SNGAN's widths but for 64 pixels, where the author's code keeps its widest map longer.
GENERATOR_WIDTHS = SNGAN_WIDTHS | {4: (16, 16, 8, 4, 2)}


def generator_plan(width: Widths, spec: DataSpec) -> tuple[list[int], tuple[int, int]]:
    """Channels before, between and after a generator's blocks, and (h, w) of its first map.

    Parameters
    ----------
    width : channels of the widest map of the published table (all of them below 64 pixels), or all of them in order.

    Raises
    ------
    BadValue : a size that cannot be halved so often, or too few widths.
    """
    if isinstance(width, int):
        n = halvings(spec, DEEPEST)
        channels = [max(1, width * part // 16) for part in GENERATOR_WIDTHS.get(n, (16,) * (n + 1))]
        return channels, (spec.height >> n, spec.width >> n)
    n = len(width) - 1
    if n < 1:
        raise BadValue("a list of widths needs one before the first block and one after each", key="width")
    return list(width), bottom_of(spec, n, key="width")


def class_vector(embedding: nn.Embedding, label: Tensor | None) -> Tensor:
    """Labels (N,) int64 -> their rows (N, E) of the embedding that all norms share.

    Raises
    ------
    UsageError : there are no labels.
    """
    if label is None:
        raise UsageError("a conditional generator was given no labels", hint="pass label=(N,) int64")
    rows: Tensor = embedding(label)
    return rows


def shared_embedding(classes: int, dim: int) -> nn.Embedding:
    """(classes, dim), orthogonal. Never spectrally normalised: the author found that to cripple the generator."""
    embedding = nn.Embedding(classes, dim)
    orthogonal(embedding)
    return embedding


@network(
    "biggan-generator",
    system="biggan",
    paper="Brock et al. 2019, appendix B, figure 15, tables 4a-6a",
    tiny={"width": 8, "z_dim": 8, "shared_dim": 4},
)
class BigGANGenerator(StackedGenerator):
    """Residual generator of BigGAN: each block's norms see the class and a chunk of the latent of their own.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels;
    listed widths set n themselves.

    Parameters
    ----------
    spec : what to make.
    width : channels of the widest map; 1536 in the paper (ch = 96). Below 64 pixels all maps have it, above they narrow
        down to width / 16 (at 64 pixels to width / 8). Or a list: channels before, between and after the blocks.
    z_dim : length of the latent vector, drawn from N(0, 1). With `hierarchical` it is rounded down to a multiple of
        n + 1.
    hierarchical : the latent is cut into n + 1 chunks. The first makes the first map; each block's norms get one of the
        others beside what they know of the class. Otherwise the whole latent makes the first map.
    codes : InfoGAN's codes, whose entries come after those of `z_dim` and belong to no chunk; None has none.
    conditioning : "shared" gives all norms one learnt vector of the class; "batch-norm" gives every norm a table of its
        own, a gain and a bias per class; None ignores labels.
    shared_dim : length of that vector.
    attention : self-attention after the block with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second block. 64 in the paper.
    spectral_norm : normalise every weight matrix but those that are looked up by class.
    power_iteration : how the largest singular value is followed, under `spectral_norm`; None takes one iteration.
    norm_eps : added to the variance in batch norms.

    Raises
    ------
    BadValue : a size that cannot be halved so often, a resolution that does not occur, a latent shorter than its
        chunks are many, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Widths = 256,
        z_dim: Positive = 120,
        hierarchical: bool = True,
        codes: Codes | None = None,
        conditioning: Literal["shared", "batch-norm"] | None = None,
        shared_dim: Positive = 128,
        attention: Attention = None,
        spectral_norm: bool = True,
        power_iteration: PowerIteration | None = None,
        norm_eps: Annotated[float, Gt(0)] = 1e-5,
    ) -> None:
        super().__init__()
        channels, (h, w) = generator_plan(width, spec)
        n = len(channels) - 1
        require_classes(conditioning, spec)
        slots = n + 1 if hierarchical else 1
        chunk = z_dim // slots
        if chunk == 0:
            raise BadValue(
                f"a latent of {z_dim} cannot be cut into {slots} chunks", key="z_dim", hint=f"z_dim={8 * slots}"
            )
        self.chunks = (slots, chunk)
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning == "batch-norm" else 0
        self.shared = shared_embedding(spec.num_classes, shared_dim) if conditioning == "shared" else None
        init = layer_init(orthogonal, spectral_norm=spectral_norm, power_iteration=power_iteration)
        self.reader = CodeReader(codes, slots * chunk, init)
        self.codes = codes
        self.latents = {"z": LatentSpec((self.reader.latent_dim,), "normal")}
        condition_dim = (
            (shared_dim if self.shared else self.classes) + (chunk if hierarchical else 0) + self.reader.condition_dim
        )

        def norm(channels: int) -> nn.Module:
            if condition_dim:
                of_condition = orthogonal if self.classes else init
                return ConditionalBatchNorm2d(channels, condition_dim, eps=norm_eps, init=of_condition)
            return BatchNorm2d(channels, eps=norm_eps)

        self.stem_shape = (channels[0], h, w)
        after = attention_blocks(attention, [(h << i, w << i) for i in range(1, n + 1)])
        self.project = init(nn.Linear(chunk, channels[0] * h * w))
        blocks = (GeneratorBlock(in_, out, norm, init) for in_, out in pairwise(channels))
        self.blocks = with_attention(blocks, channels[1:], after, init)
        self.norm = BatchNorm2d(channels[-1], eps=norm_eps)
        self.to_image = init(nn.Conv2d(channels[-1], spec.channels, 3, padding=1))

    def begin(self, latent: Tensor, label: Tensor | None) -> tuple[Tensor, Conditions]:
        z, codes = self.reader(latent)  # (N, z_dim)
        z, *chunks = z.reshape(len(z), *self.chunks).unbind(1)  # n + 1 times (N, chunk), or once (N, z_dim)
        y: tuple[Tensor, ...] = codes
        if self.shared is not None:
            y = (class_vector(self.shared, label), *codes)  # (N, shared_dim)
        elif self.classes:
            y = (one_hot(label, self.classes, latent), *codes)  # (N, classes)
        conditions: list[Tensor | None] = []
        for block in self.blocks:
            inputs = () if isinstance(block, SelfAttention) else y + ((chunks.pop(0),) if chunks else ())
            conditions.append(torch.cat(inputs, 1) if inputs else None)
        return self.project(z).unflatten(1, self.stem_shape), conditions  # (N, ch, H/2^n, W/2^n)

    def finish(self, h: Tensor) -> Tensor:
        image: Tensor = self.to_image(F.relu(self.norm(h), inplace=True)).tanh()  # (N, C, H, W)
        return image


@network(
    "biggan-discriminator",
    system="biggan",
    paper="Brock et al. 2019, appendix B, figure 15, tables 4b-6b",
    tiny={"width": 8},
)
class BigGANDiscriminator(ResidualCritic):
    """Residual critic of BigGAN; with `conditioning: projection` and `attention` as published.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels.

    Parameters
    ----------
    spec : what to score.
    width : channels of the widest map, and D, the length of the features; 1536 in the paper (ch = 96). Below 64 pixels
        all maps have it, above they start at width / 16.
    norm : "spectral" normalises every weight matrix of critic and head; "batch" puts batch norm before each
        activation, which makes scores depend on the rest of the batch; "none" does neither.
    power_iteration : how the largest singular value is followed, under `norm: spectral`; None takes one iteration.
    conditioning : how labels reach the critic.
    attention : self-attention after the first block with this feature resolution (shorter side in pixels), or several
        of them; "block3" names the third block, where several share a resolution. 64 in the paper.
    wide : a block's first convolution already widens, as in BigGAN; otherwise its second one does, as in SNGAN.
    skip : what a block adds to its residual: its input, or its input after norm and relu (see the head of the file).

    Raises
    ------
    BadValue : a size that cannot be halved so often, a resolution that does not occur, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 256,
        norm: Literal["spectral", "batch", "none"] = "spectral",
        power_iteration: PowerIteration | None = None,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        attention: Attention = None,
        wide: bool = True,
        skip: Skip = "input",
    ) -> None:
        super().__init__(
            spec, width=width, norm=norm, power_iteration=power_iteration, conditioning=conditioning,
            attention=attention, wide=wide, skip=skip,
        )  # fmt: skip
