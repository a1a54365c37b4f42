"""LadaGAN: a pair of transformers whose attention costs as much as their linear layers.

Morales-Juarez & Fuentes-Pineda 2024, "Efficient generative adversarial networks using linear additive-attention
Transformers" (arXiv 2401.09596). Details are those of the authors' PyTorch code: no residual around the last MLP of a
generator block, and a generator that ends in a convolution, so that its images may leave [-1, 1].

Their critic gives one logit for each 4x4 window of its last map, and their loss averages over those. A datum has one
logit here, the mean of theirs, so that every objective, penalty and head works on it. The last layer is linear, which
makes it the same to average the windows first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.additive_attention import AdditiveAttention
from ganvas.nn.init import Init, layer_init, orthogonal
from ganvas.nn.self_modulation import SelfModulatedLayerNorm
from ganvas.nn.tokens import map_of, pixel_unfold, tokens_of
from ganvas.parts import Factory, network
from ganvas.shelves.networks.heads import build_head
from ganvas.shelves.networks.transformer.grid import divided, require_heads, stages
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores

Positive = Annotated[int, Gt(0)]

LEAK = 0.2
FIRST = 8  # pixels: the shorter side of the generator's first map, where sizes allow it
WINDOW = 4  # pixels of the critic's last map that one logit of the authors' looks at


class SelfModulatedLadaformer(nn.Module):
    """The generator's block: modulated norm, additive attention and a residual, modulated norm and MLP without one."""

    def __init__(self, width: int, z_dim: int, heads: int, mlp_width: int, init: Init) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return SelfModulatedLayerNorm(width, z_dim, linear=lambda i, o: init(nn.Linear(i, o)), hidden=width)

        self.norm1 = norm()
        self.attention = AdditiveAttention(width, heads, init)
        self.norm2 = norm()
        self.mlp = mlp(width, mlp_width, init)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Tokens (N, L, D) and latents (N, z_dim) -> (N, L, D)."""
        x = self.attention(self.norm1(x, z)) + x
        out: Tensor = self.mlp(self.norm2(x, z))
        return out


class Ladaformer(nn.Module):
    """The critic's block: additive attention and MLP, each after a layer norm and with a residual."""

    def __init__(self, width: int, heads: int, mlp_width: int, init: Init) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = AdditiveAttention(width, heads, init)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = mlp(width, mlp_width, init)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        x = self.attention(self.norm1(x)) + x
        out: Tensor = self.mlp(self.norm2(x)) + x
        return out


def mlp(width: int, hidden: int, init: Init) -> nn.Sequential:
    """Two linear layers with a GELU between."""
    return nn.Sequential(init(nn.Linear(width, hidden)), nn.GELU(), init(nn.Linear(hidden, width)))


@network(
    "ladagan-generator",
    system="ladagan",
    paper="Morales-Juarez & Fuentes-Pineda 2024, section 3.2",
    tiny={"widths": [32, 16], "z_dim": 8, "heads": 2, "mlp_width": 16},
)
class LadaGANGenerator(Generator):
    """Generator of LadaGAN: blocks of additive attention at rising sizes, with pixel shuffles between.

    Images of any channel count whose sides are multiples of patch * 2^(n - 1) for n widths.

    Parameters
    ----------
    spec : what to make.
    widths : channels of a token on each map; every map has twice the sides of the one before, whose channels must be
        a multiple of 4.
    z_dim : length of the latent vector, drawn from N(0, 1).
    heads : of attention, for all maps or for each; they divide its width.
    mlp_width : hidden channels of the blocks' MLPs, for all maps or for each.
    patch : pixels per side that each token of the last map becomes; its square divides the last width. None takes
        what brings the shorter side of the first map to 8 pixels, as published (1 at 32, 2 at 64, 4 at 128 pixels).

    Raises
    ------
    BadValue : a size that cannot be divided so, widths that cannot be, as many heads or MLPs as there are no maps.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Annotated[tuple[Positive, ...], MinLen(1)] = (1024, 256, 64),
        z_dim: Positive = 128,
        heads: Positive | tuple[Positive, ...] = 4,
        mlp_width: Positive | tuple[Positive, ...] = 512,
        patch: Positive | None = None,
    ) -> None:
        super().__init__()
        n = len(widths)
        if patch is None:
            patch = max(1, min(spec.shape[1:]) // (FIRST << (n - 1))) if len(spec.shape) == 3 else 1
        h, w = divided(spec, patch << (n - 1), key="widths")
        for width, next_ in pairwise(widths):
            if width % 4:
                raise BadValue(
                    f"a pixel shuffle to {next_} channels needs a multiple of 4 before it, not {width}",
                    key="widths",
                    hint=f"widths={[4 * next_, next_]}",
                )
        if widths[-1] % patch**2:
            raise BadValue(
                f"tokens of {widths[-1]} channels cannot become {patch}x{patch} pixels; {patch**2} must divide them",
                key="widths",
                hint=f"widths ending in {-(-widths[-1] // patch**2) * patch**2}",
            )
        all_heads, mlp_widths = stages(heads, n, "heads"), stages(mlp_width, n, "mlp_width")
        init = layer_init(orthogonal, spectral_norm=False)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = False
        self.bounded = False
        self.patch = patch
        self.sizes = [(h << i, w << i) for i in range(n)]
        self.project = init(nn.Linear(z_dim, h * w * widths[0], bias=False))
        self.convs = nn.ModuleList(
            init(nn.Conv2d(width // 4, next_, 3, padding=1)) for width, next_ in pairwise(widths)
        )
        self.positions = nn.ParameterList()
        self.blocks = nn.ModuleList()
        for (rows, columns), width, own_heads, own_mlp in zip(self.sizes, widths, all_heads, mlp_widths, strict=True):
            require_heads(own_heads, width)
            self.positions.append(nn.Parameter(torch.randn(1, rows * columns, width)))
            self.blocks.append(SelfModulatedLadaformer(width, z_dim, own_heads, own_mlp, init))
        self.to_image = init(nn.Conv2d(widths[-1] // patch**2, spec.channels, 3, padding=1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W); labels are not looked at."""
        h, w = self.sizes[0]
        x = self.project(latent).unflatten(1, (h * w, -1))  # (N, h*w, D)
        for i, (block, position) in enumerate(zip(self.blocks, self.positions, strict=True)):
            if i > 0:
                x = tokens_of(self.convs[i - 1](pixel_unfold(x, *self.sizes[i - 1])))  # (N, 4 h*w, D')
            x = block(x + position, latent)
        image: Tensor = self.to_image(pixel_unfold(x, *self.sizes[-1], self.patch))  # (N, C, H, W)
        return image


class DownBlock(nn.Module):
    """Half the resolution by the mean of two branches: strided convolutions, and an average pool (Liu et al. 2021)."""

    def __init__(self, in_: int, out: int, init: Init) -> None:
        super().__init__()
        self.main = nn.Sequential(
            init(nn.Conv2d(in_, out, 3, stride=2, padding=1, bias=False)),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(LEAK),
            init(nn.Conv2d(out, out, 3, padding=1, bias=False)),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(LEAK),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2), init(nn.Conv2d(in_, out, 1, bias=False)), nn.BatchNorm2d(out), nn.LeakyReLU(LEAK)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H/2, W/2)."""
        out: Tensor = (self.main(x) + self.direct(x)) / 2
        return out


@network(
    "ladagan-discriminator",
    system="ladagan",
    paper="Morales-Juarez & Fuentes-Pineda 2024, section 3.3",
    tiny={"widths": [8, 16], "out_widths": [16, 16], "heads": 2, "mlp_width": 16},
)
class LadaGANDiscriminator(Critic):
    """Critic of LadaGAN: convolutions with batch norm, one block of additive attention, and windows of 4x4.

    Images of any channel count whose sides are multiples of 2^n for n widths, and at least 2^(n + 2) pixels.

    Parameters
    ----------
    spec : what to score.
    widths : channels of the first map, and after each halving; attention works on the last of these. The authors have
        it at 16x16: two widths at 32 pixels, three at 64, (32, 64, 128, 256) at 128.
    out_widths : channels of the two maps after attention, with half its sides.
    heads : of attention; they divide the last width.
    mlp_width : hidden channels of the block's MLP.
    conditioning : how labels reach the critic. The length of its features is 16 times the last of `out_widths`.

    Raises
    ------
    BadValue : a size that cannot be halved so often or ends too small, heads that do not divide the width.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Annotated[tuple[Positive, ...], MinLen(1)] = (64, 128, 256),
        out_widths: tuple[Positive, Positive] = (512, 1024),
        heads: Positive = 4,
        mlp_width: Positive = 512,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        n = len(widths)
        h, w = divided(spec, 1 << n, key="widths")  # of the last map
        if min(h, w) < WINDOW:
            raise BadValue(
                f"{n} widths leave {h}x{w} pixels of {spec.height}x{spec.width}, and the last layer needs"
                f" {WINDOW}x{WINDOW}",
                key="widths",
                hint=f"data.size={WINDOW << n}, or fewer widths",
            )
        require_heads(heads, widths[-1])
        init = layer_init(orthogonal, spectral_norm=False)
        self.from_image = init(nn.Conv2d(spec.channels, widths[0], 3, padding=1, bias=False))
        self.downs = nn.ModuleList(DownBlock(in_, out, init) for in_, out in pairwise(widths))
        self.size = (2 * h, 2 * w)  # of the map that attention works on
        self.position = nn.Parameter(torch.randn(1, 4 * h * w, widths[-1]))
        self.block = Ladaformer(widths[-1], heads, mlp_width, init)
        self.conv1 = init(nn.Conv2d(4 * widths[-1], out_widths[0], 3, padding=1))
        self.conv2 = init(nn.Conv2d(*out_widths, 1, bias=False))
        self.head = build_head(conditioning, out_widths[1] * WINDOW**2, spec, init, False)

    def last_map(self, data: Tensor) -> Tensor:
        """Images (N, C, H, W) -> the map (N, D, h, w) that logits are read from."""
        x = F.leaky_relu(self.from_image(data), LEAK)
        for down in self.downs:
            x = down(x)  # (N, ch, H/2, W/2)
        x = map_of(self.block(tokens_of(x) + self.position), *self.size)
        x = self.conv1(F.pixel_unshuffle(x, 2))  # (N, ch, h, w)
        return F.leaky_relu(self.conv2(x), LEAK)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, 16 D)."""
        x = self.last_map(data)
        windows = (x.shape[2] - WINDOW + 1, x.shape[3] - WINDOW + 1)  # how many there are
        features = F.avg_pool2d(x, windows, stride=1).flatten(1)  # the mean window, (N, D * 4 * 4)
        return self.head(features, label)
