"""The pair of BigGAN-deep: bottleneck blocks, class and whole latent at every norm, skips that drop or add channels.

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B, figure 16 and
tables 7-9. Three implementations are in use: the first author's (ajbrock/BigGAN-PyTorch) and PyTorch-StudioGAN's
"legacy" and "studiogan" forms. StudioGAN's two are one function: their critics differ in whether a 1x1 convolution runs
before or after average pooling, and the two commute. It differs from the author's as `biggan.py` says: in the
generator's widths at 64 pixels, `norm_eps` and `skip`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.attention import SelfAttention
from ganvas.nn.codes import CodeReader, Codes
from ganvas.nn.init import Init, layer_init, orthogonal
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d
from ganvas.nn.residual import Skip
from ganvas.nn.spectral import PowerIteration
from ganvas.nn.stages import Conditions, StackedGenerator
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.biggan import Positive, Widths, class_vector, generator_plan, shared_embedding
from ganvas.shelves.networks.gan.pyramid import Attention, attention_blocks, halvings, require_classes, sizes_after
from ganvas.shelves.networks.gan.sngan import DEEPEST, critic_channels
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, LatentSpec, Scores

BOTTLENECK = 4  # a block's 3x3 convolutions have a quarter of its channels


class DeepGeneratorBlock(nn.Module):
    """Bottleneck of four normed convolutions, 1x1 3x3 3x3 1x1, that may double the resolution before the first 3x3.

    The skip drops the channels that the output has no room for (appendix B, figure 16a).
    """

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], init: Init, *, upsample: bool) -> None:
        super().__init__()
        inner = max(1, in_ // BOTTLENECK)
        self.out, self.upsample = out, upsample
        self.norm1 = norm(in_)
        self.conv1 = init(nn.Conv2d(in_, inner, 1))
        self.norm2 = norm(inner)
        self.conv2 = init(nn.Conv2d(inner, inner, 3, padding=1))
        self.norm3 = norm(inner)
        self.conv3 = init(nn.Conv2d(inner, inner, 3, padding=1))
        self.norm4 = norm(inner)
        self.conv4 = init(nn.Conv2d(inner, out, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x, condition), inplace=True))  # (N, in/4, h, w)
        h = F.relu(self.norm2(h, condition), inplace=True)
        x = x[:, : self.out]  # (N, out, h, w)
        if self.upsample:
            h, x = F.interpolate(h, scale_factor=2.0), F.interpolate(x, scale_factor=2.0)  # (N, ..., 2h, 2w)
        h = self.conv2(h)
        h = self.conv3(F.relu(self.norm3(h, condition), inplace=True))
        h = self.conv4(F.relu(self.norm4(h, condition), inplace=True))  # (N, out, ...)
        out: Tensor = h + x
        return out


@network(
    "biggan-deep-generator",
    system="biggan",
    paper="Brock et al. 2019, appendix B, figure 16, tables 7a-9a",
    tiny={"width": 16, "z_dim": 8, "shared_dim": 4},
)
class BigGANDeepGenerator(StackedGenerator):
    """Bottleneck generator of BigGAN-deep: every norm sees the class and the whole latent.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels;
    listed widths set n themselves. Each of the n stages is `depth` blocks, the last of which doubles the resolution.

    Parameters
    ----------
    spec : what to make.
    width : channels of the widest map; 2048 in the paper (ch = 128). Below 64 pixels all maps have it, above they
        narrow down to width / 16 (at 64 pixels to width / 8). Or a list that never rises: channels before, between and
        after the stages.
    z_dim : length of the latent vector, drawn from N(0, 1).
    codes : InfoGAN's codes, whose entries come after those of `z_dim`; None has none.
    depth : blocks of one stage.
    conditioning : "shared" gives all norms and the first map one learnt vector of the class beside the latent; None
        ignores labels.
    shared_dim : length of that vector.
    attention : self-attention after the stage with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second stage. 64 in the paper.
    spectral_norm : normalise every weight matrix but the class embedding.
    power_iteration : how the largest singular value is followed, under `spectral_norm`; None takes one iteration.
    norm_eps : added to the variance in batch norms.

    Raises
    ------
    BadValue : a size that cannot be halved so often, widths that rise, a resolution that does not occur, labels asked
        for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Widths = 256,
        z_dim: Positive = 128,
        codes: Codes | None = None,
        depth: Positive = 2,
        conditioning: Literal["shared"] | None = None,
        shared_dim: Positive = 128,
        attention: Attention = None,
        spectral_norm: bool = True,
        power_iteration: PowerIteration | None = None,
        norm_eps: Annotated[float, Gt(0)] = 1e-5,
    ) -> None:
        super().__init__()
        channels, (h, w) = generator_plan(width, spec)
        if any(in_ < out for in_, out in pairwise(channels)):
            raise BadValue(f"widths of a deep generator never rise, and {channels} do", key="width")
        n = len(channels) - 1
        require_classes(conditioning, spec)
        self.conditional = conditioning is not None
        self.shared = shared_embedding(spec.num_classes, shared_dim) if conditioning == "shared" else None
        init = layer_init(orthogonal, spectral_norm=spectral_norm, power_iteration=power_iteration)
        self.reader = CodeReader(codes, z_dim, init)
        self.codes = codes
        self.latents = {"z": LatentSpec((self.reader.latent_dim,), "normal")}
        condition_dim = z_dim + (shared_dim if self.shared else 0) + self.reader.condition_dim

        def norm(channels: int) -> nn.Module:
            return ConditionalBatchNorm2d(channels, condition_dim, eps=norm_eps, init=init)

        self.stem_shape = (channels[0], h, w)
        attended = attention_blocks(attention, [(h << i, w << i) for i in range(1, n + 1)])
        self.project = init(nn.Linear(condition_dim, channels[0] * h * w))
        self.blocks = nn.ModuleList()
        for i, (in_, out) in enumerate(pairwise(channels)):
            for _ in range(depth - 1):
                self.blocks.append(DeepGeneratorBlock(in_, in_, norm, init, upsample=False))
            self.blocks.append(DeepGeneratorBlock(in_, out, norm, init, upsample=True))
            if i + 1 in attended:
                self.blocks.append(SelfAttention(out, init))
        self.norm = BatchNorm2d(channels[-1], eps=norm_eps)
        self.to_image = init(nn.Conv2d(channels[-1], spec.channels, 3, padding=1))

    def begin(self, latent: Tensor, label: Tensor | None) -> tuple[Tensor, Conditions]:
        z, codes = self.reader(latent)  # (N, z_dim)
        y = () if self.shared is None else (class_vector(self.shared, label),)  # (N, shared_dim)
        condition = torch.cat([*y, z, *codes], 1)  # (N, shared_dim + z_dim + codes)
        h = self.project(condition).unflatten(1, self.stem_shape)  # (N, ch, H/2^n, W/2^n)
        return h, [condition] * self.stages

    def finish(self, h: Tensor) -> Tensor:
        image: Tensor = self.to_image(F.relu(self.norm(h), inplace=True)).tanh()  # (N, C, H, W)
        return image


class DeepCriticBlock(nn.Module):
    """Bottleneck of four convolutions, 1x1 3x3 3x3 1x1, each after a relu, that may halve the map before the last.

    The skip gets the channels that the output has beyond the input from a 1x1 convolution (appendix B, figure 16b).
    """

    def __init__(self, in_: int, out: int, init: Init, *, halve: bool, skip: Skip) -> None:
        super().__init__()
        inner = max(1, out // BOTTLENECK)
        self.halve, self.from_input = halve, skip == "input"
        self.conv1 = init(nn.Conv2d(in_, inner, 1))
        self.conv2 = init(nn.Conv2d(inner, inner, 3, padding=1))
        self.conv3 = init(nn.Conv2d(inner, inner, 3, padding=1))
        self.conv4 = init(nn.Conv2d(inner, out, 1))
        self.skip = init(nn.Conv2d(in_, out - in_, 1)) if in_ != out else None

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(x)
        h = self.conv1(a)  # (N, out/4, h, w)
        h = self.conv2(F.relu(h))
        h = F.relu(self.conv3(F.relu(h)))
        x = x if self.from_input else a
        if self.halve:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)  # (N, out/4, h/2, w/2), (N, in, h/2, w/2)
        if self.skip is not None:
            x = torch.cat([x, self.skip(x)], 1)  # (N, out, ...)
        out: Tensor = self.conv4(h) + x  # (N, out, ...)
        return out


@network(
    "biggan-deep-discriminator",
    system="biggan",
    paper="Brock et al. 2019, appendix B, figure 16, tables 7b-9b",
    tiny={"width": 16},
)
class BigGANDeepDiscriminator(Critic):
    """Bottleneck critic of BigGAN-deep; with `conditioning: projection` and `attention` as published.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels.
    After a 3x3 convolution come stages of `depth` blocks, the first of which halves the resolution; below 64 pixels
    there are three stages and the third keeps it.

    Parameters
    ----------
    spec : what to score.
    width : channels of the widest map, and D, the length of the features; 2048 in the paper (ch = 128). Below 64 pixels
        all maps have it, above they start at width / 16.
    depth : blocks of one stage.
    norm : "spectral" normalises every weight matrix of critic and head, "none" leaves them.
    power_iteration : how the largest singular value is followed, under `norm: spectral`; None takes one iteration.
    conditioning : how labels reach the critic.
    attention : self-attention after the first stage with this feature resolution (shorter side in pixels), or several
        of them; "block3" names the third stage, where several share a resolution. 64 in the paper.
    skip : what a block adds to its residual: its input, or its input after relu (see `biggan.py`).

    Raises
    ------
    BadValue : a size that cannot be halved so often, a resolution that does not occur, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 256,
        depth: Positive = 2,
        norm: Literal["spectral", "none"] = "spectral",
        power_iteration: PowerIteration | None = None,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        attention: Attention = None,
        skip: Skip = "input",
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        init = layer_init(orthogonal, spectral_norm=norm == "spectral", power_iteration=power_iteration)
        channels = critic_channels(width, n)
        halved = [True, True, False] if n < 4 else [True] * n
        attended = attention_blocks(attention, sizes_after(halved, spec))
        self.from_image = init(nn.Conv2d(spec.channels, channels[0], 3, padding=1))
        self.blocks = nn.ModuleList()
        for i, halve in enumerate(halved):
            in_, out = channels[i : i + 2]
            self.blocks.append(DeepCriticBlock(in_, out, init, halve=halve, skip=skip))
            for _ in range(depth - 1):
                self.blocks.append(DeepCriticBlock(out, out, init, halve=False, skip=skip))
            if i + 1 in attended:
                self.blocks.append(SelfAttention(out, init))
        self.head = build_head(conditioning, channels[-1], spec, init)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width)."""
        h = self.from_image(data)  # (N, ch, H, W)
        for block in self.blocks:
            h = block(h)
        features = F.relu(h).sum((2, 3))  # (N, D)
        return self.head(features, label)
