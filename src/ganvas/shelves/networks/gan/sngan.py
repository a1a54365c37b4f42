"""The residual pair of SNGAN, with SAGAN's self-attention and conditional batch norm as options.

Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", appendix B.4, and Zhang et al. 2019,
"Self-Attention Generative Adversarial Networks". Widths and details are those of PyTorch-StudioGAN, whose scores for
both are the ones commonly cited; two of its details differ from the papers:

- In critic blocks without batch norm the skip branch sees relu(x), not x: its activations work in place. The published
  scores were reached so, and so it is here.
- Features are summed, not averaged, over the last map.

The blocks are in `nn/residual.py`; BigGAN is made of them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.codes import Codes
from ganvas.nn.init import layer_init, orthogonal
from ganvas.nn.norms import BatchNorm2d
from ganvas.nn.residual import CriticBlock, GeneratorBlock, Skip
from ganvas.nn.spectral import PowerIteration
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import (
    Attention,
    PyramidGenerator,
    attention_blocks,
    halvings,
    sizes_after,
    with_attention,
)
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, Scores

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


@network(
    "sngan-generator",
    system="sagan",
    paper="Miyato et al. 2018, table 3-4; Zhang et al. 2019, section 3",
    tiny={"width": 8, "z_dim": 8},
)
class SNGANGenerator(PyramidGenerator):
    """Residual generator of SNGAN; with `conditioning`, `attention` and `spectral_norm` it is SAGAN's.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels.

    Parameters
    ----------
    spec : what to make.
    width : channels of the widest map. Below 64 pixels all maps have it, above they narrow down to width / 16.
    z_dim : length of the latent vector, drawn from N(0, 1).
    codes : InfoGAN's codes, whose entries come after those of `z_dim`; None has none.
    conditioning : "batch-norm" gives every block's norms a gain and bias per class; None ignores labels.
    attention : self-attention after the block with this feature resolution (shorter side in pixels), or several of
        them; "block2" names the second block.
    spectral_norm : normalise every weight matrix, as SAGAN does.
    power_iteration : how the largest singular value is followed, under `spectral_norm`; None takes one iteration.

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
        codes: Codes | None = None,
        conditioning: Literal["batch-norm"] | None = None,
        attention: Attention = None,
        spectral_norm: bool = False,
        power_iteration: PowerIteration | None = None,
    ) -> None:
        n = halvings(spec, DEEPEST)
        channels, stem = generator_channels(width, n), (spec.height >> n, spec.width >> n)
        super().__init__(
            spec, channels, stem, GeneratorBlock, z_dim=z_dim, codes=codes, conditioning=conditioning,
            attention=attention, spectral_norm=spectral_norm, power_iteration=power_iteration, norm_eps=BN_EPS,
        )  # fmt: skip
        self.norm = BatchNorm2d(channels[-1], eps=BN_EPS)
        self.to_image = self.init(nn.Conv2d(channels[-1], spec.channels, 3, padding=1))

    def finish(self, h: Tensor) -> Tensor:
        image: Tensor = self.to_image(F.relu(self.norm(h), inplace=True)).tanh()  # (N, C, H, W)
        return image


class ResidualCritic(Critic):
    """What SNGAN's and BigGAN's critics share: all but their options.

    Parameters
    ----------
    wide, skip : of `CriticBlock`.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int,
        norm: str,
        power_iteration: PowerIteration | None,
        conditioning: Callable[..., CriticHead] | str,
        attention: Attention,
        wide: bool,
        skip: Skip,
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        init = layer_init(orthogonal, spectral_norm=norm == "spectral", power_iteration=power_iteration)

        def norm_of(channels: int) -> nn.Module:
            return BatchNorm2d(channels, eps=BN_EPS) if norm == "batch" else nn.Identity()

        channels = [spec.channels, *critic_channels(width, n)]
        # Small images are halved twice and then go through two blocks at one size; large ones through one such block.
        halved = [True, True, False, False] if n < 4 else [True] * n + [False]
        blocks = (
            CriticBlock(channels[i], channels[i + 1], norm_of, init, first=i == 0, halve=halve, wide=wide, skip=skip)
            for i, halve in enumerate(halved)
        )
        after = attention_blocks(attention, sizes_after(halved, spec))
        self.blocks = with_attention(blocks, channels[1:], after, init)
        self.head = build_head(conditioning, channels[-1], spec, init)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width)."""
        h = data
        for block in self.blocks:
            h = block(h)
        features = F.relu(h).sum((2, 3))  # (N, D)
        return self.head(features, label)


@network(
    "sngan-discriminator",
    system="sagan",
    paper="Miyato et al. 2018, table 3-4; Zhang et al. 2019, section 3",
    tiny={"width": 8},
)
class SNGANDiscriminator(ResidualCritic):
    """Residual critic of SNGAN; with `attention` and a projection head it is SAGAN's.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 512 pixels.

    Parameters
    ----------
    spec : what to score.
    width : channels of the widest map, and D, the length of the features. Below 64 pixels all maps have it, above they
        start at width / 16.
    norm : "spectral" normalises every weight matrix of critic and head; "batch" puts batch norm before each
        activation, which makes scores depend on the rest of the batch; "none" does neither.
    power_iteration : how the largest singular value is followed, under `norm: spectral`; None takes one iteration.
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
        power_iteration: PowerIteration | None = None,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        attention: Attention = None,
    ) -> None:
        super().__init__(
            spec, width=width, norm=norm, power_iteration=power_iteration, conditioning=conditioning,
            attention=attention, wide=True, skip="input" if norm == "batch" else "relu",
        )  # fmt: skip
