"""The contracts of optimizers, schedules and samplers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ganvas
from ganvas import parts
from ganvas.engine.checkpoint import pack, unpack
from ganvas.errors import UsageError
from ganvas.recipe.check import check_node
from ganvas.recipe.trained import Weights

OPTIMIZERS = [part.name for part in parts.every("optimizer")]
SCHEDULES = [part.name for part in parts.every("schedule")]
SAMPLERS = [part.name for part in parts.every("sampler")]


def parabola(name: str) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    return weight, parts.build("optimizer", check_node("optimizer", {"use": name, "lr": 0.1}))([weight])


def descend(weight: nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        weight.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_downhill_at_its_rate(name: str) -> None:
    weight, optimizer = parabola(name)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]
    descend(weight, optimizer, 60)
    assert weight.norm() < 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_exactly_from_its_state(name: str) -> None:
    weight, optimizer = parabola(name)
    descend(weight, optimizer, 3)
    tensors, skeleton = pack(optimizer.state_dict())
    other_weight, other = parabola(name)
    with torch.no_grad():
        other_weight.copy_(weight)
    other.load_state_dict(unpack(tensors, json.loads(json.dumps(skeleton))))
    descend(weight, optimizer, 3)
    descend(other_weight, other, 3)
    assert torch.equal(weight, other_weight)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_has_a_factor_for_every_step(name: str) -> None:
    course = parts.build("schedule", check_node("schedule", name))
    factors = [course(step, 20) for step in range(20)]
    assert all(isinstance(factor, float) and 0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0


@given(name=st.sampled_from(SCHEDULES), steps=st.integers(1, 10_000), at=st.floats(0, 1), warmup=st.integers(0, 200))
def test_schedule_is_bounded_and_pure(name: str, steps: int, at: float, warmup: int) -> None:
    step = min(int(at * steps), steps - 1)
    course = parts.build("schedule", {"use": name, "warmup_steps": warmup})
    factor = course(step, steps)
    assert 0 <= factor <= 1
    assert factor == course(step, steps) == parts.build("schedule", {"use": name, "warmup_steps": warmup})(step, steps)


@pytest.fixture(scope="module")
def styled() -> ganvas.Model:
    """An untrained generator with mapped spaces."""
    resolved = ganvas.Recipe.load("tiny/digits-stylegan2").resolve()
    spec = parts.build("dataset", resolved["data"]).spec
    torch.manual_seed(0)
    nets = {role: entry.part for role, entry in parts.build_set("network", resolved["networks"], Weights, spec).items()}
    return ganvas.Model(resolved, spec, nets)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_draws_images_that_are_functions_of_the_seed(
    name: str, trained_run: Path, styled: ganvas.Model
) -> None:
    model = ganvas.load(trained_run)
    try:
        model.sample(1, sampler=name)
    except UsageError as error:  # it needs more than a latent space, and says what
        assert "space w" in error.problem
        model = styled
    images = model.sample(9, seed=4, sampler=name)
    assert images.shape == (9, *model.spec.shape)
    assert images.abs().max() <= 1
    assert torch.equal(images, model.sample(9, seed=4, sampler=name))
    assert not torch.equal(images, model.sample(9, seed=5, sampler=name))
    for batch in (1, 4):
        torch.testing.assert_close(model.sample(9, seed=4, sampler=name, batch=batch), images, rtol=0, atol=1e-5)
