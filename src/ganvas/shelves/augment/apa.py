"""Deceiving the critic where data are few (Jiang et al. 2021, Deceive D: adaptive pseudo augmentation)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.nn import draws
from ganvas.parts import augment
from ganvas.shelves.augment.controller import OverfitController, refuse_idle
from ganvas.types import Augment, Turn


@augment("apa", paper="Jiang et al. 2021 (APA), section 3")
class Apa(Augment):
    """Generated images take the place of real ones with a probability that adapts to the critic's overfitting.

    Images themselves are left as they are. Replacements are generated anew, not taken from the fake side of the batch.

    Parameters
    ----------
    p : the probability at the start.
    adapt : false keeps p where it is.
    target : E[sign(D(real))] that p is steered by, the paper's threshold of λ_r.
    interval : critic updates between adjustments of p.
    speed_kimg : thousands of real images in which p can go from 0 to 1.

    Raises
    ------
    BadValue : p is 0 and does not adapt.
    """

    def __init__(
        self,
        *,
        p: Annotated[float, Ge(0), Le(1)] = 0.0,
        adapt: bool = True,
        target: Annotated[float, Ge(-1), Le(1)] = 0.6,
        interval: Annotated[int, Gt(0)] = 4,
        speed_kimg: Annotated[float, Gt(0)] = 500.0,
    ) -> None:
        refuse_idle("apa", p, adapt)
        self.controller = OverfitController(p=p, adapt=adapt, target=target, interval=interval, speed_kimg=speed_kimg)

    @property
    def p(self) -> float:
        return self.controller.p

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def mix_real(self, real: Tensor, fake: Callable[[], Tensor]) -> Tensor:
        """Real images (N, ...), each replaced by a generated one with probability p.

        Nothing is generated where none is replaced.
        """
        if self.p == 0:
            return real
        deceived = draws.uniform("deceived", (len(real), *[1] * (real.dim() - 1)), like=real) < self.p
        return torch.where(deceived, fake().to(real.dtype), real) if deceived.any() else real

    def observe(self, turn: Turn) -> None:
        """Adjust p to the critic's scores of what it was shown as real."""
        self.controller.observe(turn)

    def state_dict(self) -> dict[str, Any]:
        return self.controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state)
