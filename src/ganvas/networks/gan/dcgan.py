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
from typing import Annotated, Literal

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.networks.gan.pyramid import attention_blocks, bottom_of, halvings, one_hot, require_classes
from ganvas.networks.heads import build_head
from ganvas.nn.attention import SelfAttention
from ganvas.nn.init import Treatment, normal, orthogonal, treatment
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d
from ganvas.nn.virtual_batch_norm import VirtualBatchNorm2d
from ganvas.parts import Factory, network
from ganvas.types import CriticHead, DataSpec, LatentSpec, Scores

DEEPEST = 8  # 1024 pixels; the narrowest map then has width / 128 channels
LEAK = 0.2
STUDIO_BN_EPS = 1e-4


# Radford et al. 2016, section 4: weights from N(0, 0.02^2); gains from N(1, 0.02^2), as in the authors' code
def _gain(norm: nn.BatchNorm2d | nn.GroupNorm) -> nn.Module:
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


@network("dcgan-generator", system="dcgan", paper="Radford et al. 2016, figure 1", tiny={"width": 8, "z_dim": 8})
class DCGANGenerator(nn.Module):
    """Transposed-convolution generator of DCGAN.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024 pixels.

    Parameters
    ----------
    spec : what to make.
    width : channels of the first map, halved at each doubling of the resolution.
    z_dim : length of the latent vector, drawn from N(0, 1).
    conditioning : "batch-norm" gives the norms a gain and bias per class, "concat" appends the one-hot label to the
        latent; None ignores labels.
    norm : "virtual" normalises by a fixed reference batch instead of the present one (Salimans et al. 2016), so that
        images do not depend on each other while training either.
    reference : images in that batch; each pass makes so many more.

    Raises
    ------
    BadValue : a size that cannot be halved so often, labels asked for and not there, or norms that cannot be both.
    """

    reference_z: Tensor
    reference_label: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 512,
        z_dim: Annotated[int, Gt(0)] = 100,
        conditioning: Literal["batch-norm", "concat"] | None = None,
        norm: Literal["batch", "virtual"] = "batch",
        reference: Annotated[int, Gt(0)] = 64,
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        require_classes(conditioning, spec)
        if norm == "virtual" and conditioning == "batch-norm":
            raise BadValue(
                "conditioning 'batch-norm' brings norms of its own, which cannot be virtual", key="norm",
                hint="networks.generator.conditioning=concat",
            )  # fmt: skip
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        self.concat = conditioning == "concat"
        self.reference = reference if norm == "virtual" else 0
        if self.reference:  # chosen at the start and kept with the weights
            self.register_buffer("reference_z", torch.randn(reference, z_dim))
            self.register_buffer("reference_label", torch.arange(reference) % max(1, self.classes))

        def norm_of(channels: int) -> nn.Module:
            if conditioning == "batch-norm":
                return ConditionalBatchNorm2d(channels, self.classes, treat=normal)
            return _gain(VirtualBatchNorm2d(channels, reference) if norm == "virtual" else BatchNorm2d(channels))

        channels = [max(1, width >> i) for i in range(n)]
        inputs = z_dim + (self.classes if self.concat else 0)
        bottom = (spec.height >> n, spec.width >> n)
        self.project = normal(nn.ConvTranspose2d(inputs, channels[0], bottom, bias=False))
        self.norms = nn.ModuleList([norm_of(each) for each in channels])
        self.ups = nn.ModuleList(
            [
                normal(nn.ConvTranspose2d(in_, out, 4, stride=2, padding=1, bias=False))
                for in_, out in zip(channels, [*channels[1:], spec.channels], strict=True)
            ]
        )

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> images (N, C, H, W) in [-1, 1]."""
        if self.reference:  # N is R + N up to the last line
            latent = torch.cat([self.reference_z.to(latent), latent])
            label = None if label is None else torch.cat([self.reference_label, label])
        condition = one_hot(label, self.classes, latent) if self.classes else None  # (N, classes)
        if self.concat and condition is not None:
            latent = torch.cat([latent, condition], 1)  # (N, z_dim + classes)
        h: Tensor = self.project(latent[:, :, None, None])  # (N, width, H/2^n, W/2^n)
        for norm, up in zip(self.norms, self.ups, strict=True):
            h = up(F.relu(norm(h, condition), inplace=True))  # (N, ch / 2, 2h, 2w)
        return h[self.reference :].tanh()  # (N, C, H, W)


@network("dcgan-discriminator", system="dcgan", paper="Radford et al. 2016, section 3", tiny={"width": 8})
class DCGANDiscriminator(nn.Module):
    """Strided-convolution critic of DCGAN; its last 4x4 convolution is the head's linear layer on the flattened map.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024 pixels.

    Parameters
    ----------
    spec : what to score.
    width : channels of the last map, halved towards the pixels. Features have length width * H/2^n * W/2^n.
    norm : "batch" is the paper's (none after the first convolution); it makes scores depend on the rest of the batch.
        "layer" normalises each map by itself (Ba et al. 2016), in the same places; "spectral" normalises every weight
        matrix of critic and head instead; "none" does neither.
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
        norm: Literal["batch", "layer", "spectral", "none"] = "batch",
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        treat = treatment(normal, spectral_norm=norm == "spectral")
        channels = [max(1, width >> i) for i in reversed(range(n))]
        bias = norm != "batch"  # batch norm would take it away again
        self.convs = nn.ModuleList(
            [
                treat(nn.Conv2d(in_, out, 4, stride=2, padding=1, bias=bias))
                for in_, out in zip([spec.channels, *channels[:-1]], channels, strict=True)
            ]
        )

        def norm_of(channels: int) -> nn.Module:
            if norm == "batch":
                return _gain(BatchNorm2d(channels))
            return _gain(nn.GroupNorm(1, channels)) if norm == "layer" else nn.Identity()

        self.norms = nn.ModuleList([norm_of(each) if i > 0 else nn.Identity() for i, each in enumerate(channels)])
        features = channels[-1] * (spec.height >> n) * (spec.width >> n)
        self.head = build_head(conditioning, features, spec, treat, bias)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width * H * W / 4^n)."""
        h = data
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(conv(h)), LEAK, inplace=True)  # (N, 2 ch, h/2, w/2)
        return self.head(h.flatten(1), label)


class DeepGeneratorBlock(nn.Module):
    """Doubles the resolution: transposed 4x4 convolution, norm, relu."""

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], treat: Treatment) -> None:
        super().__init__()
        self.up = treat(nn.ConvTranspose2d(in_, out, 4, stride=2, padding=1))
        self.norm = norm(out)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return F.relu(self.norm(self.up(x), condition), inplace=True)  # (N, out, 2h, 2w)


@network(
    "dcgan-deep-generator",
    system="dcgan",
    paper="Radford et al. 2016; Miyato et al. 2018, table 3",
    tiny={"widths": [8, 8, 4], "z_dim": 8},
)
class DCGANDeepGenerator(nn.Module):
    """DCGAN's generator as StudioGAN trains it: linear, transposed convolutions, a 3x3 convolution to pixels.

    Images of any channel count whose sides are divisible by 2^k for k = len(widths) - 1.

    Parameters
    ----------
    spec : what to make.
    widths : channels of each map from the first one on; each step doubles the resolution.
    z_dim : length of the latent vector, drawn from N(0, 1).
    conditioning : "batch-norm" gives every block's norm a gain and bias per class; None ignores labels.
    attention : self-attention after the block with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second block.
    spectral_norm : normalise every weight matrix.

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
        conditioning: Literal["batch-norm"] | None = None,
        attention: int | str | tuple[int | str, ...] | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        n = len(widths) - 1
        h, w = bottom_of(spec, n)
        require_classes(conditioning, spec)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        treat = treatment(orthogonal, spectral_norm=spectral_norm)

        def norm(channels: int) -> nn.Module:
            if self.classes:
                return ConditionalBatchNorm2d(channels, self.classes, eps=STUDIO_BN_EPS, treat=treat)
            return BatchNorm2d(channels, eps=STUDIO_BN_EPS)

        self.bottom = (widths[0], h, w)
        attended = attention_blocks(attention, [(h << i, w << i) for i in range(1, n + 1)])
        self.project = treat(nn.Linear(z_dim, widths[0] * h * w))
        self.blocks = nn.ModuleList()
        for i in range(n):
            self.blocks.append(DeepGeneratorBlock(widths[i], widths[i + 1], norm, treat))
            if i + 1 in attended:
                self.blocks.append(SelfAttention(widths[i + 1], treat))
        self.to_image = treat(nn.Conv2d(widths[-1], spec.channels, 3, padding=1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> images (N, C, H, W) in [-1, 1]."""
        condition = one_hot(label, self.classes, latent) if self.classes else None  # (N, classes)
        h = self.project(latent).view(-1, *self.bottom)  # (N, widths[0], H/2^k, W/2^k)
        for block in self.blocks:
            h = block(h) if isinstance(block, SelfAttention) else block(h, condition)  # (N, ch, 2h, 2w)
        image: Tensor = self.to_image(h).tanh()  # (N, C, H, W)
        return image


class DeepCriticBlock(nn.Module):
    """Halves the resolution: 3x3 convolution, norm, relu, strided 4x4 convolution, norm, relu."""

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], treat: Treatment) -> None:
        super().__init__()
        self.conv = treat(nn.Conv2d(in_, out, 3, padding=1))
        self.norm1 = norm(out)
        self.down = treat(nn.Conv2d(out, out, 4, stride=2, padding=1))
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
class DCGANDeepDiscriminator(nn.Module):
    """DCGAN's critic as StudioGAN trains it: two convolutions a resolution, sum over the last map, head.

    Images of any channel count whose sides are divisible by 2^k for k = len(widths) - 1.

    Parameters
    ----------
    spec : what to score.
    widths : channels after each halving, and then of the features (the last entry).
    norm : "batch" puts batch norm after each convolution, which makes scores depend on the rest of the batch;
        "spectral" normalises every weight matrix of critic and head; "none" does neither.
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
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        attention: int | str | tuple[int | str, ...] | None = None,
    ) -> None:
        super().__init__()
        n = len(widths) - 1
        bottom_of(spec, n)
        treat = treatment(orthogonal, spectral_norm=norm == "spectral")

        def norm_of(channels: int) -> nn.Module:
            return BatchNorm2d(channels, eps=STUDIO_BN_EPS) if norm == "batch" else nn.Identity()

        attended = attention_blocks(attention, [(spec.height >> i, spec.width >> i) for i in range(1, n + 1)])
        self.blocks = nn.ModuleList()
        for i, (in_, out) in enumerate(zip((spec.channels, *widths[:-2]), widths[:-1], strict=True)):
            self.blocks.append(DeepCriticBlock(in_, out, norm_of, treat))
            if i + 1 in attended:
                self.blocks.append(SelfAttention(out, treat))
        self.conv = treat(nn.Conv2d(widths[-2], widths[-1], 3, padding=1))
        self.norm = norm_of(widths[-1])
        self.head = build_head(conditioning, widths[-1], spec, treat)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, widths[-1])."""
        h = data
        for block in self.blocks:
            h = block(h)
        features = F.relu(self.norm(self.conv(h))).sum((2, 3))  # (N, D)
        return self.head(features, label)
