"""StyleSwin: a style-based generator of window attention, and a critic that looks at wavelets.

Zhang et al. 2022, "StyleSwin: Transformer-based GAN for High-resolution Image Generation" (arXiv 2112.10762), equal to
the authors' code (microsoft/StyleSwin, MIT) on its weights. Where that differs from the paper's words, so does this:

- Features go up by bilinear interpolation, only the image through the filter (1, 3, 3, 1).
- The position code is added at the start of every map but the first, times a learnt number that begins at 0.
- An image is made of the features after they went up, so that the two largest ones have one size.
- The critic's blocks have no skips around them; without spectral norm their layers have an equalised learning rate.

Sides need not be equal or powers of two: the first map has H/2^n x W/2^n pixels, n = floor(log2(min(H, W) / 4)), and a
window has the largest side, up to the published 8 pixels, that divides its map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from math import gcd, log
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.dot_product import attend, merge_heads, split_heads
from ganvas.nn.equalized import LEAKY_GAIN, EqualizedLinear, equalized, in_full, leaky
from ganvas.nn.fir import conv2d_resample, downsample2d, filter_taps, upsample2d
from ganvas.nn.haar import haar
from ganvas.nn.init import Init, layer_init, zero_bias
from ganvas.nn.mapping import USUAL_MAPPING, MappingNetwork, MappingOptions
from ganvas.nn.minibatch import minibatch_std
from ganvas.nn.relative_position import RelativePositionBias
from ganvas.nn.tokens import map_of, tokens_of
from ganvas.nn.windows import join_windows, split_windows
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import halvings
from ganvas.shelves.networks.heads import build_head
from ganvas.shelves.networks.style.spaces import MappedGenerator
from ganvas.shelves.networks.transformer.grid import require_heads, stages
from ganvas.types import Critic, CriticHead, DataSpec, Scores

Positive = Annotated[int, Gt(0)]
Widths = tuple[Positive, ...]

DEEPEST = 8  # 1024 pixels
WINDOW = 8  # pixels: the largest side of a window on a map that is cut
APART = -100.0  # what logits of pixels get that are neighbours only because the map was rolled
TAPS = (1, 3, 3, 1)


def falling_widths(width: int, n: int) -> list[int]:
    """Channels at 4, 8, ..., 4 · 2^n pixels: `width`, halved with each doubling above 64 pixels."""
    return [max(min(width, 8), width * 64 // max(64, 4 << i)) for i in range(n + 1)]


def checked(widths: int | Widths, usual: Callable[[int], list[int]], where: str) -> list[int]:
    """The widths as listed, or the usual ones that begin with the one that is given.

    Raises
    ------
    BadValue : another number of them than there are maps.
    """
    if isinstance(widths, int):
        return usual(widths)
    maps = len(usual(1))
    if len(widths) != maps:
        raise BadValue(
            f"{len(widths)} widths for {maps} maps {where}", key="widths",
            hint=f"widths={[*widths[:1], 64][0]}, or {maps} of them",
        )  # fmt: skip
    return list(widths)


# ---------------------------------------------------------------------------------------------------- attention


def wrapped(window: int, shift: int) -> Tensor:
    """Logits to add where the map was rolled: (4, L, L), for windows inside, at the right, below, and in the corner.

    There a window holds pixels of opposite edges, which are not to see each other.
    """
    far = torch.arange(window) >= window - shift  # (window,): came round from the other edge
    y, x = (edge.flatten() for edge in torch.meshgrid(far, far, indexing="ij"))  # (L,)
    across, along = x[:, None] != x, y[:, None] != y
    return torch.stack([torch.zeros_like(across), across, along, across | along]).float() * APART


class WindowAttention(nn.Module):
    """Attention within windows, with a bias for each distance.

    Parameters
    ----------
    size : (h, w) of a window, in pixels.
    heads : of attention.
    """

    def __init__(self, size: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias = RelativePositionBias(*size, heads)

    def forward(self, qkv: Tensor, apart: Tensor | None) -> Tensor:
        """qkv (N · windows, L, 3D), and what is added to the logits (windows, L, L) -> (N · windows, L, D)."""
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, 2))  # (N · W, h, L, d)
        bias = self.bias()  # (1, h, L, L)
        if apart is None:
            return merge_heads(attend(q, k, v, bias=bias))
        W, h = len(apart), self.heads
        # One bias for all samples: with the windows among the heads it is never copied for each.
        q, k, v = (part.reshape(-1, W * h, *part.shape[2:]) for part in (q, k, v))  # (N, W · h, L, d)
        all_bias = (apart[:, None].to(bias.dtype) + bias).flatten(0, 1)[None]  # (1, W · h, L, L)
        out = attend(q, k, v, bias=all_bias)
        return merge_heads(out.reshape(-1, h, *out.shape[2:]))


class DoubleAttention(nn.Module):
    """Half of the heads attend within windows, the other half within windows that are shifted.

    Parameters
    ----------
    width : channels of a token.
    heads : of both halves together.
    size : (h, w) of the map, in pixels.
    window : side of a window; None: the whole map is one.
    shift : of the second half's windows, down and to the right, below `window`; what leaves the map comes back at the
        other edge, and does not see its new neighbours.
    """

    apart: Tensor | None
    kind: Tensor

    def __init__(self, width: int, heads: int, size: tuple[int, int], window: int | None, shift: int) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.qkv = linear(width, 3 * width)
        self.halves = nn.ModuleList(
            WindowAttention(size if window is None else (window, window), heads // 2) for _ in range(2)
        )
        self.out = linear(width, width)
        if window is not None and shift:
            right = torch.arange(size[1] // window) == size[1] // window - 1
            below = torch.arange(size[0] // window) == size[0] // window - 1
            kind = (right + 2 * below[:, None]).flatten()  # (windows,), rows of `wrapped`
            self.register_buffer("kind", kind, persistent=False)
            self.register_buffer("apart", wrapped(window, shift), persistent=False)
        else:
            self.apart = None

    # Zhang et al. 2022, eq. 3 and 4
    def forward(self, x: Tensor) -> Tensor:
        """(N, h*w, D) -> (N, h*w, D)."""
        qkv = self.qkv(x).unflatten(2, (3, 2, -1)).permute(3, 0, 1, 2, 4).flatten(3)  # (2, N, h*w, 3 D/2)
        shifts = (0, self.shift)
        attended = [self.attend(half, part, shift) for half, part, shift in zip(self.halves, qkv, shifts, strict=True)]
        out: Tensor = self.out(torch.cat(attended, 2))
        return out

    def attend(self, half: nn.Module, qkv: Tensor, shift: int) -> Tensor:
        """One half: (N, h*w, 3D/2) -> (N, h*w, D/2)."""
        if self.window is None:
            return half(qkv, None)  # type: ignore[no-any-return]
        (h, w), window = self.size, self.window
        if not shift or self.apart is None:
            return join_windows(half(split_windows(qkv, h, w, window), None), h, w, window)
        rolled = self.rolled(qkv, -shift)
        windows = half(split_windows(rolled, h, w, window), self.apart.index_select(0, self.kind))
        return self.rolled(join_windows(windows, h, w, window), shift)

    def rolled(self, tokens: Tensor, shift: int) -> Tensor:
        """The map moved down and to the right."""
        N, L, D = tokens.shape
        return tokens.view(N, *self.size, D).roll((shift, shift), (1, 2)).view(N, L, D)


# ---------------------------------------------------------------------------------------------------- generator


def linear(in_: int, out: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with the start that Swin has."""
    layer = nn.Linear(in_, out, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class AdaptiveInstanceNorm(nn.Module):
    """Every channel of a datum at mean 0 and variance 1 over its tokens, then a gain and a bias that w gives."""

    def __init__(self, width: int, w_dim: int) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, 2 * width)

    # Huang & Belongie 2017, eq. 8
    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, L, D) and w (N, w_dim) -> (N, L, D) float32."""
        gamma, beta = self.style(w)[:, None].chunk(2, 2)  # (N, 1, D)
        x = in_full(x)
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        return torch.addcmul(beta, x - mean, gamma * (variance + 1e-5).rsqrt())


class StyleSwinBlock(nn.Module):
    """x + DoubleAttention(AdaIN(x, w)), then x + MLP(AdaIN(x, w))."""

    def __init__(
        self, width: int, heads: int, size: tuple[int, int], window: int | None, w_dim: int, mlp_width: int
    ) -> None:
        super().__init__()
        self.norm1 = AdaptiveInstanceNorm(width, w_dim)
        self.attention = DoubleAttention(width, heads, size, window, 0 if window is None else window // 2)
        self.norm2 = AdaptiveInstanceNorm(width, w_dim)
        self.mlp = nn.Sequential(linear(width, mlp_width), nn.GELU(), linear(mlp_width, width))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, L, D) and w (N, w_dim) -> (N, L, D)."""
        x = x + self.attention(self.norm1(x, w))
        out: Tensor = x + self.mlp(self.norm2(x, w))
        return out


# Xu et al. 2021, "Positional Encoding as Spatial Inductive Bias in GANs", section 3.2, with places from 1
def position_code(width: int, h: int, w: int) -> Tensor:
    """Sines and cosines of x in the first half of the channels, of y in the second: (h*w, width)."""
    rates = torch.exp(torch.arange(width // 4) * (-log(10000) / (width // 4 - 1)))

    def code(places: int) -> Tensor:
        angles = torch.arange(1.0, places + 1)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], 1)  # (places, width / 2)

    x, y = code(w).expand(h, w, -1), code(h)[:, None].expand(h, w, -1)
    return torch.cat([x, y], 2).flatten(0, 1)


class BilinearUpsample(nn.Module):
    """Twice the sides, another width, and the code of where a token is, times a learnt number."""

    code: Tensor

    def __init__(self, in_: int, out: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.norm = nn.LayerNorm(in_)
        self.reduce = linear(in_, out, bias=False)
        self.strength = nn.Parameter(torch.zeros(1))
        self.register_buffer("code", position_code(out, 2 * size[0], 2 * size[1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, h*w, in) -> (N, 4 h*w, out)."""
        x = tokens_of(F.interpolate(map_of(x, *self.size), scale_factor=2.0, mode="bilinear"))  # (N, 4 h*w, in)
        out: Tensor = self.reduce(self.norm(x)) + self.code * self.strength
        return out


class Stage(nn.Module):
    """Two blocks on one map, and the way up to the next."""

    def __init__(
        self, width: int, out: int | None, heads: int, size: tuple[int, int], window: int | None, w_dim: int,
        mlp_width: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList(StyleSwinBlock(width, heads, size, window, w_dim, mlp_width) for _ in range(2))
        self.upsample = None if out is None else BilinearUpsample(width, out, size)

    def forward(self, x: Tensor, ws: Tensor) -> Tensor:
        """(N, h*w, D) and ws (N, 2, w_dim) -> (N, 4 h*w, D'), or (N, h*w, D) on the last map."""
        for i, block in enumerate(self.blocks):
            x = block(x, ws[:, i])
        return x if self.upsample is None else self.upsample(x)


class ToImage(nn.Module):
    """Features to image channels, and the image so far added to them."""

    taps: Tensor

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, 1)
        nn.init.xavier_normal_(self.conv.weight, gain=0.02)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """(N, D, H, W), and (N, C, H, W) or half the sides -> (N, C, H, W) float32."""
        y = in_full(self.conv(x))
        if image is None:
            return y
        return y + (image if image.shape[2:] == y.shape[2:] else upsample2d(image, self.taps))


@network(
    "styleswin-generator",
    system="styleswin",
    paper="Zhang et al. 2022 (StyleSwin), section 3",
    tiny={"widths": 16, "z_dim": 8, "w_dim": 8, "mapping": {"layers": 2}},
)
class StyleSwinGenerator(MappedGenerator):
    """Style-based generator of StyleSwin: attention in windows and shifted windows, told by w through its norms.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024 pixels.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (L, w_dim), one w for each of the L = 2n + 2 blocks. No styles are mixed
    in training, as published.

    Parameters
    ----------
    spec : what to make.
    widths : channels of a token at 4, 8, ... pixels, n + 1 of them, multiples of 4 and 8 at least. One number is that
        of the first maps, halved with each doubling above 64 pixels: 512 is as published for 256 pixels. For 1024 the
        authors begin to halve above 32.
    heads : of attention, for all maps or for each: even, and dividing the width. None takes width / 32, at least 4.
    whole_up_to : pixels; maps whose shorter side is no longer are one window.
    mlp_ratio : hidden width of the blocks' MLPs, as a multiple of the token's.
    z_dim, w_dim : length of z, drawn from N(0, 1), and of w.
    mapping : layers, widths and learning rate of the mapping network, see `MappingNetwork`.
    average_decay : of the running mean of w, a training batch.

    Raises
    ------
    BadValue : a size that cannot be halved so often, widths or heads that do not fit.
    """

    bounded = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Positive | Widths = 512,
        heads: Positive | tuple[Positive, ...] | None = None,
        whole_up_to: Positive = 8,
        mlp_ratio: Annotated[float, Gt(0)] = 4.0,
        z_dim: Positive = 512,
        w_dim: Positive = 512,
        mapping: MappingOptions = USUAL_MAPPING,
        average_decay: Annotated[float, Ge(0), Lt(1)] = 0.998,
    ) -> None:
        n = halvings(spec, DEEPEST)
        super().__init__(MappingNetwork(z_dim, w_dim, beta=average_decay, **asdict(mapping)), z_dim, w_dim, 2 * (n + 1))
        channels = checked(widths, partial(falling_widths, n=n), f"from {spec.height >> n}x{spec.width >> n} pixels up")
        all_heads = [max(width // 32, 4) for width in channels] if heads is None else stages(heads, n + 1, "heads")
        self.sizes = [(spec.height >> n - i, spec.width >> n - i) for i in range(n + 1)]
        for width, stage_heads in zip(channels, all_heads, strict=True):
            require_tokens(width, stage_heads)
        self.const = nn.Parameter(torch.randn(self.sizes[0][0] * self.sizes[0][1], channels[0]))
        self.stages: nn.ModuleList = nn.ModuleList()
        self.to_images: nn.ModuleList = nn.ModuleList()
        for i, size in enumerate(self.sizes):
            window = None if min(size) <= whole_up_to else window_of(size)
            out = channels[i + 1] if i < n else None
            hidden = max(1, int(channels[i] * mlp_ratio))
            self.stages.append(Stage(channels[i], out, all_heads[i], size, window, w_dim, hidden))
            self.to_images.append(ToImage(channels[min(i + 1, n)], spec.channels))

    def draw(self, ws: Tensor) -> Tensor:
        """ws (N, L, w_dim) -> images (N, C, H, W) float32."""
        x = self.const.expand(ws.shape[0], -1, -1)
        image: Tensor | None = None
        for i, (stage, to_image) in enumerate(zip(self.stages, self.to_images, strict=True)):
            x = stage(x, ws[:, 2 * i : 2 * i + 2])
            image = to_image(map_of(x, *self.sizes[min(i + 1, len(self.sizes) - 1)]), image)
        assert image is not None
        return image


def window_of(size: tuple[int, int]) -> int:
    """The largest side, `WINDOW` pixels at most, of windows that the map can be cut into."""
    both = gcd(*size)
    return next(side for side in range(WINDOW, 0, -1) if both % side == 0)


def require_tokens(width: int, heads: int) -> None:
    """Refuse a width that the position code or the halves of the heads do not fit into.

    Raises
    ------
    BadValue : it does not.
    """
    if width % 4 or width < 8:
        raise BadValue(
            f"{width} channels cannot hold sines and cosines of two rates or more in x and y", key="widths",
            hint=f"widths of {max(8, 4 * round(width / 4))}",
        )  # fmt: skip
    if heads % 2:
        raise BadValue(
            f"{heads} heads cannot be halved between two kinds of windows", key="heads", hint=f"heads={heads + 1}"
        )
    require_heads(heads, width)


# ---------------------------------------------------------------------------------------------------- critic


def critic_widths(width: int, n: int) -> list[int]:
    """Channels at 2 · 2^n, ..., 8, 4 pixels; what the largest map has is named after the size of the image."""
    usual = falling_widths(width, n)
    return [usual[n], *usual[: n - 1][::-1]]


class ActiveConv(nn.Module):
    """Convolution, perhaps smoothed and halved, and a leaky ReLU that keeps variance."""

    taps: Tensor

    def __init__(self, in_: int, out: int, kernel: int, init: Init, *, down: int = 1) -> None:
        super().__init__()
        self.down = down
        self.conv = init(nn.Conv2d(in_, out, kernel))
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / down, W / down)."""
        weight, bias = cast("Tensor", self.conv.weight), cast("Tensor", self.conv.bias)
        weight, bias = weight * LEAKY_GAIN, bias * LEAKY_GAIN
        return leaky(conv2d_resample(x, weight, bias, taps=self.taps, down=self.down))


class Haar(nn.Module):
    """See `haar`."""

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4C, H/2, W/2)."""
        return haar(image)


class FromWavelets(nn.Module):
    """The image's Haar bands, read by a convolution of one pixel and added to the features."""

    def __init__(self, channels: int, width: int, init: Init) -> None:
        super().__init__()
        self.haar = Haar()
        self.conv = ActiveConv(4 * channels, width, 1, init)

    def forward(self, image: Tensor, x: Tensor | None) -> Tensor:
        """(N, C, H, W) and perhaps (N, D, H/2, W/2) -> (N, D, H/2, W/2)."""
        y: Tensor = self.conv(self.haar(image))
        return y if x is None else y + x


@network(
    "styleswin-discriminator",
    system="styleswin",
    paper="Zhang et al. 2022 (StyleSwin), section 3.4; Gal et al. 2021 (SWAGAN), section 4.2",
    tiny={"widths": 8},
)
class StyleSwinDiscriminator(Critic):
    """Wavelet critic of StyleSwin: at each size it reads the Haar bands of the image, so that blocks' edges show.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 8 to 1024 pixels.
    Scores depend on the batch by way of its variation in groups of 4.

    Parameters
    ----------
    spec : what to score.
    widths : channels at half the image's sides, at a quarter, ..., n of them; D, the length of the features, is the
        last one. One number is halved as in the generator, and the first map has as many channels as the whole image
        there: 512 is as published.
    spectral_norm : normalise every weight matrix, as published for 256 pixels; else learning rates are equalised.
    conditioning : how labels reach the critic.

    Raises
    ------
    BadValue : a size that cannot be halved so often, another number of widths.
    """

    taps: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Positive | Widths = 512,
        spectral_norm: bool = True,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        channels = checked(
            widths, partial(critic_widths, n=n), f"from {spec.height // 2}x{spec.width // 2} pixels down"
        )
        init = layer_init(zero_bias, spectral_norm=True) if spectral_norm else equalized
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)
        self.from_wavelets = nn.ModuleList(FromWavelets(spec.channels, width, init) for width in channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(ActiveConv(in_, in_, 3, init), ActiveConv(in_, out, 3, init, down=2))
            for in_, out in pairwise(channels)
        )
        D = channels[-1]
        self.conv = ActiveConv(D + 1, D, 3, init)
        self.linear = init(nn.Linear(D * (spec.height >> n) * (spec.width >> n), D))
        self.head = build_head(conditioning, D, spec, init)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, D)."""
        x: Tensor | None = None
        for i, from_wavelets in enumerate(self.from_wavelets):
            if i > 0:
                x, data = self.blocks[i - 1](x), downsample2d(data, self.taps)  # both at half the sides
            x = from_wavelets(data, x)
        assert x is not None
        varies = minibatch_std(in_full(x), 4).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x = self.conv(torch.cat([x, varies], 1)).flatten(1)  # (N, D · h · w)
        features = leaky(self.linear(x) * LEAKY_GAIN)  # (N, D)
        return self.head(features, label)
