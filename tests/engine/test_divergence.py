"""A loss or weight that is no longer a number stops the run, with the term, the step and the last good checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ganvas import cli
from ganvas.engine.checkpoint import Checkpoints
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.errors import DivergenceError
from ganvas.files.files import read_rows
from ganvas.types import Batch, Update

POISON = '''
import torch
from ganvas.parts import regularizer
from ganvas.types import Regularizer

@regularizer("poison")
class Poison(Regularizer):
    """Not a number from step 4 on."""
    side = "discriminator"
    def __call__(self, turn):
        return turn.real.sum() * (float("nan") if turn.step >= 4 else 0.0)
'''


@pytest.fixture
def poison(tmp_path: Path) -> Path:
    file = tmp_path / "poison.py"
    file.write_text(POISON, encoding="utf-8")
    return file


def test_poisoned_term_is_named_and_nothing_of_it_is_saved(
    poison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code = cli.run(
        ["train", "tiny/digits", "task.regularizers.poison.weight=1", "train.checkpoint_every=2", "train.log_every=1",
         "eval=", "--parts", str(poison), "--out", str(out), "--device", "cpu"]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in said
    assert "DivergenceError: step 4" in said
    assert "poison of the discriminator" in said
    assert str(out / "checkpoints" / "step-0000004") in said
    assert Checkpoints(out / "checkpoints", keep=9).steps() == [2, 4]
    *before, last = read_rows(out / "log.jsonl")
    assert [row["step"] for row in before] == [1, 2, 3, 4] and "diverged" not in before[-1]
    assert last["step"] == 5 and "poison of the discriminator" in last["diverged"]
    (noted,) = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["diverged"]
    assert noted["step"] == 5 and "poison" in noted["problem"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Training ended in step 5" in page and "poison of the discriminator" in page
    assert "precision=fp32" not in said  # which it has already
    for step in (2, 4):
        state = Checkpoints(out / "checkpoints", keep=9).load(step)
        assert all(torch.isfinite(tensor).all() for net in state["nets"].values() for tensor in net.values())


def test_huge_rate_diverges_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    code = cli.run(["train", "tiny/digits", "optim.lr=1e30", "optim.roles=", "--out", str(out), "--device", "cpu"])
    said = capsys.readouterr().err
    assert code == 2, said
    assert "DivergenceError" in said
    assert "there is no checkpoint yet" in said
    assert "lower optim.lr" in said
    assert not (out / "model.safetensors").exists()


def test_weights_that_are_no_numbers_are_neither_saved_nor_drawn_nor_scored(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer: Trainer

    def losses(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        return {"fine": trainer.nets["net"](batch.data.flatten(1)).sum()}

    def spoil(batch: Batch) -> None:
        if trainer.step == 3:  # the loss of this step was finite, its outcome is not
            with torch.no_grad():
                trainer.nets["net"].weight[0, 0] = float("nan")

    seen: list[int] = []
    hooks = Hooks(
        picture=lambda step, state: seen.append(step), score=lambda step, state: seen.append(step),
        saved=lambda step, state, best: seen.append(step),
    )  # fmt: skip
    trainer = make_trainer([Update(("net",), losses, after=spoil)], hooks=hooks, steps=4, score_every=2)
    with pytest.raises(DivergenceError, match=r"the weight weight of the net is not finite at step 4.*step-0000002"):
        trainer.run()
    assert trainer.checkpoints.steps() == [2]
    assert set(seen) == {2}


def test_a_resumed_run_drops_the_row_of_the_divergence(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    poisoned = [True]
    trainer: Trainer

    def losses(batch: Batch, step: int) -> dict[str, torch.Tensor]:
        loss = trainer.nets["net"](batch.data.flatten(1)).sum()
        return {"sum": loss * float("nan") if step == 3 and poisoned[0] else loss}

    trainer = make_trainer([Update(("net",), losses)], log_every=2)
    with pytest.raises(DivergenceError, match="would diverge again"):
        trainer.run()
    assert [row["step"] for row in read_rows(tmp_path / "log.jsonl")] == [2, 4]
    assert "sum of the net" in read_rows(tmp_path / "log.jsonl")[-1]["diverged"]
    poisoned[0] = False
    trainer = make_trainer([Update(("net",), losses)], log_every=2)
    assert trainer.resume() == 2
    trainer.run()
    rows = read_rows(tmp_path / "log.jsonl")
    assert [row["step"] for row in rows] == [2, 4] and all("diverged" not in row for row in rows)
