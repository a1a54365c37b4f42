"""How strong an augmentation should be: as strong as the critic overfits (Karras et al. 2020, section 3)."""

from __future__ import annotations

from typing import Any

from ganvas.errors import BadValue
from ganvas.runtime import ranks
from ganvas.types import Turn


class OverfitController:
    """p ∈ [0, 1] that rises while the critic overfits and falls while it does not.

    The heuristic is r_t = E[sign(D_train)], the mean over the last `interval` critic updates: 0 where the critic knows
    nothing, 1 where it has learnt its real images by heart. After every `interval` updates,
    p ← p + sign(r_t − target) · images / (1000 · speed_kimg), with the images shown in between.

    It presumes an objective that puts real data above 0 and generated data below; the score of a Wasserstein critic or
    of a relativistic one says nothing about overfitting.

    Parameters
    ----------
    p : where it starts.
    adapt : whether p moves at all.
    target : the r_t that it is steered by, 0.6 in the paper.
    interval : critic updates between adjustments.
    speed_kimg : thousands of real images in which p can go from 0 to 1.
    """

    def __init__(self, *, p: float, adapt: bool, target: float, interval: int, speed_kimg: float) -> None:
        self.p = p
        self.adapt = adapt
        self.target = target
        self.interval = interval
        self.speed_kimg = speed_kimg
        self.signs = 0.0  # Σ sign(D(x)) since the last adjustment
        self.images = 0
        self.updates = 0

    def observe(self, turn: Turn) -> bool:
        """Count one critic update; whether p has been adjusted."""
        if not self.adapt:
            return False
        logits = turn.real_scores.logits.detach()
        self.signs += ranks.sum_over_ranks(logits.sign().sum()).item()
        self.images += ranks.world() * len(logits)
        self.updates += 1
        if self.updates < self.interval:
            return False
        r_t = self.signs / self.images
        direction = (r_t > self.target) - (r_t < self.target)
        self.p = min(max(self.p + direction * self.images / (1000 * self.speed_kimg), 0.0), 1.0)
        self.signs, self.images, self.updates = 0.0, 0, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"p": self.p, "signs": self.signs, "images": self.images, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.p, self.signs = state["p"], state["signs"]
        self.images, self.updates = state["images"], state["updates"]


def refuse_idle(name: str, p: float, adapt: bool) -> None:
    """An augmentation that would never do anything is a mistake.

    Raises
    ------
    BadValue : p is 0 and stays so.
    """
    if p == 0 and not adapt:
        raise BadValue(
            f"{name!r} with p 0 that does not adapt never does anything",
            key="p",
            hint="give a p above 0, or adapt=true",
        )
