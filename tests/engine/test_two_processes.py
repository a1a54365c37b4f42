"""Two processes never train into one folder."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ganvas.errors import ResumeMismatch, UsageError
from ganvas.files.files import claimed, read_rows
from ganvas.training.train import train

training = sys.modules["ganvas.training.train"]  # the module; the package has a function of this name


def test_a_folder_that_is_being_trained_into_is_refused_and_free_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train("tiny/gaussians-mlp", "train.steps=1", out=out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    with claimed(out), pytest.raises(UsageError, match="another process"):
        train("tiny/gaussians-mlp", "train.steps=1", out=out, resume=True)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    train("tiny/gaussians-mlp", "train.steps=1", out=out, resume=True)


def test_a_run_that_began_while_another_was_built_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen an empty folder; the second one comes to the lock when the first has let go of it."""
    out, recipe = tmp_path / "run", ("tiny/gaussians-mlp", "train.steps=1")
    build = training.build_trainer

    def overtaken(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(training, "build_trainer", build)
        train(*recipe, out=out)
        return build(*given, **named)

    monkeypatch.setattr(training, "build_trainer", overtaken)
    with pytest.raises(ResumeMismatch, match="is not empty"):
        train(*recipe, out=out)
    assert [row["step"] for row in read_rows(out / "log.jsonl")] == [1]
