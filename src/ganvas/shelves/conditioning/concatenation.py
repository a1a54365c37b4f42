"""The label joins the features (Mirza & Osindero 2014, Conditional Generative Adversarial Nets)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.maxout import Maxout
from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import Head, classes_of, given
from ganvas.types import DataSpec, Scores


@conditioning("concatenation", paper="Mirza & Osindero 2014, section 4.1", system="cgan", tiny={"width": 8})
class ConcatenationHead(Head):
    """cGAN: features and label go through a joint maxout layer to the logit.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    label_width, label_pieces : units and linear maps per unit of the label's own maxout layer.
    width, pieces : units and linear maps per unit of the joint one.

    Raises
    ------
    BadValue : the data have no labels.
    """

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        label_width: Annotated[int, Gt(0)] = 50,
        label_pieces: Annotated[int, Gt(0)] = 5,
        width: Annotated[int, Gt(0)] = 240,
        pieces: Annotated[int, Gt(0)] = 4,
    ) -> None:
        super().__init__()
        self.classes = classes_of(spec, "concatenation")
        self.of_label = Maxout(self.classes, label_width, label_pieces, wrap)
        self.joint = Maxout(features + label_width, width, pieces, wrap)
        self.linear = wrap(nn.Linear(width, 1, bias=bias))

    def inputs(self, features: Tensor, label: Tensor | None) -> Tensor:
        """(N, D) and label (N,) int64 -> (N, width)."""
        y = F.one_hot(given(label, "concatenation"), self.classes).to(features.dtype)  # (N, K)
        joined: Tensor = self.joint(torch.cat([features, self.of_label(y)], 1))
        return joined

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and label (N,) int64 -> logits (N,)."""
        return Scores(self.logit(features, label), features)
