"""A critic's scores kept from drifting away, where its loss looks at differences alone."""

from __future__ import annotations

from torch import Tensor

from ganvas.parts import regularizer
from ganvas.types import Regularizer, Side, Turn


@regularizer("drift", paper="Karras et al. 2018 (ProGAN), appendix A.1")
class Drift(Regularizer):
    """Squared logits of real data, E D(x)²; the paper's weight is 0.001."""

    side: Side = "discriminator"

    def __call__(self, turn: Turn) -> Tensor:
        return turn.real_scores.logits.square().mean()
