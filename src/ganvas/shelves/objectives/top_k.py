"""Generators that learn from their best samples alone."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.parts import Slot, objective
from ganvas.types import Objective, Turn

Share = Annotated[float, Gt(0), Le(1)]


@objective("top-k", paper="Sinha et al. 2020, algorithm 1")
class TopK(Objective):
    """The generator's loss of another objective, taken over the k generated samples that the critic likes best.

    k = ⌈max(floor, decay^⌊step / every⌋) · N⌉: the whole batch at first, fewer as training goes on. The share is a
    function of the step, so a resumed run goes on with the k that it had.

    Raises
    ------
    BadValue : `of` leaves the logits alone, or is another top-k.
    """

    def __init__(
        self,
        *,
        of: Annotated[Objective, Slot("objective")] = "hinge",  # type: ignore[assignment]
        floor: Share = 0.5,
        decay: Share = 0.99,
        every: Annotated[int, Gt(0)] = 500,
    ) -> None:
        if isinstance(of, TopK) or of.by_head:
            raise BadValue(
                f"there is no loss of single logits in objective {of.called()!r},"
                " of which top-k could leave some out",
                key="objective.of", hint="task.objective.of=hinge",
            )  # fmt: skip
        self.of = of
        self.selects_of = of
        self.floor = floor
        self.decay = decay
        self.every = every
        self.step = 0
        self.reads_real = of.reads_real

    def observe(self, turn: Turn) -> None:
        """Note the step; called in each critic update."""
        self.step = turn.step

    def k(self, n: int) -> int:
        """How many of n samples count at the present step."""
        return math.ceil(max(self.floor, self.decay ** (self.step // self.every)) * n)

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.of.critic(real_logits, fake_logits)

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        best = fake_logits.topk(self.k(len(fake_logits))).values
        # A relativistic objective compares pairs: as many real ones as generated ones are left.
        return self.of.generator(real_logits[: len(best)], best)
