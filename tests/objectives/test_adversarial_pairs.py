"""Adversarial pairs against their closed forms: values and gradients, written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ganvas import parts

REAL = torch.tensor([2.0, 0.5, -1.0, 0.0], dtype=torch.float64)
FAKE = torch.tensor([-2.0, 0.3, 1.5], dtype=torch.float64)  # sides need not be of one size


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


@dataclass(frozen=True)
class Form:
    """Losses and their gradients as functions of real r (N,) and fake f (M,)."""

    critic: Callable[..., Tensor]
    critic_real: Callable[..., Tensor]  # dL_D/dr
    critic_fake: Callable[..., Tensor]  # dL_D/df
    generator: Callable[..., Tensor]
    generator_fake: Callable[..., Tensor]  # dL_G/df


FORMS = {
    "hinge": Form(
        lambda r, f: (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(),
        lambda r: -(r < 1).double() / len(r),
        lambda f: (f > -1).double() / len(f),
        lambda f: -f.mean(),
        lambda f: torch.full_like(f, -1 / len(f)),
    ),
    "non-saturating": Form(
        lambda r, f: -torch.log(sigmoid(r)).mean() - torch.log(1 - sigmoid(f)).mean(),
        lambda r: -sigmoid(-r) / len(r),
        lambda f: sigmoid(f) / len(f),
        lambda f: -torch.log(sigmoid(f)).mean(),
        lambda f: -sigmoid(-f) / len(f),
    ),
    "least-squares": Form(
        lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        lambda r: (r - 1) / len(r),
        lambda f: f / len(f),
        lambda f: ((f - 1) ** 2).mean() / 2,
        lambda f: (f - 1) / len(f),
    ),
    "wasserstein": Form(
        lambda r, f: f.mean() - r.mean(),
        lambda r: torch.full_like(r, -1 / len(r)),
        lambda f: torch.full_like(f, 1 / len(f)),
        lambda f: -f.mean(),
        lambda f: torch.full_like(f, -1 / len(f)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_critic_loss_and_gradient(name: str) -> None:
    objective, form = parts.build("objective", {"use": name}), FORMS[name]
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    loss = objective.critic(real, fake)
    torch.testing.assert_close(loss, form.critic(REAL, FAKE), rtol=1e-12, atol=0)
    loss.backward()
    torch.testing.assert_close(real.grad, form.critic_real(REAL), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(fake.grad, form.critic_fake(FAKE), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", FORMS)
def test_generator_loss_and_gradient(name: str) -> None:
    objective, form = parts.build("objective", {"use": name}), FORMS[name]
    assert objective.reads_real is False
    fake = FAKE.clone().requires_grad_()
    loss = objective.generator(fake.new_empty(0), fake)  # as the engine calls what does not read the real side
    torch.testing.assert_close(loss, form.generator(FAKE), rtol=1e-12, atol=0)
    loss.backward()
    torch.testing.assert_close(fake.grad, form.generator_fake(FAKE), rtol=1e-12, atol=1e-15)


@given(shift=st.floats(-100, 100))
def test_wasserstein_critic_does_not_see_a_constant(shift: float) -> None:
    wasserstein = parts.build("objective", {"use": "wasserstein"})
    moved = wasserstein.critic(REAL + shift, FAKE + shift)
    torch.testing.assert_close(moved, wasserstein.critic(REAL, FAKE), rtol=0, atol=1e-12)


def test_hinge_stops_pushing_beyond_the_margin() -> None:
    hinge = parts.build("objective", {"use": "hinge"})
    real, fake = torch.tensor([1.5, 30.0]).requires_grad_(), torch.tensor([-1.5, -30.0]).requires_grad_()
    loss = hinge.critic(real, fake)
    loss.backward()
    assert loss.item() == 0
    assert not real.grad.any()
    assert not fake.grad.any()


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_non_saturating_is_finite_at_extreme_logits(logit: float) -> None:
    pair = parts.build("objective", {"use": "non-saturating"})
    extreme = torch.full((2,), logit, requires_grad=True)
    loss = pair.critic(extreme, extreme) + pair.generator(extreme, extreme)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(extreme.grad).all()
