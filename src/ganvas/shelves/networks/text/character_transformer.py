"""A decoder-only transformer over characters, or any other tokens.

The architecture is that of GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
section 2.3): the decoder of Vaswani et al. 2017 without its cross-attention, normalised before each sublayer and once
at the end, with learned positions and the embedding of tokens tied to the output. Written from the papers. Unlike
GPT-2, a vocabulary of characters is small, and a class may be told at the start by an embedding that is added to every
place.
"""

from __future__ import annotations

import math
from math import prod
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.parts import network
from ganvas.types import DataSpec, TokenModel

_STD = 0.02  # of the initial weights (Radford et al. 2018, section 4.1)

Kept = tuple[Tensor, Tensor]
"""Keys and values (N, heads, l, width / heads) of the tokens so far."""


@network(
    "character-transformer",
    paper="Radford et al. 2019, section 2.3; Vaswani et al. 2017",
    tiny={"width": 16, "depth": 2, "heads": 2},
)
class CharacterTransformer(TokenModel):
    """A causal transformer: logits of each token from those before it.

    It reads one token more than it answers with, `outputs` itself, which stands at the start of a sequence, so that the
    first token is foretold, too. The embedding of `label` has one row more than there are classes: without a label, and
    for the label `num_classes`, it says that nothing is known of the class.

    Parameters
    ----------
    width : of the residual stream.
    depth : blocks.
    heads : of the attention of each block; they divide the width.
    dropout : of embeddings and of what each sublayer adds, in training alone.
    vocabulary : tokens that it answers with; None: those of the data.
    length : the longest sequence; None: that of the data.

    Raises
    ------
    BadValue : data that are no tokens without `vocabulary` and `length`, or heads that do not divide the width.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 128,
        depth: Annotated[int, Gt(0)] = 4,
        heads: Annotated[int, Gt(0)] = 4,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        vocabulary: Annotated[int, Gt(1)] | None = None,
        length: Annotated[int, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        if not spec.modality.categories and (vocabulary is None or length is None):
            raise BadValue(
                f"it reads tokens, and these data are {spec.modality.part_name} data of {spec.shape}", key="vocabulary",
                hint="give it the vocabulary and length of a tokenizer, or train on tokens: data.use=text",
            )  # fmt: skip
        if width % heads:
            raise BadValue(f"{heads} heads do not divide a width of {width}", key="heads", hint="choose a divisor")
        self.outputs = vocabulary or spec.modality.categories
        self.vocabulary = self.outputs + 1
        self.length = length or prod(spec.shape)
        self.num_classes = spec.num_classes
        self.conditional = bool(spec.num_classes)
        self.token = nn.Embedding(self.vocabulary, width)
        self.place = nn.Embedding(self.length, width)
        self.of_label = nn.Embedding(self.num_classes + 1, width) if self.num_classes else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.init(depth)

    def init(self, depth: int) -> None:
        """Normal weights; those that end a residual branch are smaller by the square root of the branches' number."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                narrow = math.sqrt(2 * depth) if name.endswith(("attention.out.weight", "mlp.2.weight")) else 1.0
                nn.init.normal_(parameter, std=_STD / narrow)

    def forward(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """Tokens (N, L) -> logits (N, L, outputs); those at place l see tokens 0 to l."""
        logits, _ = self.read(tokens, [None] * len(self.blocks), label)
        return logits

    def following(self, tokens: Tensor, past: Any = None, **condition: Tensor) -> tuple[Tensor, Any]:
        """See `TokenModel.following`; the past holds the keys and values of every block."""
        seen = 0 if past is None else past[0][0].shape[2]
        logits, extended = self.read(tokens[:, seen:], past or [None] * len(self.blocks), condition.get("label"))
        return logits[:, -1], extended

    def read(self, tokens: Tensor, past: list[Kept] | list[None], label: Tensor | None) -> tuple[Tensor, list[Kept]]:
        """Logits (N, l, outputs) of tokens (N, l) that stand behind those of the past, and the past with them."""
        seen = 0 if past[0] is None else past[0][0].shape[2]
        at = torch.arange(seen, seen + tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.place(at)  # (N, l, width)
        if self.of_label is not None:
            known = tokens.new_full((len(tokens),), self.num_classes) if label is None else label
            x = x + self.of_label(known)[:, None]
        x = self.dropout(x)
        extended: list[Kept] = []
        for block, before in zip(self.blocks, past, strict=True):
            x, now = block(x, before)
            extended.append(now)
        return F.linear(self.norm(x), self.token.weight[: self.outputs]), extended


class Block(nn.Module):
    """Attention and a perceptron, each added to the stream after a normalisation of its own."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: Kept | None) -> tuple[Tensor, Kept]:
        """(N, l, width) -> (N, l, width), and the keys and values of all tokens so far."""
        mixed, extended = self.attention(self.attention_norm(x), past)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.mlp_norm(x))), extended


class CausalAttention(nn.Module):
    """Attention of several heads in which each token sees itself and those before it (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, past: Kept | None) -> tuple[Tensor, Kept]:
        """(N, l, width) -> (N, l, width); keys and values grow by l tokens, and several new ones see no later one."""
        n, new, width = x.shape
        q, k, v = self.queries_keys_values(x).view(n, new, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (N, heads, l, d)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        hidden = k.shape[2] - new  # tokens before the new ones, which all of these see
        if hidden == 0:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            seen = torch.ones(new, k.shape[2], dtype=torch.bool, device=x.device).tril(hidden)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).reshape(n, new, width)), (k, v)
