"""Penalties and constraints on critics whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ganvas import parts
from ganvas.training.train import train
from ganvas.types import NO_CONDITION, Critic, Latent, Scores, Turn

SHAPE = (2, 3, 3)


class Linear(Critic):
    """D(x) = w · x."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        flat = data.flatten(1)
        return Scores(flat @ self.w, flat)


class Cone(Linear):
    """D(x) = w₀ ‖x‖."""

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        flat = data.flatten(1)
        return Scores(self.w[0] * flat.norm(dim=1), flat)


class Curved(Linear):
    """D(x) = Σ tanh(w x): its input gradient depends on x and w alike."""

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        flat = data.flatten(1)
        return Scores(torch.tanh(flat * self.w).sum(1), flat)


def turn_of(critic: Callable[..., Scores], real: Tensor, fake: Tensor | None = None) -> Turn:
    fakes = torch.zeros_like(real) if fake is None else fake
    return Turn(
        nets={}, step=0, real=real, condition=NO_CONDITION, latent=Latent(torch.zeros(len(real), 1)),
        fake_condition=NO_CONDITION, critic=lambda data, condition: critic(data, condition.label),
        generate=lambda latent, condition: fakes,
    )  # fmt: skip


def penalty(name: str, **keys: object) -> Callable[[Turn], Tensor]:
    return parts.build("regularizer", {"use": name, **keys})


def data(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


weights = st.lists(st.floats(-3, 3, width=32), min_size=18, max_size=18).map(torch.tensor)


@given(w=weights, n=st.integers(1, 5))
@settings(max_examples=30)
def test_r1_of_a_linear_critic_is_half_its_squared_norm(w: Tensor, n: int) -> None:
    found = penalty("r1")(turn_of(Linear(w), data(n)))
    assert found.item() == pytest.approx(0.5 * w.double().square().sum().item(), rel=1e-5, abs=1e-7)


def test_r1_gradient_of_a_linear_critic_is_its_weight() -> None:
    critic = Linear(torch.arange(18.0) / 10)
    penalty("r1")(turn_of(critic, data(4))).backward()
    torch.testing.assert_close(critic.w.grad, critic.w.detach(), rtol=1e-5, atol=1e-6)


@given(w=weights, target=st.floats(0, 2))
@settings(max_examples=30)
def test_gradient_penalty_of_a_linear_critic(w: Tensor, target: float) -> None:
    found = penalty("gradient-penalty", target=target)(turn_of(Linear(w), data(3), data(3, seed=1)))
    assert found.item() == pytest.approx((w.double().norm().item() - target) ** 2, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("a", [2.5, 1.0, -0.5])
def test_gradient_penalty_of_a_cone(a: float) -> None:
    found = penalty("gradient-penalty")(turn_of(Cone(torch.tensor([a])), data(6), data(6, seed=1)))
    assert found.item() == pytest.approx((abs(a) - 1) ** 2, abs=1e-5)


@pytest.mark.parametrize("name", ["r1", "gradient-penalty"])
def test_double_backward_is_the_slope_of_the_penalty(name: str) -> None:
    """input_gradient computes in float32, so this is a central difference with a step that suits it."""
    critic = Curved(torch.linspace(-1, 1, 18))

    def value() -> Tensor:
        torch.manual_seed(3)  # the same mixture of real and fake each time
        return penalty(name)(turn_of(critic, data(4), data(4, seed=1)))

    value().backward()
    step = 1e-2
    for i in (0, 5, 17):
        around = []
        for sign in (1, -1):
            with torch.no_grad():
                critic.w[i] += sign * step
            around.append(value().item())
            with torch.no_grad():
                critic.w[i] -= sign * step
        slope = (around[0] - around[1]) / (2 * step)
        assert critic.w.grad[i].item() == pytest.approx(slope, rel=5e-3, abs=5e-4)


@pytest.mark.parametrize("name", ["r1", "gradient-penalty"])
def test_penalty_is_the_mean_of_each_datum_by_itself(name: str) -> None:
    critic, real, fake = Curved(torch.linspace(-1, 1, 18)), data(5), data(5, seed=1)
    fake[:] = real  # the mixture is then the datum, whatever its share
    whole = penalty(name)(turn_of(critic, real, fake)).item()
    each = [penalty(name)(turn_of(critic, real[i : i + 1], fake[i : i + 1])).item() for i in range(5)]
    assert whole == pytest.approx(sum(each) / 5, rel=1e-5)
    assert len({round(value, 4) for value in each}) == 5  # and they do differ


def test_gradient_penalty_looks_between_real_and_fake() -> None:
    seen: list[Tensor] = []

    def critic(x: Tensor, label: Tensor | None) -> Scores:
        seen.append(x.detach())
        return Scores(x.flatten(1).sum(1), x.flatten(1))

    real, fake = torch.ones(64, *SHAPE), torch.zeros(64, *SHAPE)
    torch.manual_seed(0)
    penalty("gradient-penalty")(turn_of(critic, real, fake))
    shares = seen[-1].flatten(1)
    assert torch.equal(shares.amin(1), shares.amax(1))  # one share a datum
    assert len(shares[:, 0].unique()) == 64
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert shares.min() < 0.1 < 0.9 < shares.max()


def test_penalties_teach_the_critic_alone() -> None:
    fake = data(4, seed=1).requires_grad_()
    critic = Curved(torch.linspace(-1, 1, 18))
    penalty("gradient-penalty")(turn_of(critic, data(4), fake)).backward()
    assert fake.grad is None
    assert critic.w.grad is not None


def test_gradient_penalty_of_a_flat_critic_has_a_finite_gradient() -> None:
    critic = Linear(torch.zeros(18))
    penalty("gradient-penalty")(turn_of(critic, data(4), data(4, seed=1))).backward()
    assert torch.isfinite(critic.w.grad).all()


# --------------------------------------------------------------------------------------------------- constraints


def test_weight_clipping_clamps_and_leaves_the_rest() -> None:
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, -0.5], [0.001, -0.2]]))
    parts.build("regularizer", {"use": "weight-clipping", "limit": 0.2}).apply(net)
    assert torch.equal(net.weight, torch.tensor([[0.2, -0.2], [0.001, -0.2]]))


def test_critic_is_within_the_limit_after_every_update(tmp_path: Path) -> None:
    limits: list[float] = []
    clipping = parts.find("regularizer", "weight-clipping").load()
    plain = clipping.apply

    def watched(self: object, net: nn.Module) -> None:
        plain(self, net)
        limits.append(max(parameter.abs().max().item() for parameter in net.parameters()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clipping, "apply", watched)
        model = train("tiny/shapes-wgan", "train.steps=3", "optim.lr=0.1", out=tmp_path / "run", device="cpu")
    limit = torch.tensor(0.01).item()
    assert len(limits) == 3 * 5  # each of five critic steps
    assert limits == [limit] * 15
    assert max(parameter.abs().max().item() for parameter in model.nets["discriminator"].parameters()) == limit
    assert max(parameter.abs().max().item() for parameter in model.nets["generator"].parameters()) > limit
