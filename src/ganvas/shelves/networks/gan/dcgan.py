"""DCGAN: all-convolutional pairs (Radford et al. 2016, "Unsupervised Representation Learning with DCGANs", section 3).

Two forms are in use, and both are here:

- `dcgan-*`, the paper's figure 1 as PyTorch's own example has it: 4x4 transposed convolutions without bias, all weights
  from N(0, 0.02^2). At 64 pixels with the default widths it has exactly that example's 3,576,704 and 2,765,568
  parameters. The paper itself starts from 1024 channels (`width: 1024`).
- `dcgan-deep-*`, PyTorch-StudioGAN's "deep_conv": a linear layer first, a 3x3 convolution last, and a critic of twice
  the depth after Miyato et al. 2018, table 3. It is the DCGAN of StudioGAN's tables. ReLU everywhere, as published.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.codes import CodeReader, Codes
from ganvas.nn.init import Init, layer_init, normal, orthogonal
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d, NoNorm
from ganvas.nn.spectral import PowerIteration
from ganvas.nn.stages import Conditions, StackedGenerator
from ganvas.nn.virtual_batch_norm import VirtualBatchNorm2d
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import (
    Attention,
    PyramidGenerator,
    attention_blocks,
    bottom_of,
    halvings,
    one_hot,
    require_classes,
    sizes_after,
    with_attention,
)
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, LatentSpec, Scores, StageOutput

DEEPEST = 8  # 1024 pixels; the narrowest map then has width / 128 channels
LEAK = 0.2
STUDIO_BN_EPS = 1e-4


# Radford et al. 2016, section 4: weights from N(0, 0.02^2); gains from N(1, 0.02^2), as in the authors' code
def _gain(norm: nn.BatchNorm2d | nn.GroupNorm) -> nn.Module:
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


@network("dcgan-generator", system="dcgan", paper="Radford et al. 2016, figure 1", tiny={"width": 8, "z_dim": 8})
class DCGANGenerator(StackedGenerator):
    """Transposed-convolution generator of DCGAN.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024 pixels.

    Parameters
    ----------
    spec : what to make.
    width : channels of the first map, halved at each doubling of the resolution.
    z_dim : length of the latent vector, drawn from N(0, 1).
    codes : InfoGAN's codes, whose entries come after those of `z_dim`; None has none.
    conditioning : "batch-norm" gives the norms a gain and bias per class, "concat" appends the one-hot label to the
        latent; None ignores labels.
    norm : "virtual" normalises by a fixed reference batch instead of the present one (Salimans et al. 2016), so that
        images do not depend on each other while training either. "weight" normalises weights instead of maps, with
        first scales and biases from the first batch (Salimans & Kingma 2016).
    reference : images in the batch of "virtual"; each pass makes so many more.

    Raises
    ------
    BadValue : a size that cannot be halved so often, labels asked for and not there, or norms without condition.
    """

    reference_z: Tensor
    reference_label: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 512,
        z_dim: Annotated[int, Gt(0)] = 100,
        codes: Codes | None = None,
        conditioning: Literal["batch-norm", "concat"] | None = None,
        norm: Literal["batch", "virtual", "weight"] = "batch",
        reference: Annotated[int, Gt(0)] = 64,
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        require_classes(conditioning, spec)
        init = layer_init(normal, weight_norm=norm == "weight")
        self.reader = CodeReader(codes, z_dim, init)
        self.codes = codes
        self.latents = {"z": LatentSpec((self.reader.latent_dim,), "normal")}
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        self.concat = conditioning == "concat"
        condition_dim = (self.classes if conditioning == "batch-norm" else 0) + self.reader.condition_dim
        if norm != "batch" and condition_dim:
            kind = "conditioning 'batch-norm'" if conditioning == "batch-norm" else "codes.into 'norms'"
            instead = "conditioning=concat" if conditioning == "batch-norm" else "codes.into=latent"
            raise BadValue(
                f"{kind} brings batch norms of its own, in place of {norm!r} ones", key="norm",
                hint=f"networks.generator.{instead}",
            )  # fmt: skip
        self.reference = reference if norm == "virtual" else 0
        if self.reference:  # chosen at the start and kept with the weights
            self.register_buffer("reference_z", torch.randn(reference, self.reader.latent_dim))
            self.register_buffer("reference_label", torch.arange(reference) % max(1, self.classes))

        def norm_of(channels: int) -> nn.Module:
            if condition_dim:
                return ConditionalBatchNorm2d(channels, condition_dim, init=normal)
            if norm == "weight":
                return NoNorm()
            return _gain(VirtualBatchNorm2d(channels, reference) if norm == "virtual" else BatchNorm2d(channels))

        channels = [max(1, width >> i) for i in range(n)]
        inputs = z_dim + (self.classes if self.concat else 0)
        stem = (spec.height >> n, spec.width >> n)
        bias = norm == "weight"  # norms of maps would take it away again, and the last layer has none as published
        self.project = init(nn.ConvTranspose2d(inputs, channels[0], stem, bias=bias))
        self.norms = nn.ModuleList([norm_of(maps) for maps in channels])
        self.ups = nn.ModuleList(
            [
                init(nn.ConvTranspose2d(in_, out, 4, stride=2, padding=1, bias=bias))
                for in_, out in zip(channels, [*channels[1:], spec.channels], strict=True)
            ]
        )

    @property
    def stages(self) -> int:
        return len(self.ups)

    def begin(self, latent: Tensor, label: Tensor | None) -> tuple[Tensor, Conditions]:
        if self.reference:  # N is R + N up to `finish`
            latent = torch.cat([self.reference_z.to(latent), latent])
            label = None if label is None else torch.cat([self.reference_label, label])
        z, codes = self.reader(latent)  # (N, z_dim)
        y = (one_hot(label, self.classes, latent),) if self.classes else ()  # (N, classes)
        if self.concat:
            z, y = torch.cat([z, *y], 1), ()  # (N, z_dim + classes)
        condition = torch.cat([*y, *codes], 1) if y or codes else None
        h = self.project(z[:, :, None, None])  # (N, width, H/2^n, W/2^n)
        return h, [condition] * self.stages

    def stage(self, number: int, h: Tensor, condition: Tensor | None) -> Tensor:
        normed = F.relu(self.norms[number](h, condition), inplace=not isinstance(self.norms[number], NoNorm))
        up: Tensor = self.ups[number](normed)  # (N, ch / 2, 2h, 2w)
        return up

    def finish(self, h: Tensor) -> Tensor:
        return h[self.reference :].tanh()  # (N, C, H, W)

    # The reference batch is no map of the caller's: it goes beside the conditions.
    def to_stage(self, latent: Tensor, label: Tensor | None = None, *, stages: int) -> StageOutput:
        half = super().to_stage(latent, label, stages=stages)
        R = self.reference
        return StageOutput(half.features[R:], stages, (*half.conditions, half.features[:R]))

    def from_stage(self, half: StageOutput) -> Tensor:
        *conditions, reference = half.conditions
        assert reference is not None
        return super().from_stage(StageOutput(torch.cat([reference, half.features]), half.stage, conditions))


@network("dcgan-discriminator", system="dcgan", paper="Radford et al. 2016, section 3", tiny={"width": 8})
class DCGANDiscriminator(Critic):
    """Strided-convolution critic of DCGAN; its last 4x4 convolution is the head's linear layer on the flattened map.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024 pixels.

    Parameters
    ----------
    spec : what to score.
    width : channels of the last map, halved towards the pixels. Features have length width * H/2^n * W/2^n.
    norm : "batch" is the paper's (none after the first convolution); it makes scores depend on the rest of the batch.
        "layer" normalises each map by itself (Ba et al. 2016), in the same places; "spectral" and "weight" normalise
        every weight matrix of critic and head instead, "weight" with first scales and biases from the first batch
        (Salimans & Kingma 2016); "none" does neither.
    power_iteration : how the largest singular value is followed, under `norm: spectral`; None takes one iteration.
    conditioning : how labels reach the critic.

    Raises
    ------
    BadValue : a size that cannot be halved so often, or labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 512,
        norm: Literal["batch", "layer", "spectral", "weight", "none"] = "batch",
        power_iteration: PowerIteration | None = None,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        init = layer_init(
            normal, spectral_norm=norm == "spectral", weight_norm=norm == "weight", power_iteration=power_iteration
        )
        channels = [max(1, width >> i) for i in reversed(range(n))]
        bias = norm != "batch"  # batch norm would take it away again
        self.convs = nn.ModuleList(
            [
                init(nn.Conv2d(in_, out, 4, stride=2, padding=1, bias=bias))
                for in_, out in zip([spec.channels, *channels[:-1]], channels, strict=True)
            ]
        )

        def norm_of(channels: int) -> nn.Module:
            if norm == "batch":
                return _gain(BatchNorm2d(channels))
            return _gain(nn.GroupNorm(1, channels)) if norm == "layer" else nn.Identity()

        self.norms = nn.ModuleList([norm_of(maps) if i > 0 else nn.Identity() for i, maps in enumerate(channels)])
        features = channels[-1] * (spec.height >> n) * (spec.width >> n)
        self.head = build_head(conditioning, features, spec, init, bias)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width * H * W / 4^n)."""
        h = data
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(conv(h)), LEAK, inplace=True)  # (N, 2 ch, h/2, w/2)
        return self.head(h.flatten(1), label)


class DeepGeneratorBlock(nn.Module):
    """Doubles the resolution: transposed 4x4 convolution, norm, relu."""

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], init: Init) -> None:
        super().__init__()
        self.up = init(nn.ConvTranspose2d(in_, out, 4, stride=2, padding=1))
        self.norm = norm(out)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return F.relu(self.norm(self.up(x), condition), inplace=True)  # (N, out, 2h, 2w)


@network(
    "dcgan-deep-generator",
    system="dcgan",
    paper="Radford et al. 2016; Miyato et al. 2018, table 3",
    tiny={"widths": [8, 8, 4], "z_dim": 8},
)
class DCGANDeepGenerator(PyramidGenerator):
    """DCGAN's generator as StudioGAN trains it: linear, transposed convolutions, a 3x3 convolution to pixels.

    Images of any channel count whose sides are divisible by 2^k for k = len(widths) - 1.

    Parameters
    ----------
    spec : what to make.
    widths : channels of each map from the first one on; each step doubles the resolution.
    z_dim : length of the latent vector, drawn from N(0, 1).
    codes : InfoGAN's codes, whose entries come after those of `z_dim`; None has none.
    conditioning : "batch-norm" gives every block's norm a gain and bias per class; None ignores labels.
    attention : self-attention after the block with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second block.
    spectral_norm : normalise every weight matrix.
    power_iteration : how the largest singular value is followed, under `spectral_norm`; None takes one iteration.

    Raises
    ------
    BadValue : a size that cannot be halved so often, a resolution that does not occur, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(2)] = (512, 256, 128, 64),
        z_dim: Annotated[int, Gt(0)] = 128,
        codes: Codes | None = None,
        conditioning: Literal["batch-norm"] | None = None,
        attention: Attention = None,
        spectral_norm: bool = False,
        power_iteration: PowerIteration | None = None,
    ) -> None:
        super().__init__(
            spec, widths, bottom_of(spec, len(widths) - 1), DeepGeneratorBlock, z_dim=z_dim, codes=codes,
            conditioning=conditioning, attention=attention, spectral_norm=spectral_norm,
            power_iteration=power_iteration, norm_eps=STUDIO_BN_EPS,
        )  # fmt: skip
        self.to_image = self.init(nn.Conv2d(widths[-1], spec.channels, 3, padding=1))

    def finish(self, h: Tensor) -> Tensor:
        image: Tensor = self.to_image(h).tanh()  # (N, C, H, W)
        return image


class DeepCriticBlock(nn.Module):
    """Halves the resolution: 3x3 convolution, norm, relu, strided 4x4 convolution, norm, relu."""

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], init: Init) -> None:
        super().__init__()
        self.conv = init(nn.Conv2d(in_, out, 3, padding=1))
        self.norm1 = norm(out)
        self.down = init(nn.Conv2d(out, out, 4, stride=2, padding=1))
        self.norm2 = norm(out)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv(x)))  # (N, out, h, w)
        return F.relu(self.norm2(self.down(h)))  # (N, out, h/2, w/2)


@network(
    "dcgan-deep-discriminator",
    system="dcgan",
    paper="Radford et al. 2016; Miyato et al. 2018, table 3",
    tiny={"widths": [4, 8, 8]},
)
class DCGANDeepDiscriminator(Critic):
    """DCGAN's critic as StudioGAN trains it: two convolutions a resolution, sum over the last map, head.

    Images of any channel count whose sides are divisible by 2^k for k = len(widths) - 1.

    Parameters
    ----------
    spec : what to score.
    widths : channels after each halving, and then of the features (the last entry).
    norm : "batch" puts batch norm after each convolution, which makes scores depend on the rest of the batch;
        "spectral" normalises every weight matrix of critic and head; "none" does neither.
    power_iteration : how the largest singular value is followed, under `norm: spectral`; None takes one iteration.
    conditioning : how labels reach the critic.
    attention : self-attention after the block with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second block.

    Raises
    ------
    BadValue : a size that cannot be halved so often, a resolution that does not occur, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(2)] = (64, 128, 256, 512),
        norm: Literal["batch", "spectral", "none"] = "batch",
        power_iteration: PowerIteration | None = None,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        attention: Attention = None,
    ) -> None:
        super().__init__()
        n = len(widths) - 1
        bottom_of(spec, n)
        init = layer_init(orthogonal, spectral_norm=norm == "spectral", power_iteration=power_iteration)

        def norm_of(channels: int) -> nn.Module:
            return BatchNorm2d(channels, eps=STUDIO_BN_EPS) if norm == "batch" else nn.Identity()

        after = attention_blocks(attention, sizes_after([True] * n, spec))
        blocks = (DeepCriticBlock(in_, out, norm_of, init) for in_, out in pairwise((spec.channels, *widths[:-1])))
        self.blocks = with_attention(blocks, widths[:-1], after, init)
        self.conv = init(nn.Conv2d(widths[-2], widths[-1], 3, padding=1))
        self.norm = norm_of(widths[-1])
        self.head = build_head(conditioning, widths[-1], spec, init)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, widths[-1])."""
        h = data
        for block in self.blocks:
            h = block(h)
        features = F.relu(self.norm(self.conv(h))).sum((2, 3))  # (N, D)
        return self.head(features, label)
