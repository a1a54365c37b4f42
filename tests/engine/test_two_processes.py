"""Two processes never train into one folder."""

from pathlib import Path

import pytest

from ganvas.errors import UsageError
from ganvas.files.files import claimed
from ganvas.training.train import train


def test_a_folder_that_is_being_trained_into_is_refused_and_free_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train("tiny/gaussians-mlp", "train.steps=1", out=out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    with claimed(out), pytest.raises(UsageError, match="another process"):
        train("tiny/gaussians-mlp", "train.steps=1", out=out, resume=True)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    train("tiny/gaussians-mlp", "train.steps=1", out=out, resume=True)
