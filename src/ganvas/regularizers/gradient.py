"""Penalties on the critic's input gradient."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge

from ganvas.nn.gradients import input_gradient
from ganvas.parts import regularizer
from ganvas.types import Side, Turn


@regularizer("r1", paper="Mescheder et al. 2018, eq. 9")
class R1:
    """Squared input gradient on real data: ½ E ‖∇ₓ D(x)‖²; `weight` is the paper's γ."""

    side: Side = "discriminator"

    def __call__(self, turn: Turn) -> torch.Tensor:
        slope = input_gradient(lambda data: turn.critic(data, turn.label).logits, turn.real)  # (N, C, H, W)
        return 0.5 * slope.flatten(1).square().sum(1).mean()


@regularizer("gradient-penalty", paper="Gulrajani et al. 2017, eq. 3", system="wgan-gp")
class GradientPenalty:
    """Two-sided penalty between real and fake: E (‖∇ D(x̂)‖₂ − target)², x̂ = εx + (1 − ε)G(z), ε ~ U(0, 1)."""

    side: Side = "discriminator"

    def __init__(self, *, target: Annotated[float, Ge(0)] = 1.0) -> None:
        self.target = target

    def __call__(self, turn: Turn) -> torch.Tensor:
        # One ε a sample, the same for all its pixels.
        mix = torch.rand(len(turn.real), *[1] * (turn.real.dim() - 1), device=turn.real.device)
        between = torch.lerp(turn.fake.detach().float(), turn.real.float(), mix)
        slope = input_gradient(lambda data: turn.critic(data, turn.label).logits, between)
        # The square root has no gradient at zero; the shift is far below any slope that matters.
        norm = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()
        return (norm - self.target).square().mean()
