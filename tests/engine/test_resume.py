"""Going on from a checkpoint in the same process: every precision and layout, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_networks import Chain
from torch import nn

from ganvas.engine.checkpoint import STATE, Checkpoints
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.errors import CheckpointError, ResumeMismatch
from ganvas.files.files import cut_after, model_metadata, read_rows
from ganvas.recipe.schema import Ema
from ganvas.training.session import Watcher
from ganvas.training.train import train
from ganvas.types import Update

Make = Callable[..., Trainer]
# Rows are means over 3 steps, so that the checkpoint at step 4 falls within one.
SMALL = ("train.steps=6", "train.log_every=3", "train.checkpoint_every=2", "eval=")


class StopAfter(Watcher):
    """Pulls the plug after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def tick(self, step: int, values: object) -> None:
        if step == self.steps:
            raise ConnectionAbortedError  # any error that no part of the library expects


@pytest.mark.parametrize(
    "setting",
    ["train.precision=fp32", "train.precision=bf16", "train.precision=fp16", "train.channels_last=true", "optim=adamw"],
)
def test_interrupted_run_ends_like_an_undisturbed_one(setting: str, killing: ModuleType, tmp_path: Path) -> None:
    train("tiny/digits", *SMALL, setting, out=tmp_path / "whole", device="cpu")
    with pytest.raises(ConnectionAbortedError):
        train("tiny/digits", *SMALL, setting, out=tmp_path / "broken", device="cpu", watcher=StopAfter(5))
    assert Checkpoints(tmp_path / "broken" / "checkpoints", 2).steps() == [2, 4]
    train("tiny/digits", *SMALL, setting, out=tmp_path / "broken", device="cpu", resume=True)
    assert killing.differences(killing.contents(tmp_path / "whole"), killing.contents(tmp_path / "broken")) == []


def test_model_file_that_a_kill_left_behind_its_checkpoint_is_written_again(tmp_path: Path) -> None:
    train("tiny/digits", *SMALL, out=tmp_path / "run", device="cpu")
    model = tmp_path / "run" / "model.safetensors"
    whole = model.read_bytes()
    model.unlink()
    train("tiny/digits", *SMALL, out=tmp_path / "run", device="cpu", resume=True)
    assert model.read_bytes() == whole
    assert model_metadata(model)["step"] == 6


def test_leftovers_of_a_killed_process_are_swept(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.run()
    (tmp_path / "checkpoints" / ".step-0000009.77.tmp").mkdir()
    (tmp_path / "checkpoints" / ".step-0000009.77.tmp" / STATE).write_bytes(b"half")
    (tmp_path / ".model.safetensors.77.tmp").write_bytes(b"half")
    assert make_trainer().resume() == 4
    assert list(tmp_path.rglob(".*")) == []


def test_rows_after_the_checkpoint_are_cut_and_a_half_row_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    rows = [{"step": step, "loss": 1 / 3 * 10.0**-step} for step in range(1, 6)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text + '{"step": 6, "lo')
    assert read_rows(file) == rows
    cut_after(file, 3)
    assert file.read_text() == "".join(json.dumps(row) + "\n" for row in rows[:3])


def test_resume_without_a_checkpoint_starts_at_the_beginning(make_trainer: Make, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "net.square": 9.0}\n')
    trainer = make_trainer()
    assert trainer.resume() == 0
    assert read_rows(tmp_path / "log.jsonl") == []


# --------------------------------------------------------------------------------------------------- what is refused


def test_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    train("tiny/digits", *SMALL, out=tmp_path / "run", device="cpu")
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(ResumeMismatch, match=r"optim.lr: 0\.\d+ -> 0\.5") as caught:
        train("tiny/digits", *SMALL, "optim.lr=0.5", out=tmp_path / "run", device="cpu", resume=True)
    assert "--allow-changes" in caught.value.hint
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


def test_changes_that_fit_the_checkpoint_are_allowed_to_those_who_mean_them(tmp_path: Path) -> None:
    train("tiny/digits", *SMALL, out=tmp_path / "run", device="cpu")
    model = train(
        "tiny/digits", *SMALL, "train.steps=8", "optim.lr=0.5", out=tmp_path / "run", device="cpu", resume=True,
        allow_changes=True,
    )  # fmt: skip
    assert model.step == 8
    assert read_rows(tmp_path / "run" / "log.jsonl")[-1]["lr.generator"] == 0.5


@pytest.mark.parametrize("change", ["networks.generator.width=4", "networks.discriminator.conditioning=plain"])
def test_changes_that_do_not_fit_the_checkpoint_are_told(change: str, tmp_path: Path) -> None:
    train("tiny/digits", *SMALL, out=tmp_path / "run", device="cpu")
    with pytest.raises(ResumeMismatch, match="the checkpoint is not one of this recipe"):
        train("tiny/digits", *SMALL, change, out=tmp_path / "run", device="cpu", resume=True, allow_changes=True)


def test_averages_that_the_checkpoint_has_not_are_told(make_trainer: Make) -> None:
    make_trainer().run()
    with pytest.raises(ResumeMismatch):
        make_trainer(ema=Ema()).resume()


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"\xff" * 99])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    make_trainer: Make, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """It is named, kept under another name, and what follows is the same run."""
    whole = make_trainer()
    whole.run()
    weights = {name: value.clone() for name, value in whole.nets["net"].state_dict().items()}
    rows = read_rows(tmp_path / "log.jsonl")
    steps = whole.checkpoints.steps()
    file = tmp_path / "checkpoints" / f"step-{steps[-1]:07d}" / STATE
    broken = damage(file.read_bytes())
    file.write_bytes(broken)
    said: list[str] = []
    again = make_trainer(hooks=Hooks(say=said.append))
    assert again.resume() == steps[-2]
    assert len(said) == 1 and file.parent.name in said[0] and f"that of step {steps[-2]}" in said[0]
    assert (file.parent.with_name(f"damaged-{file.parent.name}") / STATE).read_bytes() == broken
    again.run()
    assert all(torch.equal(weights[name], value) for name, value in again.nets["net"].state_dict().items())
    assert read_rows(tmp_path / "log.jsonl") == rows


def test_where_every_checkpoint_is_damaged_the_newest_is_named_and_nothing_changes(
    make_trainer: Make, tmp_path: Path
) -> None:
    make_trainer().run()
    files = sorted((tmp_path / "checkpoints").glob(f"step-*/{STATE}"))
    for file in files:
        file.write_bytes(b"broken")
    with pytest.raises(CheckpointError) as caught:
        make_trainer().resume()
    assert files[-1].parent.name in caught.value.where
    assert [file.read_bytes() for file in files] == [b"broken"] * len(files)


def test_state_that_a_task_remembers_comes_back(make_trainer: Make) -> None:
    first = make_trainer()
    first.task.remembered = {"p": 0.25, "signs": torch.tensor([1.0, -1.0])}
    first.run()
    second = make_trainer()
    second.resume()
    assert second.task.remembered["p"] == 0.25
    assert torch.equal(second.task.remembered["signs"], torch.tensor([1.0, -1.0]))


def test_moments_lie_in_memory_as_their_weights_do(make_trainer: Make) -> None:
    def make() -> Trainer:
        net = Chain(nn.Unflatten(1, (2, 1, 3)), nn.Conv2d(2, 4, (1, 2)), nn.Flatten()).to(
            memory_format=torch.channels_last
        )
        return make_trainer(
            [Update(("net",), lambda batch, step: {"square": net(batch.data.flatten(1)).square().mean()})],
            nets={"net": net},
        )

    make().run()
    resumed = make()
    resumed.resume()
    weight = resumed.nets["net"][1].weight
    assert resumed.optim.optimizers["net"].state[weight]["exp_avg"].stride() == weight.stride()


def test_hooks_are_told_the_weights_that_were_found(make_trainer: Make) -> None:
    make_trainer().run()
    seen: list[int] = []
    make_trainer(hooks=Hooks(saved=lambda step, state, best: seen.append(step))).resume()
    assert seen == [4]


def test_best_score_is_remembered(make_trainer: Make) -> None:
    scores = {1: 5.0, 2: 3.0, 3: 4.0, 4: 3.5}
    hooks = Hooks(score=lambda step, state: scores[step])
    first = make_trainer(hooks=hooks, score_every=1, keep=1)
    while first.step < 3:
        first.take_step()
        first.around_the_step()
    second = make_trainer(hooks=hooks, score_every=1, keep=1)
    assert second.resume() == 2
    second.run()
    assert second.best == (2, 3.0)
    assert second.checkpoints.steps() == [2, 4]
