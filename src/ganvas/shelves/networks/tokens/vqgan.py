"""The autoencoder of VQGAN: a convolutional encoder, a codebook, a convolutional decoder.

Esser et al. 2021, "Taming transformers for high-resolution image synthesis", section 3.1 and appendix B, table 7; the
codebook is that of van den Oord et al. 2017. Layers are those of the authors' code: residual blocks of group norm
(32 groups, eps 1e-6), swish and 3x3 convolution; attention of one head at given sides of the map and always at the
smallest; strided convolutions padded on the right and below. Written from the paper.
"""

from __future__ import annotations

from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.dot_product import attend
from ganvas.nn.precise import precise
from ganvas.parts import network
from ganvas.types import DataSpec, Reconstruction, Tokenizer

Positive = Annotated[int, Gt(0)]
EPS = 1e-6


# ---------------------------------------------------------------------------------------------------- the codebook


class Codebook(nn.Module):
    """The nearest of K codes in place of every vector.

    Parameters
    ----------
    codes, dim : K, and how long a code is.
    beta : of the loss that draws vectors to their codes, against the one that draws codes to their vectors.
    legacy : whether beta weighs the other one of the two, as in the models that were released.
    """

    def __init__(self, codes: int, dim: int, *, beta: float, legacy: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)
        self.beta = beta
        self.legacy = legacy

    # Esser et al. 2021, eq. 2
    def nearest(self, z: Tensor) -> Tensor:
        """Vectors (N, dim, *shape) -> the numbers (N, *shape) of their codes; distances are taken in float32."""
        with torch.autocast(z.device.type, enabled=False):
            vectors, codes = precise(z).movedim(1, -1).flatten(0, -2), precise(self.embedding.weight)
            distance = vectors.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * vectors @ codes.T
            return distance.argmin(1).reshape(len(z), *z.shape[2:])

    def lookup(self, tokens: Tensor) -> Tensor:
        """The codes (N, dim, *shape) of numbers (N, *shape)."""
        codes: Tensor = self.embedding(tokens)
        return codes.movedim(-1, 1)

    # van den Oord et al. 2017, eq. 3
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(codes (N, dim, *shape) through which gradients go straight, their numbers, weighted losses by name)."""
        tokens = self.nearest(z.detach())
        z = precise(z)
        codes = precise(self.lookup(tokens))
        to_codes, to_vectors = (self.beta, 1.0) if self.legacy else (1.0, self.beta)
        losses = {
            "codebook": to_codes * F.mse_loss(codes, z.detach()),
            "commitment": to_vectors * F.mse_loss(z, codes.detach()),
        }
        return z + (codes - z).detach(), tokens, losses


# ---------------------------------------------------------------------------------------------------- layers


class ResidualBlock(nn.Module):
    """skip(x) + conv(dropout(swish(norm(conv(swish(norm(x))))))); the skip is a 1x1 convolution where widths differ."""

    def __init__(self, in_: int, out: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_, eps=EPS)
        self.conv1 = nn.Conv2d(in_, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(in_, out, 1) if in_ != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = self.skip(x) + h
        return out


class Attention(nn.Module):
    """x + the attention of each place to all, one head as wide as the map."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=EPS)
        self.query = nn.Conv2d(width, width, 1)
        self.key = nn.Conv2d(width, width, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2).transpose(1, 2)[:, None] for conv in (self.query, self.key, self.value))
        seen = attend(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)  # (N, C, h, w)
        out: Tensor = x + self.out(seen)
        return out


class Halved(nn.Module):
    """A map of half the size: a 3x3 convolution of stride 2 with zeros on the right and below, or means of 2x2."""

    def __init__(self, width: int, *, conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2) if conv else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 2h, 2w) -> (N, C, h, w)."""
        if self.conv is None:
            return F.avg_pool2d(x, 2)
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Doubled(nn.Module):
    """A map of twice the size: each value four times, and a 3x3 convolution."""

    def __init__(self, width: int, *, conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1) if conv else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else cast("Tensor", self.conv(x))


class Level(nn.Module):
    """Residual blocks at one size, each with attention after it where that is asked for, and the way to the next."""

    def __init__(
        self, in_: int, out: int, blocks: int, *, attention: bool, then: nn.Module, groups: int, dropout: float
    ) -> None:
        super().__init__()
        widths = [(in_ if i == 0 else out, out) for i in range(blocks)]
        self.blocks = nn.ModuleList(ResidualBlock(a, b, groups, dropout) for a, b in widths)
        self.attention = nn.ModuleList(Attention(out, groups) for _ in range(blocks if attention else 0))
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h, w), halved or doubled."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attention):
                x = self.attention[i](x)
        out: Tensor = self.then(x)
        return out


class Middle(nn.Module):
    """Block, attention, block at the smallest size."""

    def __init__(self, width: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.block1 = ResidualBlock(width, width, groups, dropout)
        self.attention = Attention(width, groups)
        self.block2 = ResidualBlock(width, width, groups, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        out: Tensor = self.block2(self.attention(self.block1(x)))
        return out


class Encoder(nn.Module):
    """Images (C, H, W) -> maps (latent, H / f, W / f); `attended` says of each level whether it has attention."""

    def __init__(
        self, channels: int, latent: int, widths: tuple[int, ...], attended: list[bool], *, first: int, blocks: int,
        groups: int, dropout: float, resample_conv: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.from_image = nn.Conv2d(channels, first, 3, padding=1)
        ins, last = (first, *widths[:-1]), len(widths) - 1
        self.levels = nn.ModuleList(
            Level(
                a, b, blocks, attention=attended[i], groups=groups, dropout=dropout,
                then=Halved(b, conv=resample_conv) if i < last else nn.Identity(),
            )
            for i, (a, b) in enumerate(zip(ins, widths, strict=True))
        )  # fmt: skip
        self.middle = Middle(widths[-1], groups, dropout)
        self.norm = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.to_latent = nn.Conv2d(widths[-1], latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.from_image(x)  # (N, first, H, W)
        for level in self.levels:
            x = level(x)
        x = self.middle(x)  # (N, widths[-1], H / f, W / f)
        out: Tensor = self.to_latent(F.silu(self.norm(x)))
        return out


class Decoder(nn.Module):
    """Maps (latent, H / f, W / f) -> images; its levels stand from the largest map to the smallest, as the encoder's.

    Each has one block more than the encoder's.
    """

    def __init__(
        self, channels: int, latent: int, widths: tuple[int, ...], attended: list[bool], *, blocks: int, groups: int,
        dropout: float, resample_conv: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.from_latent = nn.Conv2d(latent, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1], groups, dropout)
        ins = (*widths[1:], widths[-1])
        self.levels = nn.ModuleList(
            Level(
                a, b, blocks + 1, attention=attended[i], groups=groups, dropout=dropout,
                then=Doubled(b, conv=resample_conv) if i > 0 else nn.Identity(),
            )
            for i, (a, b) in enumerate(zip(ins, widths, strict=True))
        )  # fmt: skip
        self.norm = nn.GroupNorm(groups, widths[0], eps=EPS)
        self.to_image = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.middle(self.from_latent(z))  # (N, widths[-1], H / f, W / f)
        for level in reversed(self.levels):
            x = level(x)
        out: Tensor = self.to_image(F.silu(self.norm(x)))  # (N, C, H, W)
        return out


# ---------------------------------------------------------------------------------------------------- the tokenizer


@network(
    "vqgan-tokenizer",
    paper="Esser et al. 2021, section 3.1",
    tiny={"width": 8, "groups": 4, "blocks": 1, "latent_width": 8, "code_dim": 4},
)
class VQGANTokenizer(Tokenizer):
    """A convolutional autoencoder of images whose latent map is made of codes out of a learnt codebook.

    An image (C, H, W) becomes (H / f, W / f) tokens, f = 2^(levels - 1). Nothing cuts the decoder's images to [-1, 1].

    Parameters
    ----------
    width, multipliers : channels of each level, from the whole image to the smallest map: width times its multiplier.
    blocks : residual blocks of each of the encoder's levels; the decoder's have one more.
    attention : maps whose shorter side is one of these have attention after each block.
    latent_width : channels of the encoder's map, before a 1x1 convolution brings it to the codes' length.
    vocabulary, code_dim : how many codes there are, and how long they are.
    beta : weight of the commitment loss.
    legacy : whether beta weighs the codebook loss instead, as in the authors' released models.
    groups : of the group norms.
    dropout : share of the values that a block drops before its last convolution.
    resample_conv : whether maps are halved and doubled with a convolution; else by means and by repeating values.

    Raises
    ------
    BadValue : the data are no images, f does not divide their sides, or the groups a width.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Positive = 128,
        multipliers: tuple[Positive, ...] = (1, 1, 2, 2, 4),
        blocks: Positive = 2,
        attention: tuple[Positive, ...] = (16,),
        latent_width: Positive = 256,
        vocabulary: Positive = 1024,
        code_dim: Positive = 256,
        beta: Annotated[float, Ge(0)] = 0.25,
        legacy: bool = False,
        groups: Positive = 32,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        resample_conv: bool = True,
    ) -> None:
        super().__init__()
        h, w = _smallest_map(spec, multipliers)
        widths = tuple(width * multiplier for multiplier in multipliers)
        if any(channels % groups for channels in (width, *widths)):
            fitting = max(n for n in range(1, min(groups, width) + 1) if width % n == 0)
            raise BadValue(f"{groups} groups cannot share {width} channels", key="groups", hint=f"groups={fitting}")
        last = len(multipliers) - 1
        attended = [min(h, w) << (last - i) in attention for i in range(len(multipliers))]
        options = {"blocks": blocks, "groups": groups, "dropout": dropout, "resample_conv": resample_conv}
        self.encoder = Encoder(spec.channels, latent_width, widths, attended, first=width, **options)  # type: ignore[arg-type]
        self.to_code = nn.Conv2d(latent_width, code_dim, 1)
        self.codebook = Codebook(vocabulary, code_dim, beta=beta, legacy=legacy)
        self.from_code = nn.Conv2d(code_dim, latent_width, 1)
        self.decoder = Decoder(spec.channels, latent_width, widths, attended, **options)  # type: ignore[arg-type]
        self.vocabulary = vocabulary
        self.token_shape = (h, w)

    @property
    def last_weight(self) -> nn.Parameter:
        return cast("nn.Parameter", self.decoder.to_image.weight)

    def encode(self, data: Tensor) -> Tensor:
        """Images (N, C, H, W) -> tokens (N, h, w)."""
        return self.codebook.nearest(self.to_code(self.encoder(data)))

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (N, h, w) -> images (N, C, H, W)."""
        return self.image_of(self.codebook.lookup(tokens))

    def image_of(self, codes: Tensor) -> Tensor:
        """Codes (N, code_dim, h, w) -> images (N, C, H, W)."""
        images: Tensor = self.decoder(self.from_code(codes))
        return images

    # Esser et al. 2021, eq. 3-4
    def forward(self, data: Tensor) -> Reconstruction:
        """Images (N, C, H, W), reconstructed; the losses are `codebook` and `commitment`."""
        codes, tokens, losses = self.codebook(self.to_code(self.encoder(data)))
        return Reconstruction(self.image_of(codes), tokens, losses)


def _smallest_map(spec: DataSpec, multipliers: tuple[int, ...]) -> tuple[int, int]:
    """(h, w) after all levels."""
    if len(spec.shape) != 3:
        raise BadValue(f"this network reads images (C, H, W), not {spec.shape}", hint="data=digits")
    factor = 1 << (len(multipliers) - 1)
    if spec.height % factor or spec.width % factor:
        fitting = max(n for n in range(1, len(multipliers) + 1) if not (spec.height | spec.width) % (1 << (n - 1)))
        raise BadValue(
            f"{len(multipliers)} levels halve the images {len(multipliers) - 1} times, and {spec.height}x{spec.width}"
            f" can be halved {fitting - 1} times",
            key="multipliers", hint=f"multipliers=[{', '.join(map(str, multipliers[:fitting]))}]",
        )  # fmt: skip
    return spec.height // factor, spec.width // factor


# ---------------------------------------------------------------------------------------------------- without weights


@network("grey-levels-tokenizer", tiny={})
class GreyLevelsTokenizer(Tokenizer):
    """Every value of a datum is a token, one of evenly spaced levels from -1 to 1; there is nothing to learn.

    Digits of 8x8 pixels become 64 tokens. It serves as the simplest tokenizer there is, for data that are small.

    Parameters
    ----------
    levels : how many there are; 4 are black, two greys and white.

    Raises
    ------
    BadValue : the data are discrete already.
    """

    def __init__(self, spec: DataSpec, *, levels: Annotated[int, Gt(1)] = 4) -> None:
        super().__init__()
        if spec.modality.categories:
            raise BadValue("these data are tokens already", hint="leave networks.tokenizer out: networks.tokenizer=~")
        self.vocabulary = levels
        # A single channel is no axis of its own.
        self.token_shape = spec.shape[1:] if spec.shape[0] == 1 and len(spec.shape) > 1 else spec.shape
        self.shape = spec.shape

    def encode(self, data: Tensor) -> Tensor:
        """Data (N, ...) -> tokens (N, *token_shape), the nearest level of each value."""
        level = ((data.float().clamp(-1, 1) + 1) / 2 * (self.vocabulary - 1)).round().long()
        return level.reshape(len(data), *self.token_shape)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (N, *token_shape) -> data (N, ...) of these levels."""
        return (tokens.float() / (self.vocabulary - 1) * 2 - 1).reshape(len(tokens), *self.shape)

    def forward(self, data: Tensor) -> Reconstruction:
        """Data (N, ...) with each value at its nearest level; gradients go straight through."""
        tokens = self.encode(data.detach())
        return Reconstruction(data + (self.decode(tokens) - data).detach(), tokens)
