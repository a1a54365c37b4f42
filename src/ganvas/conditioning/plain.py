"""The critic's last layer where labels do not reach it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ganvas.conditioning.head import Head
from ganvas.parts import conditioning
from ganvas.types import DataSpec, Scores


@conditioning("plain")
class PlainHead(Head):
    """One linear layer from features to a logit; labels are not looked at.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the linear layer has one.
    """

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.linear = wrap(nn.Linear(features, 1, bias=bias))

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,)."""
        return Scores(self.logit(features, label), features)
