"""Whose turn it is, whose labels generated data have, and which running means move when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ganvas import parts
from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.errors import GanvasError
from ganvas.nn import draws
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.types import Facts


def trainer_of(folder: Path, *changes: str, name: str = "tiny/digits") -> tuple[Trainer, list[str]]:
    """A trainer, and the roles of the updates that it has made."""
    made: list[str] = []

    def note(step: int, run):  # type: ignore[no-untyped-def]
        losses = run()
        made.append(next(iter(losses)).partition(".")[0])
        return losses

    resolved = Recipe.load(name, ["train.batch=8", "eval=~", *changes]).resolve()
    plan = Plan(resolved, parts.build("dataset", resolved["data"]), torch.device("cpu"))
    return build_trainer(plan, folder, Hooks(around_update=note), fresh=True), made


@pytest.mark.parametrize("first", ["generator", "discriminator"])
def test_the_side_that_is_named_begins(first: str, tmp_path: Path) -> None:
    trainer, made = trainer_of(tmp_path, f"task.first={first}", "task.critic_steps=2")
    trainer.take_step()
    critic = ["discriminator"] * 2
    assert made == (["generator", *critic] if first == "generator" else [*critic, "generator"])


@pytest.mark.parametrize("fake_labels", ["real", "uniform"])
def test_generated_data_have_the_labels_of_the_batch_or_labels_of_their_own(fake_labels: str, tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, f"task.fake_labels={fake_labels}")
    batch = next(trainer.feed)
    task = trainer.task
    other = (batch.label + 1) % 10

    def source(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return other if name == "label" else torch.zeros(shape)

    with draws.fed(source):
        turn = task.turn(batch, 0, for_generator=True)  # type: ignore[attr-defined]
    assert torch.equal(turn.label, batch.label)
    assert torch.equal(turn.fake_label, batch.label if fake_labels == "real" else other)


def test_labels_are_drawn_of_all_classes_alike(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, "task.fake_labels=uniform", "train.batch=64")
    batch = next(trainer.feed)
    torch.manual_seed(0)
    drawn = torch.cat([trainer.task.asked(batch).label for _ in range(50)])  # type: ignore[attr-defined]
    counts = drawn.bincount(minlength=10)
    assert counts.sum() == 3200
    assert (counts - 320).abs().max() < 4 * 320**0.5


def test_without_classes_no_labels_can_be_drawn(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path)
    node = check_node("task", {"use": "adversarial", "fake_labels": "uniform"})
    with pytest.raises(GanvasError, match="no classes to draw labels from") as refused:
        parts.build("task", node, trainer.nets, Facts(parts.image_spec((1, 8, 8))))
    assert "fake_labels=real" in str(refused.value)


def test_the_mean_of_w_moves_in_the_critics_updates_alone(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, "task.first=generator", name="tiny/digits-stylegan2")
    mapping = trainer.nets["generator"].mapping
    updates, batch = list(trainer.task.updates()), next(trainer.feed)
    moved = []
    for update in updates:
        before = mapping.w_avg.clone()
        trainer.apply(update, batch)
        moved.append((update.nets, not torch.equal(before, mapping.w_avg)))
    assert (("generator",), True) not in moved
    assert (("discriminator",), True) in moved
