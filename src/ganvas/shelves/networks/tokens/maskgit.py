"""The bidirectional transformer of masked image modelling, in the form of its PyTorch reproduction.

MaskGIT (Chang et al. 2022) predicts masked tokens from all others with a BERT. Its reproduction (Besnier and Chen 2023;
the network of "Halton scheduler for masked generative image transformer", Besnier et al. 2025) conditions the blocks on
the class as DiT does, shifting and scaling what the norms give and scaling what the branches add. Written from the
papers and the shapes of its weights.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.dot_product import attend, merge_heads, split_heads
from ganvas.nn.precise import precise
from ganvas.parts import network
from ganvas.types import Condition, DataSpec, TokenModel

Positive = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]
EPS = 1e-5
STD = 0.02  # of embeddings at first


def unit_rms(x: Tensor) -> Tensor:
    """x (..., D) over its root mean square, taken in float32."""
    x32 = precise(x)
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + EPS)).to(x.dtype)


class RMSNorm(nn.Module):
    """x over its root mean square, times a gain, and perhaps with a bias added (Zhang and Sennrich 2019, eq. 4)."""

    def __init__(self, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        x = unit_rms(x) * self.weight
        return x if self.bias is None else x + self.bias


class Attention(nn.Module):
    """Multi-head attention whose queries and keys have root mean square 1 over all heads together."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (linear(width, width, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        value = self.value(x)
        queries, keys = (unit_rms(project(x)).to(value.dtype) for project in (self.query, self.key))
        q, k, v = (split_heads(tokens, self.heads) for tokens in (queries, keys, value))  # (N, h, L, D/h)
        out: Tensor = self.dropout(self.out(merge_heads(attend(q, k, v))))
        return out


class SwiGLU(nn.Module):
    """out(swish(gate(x)) · value(x)) (Shazeer 2020, eq. 6)."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.gate, self.value = linear(width, inner, bias=False), linear(width, inner, bias=False)
        self.out = linear(inner, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        out: Tensor = self.out(self.dropout(F.silu(self.gate(x)) * self.value(x)))
        return out


class Block(nn.Module):
    """Attention and SwiGLU, each x + α f((1 + γ) norm(x) + β) with α, β, γ of the condition; at first the identity."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.norm1 = RMSNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width, inner, dropout)

    # Peebles and Xie 2023, section 3.2 (adaLN-Zero)
    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, L, D) and a condition (N, D) -> (N, L, D)."""
        modulation = self.modulation(F.silu(condition))[:, None]  # (N, 1, 6 D)
        beta1, gamma1, alpha1, beta2, gamma2, alpha2 = modulation.chunk(6, dim=2)
        x = x + alpha1 * self.attention(self.norm1(x) * (1 + gamma1) + beta1)
        out: Tensor = x + alpha2 * self.mlp(self.norm2(x) * (1 + gamma2) + beta2)
        return out


class LastNorm(nn.Module):
    """(1 + γ) norm(x) + β, with γ, β from the condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width, bias=True)
        self.modulation = linear(width, 2 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, L, D) and a condition (N, D) -> (N, L, D)."""
        beta, gamma = self.modulation(F.silu(condition))[:, None].chunk(2, dim=2)
        out: Tensor = self.norm(x) * (1 + gamma) + beta
        return out


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear map that starts as in Glorot and Bengio 2010, without bias at first."""
    module = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(module.weight)
    if bias:
        nn.init.zeros_(module.bias)
    return module


@network(
    "maskgit-transformer",
    system="maskgit",
    paper="Chang et al. 2022, section 3.2; Besnier and Chen 2023",
    tiny={"width": 16, "depth": 1, "heads": 2, "mlp_width": 16},
)
class MaskGITTransformer(TokenModel):
    """A bidirectional transformer that predicts every token of a sequence from all that are not masked, and the class.

    It reads tokens [0, vocabulary], the last of which is the mask, and answers with logits of those below. The head and
    the embedding of tokens are one matrix. `label` counts one class more than the data have: the last number, and no
    label at all, stand for no class, which guidance compares with.

    Parameters
    ----------
    vocabulary : how many tokens the data have; a tokenizer's `vocabulary`. None: those of data that are tokens, else
        1024.
    length : how many tokens a datum has; the product of a tokenizer's `token_shape`. None: likewise, else 256.
    width, depth, heads : of the transformer.
    mlp_width : inner width of the SwiGLU layers; two thirds of the 4 · width of an ordinary one by default, as a
        multiple of 256.
    registers : tokens without content that stand beside the others (Darcet et al. 2024).
    dropout : of what attention gives, and of the inner values of the SwiGLU layers.
    conditional : whether it looks at labels, where there are any.

    Raises
    ------
    BadValue : the heads do not share the width evenly.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        vocabulary: Annotated[int, Gt(1)] | None = None,
        length: Positive | None = None,
        width: Positive = 768,
        depth: Positive = 12,
        heads: Positive = 12,
        mlp_width: Positive | None = None,
        registers: Annotated[int, Ge(0)] = 1,
        dropout: Share = 0.1,
        conditional: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            fitting = max(n for n in range(1, heads + 1) if width % n == 0)
            raise BadValue(f"{heads} heads cannot share {width} channels evenly", key="heads", hint=f"heads={fitting}")
        categories = spec.modality.categories
        self.outputs = vocabulary or categories or 1024
        self.length = length or (math.prod(spec.shape) if categories else 256)
        self.vocabulary = self.outputs + 1
        self.classes = spec.num_classes if conditional else 0
        self.conditional = self.classes > 0
        inner = mlp_width or -(-(8 * width // 3) // 256) * 256
        self.class_embedding = embedding(self.classes + 1, width)
        self.token_embedding = embedding(self.vocabulary, width)
        self.positions = nn.Parameter(torch.randn(self.length, width) * STD)
        self.registers = nn.Parameter(torch.randn(registers, width) * STD) if registers else None
        self.blocks = nn.ModuleList(Block(width, heads, inner, dropout) for _ in range(depth))
        self.last_norm = LastNorm(width)
        self.bias = nn.Parameter(torch.zeros(self.vocabulary))

    def without(self, condition: Condition) -> Condition:
        """The number after the last class stands for no class."""
        return Condition.labelled(None if condition.label is None else torch.full_like(condition.label, self.classes))

    def forward(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """Tokens (N, L) and labels (N,) -> logits (N, L, outputs)."""
        return self.all_logits(tokens, label)[..., : self.outputs]

    def all_logits(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """Logits (N, L, vocabulary), the mask's last."""
        N, L = tokens.shape
        if label is None or not self.classes:
            label = torch.full((N,), self.classes, device=tokens.device)
        condition = self.class_embedding(label)  # (N, D)
        x = self.token_embedding(tokens) + self.positions[:L]  # (N, L, D)
        if self.registers is not None:
            x = torch.cat([x, self.registers.expand(N, -1, -1)], dim=1)  # (N, L + registers, D)
        for block in self.blocks:
            x = block(x, condition)
        x = self.last_norm(x[:, :L], condition)
        return F.linear(x, self.token_embedding.weight, self.bias)


def embedding(rows: int, width: int) -> nn.Embedding:
    """A table (rows, width) from N(0, 0.02²)."""
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=STD)
    return table
