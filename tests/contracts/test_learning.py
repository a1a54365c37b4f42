"""The contracts of optimizers, schedules and samplers."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ganvas
from ganvas import parts
from ganvas.engine.checkpoint import pack, unpack
from ganvas.errors import MissingCapability, UsageError
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import shipped
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
    schedule = parts.build("schedule", check_node("schedule", name))
    factors = [schedule(step, 20) for step in range(20)]
    assert all(isinstance(factor, float) and 0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0


@given(name=st.sampled_from(SCHEDULES), steps=st.integers(1, 10_000), at=st.floats(0, 1), warmup=st.integers(0, 200))
def test_schedule_is_bounded_and_pure(name: str, steps: int, at: float, warmup: int) -> None:
    step = min(int(at * steps), steps - 1)
    schedule = parts.build("schedule", {"use": name, "warmup_steps": warmup})
    factor = schedule(step, steps)
    assert 0 <= factor <= 1
    assert (
        factor == schedule(step, steps) == parts.build("schedule", {"use": name, "warmup_steps": warmup})(step, steps)
    )


@pytest.fixture(scope="module")
def styled() -> ganvas.Model:
    """An untrained generator with mapped spaces."""
    return untrained("tiny/digits-stylegan2")


def untrained(recipe: str) -> ganvas.Model:
    """The model of a recipe with the weights that it begins with."""
    resolved = ganvas.Recipe.load(recipe).resolve()
    spec = parts.build("dataset", resolved["data"]).spec
    torch.manual_seed(0)
    nets = {role: entry.part for role, entry in parts.build_set("network", resolved["networks"], Weights, spec).items()}
    return ganvas.Model(resolved, spec, nets)


@functools.cache
def recipes_by_sampler() -> dict[str, str]:
    """The first tiny recipe that draws with each sampler."""
    found: dict[str, str] = {}
    for name in shipped():
        if name.startswith("tiny/"):
            found.setdefault(ganvas.Recipe.load(name).resolve()["sampler"]["use"], name)
    return found


def model_for(sampler: str) -> ganvas.Model:
    """The untrained model of a tiny recipe that draws with this sampler, or with another one and can do this, too."""
    known = recipes_by_sampler()
    for recipe in [known[sampler]] if sampler in known else known.values():
        model = untrained(recipe)
        try:
            model.sampler(sampler).start(model)
        except (MissingCapability, UsageError):
            continue
        return model
    pytest.fail(f"no tiny recipe's model can draw with sampler {sampler}")


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_draws_data_that_are_functions_of_the_seed(name: str, trained_run: Path, styled: ganvas.Model) -> None:
    model = ganvas.load(trained_run)
    try:
        model.sample(1, sampler=name)
    except UsageError as error:  # it needs more than a latent space, and says what
        model = styled if "space w" in error.problem else model_for(name)
    except MissingCapability:
        model = model_for(name)
    needed = [each for each, must in model.wanted(name).items() if must]
    dataset = parts.build("dataset", model.recipe["data"])
    given = dataset.batch(np.arange(9), np.random.default_rng(0)).asked(needed)
    data = model.sample(9, seed=4, sampler=name, condition=given)
    assert data.shape == (9, *model.spec.shape)
    assert model.spec.modality.categories or data.abs().max() <= 1
    assert torch.equal(data, model.sample(9, seed=4, sampler=name, condition=given))
    if not needed:  # what is made of something may leave nothing to chance
        assert not torch.equal(data, model.sample(9, seed=5, sampler=name))
    for batch in (1, 4):
        again = model.sample(9, seed=4, sampler=name, condition=given, batch=batch)
        torch.testing.assert_close(again, data, rtol=0, atol=1e-5)
