"""The residual pair of SNGAN, with SAGAN's self-attention and conditional batch norm as options.

Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", appendix B.4, and Zhang et al. 2019,
"Self-Attention Generative Adversarial Networks". Widths and details are those of PyTorch-StudioGAN, whose scores for
both are the ones commonly cited; two of its details differ from the papers:

- In critic blocks without batch norm the skip branch sees relu(x), not x: its activations work in place. The published
  scores were reached so, and so it is here.
- Features are summed, not averaged, over the last map.

Where it makes no difference to the result, the cheaper order is used: a 1x1 convolution commutes with nearest
upsampling and with average pooling, so it always runs on the smaller map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.networks.gan.pyramid import attention_blocks, halvings, one_hot, require_classes
from ganvas.networks.heads import build_head
from ganvas.nn.attention import SelfAttention
from ganvas.nn.init import Treatment, orthogonal, treatment
from ganvas.nn.norms import BatchNorm2d, ConditionalBatchNorm2d
from ganvas.parts import Factory, network
from ganvas.types import CriticHead, DataSpec, LatentSpec, Scores

BN_EPS = 1e-4

# Channels between the generator's blocks as parts of 16, by the number of blocks; 4 blocks make 64 pixels from 4.
GENERATOR_WIDTHS = {
    4: (16, 8, 4, 2, 1),
    5: (16, 16, 8, 4, 2, 1),
    6: (16, 16, 8, 8, 4, 2, 1),
    7: (16, 16, 8, 8, 4, 2, 1, 1),
}
# Channels after each of the critic's blocks as parts of 16; all blocks but the last halve the map.
CRITIC_WIDTHS = {
    4: (1, 2, 4, 8, 16),
    5: (1, 2, 4, 8, 16, 16),
    6: (1, 2, 4, 8, 8, 16, 16),
    7: (1, 1, 2, 4, 8, 8, 16, 16),
}
DEEPEST = 7  # 512 pixels


def generator_channels(width: int, n: int) -> list[int]:
    """Channels before, between and after `n` generator blocks; constant below 64 pixels."""
    return [max(1, width * part // 16) for part in GENERATOR_WIDTHS.get(n, (16,) * (n + 1))]


def critic_channels(width: int, n: int) -> list[int]:
    """Channels after each critic block for images that can be halved `n` times; constant below 64 pixels."""
    return [max(1, width * part // 16) for part in CRITIC_WIDTHS.get(n, (16,) * 4)]


class GeneratorBlock(nn.Module):
    """Residual block that doubles the resolution: (norm, relu, up, conv, norm, relu, conv) + (up, 1x1 conv)."""

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], treat: Treatment) -> None:
        super().__init__()
        self.norm1 = norm(in_)
        self.conv1 = treat(nn.Conv2d(in_, out, 3, padding=1))
        self.norm2 = norm(out)
        self.conv2 = treat(nn.Conv2d(out, out, 3, padding=1))
        self.skip = treat(nn.Conv2d(in_, out, 1))

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = F.relu(self.norm1(x, condition), inplace=True)
        h = self.conv1(F.interpolate(h, scale_factor=2.0))  # (N, out, 2h, 2w)
        h = self.conv2(F.relu(self.norm2(h, condition), inplace=True))
        out: Tensor = h + F.interpolate(self.skip(x), scale_factor=2.0)  # (N, out, 2h, 2w)
        return out


@network(
    "sngan-generator",
    system="sagan",
    paper="Miyato et al. 2018, table 3-4; Zhang et al. 2019, section 3",
    tiny={"width": 8, "z_dim": 8},
)
class SNGANGenerator(nn.Module):
    """Residual generator of SNGAN; with `conditioning`, `attention` and `spectral_norm` it is SAGAN's.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels.

    Parameters
    ----------
    spec : what to make.
    width : channels of the widest map. Below 64 pixels all maps have it, above they narrow down to width / 16.
    z_dim : length of the latent vector, drawn from N(0, 1).
    conditioning : "batch-norm" gives every block's norms a gain and bias per class; None ignores labels.
    attention : self-attention after the block with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second block.
    spectral_norm : normalise every weight matrix, as SAGAN does.

    Raises
    ------
    BadValue : a size that cannot be halved so often, a resolution that does not occur, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 256,
        z_dim: Annotated[int, Gt(0)] = 128,
        conditioning: Literal["batch-norm"] | None = None,
        attention: int | str | tuple[int | str, ...] | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        require_classes(conditioning, spec)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if conditioning else 0
        treat = treatment(orthogonal, spectral_norm=spectral_norm)

        def norm(channels: int) -> nn.Module:
            if self.classes:
                return ConditionalBatchNorm2d(channels, self.classes, eps=BN_EPS, treat=treat)
            return BatchNorm2d(channels, eps=BN_EPS)

        channels = generator_channels(width, n)
        h, w = spec.height >> n, spec.width >> n
        self.bottom = (channels[0], h, w)
        attended = attention_blocks(attention, [(h << i, w << i) for i in range(1, n + 1)])
        self.project = treat(nn.Linear(z_dim, channels[0] * h * w))
        self.blocks = nn.ModuleList()
        for i in range(n):
            self.blocks.append(GeneratorBlock(channels[i], channels[i + 1], norm, treat))
            if i + 1 in attended:
                self.blocks.append(SelfAttention(channels[i + 1], treat))
        self.norm = BatchNorm2d(channels[-1], eps=BN_EPS)
        self.to_image = treat(nn.Conv2d(channels[-1], spec.channels, 3, padding=1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> images (N, C, H, W) in [-1, 1]."""
        condition = one_hot(label, self.classes, latent) if self.classes else None  # (N, classes)
        h = self.project(latent).unflatten(1, self.bottom)  # (N, ch, H/2^n, W/2^n)
        for block in self.blocks:
            h = block(h) if isinstance(block, SelfAttention) else block(h, condition)  # (N, ch, 2h, 2w)
        h = F.relu(self.norm(h), inplace=True)
        image: Tensor = self.to_image(h).tanh()  # (N, C, H, W)
        return image


class FirstCriticBlock(nn.Module):
    """The critic's block on pixels, without a leading activation: (conv, relu, conv, pool) + (pool, 1x1 conv)."""

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], treat: Treatment) -> None:
        super().__init__()
        self.conv1 = treat(nn.Conv2d(in_, out, 3, padding=1))
        self.norm1 = norm(out)
        self.conv2 = treat(nn.Conv2d(out, out, 3, padding=1))
        self.norm0 = norm(in_)
        self.skip = treat(nn.Conv2d(in_, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.norm1(self.conv1(x))))
        pooled = self.norm0(F.avg_pool2d(x, 2))  # (N, in, h/2, w/2)
        out: Tensor = F.avg_pool2d(h, 2) + self.skip(pooled)  # (N, out, h/2, w/2)
        return out


class CriticBlock(nn.Module):
    """Residual block that may halve the resolution: (norm, relu, conv, norm, relu, conv, pool) + (pool, 1x1 conv).

    The skip is the identity where neither the resolution nor the width changes. Without norms it starts from relu(x),
    see the head of the file.
    """

    def __init__(
        self, in_: int, out: int, norm: Callable[[int], nn.Module], treat: Treatment, *, halve: bool, normed: bool
    ) -> None:
        super().__init__()
        self.halve, self.normed = halve, normed
        self.norm1 = norm(in_)
        self.conv1 = treat(nn.Conv2d(in_, out, 3, padding=1))
        self.norm2 = norm(out)
        self.conv2 = treat(nn.Conv2d(out, out, 3, padding=1))
        if halve or in_ != out:
            self.norm0: nn.Module | None = norm(in_)
            self.skip: nn.Module | None = treat(nn.Conv2d(in_, out, 1))
        else:
            self.norm0 = self.skip = None

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.norm1(x))
        h = self.conv2(F.relu(self.norm2(self.conv1(a))))
        x = x if self.normed else a
        if self.norm0 is not None:
            x = self.norm0(x)
        if self.halve:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)  # (N, out, h/2, w/2), (N, in, h/2, w/2)
        if self.skip is not None:
            x = self.skip(x)  # (N, out, ...)
        out: Tensor = h + x
        return out


@network(
    "sngan-discriminator",
    system="sagan",
    paper="Miyato et al. 2018, table 3-4; Zhang et al. 2019, section 3",
    tiny={"width": 8},
)
class SNGANDiscriminator(nn.Module):
    """Residual critic of SNGAN; with `attention` and a projection head it is SAGAN's.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels.

    Parameters
    ----------
    spec : what to score.
    width : channels of the widest map, and D, the length of the features. Below 64 pixels all maps have it, above they
        start at width / 16.
    norm : "spectral" normalises every weight matrix of critic and head; "batch" puts batch norm before each
        activation, which makes scores depend on the rest of the batch; "none" does neither.
    conditioning : how labels reach the critic.
    attention : self-attention after the first block with this feature resolution (shorter side in pixels), or several
        of them; "block3" names the third block, where several share a resolution.

    Raises
    ------
    BadValue : a size that cannot be halved so often, a resolution that does not occur, labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 128,
        norm: Literal["spectral", "batch", "none"] = "spectral",
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        attention: int | str | tuple[int | str, ...] | None = None,
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        treat = treatment(orthogonal, spectral_norm=norm == "spectral")

        def norm_of(channels: int) -> nn.Module:
            return BatchNorm2d(channels, eps=BN_EPS) if norm == "batch" else nn.Identity()

        channels = critic_channels(width, n)
        # Small images are halved twice and then go through two blocks at one size; large ones through one such block.
        halved = [True, True, False, False] if n < 4 else [True] * n + [False]
        outputs, size = [], (spec.height, spec.width)
        for halve in halved:
            size = (size[0] // 2, size[1] // 2) if halve else size
            outputs.append(size)
        attended = attention_blocks(attention, outputs)
        self.blocks = nn.ModuleList([FirstCriticBlock(spec.channels, channels[0], norm_of, treat)])
        for i, halve in enumerate(halved):
            if i > 0:
                self.blocks.append(
                    CriticBlock(channels[i - 1], channels[i], norm_of, treat, halve=halve, normed=norm == "batch")
                )
            if i + 1 in attended:
                self.blocks.append(SelfAttention(channels[i], treat))
        self.head = build_head(conditioning, channels[-1], spec, treat)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width)."""
        h = data
        for block in self.blocks:
            h = block(h)
        features = F.relu(h).sum((2, 3))  # (N, D)
        return self.head(features, label)
