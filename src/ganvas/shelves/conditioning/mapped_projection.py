"""Labels reach the critic by an inner product with a mapped embedding (Karras et al. 2020, StyleGAN2-ADA's code)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from math import sqrt
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from ganvas.nn.mapping import USUAL_MAPPING, MappingNetwork, MappingOptions, as_condition
from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import Head, classes_of, given
from ganvas.types import DataSpec, Scores


@conditioning(
    "mapped-projection", paper="Karras et al. 2020 (StyleGAN2-ADA), released code", tiny={"mapping": {"layers": 2}}
)
class MappedProjectionHead(Head):
    """The inner product of linear features with a class embedding that went through a mapping network.

    Conditional StyleGANs have it. Unlike `projection`, there is no logit beside it that does without the class.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like; must have classes.
    wrap : what the critic does to its layers: first values, and its weight normalisation; the mapping network has an
        equalised learning rate of its own.
    bias : whether the linear layer has one.
    dim : M, the length of what is compared; None: D.
    mapping : layers, widths and learning rate of the mapping network, see `ganvas.nn.mapping.MappingNetwork`.

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
        mapping: MappingOptions = USUAL_MAPPING,
    ) -> None:
        super().__init__()
        self.classes = classes_of(spec, "mapped-projection")
        M = dim or features
        self.linear = wrap(nn.Linear(features, M, bias=bias))
        self.mapping = MappingNetwork(0, M, classes=self.classes, beta=None, **asdict(mapping))

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and label (N,) int64, or weights of the classes (N, K) -> logits (N,)."""
        code = self.mapping(None, as_condition(given(label, "mapped-projection"), self.classes))  # (N, M)
        logits = (self.linear(features) * code).sum(1) / sqrt(code.shape[1])
        return Scores(logits, features)
