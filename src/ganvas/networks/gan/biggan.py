"""The residual pair of BigGAN: latents in chunks, one class embedding for all norms, spectral norm on both sides.

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B, tables 4-6. Two
implementations are in use, the first author's (ajbrock/BigGAN-PyTorch) and PyTorch-StudioGAN's. They compute the same
but for three details, and each can be had:

- For images of 64 pixels, which the paper has no table for, the author's generator has widths (16, 16, 8, 4, 2) and
  StudioGAN's (16, 8, 4, 2, 1). The first is the table here; the second is reached by listing the widths.
- StudioGAN's batch norms have eps = 1e-4, the author's 1e-5: `norm_eps`.
- StudioGAN's critic skips from relu(x), because its activations work in place, the author's from x: `skip`.

BigGAN-deep is in `biggan_deep.py`. Where it makes no difference to the result, the cheaper order is used: a 1x1
convolution commutes with nearest upsampling and with average pooling, so it always runs on the smaller map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue, UsageError
from ganvas.networks.gan.pyramid import attention_blocks, halvings, one_hot, require_classes, require_images
from ganvas.networks.gan.sngan import BN_EPS, DEEPEST, GeneratorBlock, critic_channels
from ganvas.networks.gan.sngan import GENERATOR_WIDTHS as SNGAN_WIDTHS
from ganvas.networks.heads import build_head
from ganvas.nn.attention import SelfAttention
from ganvas.nn.init import Treatment, orthogonal, treatment
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d
from ganvas.parts import Factory, network
from ganvas.types import CriticHead, DataSpec, LatentSpec, Scores

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
    require_images(spec)
    n = len(width) - 1
    if n < 1:
        raise BadValue("a list of widths needs one before the first block and one after each", key="width")
    if spec.height % 2**n or spec.width % 2**n:
        raise BadValue(
            f"images of {spec.height}x{spec.width} cannot be halved {n} times, as these {n + 1} widths ask for;"
            f" {2**n} must divide both sides",
            key="width",
            hint="data.size=32",
        )
    return list(width), (spec.height >> n, spec.width >> n)


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
class BigGANGenerator(nn.Module):
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
    conditioning : "shared" gives all norms one learnt vector of the class; "batch-norm" gives every norm a table of its
        own, a gain and a bias per class; None ignores labels.
    shared_dim : length of that vector.
    attention : self-attention after the block with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second block. 64 in the paper.
    spectral_norm : normalise every weight matrix but those that are looked up by class.
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
        conditioning: Literal["shared", "batch-norm"] | None = None,
        shared_dim: Positive = 128,
        attention: int | str | tuple[int | str, ...] | None = None,
        spectral_norm: bool = True,
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
        self.latents = {"z": LatentSpec((slots * chunk,), "normal")}
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning == "batch-norm" else 0
        self.shared = shared_embedding(spec.num_classes, shared_dim) if conditioning == "shared" else None
        told = (shared_dim if self.shared else self.classes) + (chunk if hierarchical else 0)
        treat = treatment(orthogonal, spectral_norm=spectral_norm)

        def norm(channels: int) -> nn.Module:
            if told:
                of_condition = orthogonal if self.classes else treat
                return ConditionalBatchNorm2d(channels, told, eps=norm_eps, treat=of_condition)
            return BatchNorm2d(channels, eps=norm_eps)

        self.bottom = (channels[0], h, w)
        attended = attention_blocks(attention, [(h << i, w << i) for i in range(1, n + 1)])
        self.project = treat(nn.Linear(chunk, channels[0] * h * w))
        self.blocks = nn.ModuleList()
        for i in range(n):
            self.blocks.append(GeneratorBlock(channels[i], channels[i + 1], norm, treat))
            if i + 1 in attended:
                self.blocks.append(SelfAttention(channels[i + 1], treat))
        self.norm = BatchNorm2d(channels[-1], eps=norm_eps)
        self.to_image = treat(nn.Conv2d(channels[-1], spec.channels, 3, padding=1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> images (N, C, H, W) in [-1, 1]."""
        z, *chunks = latent.reshape(len(latent), *self.chunks).unbind(1)  # n + 1 times (N, chunk), or once (N, z_dim)
        y: tuple[Tensor, ...] = ()
        if self.shared is not None:
            y = (class_vector(self.shared, label),)  # (N, shared_dim)
        elif self.classes:
            y = (one_hot(label, self.classes, latent),)  # (N, classes)
        h = self.project(z).unflatten(1, self.bottom)  # (N, ch, H/2^n, W/2^n)
        for block in self.blocks:
            if isinstance(block, SelfAttention):
                h = block(h)
                continue
            told = y + ((chunks.pop(0),) if chunks else ())
            h = block(h, torch.cat(told, 1) if told else None)  # (N, ch, 2h, 2w)
        h = F.relu(self.norm(h), inplace=True)
        image: Tensor = self.to_image(h).tanh()  # (N, C, H, W)
        return image


class CriticBlock(nn.Module):
    """Residual block that may halve the map: (norm, relu, conv, norm, relu, conv, pool) + (norm, pool, 1x1 conv).

    The block on pixels has no leading norm and activation. The skip is the identity where neither the resolution nor
    the width changes.
    """

    def __init__(
        self,
        in_: int,
        out: int,
        norm: Callable[[int], nn.Module],
        treat: Treatment,
        *,
        first: bool,
        halve: bool,
        wide: bool,
        skip: Literal["input", "relu"],
    ) -> None:
        super().__init__()
        inner = out if wide else in_
        self.first, self.halve, self.from_input = first, halve, skip == "input"
        self.norm1 = nn.Identity() if first else norm(in_)
        self.conv1 = treat(nn.Conv2d(in_, inner, 3, padding=1))
        self.norm2 = norm(inner)
        self.conv2 = treat(nn.Conv2d(inner, out, 3, padding=1))
        if halve or in_ != out:
            self.norm0: nn.Module | None = norm(in_)
            self.skip: nn.Module | None = treat(nn.Conv2d(in_, out, 1))
        else:
            self.norm0 = self.skip = None

    def forward(self, x: Tensor) -> Tensor:
        a = x if self.first else F.relu(self.norm1(x))
        h = self.conv2(F.relu(self.norm2(self.conv1(a))))
        x = x if self.from_input else a
        if self.norm0 is not None:
            x = self.norm0(x)
        if self.halve:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)  # (N, out, h/2, w/2), (N, in, h/2, w/2)
        if self.skip is not None:
            x = self.skip(x)  # (N, out, ...)
        out: Tensor = h + x
        return out


@network(
    "biggan-discriminator",
    system="biggan",
    paper="Brock et al. 2019, appendix B, figure 15, tables 4b-6b",
    tiny={"width": 8},
)
class BigGANDiscriminator(nn.Module):
    """Residual critic of BigGAN; with `conditioning: projection` and `attention` as published.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels.

    Parameters
    ----------
    spec : what to score.
    width : channels of the widest map, and D, the length of the features; 1536 in the paper (ch = 96). Below 64 pixels
        all maps have it, above they start at width / 16.
    norm : "spectral" normalises every weight matrix of critic and head; "batch" puts batch norm before each
        activation, which makes scores depend on the rest of the batch; "none" does neither.
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
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        attention: int | str | tuple[int | str, ...] | None = None,
        wide: bool = True,
        skip: Literal["input", "relu"] = "input",
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        treat = treatment(orthogonal, spectral_norm=norm == "spectral")

        def norm_of(channels: int) -> nn.Module:
            return BatchNorm2d(channels, eps=BN_EPS) if norm == "batch" else nn.Identity()

        channels = [spec.channels, *critic_channels(width, n)]
        # Small images are halved twice and then go through two blocks at one size; large ones through one such block.
        halved = [True, True, False, False] if n < 4 else [True] * n + [False]
        attended = attention_blocks(attention, sizes_after(halved, spec))
        self.blocks = nn.ModuleList()
        for i, halve in enumerate(halved):
            self.blocks.append(
                CriticBlock(
                    channels[i], channels[i + 1], norm_of, treat, first=i == 0, halve=halve, wide=wide, skip=skip
                )
            )
            if i + 1 in attended:
                self.blocks.append(SelfAttention(channels[i + 1], treat))
        self.head = build_head(conditioning, channels[-1], spec, treat)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width)."""
        h = data
        for block in self.blocks:
            h = block(h)
        features = F.relu(h).sum((2, 3))  # (N, D)
        return self.head(features, label)


def sizes_after(halved: list[bool], spec: DataSpec) -> list[tuple[int, int]]:
    """(h, w) of a critic's map after each block, of which some halve it."""
    return [(spec.height >> sum(halved[: i + 1]), spec.width >> sum(halved[: i + 1])) for i in range(len(halved))]
