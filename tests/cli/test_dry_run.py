"""`ganvas train --dry-run`: what a run would cost, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.trainer import Hooks
from ganvas.parts import image_spec
from ganvas.recipe.recipe import Recipe
from ganvas.training.check import random_set
from ganvas.training.forecast import MEASURED_STEPS, Forecast, amount, forecast, table

Ganvas = Callable[..., Any]
SMALL = "networks.generator.width=8 networks.discriminator.width=8 train.batch=8 --device cpu"
LAZY = "task.regularizers.r1.weight=1 task.regularizers.r1.every=4"


def test_a_dry_run_tells_the_cost_and_writes_nothing(ganvas: Ganvas, workplace: Path) -> None:
    said = ganvas(f"train digits {SMALL} {LAZY} task.critic_steps=2 --dry-run --json")
    assert said.code == 0, said.err
    assert list(workplace.rglob("*")) == []
    found = said.json
    assert {each["name"]: each["a_step"] for each in found["updates"]} == {
        "discriminator: adversarial": 2, "discriminator: r1": 0.25, "generator: adversarial": 1,
    }  # fmt: skip
    assert found["step_flops"] == sum(each["flops"] * each["a_step"] for each in found["updates"]) > 0
    assert all(len(each["seconds"]["clock"]) == MEASURED_STEPS for each in found["updates"])
    assert found["seconds_to_finish"] == pytest.approx(2000 * found["step_seconds"])
    assert found["images_per_second"] == pytest.approx(8 / found["step_seconds"])


def test_people_are_told_the_same(ganvas: Ganvas, workplace: Path) -> None:
    said = ganvas(f"train digits {SMALL} ema=~ --dry-run")
    assert said.code == 0 and list(workplace.rglob("*")) == []
    for word in ("generator", "parameters", "discriminator: adversarial", "saved for backward", "2,000 steps at"):
        assert word in said.out


def test_absent_data_are_stood_in_for(ganvas: Ganvas, workplace: Path) -> None:
    said = ganvas(f"train sngan-cifar10 {SMALL} --dry-run --json")
    assert said.code == 0, said.err
    assert "random data stand in" in said.err and "cifar-10-python.tar.gz" in said.err
    assert list(workplace.rglob("*")) == []
    assert max(update["a_step"] for update in said.json["updates"]) == 5  # the critic's


def test_a_run_that_goes_on_cannot_be_dry(ganvas: Ganvas) -> None:
    said = ganvas("train digits --dry-run --profile --json")
    assert said.code == 2 and said.json["errors"][0]["type"] == "UsageError"


def test_a_mistake_is_told_as_training_would(ganvas: Ganvas, workplace: Path) -> None:
    said = ganvas("train digits optim.lr=-1 --dry-run")
    assert said.code == 2 and "optim.lr" in said.err
    assert list(workplace.rglob("*")) == []


# --------------------------------------------------------------------------------------------------- what is counted


@pytest.fixture(scope="module")
def found() -> Forecast:
    return small("train.batch=8")


def small(*overrides: str) -> Forecast:
    # Without spectral norm, which makes weights that count as saved and do not grow with the batch.
    return forecast(
        "digits", "networks.generator.width=16", "networks.discriminator.width=16", "networks.discriminator.norm=none",
        "networks.generator.freeze=[project]", *overrides, device="cpu",
    )  # fmt: skip


def test_parameters_are_counted_by_role_and_frozen_ones_apart(found: Forecast) -> None:
    recipe = Recipe.load("digits", ["networks.generator.width=16", "networks.discriminator.width=16"])
    plan = Plan(recipe.resolve(), random_set(image_spec((1, 8, 8), 10)), torch.device("cpu"))
    nets = build_trainer(plan, Path("nowhere"), Hooks(), fresh=True).nets
    for role, net in nets.items():
        assert found.parameters[role] == sum(each.numel() for each in net.parameters())
    frozen = sum(each.numel() for name, each in nets["generator"].named_parameters() if name.startswith("project"))
    assert frozen > 0
    assert found.learning == {**found.parameters, "generator": found.parameters["generator"] - frozen}


def test_memory_is_that_of_weights_gradients_and_moments(found: Forecast) -> None:
    both, learning = sum(found.parameters.values()), found.learning
    memory = found.memory
    assert 4 * both <= memory["parameters"] < 4 * both + 20_000  # buffers: running means, singular vectors
    assert memory["a copy to draw with"] == memory["parameters"]
    assert memory["gradients"] == 4 * max(learning.values())
    moments = 2 * 4 * sum(learning.values())
    assert moments <= memory["optimizer state"] < moments + 1000  # and step counters
    assert 4 * found.parameters["generator"] <= memory["averages"] < memory["parameters"]
    assert memory["saved for backward"] == max(each.saved_bytes for each in found.updates) > 0


def test_twice_the_batch_is_twice_the_work(found: Forecast) -> None:
    double = small("train.batch=16")
    assert double.step_flops == pytest.approx(2 * found.step_flops, rel=0.01)
    saved = [each.saved_bytes for each in double.updates]
    assert saved == pytest.approx([2 * each.saved_bytes for each in found.updates], rel=0.1)


def test_pieces_of_a_batch_save_memory_and_no_work(found: Forecast) -> None:
    cut = small("train.batch=8", "train.accumulate=4")
    assert cut.step_flops == pytest.approx(found.step_flops, rel=0.05)
    assert all(4 * a.saved_bytes < 2 * b.saved_bytes for a, b in zip(cut.updates, found.updates, strict=True))


def test_a_forecast_leaves_nothing_that_training_would_see(found: Forecast) -> None:
    assert not Path("a run that never was").exists()
    assert "a step, the mean" in table(found)


def test_large_numbers_have_three_digits() -> None:
    assert [amount(each) for each in (950, 38_100, 4_300_000, 6.29e12)] == ["950 ", "38.1 k", "4.30 M", "6.29 T"]
