"""Samplers that ask the critic, on models whose critic and target are known in closed form."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from ganvas.model import Model
from ganvas.parts import data_spec
from ganvas.types import Critic, Generator, LatentSpec, Scores

PIXELS = 16


class Identity(Generator):
    """G(z) = z, no image, so that nothing is cut to [-1, 1]; sixteen independent standard normals."""

    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((PIXELS,), "normal")}

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent


class Tilted(Critic):
    """d(x) = s Σ x − const: the log density ratio of N(s, 1) to N(0, 1) in every pixel."""

    def __init__(self, tilt: float) -> None:
        super().__init__()
        self.tilt = tilt

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        flat = data.flatten(1)
        return Scores((self.tilt * flat - self.tilt**2 / 2).sum(1), flat)


def model(tilt: float) -> Model:
    nets = {"generator": Identity(), "discriminator": Tilted(tilt)}
    return Model({"sampler": {"use": "plain"}}, data_spec("plane", (PIXELS,)), nets)


def test_no_steps_is_plain_sampling_to_the_last_bit() -> None:
    plain = model(0.3).sample(70, seed=5)
    for name in ("langevin", "latent-optimisation", "collaborative", "metropolis-hastings"):
        assert torch.equal(model(0.3).sample(70, seed=5, sampler={"use": name, "steps": 0}), plain), name


@pytest.mark.parametrize("name", ["langevin", "rejection", "metropolis-hastings"])
def test_images_do_not_depend_on_how_many_are_asked_for(name: str) -> None:
    many = model(0.1).sample(130, seed=1, sampler=name)
    assert torch.equal(model(0.1).sample(7, seed=1, sampler=name), many[:7])
    assert torch.equal(model(0.1).sample(130, seed=1, sampler=name, batch=32), many)


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_langevin_noise_has_the_size_that_was_asked_for(noise: float) -> None:
    """One step from z: z − ½ε(z − s) + noise √ε n."""
    made, step = model(0.2), 0.09
    z = made.sample(4000, seed=0)
    moved = made.sample(4000, seed=0, sampler={"use": "langevin", "steps": 1, "step_size": step, "noise": noise})
    left = moved - (z - 0.5 * step * (z - 0.2))
    assert left.std().item() == pytest.approx(noise * step**0.5, rel=0.01)
    assert abs(left.mean().item()) < 3e-3


def test_langevin_arrives_at_the_tilted_prior() -> None:
    """E(z) = ½‖z‖² − s Σ z is the energy of N(s, 1)."""
    moved = model(1.0).sample(512, seed=0, sampler={"use": "langevin", "steps": 300, "step_size": 0.05})
    assert moved.mean().item() == pytest.approx(1.0, abs=0.03)
    assert moved.std().item() == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_latent_optimisation_takes_exactly_the_steps_asked_for(steps: int) -> None:
    made = model(0.5)
    moved = made.sample(8, seed=0, sampler={"use": "latent-optimisation", "steps": steps, "rate": 0.1})
    torch.testing.assert_close(moved, made.sample(8, seed=0) + steps * 0.1 * 0.5)


def test_collaborative_steps_follow_the_closed_form_and_never_lower_the_score() -> None:
    """∇ softplus(−d) = −σ(−d) ∇d."""
    made = model(0.05)
    x = made.sample(32, seed=0).mul(0.2)  # away from the clamp
    made.nets["generator"].forward = lambda latent, label=None: 0.2 * latent  # type: ignore[method-assign]
    logits = made.critic(x).logits
    expected = x + 0.1 * torch.sigmoid(-logits).view(-1, 1) * 0.05
    moved = made.sample(32, seed=0, sampler={"use": "collaborative", "steps": 1, "rate": 0.1})
    torch.testing.assert_close(moved, expected.clamp(-1, 1), atol=1e-6, rtol=1e-5)
    further = made.sample(32, seed=0, sampler={"use": "collaborative", "steps": 20, "rate": 0.1})
    assert (made.critic(further).logits >= logits).all()


def test_metropolis_hastings_draws_from_the_target_of_a_perfect_critic() -> None:
    """The sum of sixteen pixels under N(s, 1)^16 is N(16 s, 16)."""
    drawn = model(0.15).sample(1024, seed=0, sampler={"use": "metropolis-hastings", "steps": 100})
    total = drawn.sum(1).double()
    assert stats.kstest(total, stats.norm(PIXELS * 0.15, PIXELS**0.5).cdf).pvalue > 0.01
    assert stats.kstest(model(0.15).sample(1024, seed=0).sum(1), stats.norm(PIXELS * 0.15, 4).cdf).pvalue < 1e-4


def test_rejection_moves_samples_towards_the_target_and_less_so_at_a_lower_percentile() -> None:
    made = model(0.15)

    def mean(percentile: float) -> float:
        sampler = {"use": "rejection", "percentile": percentile}
        return made.sample(1024, seed=0, sampler=sampler).sum(1).mean().item()

    plain, strict, loose = made.sample(1024, seed=0).sum(1).mean().item(), mean(95.0), mean(30.0)
    assert plain < loose < strict
    assert strict > 0.6 * PIXELS * 0.15


def test_weights_stay_as_they_are() -> None:
    made = model(0.2)
    before = {name: value.clone() for name, value in made.nets["generator"].state_dict().items()}
    made.sample(8, sampler="langevin")
    assert all(torch.equal(before[name], value) for name, value in made.nets["generator"].state_dict().items())
    assert not any(parameter.requires_grad for net in made.nets.values() for parameter in net.parameters())
