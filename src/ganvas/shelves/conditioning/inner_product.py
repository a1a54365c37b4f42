"""Labels reach the critic by an inner product alone, without a term that all classes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import Head, classes_of, given
from ganvas.types import DataSpec, Scores


@conditioning("inner-product", paper="Huang et al. 2024, appendix D", tiny={"dim": 4})
class InnerProductHead(Head):
    """R3GAN: the logit is the inner product of a linear map of the features with a learnt vector of the class.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like; must have classes.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the linear map has one.
    dim : E, the length of both vectors; None takes D. The class vectors start 1 / sqrt(E) times smaller than other
        weights, so that logits do not grow with E.

    Raises
    ------
    BadValue : the data have no labels.
    """

    linear_logit = False

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        dim: Annotated[int, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes_of(spec, "inner-product")
        E = dim or features
        self.linear = wrap(nn.Linear(features, E, bias=bias))
        self.embedding = wrap(nn.Linear(self.classes, E, bias=False))
        weight = self.embedding.weight
        if isinstance(weight, nn.Parameter):  # a weight normalisation would undo it
            with torch.no_grad():
                weight.mul_(E**-0.5)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and label (N,) int64 -> logits (N,)."""
        y = F.one_hot(given(label, "inner-product"), self.classes).to(features.dtype)  # (N, K)
        return Scores((self.linear(features) * self.embedding(y)).sum(1), features)
