"""Penalties on the critic's input gradient. All in float32, whatever the precision of training."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.nn import draws
from ganvas.nn.gradients import input_gradient
from ganvas.nn.precise import precise
from ganvas.parts import regularizer
from ganvas.types import Condition, Regularizer, Side, Turn

# The square root has no gradient at zero; the shift is far below any slope that matters.
_ROOT_SHIFT = 1e-12


def _squared_slope(turn: Turn, data: Tensor, condition: Condition) -> Tensor:
    """(N,): ‖∇ₓ D(x)‖₂² at each datum."""
    slope = input_gradient(lambda at: turn.critic(at, condition).logits, data)  # (N, C, H, W)
    return slope.flatten(1).square().sum(1)


def _one_each(data: Tensor) -> tuple[int, ...]:
    """The shape (N, 1, ...) of one number for each datum."""
    return (len(data), *[1] * (data.dim() - 1))


@regularizer("r1", paper="Mescheder et al. 2018, eq. 9")
class R1(Regularizer):
    """Squared input gradient on real data: ½ E ‖∇ₓ D(x)‖²; `weight` is the paper's γ."""

    side: Side = "discriminator"
    per_datum = True  # the slope at one datum must not depend on the others

    def __call__(self, turn: Turn) -> Tensor:
        return 0.5 * _squared_slope(turn, turn.real, turn.condition).mean()


@regularizer("r2", paper="Mescheder et al. 2018, eq. 10")
class R2(Regularizer):
    """Squared input gradient on generated data: ½ E ‖∇ₓ D(G(z))‖²; `weight` is the paper's γ."""

    side: Side = "discriminator"
    per_datum = True  # the slope at one datum must not depend on the others

    def __call__(self, turn: Turn) -> Tensor:
        return 0.5 * _squared_slope(turn, turn.fake, turn.fake_condition).mean()


@regularizer("gradient-penalty", paper="Gulrajani et al. 2017, eq. 3", system="wgan-gp")
class GradientPenalty(Regularizer):
    """Slope between real and fake held at `target`: E (‖∇ D(x̂)‖₂ − target)², x̂ = εx + (1 − ε)G(z), ε ~ U(0, 1).

    `target: 1` is WGAN-GP; `target: 0` is the zero-centred penalty of Thanh-Tung et al. 2019. `sides: one` lets slopes
    below the target be.
    """

    side: Side = "discriminator"
    per_datum = True  # the slope at one datum must not depend on the others

    def __init__(self, *, target: Annotated[float, Ge(0)] = 1.0, sides: Literal["two", "one"] = "two") -> None:
        self.target = target
        self.sides = sides

    def __call__(self, turn: Turn) -> Tensor:
        # One ε a sample, the same for all its pixels.
        mix = draws.uniform("interpolation", _one_each(turn.real), like=turn.real)
        between = torch.lerp(precise(turn.fake.detach()), precise(turn.real), mix)
        excess = (_squared_slope(turn, between, turn.condition) + _ROOT_SHIFT).sqrt() - self.target
        return (excess.relu() if self.sides == "one" else excess).square().mean()


@regularizer("dragan", paper="Kodali et al. 2017, section 2.3")
class DRAGAN(Regularizer):
    """Unit slope around real data: E (‖∇ D(x + α δ)‖₂ − 1)², α ~ U(0, 1) a datum, δ ~ scale · std(x) · U(0, 1) a pixel.

    The released code draws one number α for each datum, so that data at all distances up to δ are looked at.
    """

    side: Side = "discriminator"
    per_datum = True  # the slope at one datum must not depend on the others

    def __init__(self, *, scale: Annotated[float, Gt(0)] = 0.5) -> None:
        self.scale = scale

    def __call__(self, turn: Turn) -> Tensor:
        share = draws.uniform("interpolation", _one_each(turn.real), like=turn.real)
        noise = draws.uniform("noise", turn.real.shape, like=turn.real)
        near = turn.real + share * self.scale * turn.real.std() * noise
        return ((_squared_slope(turn, near, turn.condition) + _ROOT_SHIFT).sqrt() - 1).square().mean()


@regularizer("max-gradient-penalty", paper="Zhou et al. 2019, section 4.2")
class MaxGradientPenalty(Regularizer):
    """Lipschitz GAN: only the steepest slope of the batch counts, max ‖∇ D(x̂)‖₂² with x̂ between real and fake."""

    side: Side = "discriminator"
    per_datum = True  # the slope at one datum must not depend on the others

    def __call__(self, turn: Turn) -> Tensor:
        mix = draws.uniform("interpolation", _one_each(turn.real), like=turn.real)
        between = torch.lerp(precise(turn.fake.detach()), precise(turn.real), mix)
        return _squared_slope(turn, between, turn.condition).max()
