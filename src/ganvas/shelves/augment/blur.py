"""Blur that fades away in the course of training."""

from __future__ import annotations

from math import floor
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor

from ganvas.nn.fir import filter2d
from ganvas.parts import augment
from ganvas.types import Augment, Turn


# Karras et al. 2021, appendix G: "we blur all images the discriminator sees ... we gradually ramp sigma to zero"
@augment("fading-blur", paper="Karras et al. 2021 (StyleGAN3), appendix G")
class FadingBlur(Augment):
    """Blur of real and generated images whose width falls linearly to 0, so that the critic sees coarse shapes first.

    The filter is 2^−(x / sigma)² out to three sigma, cut off there; beyond the image there are zeros.

    Parameters
    ----------
    sigma : at step 0, in pixels.
    steps : when it has fallen to 0.
    """

    def __init__(self, *, sigma: Annotated[float, Gt(0)] = 10.0, steps: Annotated[int, Gt(0)] = 6250) -> None:
        self.start = sigma
        self.steps = steps
        self.step = 0

    @property
    def sigma(self) -> float:
        """In pixels, now."""
        return self.start * max(1 - self.step / self.steps, 0.0)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        reach = floor(3 * self.sigma)  # pixels
        if reach == 0:
            return images
        x = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype) / self.sigma
        taps = torch.exp2(-x.square())
        return filter2d(images, taps / taps.sum())

    def observe(self, turn: Turn) -> None:
        """The blur fades after each critic update."""
        self.step = turn.step + 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
