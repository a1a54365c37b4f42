"""Networks of one layer, whose gradients can be worked out by hand."""

from __future__ import annotations

from torch import nn

from ganvas.types import Predictor


class Line(nn.Linear, Predictor):
    """A linear network (N, inputs) -> (N, outputs)."""


class Chain(nn.Sequential, Predictor):
    """Layers one after the other."""
