"""Numbers that move while a run goes on: where they are at each step, through resume, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ganvas.engine.ema import Averages, average_decay
from ganvas.engine.schedules import Schedules
from ganvas.engine.trainer import Interrupted, Trainer
from ganvas.errors import BadValue
from ganvas.files.files import read_rows
from ganvas.model import Model
from ganvas.parts import Entry
from ganvas.recipe.recipe import Recipe
from ganvas.recipe.schema import Ema, Span
from ganvas.shelves.schedules.factors import cosine, linear
from ganvas.training.check import check
from ganvas.training.train import train

R1 = "task.regularizers.r1.weight=1.0"
MOVING = (
    R1,
    "schedules={task.regularizers.r1.weight: {use: linear, from: 2.0, to: 0.0},"
    " optim.betas.1: {use: cosine, from: 0.5, to: 0.9}, ema.decay: {use: linear, from: 0.0, to: 0.8}}",
    "ema.decay=0.9",
    "train.steps=6",
    "train.log_every=1",
    "train.checkpoint_every=3",
)


def entry(schedule: Callable[..., float], start: float, end: float) -> Entry:
    return Entry("schedule", schedule, Span(start, end))


def test_a_course_runs_from_its_first_value_to_its_last_and_stays_there() -> None:
    seen: list[float] = []
    schedules = Schedules({"a": entry(partial(linear, end=0.5), 3.0, 1.0)}, {"a": seen.append}, steps=8)
    for step in range(8):
        schedules.begin(step)
    assert seen == pytest.approx([3, 2.5, 2, 1.5, 1, 1, 1, 1])
    middle = Schedules({"a": entry(cosine, 0.0, 1.0)}, {"a": seen.append}, steps=8).values(4)
    assert middle == {"a": pytest.approx(0.5)}


def test_optimizers_and_averages_get_the_value_of_the_step(make_trainer: Callable[..., Trainer]) -> None:
    moving = {"optim.betas.1": entry(linear, 0.5, 0.9), "ema.decay": entry(linear, 0.0, 0.8)}
    trainer = make_trainer(schedules=moving, ema=Ema(decay=0.99), steps=4)
    seen = []
    for _ in range(4):
        trainer.take_step()
        (group,) = trainer.optim.optimizers["net"].param_groups
        assert trainer.averages is not None
        seen.append((group["betas"], trainer.averages.settings.decay))
    assert [betas for betas, _ in seen] == [(0.0, pytest.approx(0.5 + 0.1 * k)) for k in range(4)]
    assert [decay for _, decay in seen] == pytest.approx([0, 0.2, 0.4, 0.6])


def test_a_moved_weight_multiplies_the_term_and_is_in_the_log(tmp_path: Path) -> None:
    train("tiny/gaussians-mlp", *MOVING, out=tmp_path / "moving")
    rows = list(read_rows(tmp_path / "moving" / "log.jsonl"))
    weights = [row["task.regularizers.r1.weight"] for row in rows]
    assert weights == pytest.approx([2 - k / 3 for k in range(6)])
    train("tiny/gaussians-mlp", R1, *MOVING[2:], "schedules=~", "optim.betas=[0.0, 0.5]", "train.steps=1",
          "task.regularizers.r1.weight=2.0", out=tmp_path / "still")  # fmt: skip
    first = next(iter(read_rows(tmp_path / "still" / "log.jsonl")))
    assert first["discriminator.r1"] == rows[0]["discriminator.r1"]  # the first step is that of a weight of 2


def test_a_run_that_was_stopped_goes_on_along_the_same_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train("tiny/gaussians-mlp", *MOVING, out=tmp_path / "whole")
    around = Trainer.around_the_step

    def stop_at_3(self: Trainer) -> None:
        around(self)
        if self.step == 3:
            raise Interrupted(3)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "around_the_step", stop_at_3)
        with pytest.raises(Interrupted):
            train("tiny/gaussians-mlp", *MOVING, out=tmp_path / "cut")
    resumed = train("tiny/gaussians-mlp", *MOVING, out=tmp_path / "cut", resume=True)
    assert (tmp_path / "cut" / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    assert same(whole, resumed)


def same(one: Model, other: Model) -> bool:
    left, right = one.nets["generator"].state_dict(), other.nets["generator"].state_dict()
    return all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    ("path", "known"),
    [("task.regularizers.r1.wieght", "task.regularizers.r1.weight"), ("optim.betas.2", "optim.betas.1")],
)
@pytest.mark.parametrize("way", [check, train])
def test_a_path_at_which_nothing_moves_is_told_with_the_nearest_one(
    path: str, known: str, way: Callable[[Recipe], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.load("tiny/gaussians-mlp", [R1, f"schedules={{{path}: {{use: linear, from: 1.0, to: 0.0}}}}"])
    with pytest.raises(BadValue) as caught:
        way(recipe)
    assert path in caught.value.problem and known in caught.value.problem + caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_p_of_an_augmentation_that_steers_itself_is_no_knob() -> None:
    moving = "schedules={task.augment.p: {use: linear, from: 0.0, to: 0.5}}"
    check(Recipe.load("tiny/digits-ada", ["task.augment.adapt=false", "task.augment.p=0.1", moving]))
    with pytest.raises(BadValue, match=r"task\.augment\.p"):
        check(Recipe.load("tiny/digits-ada", ["task.augment.adapt=true", moving]))


def test_a_half_life_is_the_images_after_which_half_of_the_old_average_is_left() -> None:
    ema = Ema(half_life_images=1000)
    assert average_decay(ema, seen=10**6, batch=100) ** 10 == pytest.approx(0.5)
    assert average_decay(Ema(half_life_images=1e-9), seen=10**6, batch=100) == 0.0
    knobs = Averages({"net": torch.nn.Linear(1, 1)}, ("net",), ema).knobs()
    assert set(knobs) == {"half_life_images"}
