"""Straight paths from data to noise, along which a network predicts the velocity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ganvas.nn import draws
from ganvas.parts import path
from ganvas.types import Path


@path("rectified-flow", paper="Liu et al. 2023; Lipman et al. 2023; Esser et al. 2024, section 3.1")
class RectifiedFlow(Path):
    """The straight path x_t = (1 − t) x + t ε, t in [0, 1], along which the network predicts the velocity v = ε − x.

    Parameters
    ----------
    times : how t is drawn in training: uniformly, or as the logistic function of a standard normal number, which is
        more often in the middle.
    """

    def __init__(self, *, times: Literal["uniform", "logit-normal"] = "uniform") -> None:
        self.times = times

    def draw_level(self, n: int, like: Tensor) -> Tensor:
        if self.times == "uniform":
            return draws.uniform("level", (n,), like=like).float()
        return draws.normal("level", (n,), like=like).float().sigmoid()

    def at(self, level: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - level, level

    def levels(self, steps: int) -> Tensor:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def target(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        return noise - x

    def denoised(self, prediction: Tensor, x_t: Tensor, level: Tensor) -> Tensor:
        _, t = self.scales(level, x_t)
        return x_t - t * prediction
