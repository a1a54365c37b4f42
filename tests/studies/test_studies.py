"""Studies: every cell is trained once, a change re-does what it changes, and the table says what can be told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ganvas import cli, study
from ganvas.errors import RecipeError
from ganvas.recipe import STUDIES

TEXT = """
recipe: tiny/digits
summary: two losses in two steps
overrides: [train.steps=2, train.batch=4, train.checkpoint_every=2, 'eval.every=~', eval.protocol={protocol}]
grid:
  loss: {{hinge: [task.objective=hinge], poison: [optim.lr=1e30]}}
metrics: [frechet_distance]
seeds: [0, 1]
"""
PROTOCOL = """
extractor: digit-net
reference: {use: digits, split: test, limit: 100}
metrics: {frechet-distance: {}}
samples: 80
seeds: [0]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "quick.yaml").write_text(PROTOCOL)
    file = tmp_path / "small.yaml"
    file.write_text(TEXT.format(protocol=tmp_path / "quick.yaml"))
    return file


def test_every_cell_is_trained_and_a_diverging_one_is_a_result(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = []
    plan = study.load(small)
    failed = study.execute(plan, out, jobs=1, threads=1, tell=lambda done, total, text: said.append((done, total)))
    assert said == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    found = study.lines(plan, out, failed)
    assert [cell.labels for cell in found] == [("hinge",), ("poison",)]
    assert len(found[0].values["frechet_distance"].values) == 2 and not found[0].failures
    assert not found[1].values["frechet_distance"].values and len(found[1].failures) == 2
    written = study.table(plan, found)
    assert "| hinge |" in written and "≈ best" in written and "not finite" in written

    trained = {file: file.stat().st_mtime_ns for file in (out / "hinge").rglob("model.safetensors")}
    assert len(trained) == 2
    changed = study.load(small.rename(tmp_path / "again.yaml"))
    study.execute(changed, out, jobs=1, threads=1, tell=lambda *_: None)
    assert {file: file.stat().st_mtime_ns for file in trained} == trained  # nothing to do twice


def test_a_changed_recipe_is_trained_again(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small.write_text(small.read_text().replace(", poison: [optim.lr=1e30]", "").replace("[0, 1]", "[0]"))
    study.execute(study.load(small), out, jobs=1, threads=1, tell=lambda *_: None)
    before = (out / "hinge" / "seed-0" / "log.jsonl").read_text()
    small.write_text(small.read_text().replace("train.batch=4", "train.batch=5"))
    plan = study.load(small)
    assert not any(study.finished(run) for run in study.runs(plan, out))
    study.execute(plan, out, jobs=1, threads=1, tell=lambda *_: None)
    assert all(study.finished(run) for run in study.runs(plan, out))
    assert (out / "hinge" / "seed-0" / "log.jsonl").read_text() != before


def test_a_mistake_in_a_cell_is_told_before_anything_is_trained(small: Path, tmp_path: Path) -> None:
    small.write_text(small.read_text().replace("task.objective=hinge", "task.objective=hing"))
    with pytest.raises(RecipeError, match="Did you mean 'hinge'"):
        study.execute(study.load(small), tmp_path / "out", jobs=1, threads=1, tell=lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_the_command_writes_its_table(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.write_text(small.read_text().replace(", poison: [optim.lr=1e30]", ""))
    assert cli.run(["bench", str(small), "--out", str(tmp_path / "out"), "--jobs", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "out" / "table.json").read_text())
    assert len(shown["cells"][0]["values"]["frechet_distance"]) == 2
    assert "| hinge |" in (tmp_path / "out" / "table.md").read_text()
    assert cli.run(["bench", "nowhere"]) == 2


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_study_resolves(file: Path, tmp_path: Path) -> None:
    plan = study.load(file.stem)
    assert plan.summary and len(study.runs(plan, tmp_path)) >= 12
