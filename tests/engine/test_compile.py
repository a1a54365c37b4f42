"""Compiled training computes what eager training computes."""

from pathlib import Path

import pytest

from ganvas.files.files import read_rows
from ganvas.training.train import train


@pytest.mark.slow
def test_compiled_networks_with_spectral_norm_train_as_eager_ones(tmp_path: Path) -> None:
    """The critic is called twice before backward; torch's own spectral norm fails here."""
    rows = {}
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        train(
            "tiny/digits",
            "train.steps=3",
            "train.log_every=1",
            f"train.compile={compiled}",
            "eval=",
            out=tmp_path / name,
        )
        rows[name] = read_rows(tmp_path / name / "log.jsonl")
    for eager, compiled_row in zip(rows["eager"], rows["compiled"], strict=True):
        assert compiled_row == pytest.approx(eager, rel=1e-4)
