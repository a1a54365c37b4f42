"""DiT (Peebles & Xie 2023): a transformer over patches as the denoiser, conditioned by adaptive layer norms.

Written from the paper; details that it leaves open, such as initial values, are those of facebookresearch/DiT.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue, UsageError
from ganvas.nn.dot_product import merge_heads, split_heads
from ganvas.nn.tokens import tokens_of
from ganvas.parts import network
from ganvas.shelves.networks.transformer.grid import divided, require_heads
from ganvas.types import Condition, DataSpec, Denoiser

Count = Annotated[int, Gt(0)]
Ratio = Annotated[float, Gt(0)]


@network(
    "dit-denoiser",
    paper="Peebles & Xie 2023",
    system="dit",
    tiny={"patch": 4, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "frequencies": 16},
)
class DiT(Denoiser):
    """A diffusion transformer with adaLN-Zero blocks: what it begins with predicts 0, and each of its blocks nothing.

    Images (N, C, H, W) and levels (N,) to (N, sides * C, H, W). A class beside the data's own stands for no class.
    Published sizes (width, depth, heads): S 384, 12, 6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.

    Parameters
    ----------
    patch : p, the side of a patch in pixels; divides both sides of the images.
    width : D of a token; a multiple of 4 and of `heads`.
    depth : blocks.
    heads : of attention.
    mlp_ratio : hidden channels of a block's MLP over `width`.
    learned_sigma : predict the steps' variance, too.
    null_class : have a class that stands for none; without it, guidance and dropout cannot be had.
    level_scale : what levels are multiplied by before they are embedded: 1 for timesteps up to 1000, more for levels
        in [0, 1], which are hardly told apart otherwise.
    frequencies : numbers that a level is first embedded in; even.

    Raises
    ------
    BadValue : the data are no images of sides that `patch` divides, or the width cannot be shared.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        patch: Count = 2,
        width: Count = 384,
        depth: Count = 12,
        heads: Count = 6,
        mlp_ratio: Ratio = 4.0,
        learned_sigma: bool = False,
        null_class: bool = True,
        level_scale: Ratio = 1.0,
        frequencies: Count = 256,
    ) -> None:
        super().__init__()
        rows, columns = divided(spec, patch, key="patch")
        require_heads(heads, width)
        for key, value, by in (("width", width, 4), ("frequencies", frequencies, 2)):
            if value % by:
                raise BadValue(f"{key} {value} is no multiple of {by}", key=key, hint=f"{key}={value + -value % by}")
        self.sides = 1 + learned_sigma
        self.classes = spec.num_classes
        self.null_class = null_class
        self.level_scale = level_scale
        self.patch_embedding = PatchEmbedding(spec.channels, width, patch)
        self.level_embedding = LevelEmbedding(width, frequencies)
        self.label_embedding = nn.Embedding(self.classes + null_class, width) if self.classes else None
        self.register_buffer("positions", sine_cosine_positions(rows, columns, width)[None])  # (1, T, D)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, int(mlp_ratio * width)) for _ in range(depth))
        self.final = FinalLayer(width, patch * patch * self.sides * spec.channels)
        self.grid = rows, columns, patch
        self.init()

    positions: Tensor

    def init(self) -> None:
        """Initial weights: Xavier everywhere but in embeddings, and zeros where a block or the network ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        convolution = self.patch_embedding.projection
        nn.init.xavier_uniform_(convolution.weight.view(len(convolution.weight), -1))
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        for embedding in (self.label_embedding, self.level_embedding.mlp[0], self.level_embedding.mlp[2]):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=0.02)  # type: ignore[arg-type]
        for layer in (*(block.modulation for block in self.blocks), self.final.modulation, self.final.linear):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type, union-attr]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type, union-attr]

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N,), (N,) int64 or None for no class -> (N, sides * C, H, W)."""
        h = self.patch_embedding(x) + self.positions  # (N, T, D)
        c = self.level_embedding(self.level_scale * level)  # (N, D)
        if self.label_embedding is not None:
            c = c + self.label_embedding(self.nothing(level) if label is None else label)
        for block in self.blocks:
            h = block(h, c)
        return placed(self.final(h, c), *self.grid)

    def nothing(self, like: Tensor) -> Tensor:
        """The number of the null class, (N,) int64.

        Raises
        ------
        UsageError : there is none.
        """
        if not self.null_class:
            raise UsageError(
                f"{self.called()} has no null class, so it needs labels, and there is no guidance",
                hint="train it with networks.denoiser.null_class=true and task.condition_dropout=0.1",
            )
        return torch.full(like.shape[:1], self.classes, device=like.device)

    def without(self, condition: Condition) -> Condition:
        """The null class for all N data; without one, no label."""
        if not self.null_class or condition.label is None:
            return super().without(condition)
        return Condition(label=self.nothing(condition.label))


class PatchEmbedding(nn.Module):
    """Each patch as a token: (N, C, H, W) -> (N, T, D), row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return tokens_of(self.projection(x))


class LevelEmbedding(nn.Module):
    """How noisy the data are, as a vector: (N,) -> (N, D)."""

    def __init__(self, width: int, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.waves(level))
        return out

    # Vaswani et al. 2017, section 3.5, with cosines first
    def waves(self, level: Tensor) -> Tensor:
        """cos and then sin of a level times each frequency, from 1 down towards 1 / 10000; (N, frequencies)."""
        half = self.frequencies // 2
        steps = torch.arange(half, dtype=torch.float32, device=level.device)
        angles = level[:, None].float() * (-math.log(10000) * steps / half).exp()
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def sine_cosine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed embeddings (rows * columns, width): the first half says the column, the second the row."""
    place = torch.arange(rows * columns, dtype=torch.float64)
    quarter = width // 4
    frequencies = 10000 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    halves = []
    for coordinate in (place % columns, place.div(columns, rounding_mode="floor")):
        angles = coordinate[:, None] * frequencies
        halves += [angles.sin(), angles.cos()]
    return torch.cat(halves, dim=1).float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, for tokens (N, T, D) and a vector (N, D) for all of a datum's."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """Multi-head self-attention by torch's fused kernels, also in training: nothing differentiates it twice."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))  # (N, h, T, D/h)
        out: Tensor = self.out(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return out


class DiTBlock(nn.Module):
    """The adaLN-Zero block (Peebles & Xie 2023, section 3.2 and figure 3)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(N, T, D), (N, D) -> (N, T, D)."""
        β1, γ1, α1, β2, γ2, α2 = self.modulation(F.silu(c)).chunk(6, dim=1)  # (N, D) each
        x = x + α1[:, None] * self.attention(modulate(self.norm1(x), β1, γ1))
        out: Tensor = x + α2[:, None] * self.mlp(modulate(self.norm2(x), β2, γ2))
        return out


class FinalLayer(nn.Module):
    """The numbers of each patch: adaptive layer norm and a linear map, (N, T, D), (N, D) -> (N, T, numbers)."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, numbers)
        self.modulation = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        β, γ = self.modulation(F.silu(c)).chunk(2, dim=1)
        out: Tensor = self.linear(modulate(self.norm(x), β, γ))
        return out


def placed(patches: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """Patches as images: (N, rows * columns, p * p * C), pixels before channels, -> (N, C, rows * p, columns * p)."""
    grid = patches.view(len(patches), rows, columns, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * patch, columns * patch)
