"""Gaussian noise on real and generated images."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor

from ganvas.nn import draws
from ganvas.parts import augment
from ganvas.types import Augment, Turn


@augment("instance-noise", paper="Sønderby et al. 2017; Arjovsky & Bottou 2017, section 3")
class InstanceNoise(Augment):
    """Noise on real and generated images that fades linearly, so that their distributions overlap from the start.

    Parameters
    ----------
    std : of the noise at step 0, for images in [-1, 1].
    steps : when it has faded away.
    """

    def __init__(self, *, std: Annotated[float, Gt(0)] = 0.1, steps: Annotated[int, Gt(0)] = 10000) -> None:
        self.start = std
        self.steps = steps
        self.step = 0

    @property
    def std(self) -> float:
        """Of the noise now."""
        return self.start * max(1 - self.step / self.steps, 0.0)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return images + self.std * draws.normal("noise", images.shape, like=images) if self.std > 0 else images

    def observe(self, turn: Turn) -> None:
        """The noise fades after each critic update."""
        self.step = turn.step + 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
