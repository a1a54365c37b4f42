"""Regularizers of the weights themselves."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import nn

from ganvas.parts import regularizer
from ganvas.types import Side


@regularizer("weight-clipping", paper="Arjovsky et al. 2017, algorithm 1", system="wgan")
class WeightClipping:
    """Every critic parameter is clamped to [−limit, limit] after each critic update."""

    side: Side = "discriminator"

    def __init__(self, *, limit: Annotated[float, Gt(0)] = 0.01) -> None:
        self.limit = limit

    @torch.no_grad()
    def apply(self, net: nn.Module) -> None:
        own: list[torch.Tensor] = list(net.parameters())
        torch._foreach_clamp_min_(own, -self.limit)
        torch._foreach_clamp_max_(own, self.limit)
