"""Sequences read from left to right: what a token model sees of them, and how well it foretells them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.types import Condition, TokenModel


def after_start(tokens: Tensor, start: int) -> Tensor:
    """(N, L) -> (N, L): the start token and all tokens but the last, so that each place sees those before it alone."""
    return torch.cat([tokens.new_full((len(tokens), 1), start), tokens[:, :-1]], dim=1)


def surprise(net: TokenModel, tokens: Tensor, condition: Condition) -> Tensor:
    """−log p(x_l | x_1 … x_(l−1)) in nats, (N, L) float32, of tokens (N, L) in [0, net.outputs).

    The sum over l is the negative log-likelihood of a sequence, its first token included.
    """
    logits = net(after_start(tokens, net.outputs), **condition.of(net))  # (N, L, outputs)
    return F.cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none")
