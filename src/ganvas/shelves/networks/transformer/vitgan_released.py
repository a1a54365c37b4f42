"""ViTGAN's generator as its authors released it in PyTorch (mlpc-ucsd/ViTGAN), beside StyleGAN2's critic.

Lee et al. 2022, "ViTGAN: Training GANs with Vision Transformers" (arXiv 2107.04589). What their code does otherwise
than the paper, whose form is `vitgan.py`:

- Tokens are sines of a linear map of their places, not free parameters.
- Attention is by distance in the generator, too. The distance has no minus sign, so that far tokens weigh most; its
  squares are the queries' own on both sides, and means, where the product is a sum over untied queries and keys.
- A residual starts from the normed tokens, so that nothing runs past the norms.
- Gains of norms are 1 + γ(w), weights of blocks are held at their initial spectral norm, and the MLP has SiLU.
- Pixels come from StyleGAN2's modulated convolutions, or from CIPS with a mapping network of its own.

Noise is added to the maps of the decoder in training only; they draw it in sampling, too.
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.nn import draws
from ganvas.nn.dot_product import attend, merge_heads, split_heads
from ganvas.nn.equalized import LEAKY_GAIN, EqualizedLinear, leaky
from ganvas.nn.fir import filter_taps
from ganvas.nn.mapping import MappingNetwork
from ganvas.nn.modulated import modulated_conv2d
from ganvas.nn.pinned_spectral import pin_spectral
from ganvas.nn.self_modulation import SelfModulatedLayerNorm
from ganvas.nn.tokens import map_of, tokens_of
from ganvas.parts import network
from ganvas.shelves.networks.transformer.grid import divided, stages
from ganvas.shelves.networks.transformer.vitgan import require_power_of_2
from ganvas.types import DataSpec, Generator, LatentSpec

Positive = Annotated[int, Gt(0)]

NORM_EPS = 1e-3
IMPLICIT_MAPPING_LAYERS = 4
TAPS = (1, 3, 3, 1)  # of the up-sampling filter


def pinned(in_: int, out: int) -> nn.Module:
    """A linear layer with equalised learning rate whose spectral norm stays what it is."""
    return pin_spectral(EqualizedLinear(in_, out))


class FourierPositions(nn.Module):
    """sin of a linear map of places in [-1, 1]², the corners included.

    Parameters
    ----------
    width : D of the features.
    h, w : rows and columns of places.
    """

    places: Tensor

    def __init__(self, width: int, h: int, w: int) -> None:
        super().__init__()
        y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        self.register_buffer("places", torch.stack([x, y])[None], persistent=False)  # (1, 2, h, w)
        self.conv = nn.Conv2d(2, width, 1)
        nn.init.uniform_(self.conv.weight, -sqrt(9 / 2), sqrt(9 / 2))

    def forward(self, n: int) -> Tensor:
        """The same features n times: (n, D, h, w)."""
        return torch.sin(self.conv(self.places)).expand(n, -1, -1, -1)


class ReleasedL2Attention(nn.Module):
    """Attention whose logits are τ (‖qᵢ‖² / d − 2 qᵢ · kⱼ + ‖qⱼ‖² / d) / √d, with a learnt τ.

    Parameters
    ----------
    width : D of a token.
    heads : h; each has d = floor(D / h) channels.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = heads * (width // heads)
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(1))
        self.qkv = pinned(width, 3 * inner)
        self.out = pinned(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))  # (N, h, L, d)
        scale = float(q.shape[-1]) ** -0.5
        tau = self.temperature.to(q.dtype)
        bias = tau * scale * q.square().mean(-1)[:, :, None]  # (N, h, 1, L); ‖qᵢ‖² is alike for all j
        out: Tensor = self.out(merge_heads(attend(-tau * q, k, v, bias=bias, scale=2 * scale)))
        return out


class ReleasedBlock(nn.Module):
    """Modulated norm, then attention onto it; modulated norm, then an MLP onto it."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = released_norm(width)
        self.attention = ReleasedL2Attention(width, heads)
        self.norm2 = released_norm(width)
        self.mlp = nn.Sequential(pinned(width, mlp_ratio * width), nn.SiLU(), pinned(mlp_ratio * width, width))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Tokens (N, L, D) and latents (N, D) -> (N, L, D)."""
        x = self.norm1(x, w)
        x = self.norm2(self.attention(x) + x, w)
        out: Tensor = self.mlp(x) + x
        return out


def released_norm(width: int) -> SelfModulatedLayerNorm:
    return SelfModulatedLayerNorm(width, width, linear=EqualizedLinear, offset=1.0, eps=NORM_EPS)


class StyledConv(nn.Module):
    """StyleGAN2's layer: modulated convolution, noise in training, bias and leaky ReLU.

    Parameters
    ----------
    in_, out : channels.
    kernel : side of the kernel in pixels.
    style_dim : length of the style.
    up : 2 doubles the sides, 1 keeps them.
    """

    taps: Tensor

    def __init__(self, in_: int, out: int, kernel: int, style_dim: int, *, up: int = 1) -> None:
        super().__init__()
        self.up = up
        self.style = EqualizedLinear(style_dim, in_, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out, in_, kernel, kernel))
        self.noise = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("taps", filter_taps(TAPS), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in, H, W) and styles (N, S) -> (N, out, up * H, up * W)."""
        weight = self.weight * self.weight[0].numel() ** -0.5
        x = modulated_conv2d(x, weight, self.style(w), up=self.up, taps=self.taps)
        if self.training:
            x = x + self.noise * draws.normal("layer noise", x[:, :1].shape, like=x)
        return leaky((x + self.bias[:, None, None]) * LEAKY_GAIN)


class ToImage(nn.Module):
    """Modulated 1x1 convolution to pixels, without demodulation.

    Parameters
    ----------
    in_, out : channels.
    style_dim : length of the style.
    """

    def __init__(self, in_: int, out: int, style_dim: int) -> None:
        super().__init__()
        self.style = EqualizedLinear(style_dim, in_, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out, in_, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in, H, W) and styles (N, S) -> (N, out, H, W)."""
        weight = self.weight * self.weight[0].numel() ** -0.5
        return modulated_conv2d(x, weight, self.style(w), demodulate=False) + self.bias[:, None, None]


class StyledDecoder(nn.Module):
    """Pixels from the map of tokens by modulated convolutions, two at every size.

    Parameters
    ----------
    width : D of a token, and of the latent that modulates.
    widths : channels at each size.
    channels : C of the image.
    """

    def __init__(self, width: int, widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        in_ = width
        for out in widths:
            self.convs += [StyledConv(in_, out, 3, width, up=2), StyledConv(out, out, 3, width)]
            in_ = out
        self.to_image = ToImage(in_, channels, width)

    def forward(self, y: Tensor, h: int, w: int, latent: Tensor) -> Tensor:
        """Tokens (N, h*w, D) and latents (N, D) -> images (N, C, H, W)."""
        x = map_of(y, h, w)  # (N, D, h, w)
        for conv in self.convs:
            x = conv(x, latent)  # (N, ch, 2h, 2w) every other time
        image: Tensor = self.to_image(x, latent)
        return image


class CIPSDecoder(nn.Module):
    """Each patch by itself from its pixels' places: 1x1 convolutions, modulated by the token after a mapping network.

    Parameters
    ----------
    width : D of a token.
    hidden : channels between.
    channels : C of the image.
    patch : P, pixels per side.
    """

    def __init__(self, width: int, hidden: int, channels: int, patch: int) -> None:
        super().__init__()
        self.mapping = MappingNetwork(width, width, layers=IMPLICIT_MAPPING_LAYERS, beta=None)
        self.positions = FourierPositions(width, patch, patch)
        self.convs = nn.ModuleList(StyledConv(in_, hidden, 1, width) for in_ in (width, hidden, hidden))
        self.to_image = ToImage(hidden, channels, width)

    def forward(self, y: Tensor, h: int, w: int, latent: Tensor) -> Tensor:
        """Tokens (N, h*w, D) -> images (N, C, h*P, w*P); the latent reaches patches through their tokens only."""
        s = self.mapping(y.flatten(0, 1))  # (T, D), T = N*h*w
        x = self.positions(len(s))  # (T, D, P, P)
        for conv in self.convs:
            x = conv(x, s)
        pixels: Tensor = self.to_image(x, s)  # (T, C, P, P)
        _, C, P, _ = pixels.shape
        return pixels.reshape(-1, h, w, C, P, P).permute(0, 3, 1, 4, 2, 5).reshape(-1, C, h * P, w * P)


@network(
    "vitgan-released-generator",
    system="vitgan",
    paper="Lee et al. 2022, released code",
    tiny={"width": 16, "layers": 2, "heads": 2, "mapping_layers": 2},
)
class ViTGANReleasedGenerator(Generator):
    """Generator of ViTGAN in the form of the authors' PyTorch code, which differs from the paper's.

    Images of any channel count whose sides `patch` divides. The latent is as long as a token.

    Parameters
    ----------
    spec : what to make.
    width : D of a token, and length of the latent vector, drawn from N(0, 1).
    layers : number of blocks.
    heads : of attention, each of floor(width / heads) channels.
    patch : P, pixels per side that a token makes; 4 at 32, 8 at 64 pixels there.
    mlp_ratio : hidden channels of the blocks' MLPs over the width.
    mapping_layers : of the mapping network.
    decoder : "conv" up-samples the map of tokens by modulated convolutions and needs a power of 2 as `patch`;
        "implicit" makes each pixel from its place in the patch.
    decoder_width : channels of the decoder's maps: of all, or with "conv" at each size. None is the width with "conv",
        which is theirs up to 64 pixels, and 512 with "implicit".

    Raises
    ------
    BadValue : sides that `patch` does not divide, a patch that is no power of 2, widths for sizes that do not occur.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 384,
        layers: Positive = 4,
        heads: Positive = 6,
        patch: Positive = 4,
        mlp_ratio: Positive = 4,
        mapping_layers: Positive = 8,
        decoder: Literal["conv", "implicit"] = "conv",
        decoder_width: Positive | tuple[Positive, ...] | None = None,
    ) -> None:
        super().__init__()
        h, w = self.size = divided(spec, patch, key="patch")
        self.latents = {"z": LatentSpec((width,), "normal")}
        self.conditional = False
        self.bounded = False
        self.mapping = MappingNetwork(width, width, layers=mapping_layers, beta=None)
        self.positions = FourierPositions(width, h, w)
        self.blocks = nn.ModuleList(ReleasedBlock(width, heads, mlp_ratio) for _ in range(layers))
        self.norm = released_norm(width)
        self.decoder: nn.Module
        if decoder == "conv":
            require_power_of_2(patch)
            widths = stages(decoder_width or width, patch.bit_length() - 1, "decoder_width")
            self.decoder = StyledDecoder(width, widths, spec.channels)
        else:
            (hidden,) = stages(decoder_width or 512, 1, "decoder_width")
            self.decoder = CIPSDecoder(width, hidden, spec.channels, patch)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, width) -> images (N, C, H, W); labels are not looked at."""
        w = self.mapping(latent)  # (N, D)
        x = tokens_of(self.positions(len(latent)))  # (N, L, D)
        for block in self.blocks:
            x = block(x, w)
        image: Tensor = self.decoder(self.norm(x, w), *self.size, w)
        return image
