"""ViTGAN: vision transformers on both sides, with a critic whose slope is held (Lee et al. 2022, arXiv 2107.04589).

This is the paper's form. Where the paper's equation 6 has no minus sign before the distance, this has, as Kim et al.
2021 do, for without it attention is no bounded function. The form of the authors' PyTorch code, which differs from the
paper in most places, is `vitgan_released.py`. All linear layers have equalised learning rates, as in their code and in
StyleGAN2, which the published rate of 0.002 needs. The mapping's depth and the convolutional decoder are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.attention_pooling import AttentionPooling
from ganvas.nn.equalized import EqualizedLinear, equalized
from ganvas.nn.multi_head import Linear, MultiHeadAttention, TiedL2Attention
from ganvas.nn.pinned_spectral import pin_spectral
from ganvas.nn.self_modulation import SelfModulatedLayerNorm
from ganvas.nn.spectral import spectral
from ganvas.nn.tokens import map_of
from ganvas.parts import Factory, network
from ganvas.shelves.networks.heads import build_head
from ganvas.shelves.networks.transformer.grid import divided, require_heads
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores

Positive = Annotated[int, Gt(0)]

DEMODULATION_EPS = 1e-8
LEAK = 0.2


def gelu_mlp(width: int, hidden: int, linear: Linear) -> nn.Sequential:
    """Two linear layers with a GELU between."""
    return nn.Sequential(linear(width, hidden), nn.GELU(), linear(hidden, width))


# ---------------------------------------------------------------------------------------------------- generator


class GeneratorBlock(nn.Module):
    """Attention and MLP, each after a self-modulated norm and with a residual."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = modulated_norm(width)
        self.attention = MultiHeadAttention(width, heads, linear=EqualizedLinear)
        self.norm2 = modulated_norm(width)
        self.mlp = gelu_mlp(width, hidden, EqualizedLinear)

    # Lee et al. 2022, eq. 11-12
    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        """Tokens (N, L, D) and latents (N, D) -> (N, L, D)."""
        h = self.attention(self.norm1(h, w)) + h
        out: Tensor = self.mlp(self.norm2(h, w)) + h
        return out


def modulated_norm(width: int) -> SelfModulatedLayerNorm:
    """SLN that starts near a plain layer norm: gains around 1, not around 0."""
    norm = SelfModulatedLayerNorm(width, width, linear=EqualizedLinear)
    assert isinstance(norm.gain, EqualizedLinear)
    assert norm.gain.bias is not None
    nn.init.ones_(norm.gain.bias)
    return norm


class ModulatedLinear(nn.Module):
    """A linear map whose inputs a token scales, and whose outputs are brought back to unit size (CIPS, section 3.1).

    Parameters
    ----------
    in_, out : lengths of input and output.
    style_dim : length of the token.
    demodulate : whether outputs are brought back.
    """

    def __init__(self, in_: int, out: int, style_dim: int, *, demodulate: bool) -> None:
        super().__init__()
        self.style = EqualizedLinear(style_dim, in_, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out, in_))
        self.bias = nn.Parameter(torch.zeros(out))
        self.demodulate = demodulate

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """Features (T, pixels, in), or (1, pixels, in) for all alike, and tokens (T, D) -> (T, pixels, out)."""
        W = self.weight * self.weight.shape[1] ** -0.5
        s = self.style(token)  # (T, in)
        x = (x * s[:, None]) @ W.T
        if self.demodulate:
            x = x * (s.square() @ W.T.square() + DEMODULATION_EPS).rsqrt()[:, None]
        return x + self.bias


class ImplicitDecoder(nn.Module):
    """Each pixel of a patch from its place: two layers on Fourier features, sine between, modulated by the token.

    Parameters
    ----------
    width : D of a token, and of both layers' inputs.
    channels : C of the image.
    patch : P, pixels per side.
    """

    places: Tensor

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        centres = (2 * torch.arange(patch) + 1) / patch - 1  # of the pixels, in (-1, 1)
        self.register_buffer("places", torch.cartesian_prod(centres, centres), persistent=False)  # (P^2, 2)
        self.fourier = nn.Linear(2, width)
        nn.init.uniform_(self.fourier.weight, -math.pi, math.pi)
        nn.init.uniform_(self.fourier.bias, -math.pi, math.pi)
        self.layer1 = ModulatedLinear(width, width, width, demodulate=True)
        self.layer2 = ModulatedLinear(width, channels, width, demodulate=False)

    # Lee et al. 2022, eq. 15: x_p = f(E_fou, y)
    def forward(self, y: Tensor, h: int, w: int) -> Tensor:
        """Tokens (N, h*w, D) -> images (N, C, h*P, w*P)."""
        n, P = len(y), self.patch
        y = y.flatten(0, 1)  # (T, D), T = N*h*w
        x = torch.sin(self.fourier(self.places))[None]  # (1, P^2, D)
        pixels: Tensor = self.layer2(torch.sin(self.layer1(x, y)), y)  # (T, P^2, C)
        pixels = pixels.reshape(n, h, w, P, P, -1).permute(0, 5, 1, 3, 2, 4)  # (N, C, h, P, w, P)
        return pixels.reshape(n, -1, h * P, w * P)


class ConvDecoder(nn.Module):
    """Pixels from the map of tokens: doubled in size and convolved until they are there, which also joins patches.

    Parameters
    ----------
    width : D of a token, and the channels of all maps.
    channels : C of the image.
    patch : P, pixels per side; a power of 2.
    """

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(patch.bit_length() - 1))
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, y: Tensor, h: int, w: int) -> Tensor:
        """Tokens (N, h*w, D) -> images (N, C, h*P, w*P)."""
        x = map_of(y, h, w)  # (N, D, h, w)
        for conv in self.convs:
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2.0)), LEAK)  # (N, D, 2h, 2w)
        image: Tensor = self.to_image(x)
        return image


@network(
    "vitgan-generator",
    system="vitgan",
    paper="Lee et al. 2022, eq. 9-15",
    tiny={"width": 16, "layers": 2, "heads": 2, "z_dim": 8},
)
class ViTGANGenerator(Generator):
    """Transformer generator of ViTGAN: learnt positions are its tokens, the latent enters by every norm.

    Images of any channel count whose sides `patch` divides.

    Parameters
    ----------
    spec : what to make.
    width : D of a token.
    layers : number of blocks.
    heads : of attention; they divide the width.
    patch : P, pixels per side that a token makes. 4 at 32, 8 at 64 pixels in the paper.
    mlp_ratio : hidden channels of the blocks' MLPs over the width.
    z_dim : length of the latent vector, drawn from N(0, 1).
    mapping_layers : of the MLP that makes the norms' vector w of it.
    decoder : "implicit" makes each pixel from its place in the patch; "conv" up-samples the map of tokens by
        convolutions, which the authors recommend for faster convergence and which needs a power of 2 as `patch`.

    Raises
    ------
    BadValue : sides that `patch` does not divide, heads that do not divide the width, a patch that is no power of 2.
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
        z_dim: Positive = 384,
        mapping_layers: Positive = 2,
        decoder: Literal["implicit", "conv"] = "implicit",
    ) -> None:
        super().__init__()
        self.size = divided(spec, patch, key="patch")
        require_heads(heads, width)
        if decoder == "conv":
            require_power_of_2(patch)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.conditional = False
        mapping: list[nn.Module] = []
        for i in range(mapping_layers):
            mapping += [EqualizedLinear(width if i else z_dim, width), nn.LeakyReLU(LEAK)]
        self.mapping = nn.Sequential(*mapping)
        self.positions = nn.Parameter(torch.randn(1, self.size[0] * self.size[1], width))
        self.blocks = nn.ModuleList(GeneratorBlock(width, heads, mlp_ratio * width) for _ in range(layers))
        self.norm = modulated_norm(width)
        make = ImplicitDecoder if decoder == "implicit" else ConvDecoder
        self.decoder = make(width, spec.channels, patch)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W) in [-1, 1]; labels are not looked at."""
        w = self.mapping(latent)  # (N, D)
        h = self.positions.expand(len(latent), -1, -1)  # (N, L, D)
        for block in self.blocks:
            h = block(h, w)
        image: Tensor = self.decoder(self.norm(h, w), *self.size).tanh()  # (N, C, H, W)
        return image


def require_power_of_2(patch: int) -> None:
    """Refuse patches that doubling cannot reach.

    Raises
    ------
    BadValue : it is no power of 2.
    """
    if patch & (patch - 1):
        raise BadValue(
            f"a convolutional decoder doubles, and a patch of {patch} pixels is no power of 2",
            key="patch",
            hint=f"patch={1 << (patch.bit_length() - 1)}, or decoder=implicit",
        )


# ---------------------------------------------------------------------------------------------------- critic


CriticNorm = Literal["pinned-spectral", "spectral", "none"]


def held(module: nn.Module, norm: CriticNorm) -> nn.Module:
    """The layer, its weight's largest singular value held where it is, or at 1, or not."""
    if norm == "none":
        return module
    return pin_spectral(module) if norm == "pinned-spectral" else spectral(module)


class CriticBlock(nn.Module):
    """Attention and MLP, each after a layer norm and with a residual (eq. 2-3)."""

    def __init__(self, width: int, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width)
        self.mlp = mlp

    def forward(self, h: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        h = self.attention(self.norm1(h)) + h
        out: Tensor = self.mlp(self.norm2(h)) + h
        return out


@network(
    "vitgan-discriminator",
    system="vitgan",
    paper="Lee et al. 2022, section 3.2",
    tiny={"width": 16, "layers": 2, "heads": 2},
)
class ViTGANDiscriminator(Critic):
    """Transformer critic of ViTGAN: overlapping patches, attention by distance, weights held at their initial norm.

    Images of any channel count whose sides `patch` divides.

    Parameters
    ----------
    spec : what to score.
    width : D of a token, and of the features.
    layers : number of blocks.
    heads : of attention; they divide the width.
    patch : P, the stride of patches in pixels. 4 at 32, 8 at 64 pixels in the paper.
    overlap : o, how far a patch reaches beyond its P x P pixels on every side; None is P / 2, as published.
    mlp_ratio : hidden channels of the blocks' MLPs over the width.
    attention : "l2" by distance, with one map for queries and keys; "dot-product" as in other transformers.
    norm : "pinned-spectral" holds the largest singular value of every weight matrix of critic and head where it
        starts, "spectral" holds it at 1, "none" leaves it.
    pooling : "token" takes the features from a class token that travels with the patches, as published; "map" from a
        learnt query that attends to the patches after the last block (Zhai et al. 2022, section 3.2).
    conditioning : how labels reach the critic.

    Raises
    ------
    BadValue : sides that `patch` does not divide, heads that do not divide the width.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 384,
        layers: Positive = 4,
        heads: Positive = 6,
        patch: Positive = 4,
        overlap: Annotated[int, Ge(0)] | None = None,
        mlp_ratio: Positive = 4,
        attention: Literal["l2", "dot-product"] = "l2",
        norm: CriticNorm = "pinned-spectral",
        pooling: Literal["token", "map"] = "token",
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        h, w = divided(spec, patch, key="patch")
        require_heads(heads, width)
        attend = partial(TiedL2Attention if attention == "l2" else MultiHeadAttention, width, heads)

        def linear(in_: int, out: int) -> nn.Module:
            return held(EqualizedLinear(in_, out), norm)

        self.patch = patch
        self.overlap = patch // 2 if overlap is None else overlap
        self.embed = linear(spec.channels * (patch + 2 * self.overlap) ** 2, width)
        self.pool: AttentionPooling | None = None
        if pooling == "token":
            self.token = nn.Parameter(torch.randn(1, 1, width))  # the class token of vision transformers
        else:
            self.pool = AttentionPooling(width, heads, mlp_ratio * width, linear=linear)
        self.positions = nn.Parameter(torch.randn(1, (pooling == "token") + h * w, width))
        self.blocks = nn.ModuleList(
            CriticBlock(width, attend(linear=linear), gelu_mlp(width, mlp_ratio * width, linear)) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = build_head(conditioning, width, spec, lambda module: held(equalized(module), norm))

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, width)."""
        P, o = self.patch, self.overlap
        patches = F.unfold(data, P + 2 * o, stride=P, padding=o).transpose(1, 2)  # (N, L, C (P + 2o)^2)
        h = self.embed(patches)  # (N, L, D)
        if self.pool is None:
            h = torch.cat([self.token.expand(len(data), -1, -1), h], 1)  # (N, 1 + L, D)
        h = h + self.positions
        for block in self.blocks:
            h = block(h)
        if self.pool is not None:
            return self.head(self.pool(self.norm(h)), label)
        return self.head(self.norm(h[:, 0]), label)  # a layer norm looks at one token at a time
