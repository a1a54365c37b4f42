"""Nothing on the logit: for critics whose head brings the whole loss."""

from __future__ import annotations

from torch import Tensor

from ganvas.parts import objective
from ganvas.types import Objective


@objective("by-head")
class ByHead(Objective):
    """Nothing acts on the logit; the terms of the critic's conditioning are the whole adversarial loss.

    Needed beside `multi-hinge`, `am-gan` and `mmd`, possible beside classifiers, impossible beside heads without terms.
    """

    reads_real = False
    by_head = True

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.new_zeros(())

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.new_zeros(())
