"""SIGINT and SIGTERM: save, say how to go on, leave with 130; what follows is the same run."""

from __future__ import annotations

import re
import shlex
import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ganvas.engine.checkpoint import Checkpoints
from ganvas.training.train import train


@pytest.fixture(scope="module")
def recipe(killing: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killing.write_recipe(tmp_path_factory.mktemp("signals"), steps=24)


@pytest.fixture(scope="module")
def undisturbed(killing: ModuleType, recipe: Path) -> dict[str, Any]:
    out = recipe.parent / "undisturbed"
    train(recipe, out=out, device="cpu")
    return killing.contents(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
