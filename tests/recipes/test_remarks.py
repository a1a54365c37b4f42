"""What another batch size changes without a word is said, with the key that keeps it."""

from __future__ import annotations

import pytest

from ganvas.recipe.recipe import Recipe
from ganvas.recipe.remarks import remarks


def said(*changes: str, before: tuple[str, ...] = ()) -> list[str]:
    loaded = Recipe.load("digits", before)
    return remarks(loaded, loaded.override(*changes))


def test_the_half_life_of_an_average_is_told_with_what_keeps_it() -> None:
    # 0.99 a step of 64: 64 ln 0.5 / ln 0.99 = 4,414 images
    (sentence,) = said("train.batch=16")
    assert "ema.half_life_images=4414 keeps that" in sentence and "the last 1,103 images" in sentence
    kept = Recipe.load("digits", ["train.batch=16", "ema.half_life_images=4414"])
    assert kept.resolve()["ema"]["half_life_images"] == 4414


def test_a_start_in_images_is_told_with_the_step_that_it_was() -> None:
    sentences = said("train.batch=128", before=("ema.start_images=64000",))
    assert len(sentences) == 2
    assert "ema.start_steps=1000 keeps that" in sentences[1] and "step 500 at a batch of 128" in sentences[1]


@pytest.mark.parametrize(
    "changes",
    [
        (), ("optim.lr=0.1",), ("train.batch=64",), ("train.batch=16", "ema=~"), ("train.batch=16", "ema.decay=0.9"),
        ("train.batch=16", "ema.half_life_images=4414"),
    ],
)  # fmt: skip
def test_nothing_is_said_where_nothing_changed_or_the_user_has_spoken(changes: tuple[str, ...]) -> None:
    assert said(*changes) == []


def test_a_schedule_goes_with_what_it_moves_and_that_is_said() -> None:
    loaded = Recipe.load("r3gan-cifar10")
    without = loaded.override("task.augment=")
    assert set(loaded.resolve()["schedules"]) - set(without.resolve()["schedules"]) == {"task.augment.p"}
    assert remarks(loaded, without) == ["the schedule of task.augment.p is gone, as task.augment.p is"]


def test_a_schedule_is_reached_by_its_dotted_path() -> None:
    loaded = Recipe.load("r3gan-cifar10")
    still = loaded.override("schedules.task.augment.p=~")
    assert "task.augment.p" not in still.resolve()["schedules"] and still.resolve()["task"]["augment"]["p"] == 0.55
    assert remarks(loaded, still) == []
    moved = loaded.override(
        "schedules.optim.betas.1.to=0.95", "schedules.optim.eps={use: linear, from: 1e-6, to: 1e-8}"
    )
    schedules = moved.resolve()["schedules"]
    assert schedules["optim.betas.1"]["to"] == 0.95 and schedules["optim.eps"]["from"] == 1e-6


def test_nothing_else_goes_with_a_schedule_that_is_dropped() -> None:
    loaded = Recipe.load("r3gan-cifar10").override("task.regularizers.r2=~")
    assert {"task.regularizers.r1.weight", "task.augment.p"} <= set(loaded.resolve()["schedules"])
    assert "task.regularizers.r2.weight" not in loaded.resolve()["schedules"]
