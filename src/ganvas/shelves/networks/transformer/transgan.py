"""TransGAN: a pair of transformers without convolutions (Jiang et al. 2021, arXiv 2102.07074).

Details are those of the authors' code: the generator `ViT_custom_rp` (`ViT_custom` without relative positions) and the
critic `ViT_custom_scale2_rp_noise` behind their CIFAR-10 scores, and for 256 pixels (`smooth`, `window`) the generator
`ViT_custom_local544444_256_rp`. Two of theirs were left: what their code calls window size is a map's whole side at 32
pixels, and noise on tokens is drawn in training only, where theirs is drawn in sampling, too.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.dot_product import attend, merge_heads, split_heads
from ganvas.nn.init import xavier, zero_bias
from ganvas.nn.relative_position import RelativePositionBias
from ganvas.nn.tokens import map_of, pixel_unfold, tokens_of
from ganvas.nn.windows import join_windows, split_windows
from ganvas.parts import Factory, network
from ganvas.shelves.networks.heads import build_head
from ganvas.shelves.networks.transformer.grid import divided, require_heads
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores

Positive = Annotated[int, Gt(0)]
Norm = Literal["layer", "pixel", "batch", "instance", "none"]
Activation = Literal["gelu", "leaky-relu"]

LEAK = 0.2
STD = 0.02  # of positions, tables and the critic's weights at the start
PIXEL_NORM_EPS = 1e-8


def truncated_normal(module: nn.Module) -> nn.Module:
    """Weight from N(0, 0.02²) and zero bias, as in other vision transformers."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    nn.init.trunc_normal_(weight, std=STD)
    return zero_bias(module)


class PixelNorm(nn.Module):
    """Each token is divided by the root of its mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        return x * (x.square().mean(2, keepdim=True) + PIXEL_NORM_EPS).rsqrt()


class OverTokens(nn.Module):
    """A norm over all tokens of a channel: batch norm, or instance norm.

    Parameters
    ----------
    norm : a norm of (N, D, L).
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        out: Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return out


def make_norm(kind: Norm, width: int) -> nn.Module:
    """A norm of tokens (N, L, D)."""
    if kind == "batch":
        return OverTokens(nn.BatchNorm1d(width))
    if kind == "instance":
        return OverTokens(nn.InstanceNorm1d(width))
    if kind == "layer":
        return nn.LayerNorm(width)
    return PixelNorm() if kind == "pixel" else nn.Identity()


class GridAttention(nn.Module):
    """Multi-head attention among the tokens of a grid, or within each of the windows that it is parted into.

    Parameters
    ----------
    width : D of a token; a multiple of `heads`.
    heads : h.
    size : (rows, columns) of the tokens; with None they have no places, and neither windows nor relative positions.
    window : side of a window in tokens; None attends over the whole grid.
    relative : whether a learnt number for every distance is added to the logits.
    noise : whether the same noise is added to all channels of a token in training, times a learnt strength.
    init : initial weights of the two linear maps.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        size: tuple[int, int] | None,
        *,
        window: int | None,
        relative: bool,
        noise: bool,
        init: Callable[[nn.Module], nn.Module],
    ) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.window = window if size is not None and window is not None and window < min(size) else None
        among = (self.window, self.window) if self.window else size
        self.qkv = init(nn.Linear(width, 3 * width, bias=False))
        self.out = init(nn.Linear(width, width))
        self.bias = RelativePositionBias(*among, heads, std=STD) if relative and among else None
        self.noise = nn.Parameter(torch.zeros(())) if noise else None

    # Jiang et al. 2021, section 3.3: softmax(q kᵀ / √d + E) v
    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        if self.noise is not None and self.training:
            x = x + self.noise * draws.normal("layer noise", x[:, :, :1].shape, like=x)
        if self.window and self.size:
            x = split_windows(x, *self.size, self.window)  # (N * windows, window², D)
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))  # (N, h, L, D/h)
        x = self.out(merge_heads(attend(q, k, v, bias=None if self.bias is None else self.bias())))
        return join_windows(x, *self.size, self.window) if self.window and self.size else x


class Block(nn.Module):
    """Attention and MLP, each after a norm and with a residual.

    Parameters
    ----------
    width : D of a token.
    attention : of tokens of this width.
    norm, activation : see the networks.
    hidden : channels of the MLP.
    gain : of both branches and both residuals.
    init : initial weights of the MLP's linear maps.
    """

    def __init__(
        self,
        width: int,
        attention: GridAttention,
        *,
        norm: Norm,
        activation: Activation,
        hidden: int,
        init: Callable[[nn.Module], nn.Module],
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.gain = gain
        self.norm1 = make_norm(norm, width)
        self.attention = attention
        self.norm2 = make_norm(norm, width)
        act = nn.GELU() if activation == "gelu" else nn.LeakyReLU(LEAK)
        self.mlp = nn.Sequential(init(nn.Linear(width, hidden)), act, init(nn.Linear(hidden, width)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        x = (x + self.attention(self.norm1(x))) * self.gain
        out: Tensor = (x + self.mlp(self.norm2(x))) * self.gain
        return out


def require_windows(window: int | None, sizes: list[tuple[int, int]]) -> None:
    """Refuse windows that do not fill a map.

    Raises
    ------
    BadValue : a map is larger than a window, and not a multiple of it.
    """
    for h, w in sizes:
        if window is not None and window < min(h, w) and (h % window or w % window):
            raise BadValue(
                f"windows of {window}x{window} tokens cannot fill a map of {h}x{w}", key="window", hint="window=~"
            )


@network(
    "transgan-generator",
    paper="Jiang et al. 2021, section 3.1-3.3",
    tiny={"width": 64, "depths": [1, 1], "smooth": 0, "heads": 2, "z_dim": 8},
)
class TransGANGenerator(Generator):
    """Generator of TransGAN: stages of attention, each of twice the sides and a quarter of the channels of the last.

    Images of any channel count whose sides are multiples of 2^(n - 1) for n stages.

    Parameters
    ----------
    spec : what to make.
    width : D of a token of the first stage; the following have a quarter of the one before.
    depths : blocks of each stage.
    smooth : so many of the first enlargements are bicubic and keep the width; published: 2 at 256 pixels.
    heads : of attention, in all stages; they divide every stage's width.
    z_dim : length of the latent vector, drawn from N(0, 1).
    mlp_ratio : hidden channels of the blocks' MLPs over the width.
    norm : what comes before attention and MLP: "layer"; "pixel" divides a token by the root of its mean square;
        "batch" and "instance" are over all tokens; "none".
    activation : of the MLPs.
    positions : "relative" adds a learnt number for every distance to the logits of attention, besides the learnt
        vectors of places that all forms have; "absolute" has those alone.
    window : attention in windows of so many tokens per side where a map is larger, the paper's grid attention; None
        attends over whole maps, as published up to 64 pixels. Maps before and after bicubic enlargements have none.
    noise : noise on tokens before attention in training, of learnt strength.
    normalize_latent : bring latents to length √z_dim first.

    Raises
    ------
    BadValue : sides that cannot be halved so often, a width that cannot be quartered, heads that do not divide one,
        windows that do not fill a map, more bicubic enlargements than there are.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 1024,
        depths: Annotated[tuple[Positive, ...], MinLen(1)] = (5, 4, 2),
        smooth: Annotated[int, Ge(0)] = 0,
        heads: Positive = 4,
        z_dim: Positive = 256,
        mlp_ratio: Annotated[float, Gt(0)] = 4.0,
        norm: Norm = "layer",
        activation: Activation = "gelu",
        positions: Literal["relative", "absolute"] = "relative",
        window: Positive | None = None,
        noise: bool = False,
        normalize_latent: bool = False,
    ) -> None:
        super().__init__()
        n = len(depths)
        h, w = divided(spec, 1 << (n - 1), key="depths")
        if smooth > n - 1:
            raise BadValue(
                f"{n} stages have {n - 1} enlargements, of which {smooth} cannot be bicubic", key="smooth",
                hint=f"smooth={n - 1}",
            )  # fmt: skip
        quarterings = n - 1 - smooth
        if width % 4**quarterings:
            by = 4**quarterings
            raise BadValue(
                f"{n} stages quarter {width} channels {quarterings} times; {by} must divide them",
                key="width",
                hint=f"width={-(-width // by) * by}",
            )
        self.sizes = [(h << i, w << i) for i in range(n)]
        self.smooth = smooth
        windows = [None if smooth > 0 and i <= smooth else window for i in range(n)]
        for stage_window, size in zip(windows, self.sizes, strict=True):
            require_windows(stage_window, [size])
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = False
        self.bounded = False
        self.normalize_latent = normalize_latent
        self.project = xavier(nn.Linear(z_dim, h * w * width))
        self.positions = nn.ParameterList()
        self.stages = nn.ModuleList()
        for i, (size, depth) in enumerate(zip(self.sizes, depths, strict=True)):
            D = width >> (2 * max(i - smooth, 0))
            require_heads(heads, D)
            self.positions.append(learnt_places(size[0] * size[1], D))
            blocks = []
            for _ in range(depth):
                attention = GridAttention(
                    D, heads, size, window=windows[i], relative=positions == "relative", noise=noise, init=xavier
                )
                blocks.append(
                    Block(
                        D,
                        attention,
                        norm=norm,
                        activation=activation,
                        hidden=hidden_width(D, mlp_ratio),
                        init=xavier,
                    )
                )
            self.stages.append(nn.Sequential(*blocks))
        self.to_image = xavier(nn.Conv2d(width >> (2 * quarterings), spec.channels, 1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W); labels are not looked at."""
        if self.normalize_latent:
            latent = F.normalize(latent, dim=1) * sqrt(latent.shape[1])
        h, w = self.sizes[0]
        x = self.project(latent).unflatten(1, (h * w, -1))  # (N, h*w, D)
        for i, (stage, position) in enumerate(zip(self.stages, self.positions, strict=True)):
            if 0 < i <= self.smooth:
                x = tokens_of(F.interpolate(map_of(x, *self.sizes[i - 1]), scale_factor=2, mode="bicubic"))
            elif i > 0:
                x = tokens_of(pixel_unfold(x, *self.sizes[i - 1]))  # (N, 4 h*w, D/4)
            x = stage(x + position)
        image: Tensor = self.to_image(map_of(x, *self.sizes[-1]))  # (N, C, H, W)
        return image


def learnt_places(count: int, width: int) -> nn.Parameter:
    """(1, count, width)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, width), std=STD))


def hidden_width(width: int, ratio: float) -> int:
    """Channels of an MLP, at least 1."""
    return max(1, int(width * ratio))


@network(
    "transgan-discriminator",
    paper="Jiang et al. 2021, section 3.1",
    tiny={"width": 16, "depth": 1, "heads": 2},
)
class TransGANDiscriminator(Critic):
    """Critic of TransGAN: patches of two sizes enter one after the other, a class token reads the last map.

    Images of any channel count whose sides are multiples of 2 `patch`.

    Parameters
    ----------
    spec : what to score.
    width : D of a token of the second stage, and of the features; the first stage has three quarters of it, the other
        quarter enters with the larger patches.
    depth : blocks of each of the two stages; one more reads them.
    heads : of attention; they divide both widths.
    patch : pixels per side of the smaller patches; the larger have twice as many.
    mlp_ratio : hidden channels of the blocks' MLPs over the width.
    norm : see `transgan-generator`; with "none" branches and residuals are scaled by √½.
    activation : of the MLPs.
    window : see `transgan-generator`; relative positions are always there.
    noise : see `transgan-generator`.
    conditioning : how labels reach the critic.

    Raises
    ------
    BadValue : sides that cannot be divided so, a width that cannot be quartered, heads that do not divide one, windows
        that do not fill a map.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 384,
        depth: Positive = 3,
        heads: Positive = 4,
        patch: Positive = 2,
        mlp_ratio: Annotated[float, Gt(0)] = 4.0,
        norm: Norm = "layer",
        activation: Activation = "gelu",
        window: Positive | None = None,
        noise: bool = True,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        h, w = divided(spec, 2 * patch, key="patch")  # of the second stage
        quarter = width // 4
        if width % 4:
            raise BadValue(
                f"4 must divide the width, and {width} it does not", key="width", hint=f"width={4 * quarter + 4}"
            )
        for channels in (3 * quarter, width):
            require_heads(heads, channels)
        require_windows(window, [(2 * h, 2 * w), (h, w)])
        self.size = (2 * h, 2 * w)  # of the first stage
        gain = sqrt(0.5) if norm == "none" else 1.0

        def block(D: int, size: tuple[int, int] | None) -> nn.Module:
            attention = GridAttention(
                D, heads, size, window=window, relative=size is not None, noise=noise, init=truncated_normal
            )
            return Block(
                D,
                attention,
                norm=norm,
                activation=activation,
                hidden=hidden_width(D, mlp_ratio),
                init=truncated_normal,
                gain=gain,
            )

        self.embed1 = nn.Conv2d(spec.channels, 3 * quarter, patch, stride=patch)
        self.embed2 = nn.Conv2d(spec.channels, quarter, 2 * patch, stride=2 * patch)
        self.position1 = learnt_places(4 * h * w, 3 * quarter)
        self.position2 = learnt_places(h * w, width)
        self.token = learnt_places(1, width)
        self.stage1 = nn.Sequential(*(block(3 * quarter, self.size) for _ in range(depth)))
        self.stage2 = nn.Sequential(*(block(width, (h, w)) for _ in range(depth)))
        self.last = block(width, None)
        self.norm = make_norm(norm, width)
        self.head = build_head(conditioning, width, spec, truncated_normal)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width)."""
        x = self.stage1(tokens_of(self.embed1(data)) + self.position1)  # (N, 4 h*w, 3/4 D)
        x = F.avg_pool2d(map_of(x, *self.size), 2)  # (N, 3/4 D, h, w)
        x = torch.cat([tokens_of(x), tokens_of(self.embed2(data))], 2)  # (N, h*w, D)
        x = self.stage2(x + self.position2)
        x = self.last(torch.cat([self.token.expand(len(x), -1, -1), x], 1))  # (N, 1 + h*w, D)
        return self.head(self.norm(x)[:, 0], label)
