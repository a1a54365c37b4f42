"""SIGINT, SIGTERM, SIGHUP and a closed pipe: save, say how to go on, leave with 130; what follows is the same run."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ganvas import cli
from ganvas.engine.checkpoint import Checkpoints
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.training.train import train


@pytest.fixture(scope="module")
def recipe(killing: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killing.write_recipe(tmp_path_factory.mktemp("signals"), steps=24)


@pytest.fixture(scope="module")
def undisturbed(killing: ModuleType, recipe: Path) -> dict[str, Any]:
    out = recipe.parent / "undisturbed"
    train(recipe, out=out, device="cpu")
    return killing.contents(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_saves_and_resume_is_exact(
    killing: ModuleType, recipe: Path, undisturbed: dict[str, Any], number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = killing.train(recipe, out)
    while not (out / "log.jsonl").is_file():  # the loop is running, at step 3 of 24
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    saved = Checkpoints(out / "checkpoints", keep=2).steps()[-1]
    assert saved < 24
    command = re.search(rf"Stopped and saved at step {saved}\. Go on with: ganvas train (.*)", said)
    assert command, said
    assert shlex.split(command[1]) == ["--resume", "--out", str(out)]
    train(recipe, out=out, device="cpu", resume=True)
    assert killing.differences(undisturbed, killing.contents(out)) == []


def test_a_closed_pipe_saves_and_resume_is_exact(
    killing: ModuleType, recipe: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """As `ganvas train |& head -1`: the reader of what is said leaves after a line."""
    out = tmp_path / "run"
    process = killing.train(recipe, out)
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert 0 < Checkpoints(out / "checkpoints", keep=2).steps()[-1] < 24
    train(recipe, out=out, device="cpu", resume=True)
    assert killing.differences(undisturbed, killing.contents(out)) == []


def test_a_hangup_that_is_ignored_stays_ignored(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nohup ganvas train` goes on when the terminal closes."""
    trainer = make_trainer(hooks=Hooks(tick=lambda step, values: signal.raise_signal(signal.SIGHUP)))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        trainer.run()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert trainer.step == 4


@pytest.mark.parametrize("saved", [0, 2])
def test_what_is_stopped_at_once_claims_no_checkpoint_that_is_not_there(
    saved: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(trainer: Trainer) -> None:
        if saved:
            trainer.step = saved
            trainer.save()
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    out = tmp_path / "run"
    code = cli.run(["train", "tiny/gaussians-mlp", "train.steps=4", "--out", str(out), "--device", "cpu"])
    said = capsys.readouterr().err
    assert code == 130
    assert "is safe" not in said
    assert ("ends at step 2. Go on with: ganvas train --resume --out" in said) == bool(saved)
    assert ("Nothing was saved" in said) != bool(saved)


def test_resuming_what_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--out", "nowhere"], []):
        code = cli.run(["train", "tiny/gaussians-mlp", "train.steps=4", "--resume", *words])
        assert code == 2
        assert "there is no run at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
