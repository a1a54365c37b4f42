"""Studies: every cell is trained once, a change re-does what it changes, and the table says what can be told apart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganvas import cli
from ganvas.errors import RecipeError
from ganvas.experiments import study
from ganvas.recipe.recipe import STUDIES

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
    logs = {file: file.stat().st_mtime_ns for file in out.rglob("log.jsonl")}
    again = study.execute(changed, out, jobs=1, threads=1, tell=lambda *_: None)
    assert {file: file.stat().st_mtime_ns for file in trained} == trained  # nothing to do twice
    assert {file: file.stat().st_mtime_ns for file in logs} == logs and again == failed  # nor what diverged


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


SPLIT = """
recipe: tiny/digits
overrides: [train.steps=2, train.batch=4, train.checkpoint_every=2, 'eval.every=~', 'networks.generator.conditioning=~',
            networks.discriminator.conditioning=plain]
grid:
  data:
    shapes: ['data={{use: shapes, size: 16, count: 64}}', eval.protocol={folder}/exact.yaml]
    digits: [eval.protocol={folder}/quick.yaml]
  loss: {{hinge: [task.objective=hinge], least squares: [task.objective=least-squares]}}
split: data
tune: {{calm: [optim.lr=0.001], wild: [optim.lr=1e30]}}
metrics: [frechet_distance, shapes_recall]
seeds: [0]
"""
EXACT = """
extractor: random-net
reference: {use: shapes, size: 16, count: 100, seed: 1}
metrics: {frechet-distance: {}, shapes-exact: {}}
samples: 80
seeds: [0]
"""


@pytest.fixture
def split(tmp_path: Path) -> Path:
    (tmp_path / "quick.yaml").write_text(PROTOCOL)
    (tmp_path / "exact.yaml").write_text(EXACT)
    file = tmp_path / "split.yaml"
    file.write_text(SPLIT.format(folder=tmp_path))
    return file


def test_an_axis_can_have_a_table_for_each_label(split: Path, tmp_path: Path) -> None:
    """Two data sets with a protocol each: no table holds both, and a column stands where its protocol has it."""
    plan, out = study.load(split), tmp_path / "out"
    assert list(study.columns(plan, "shapes")) == ["frechet_distance", "shapes_recall"]
    assert list(study.columns(plan, "digits")) == ["frechet_distance"]
    failed = study.execute(plan, out, jobs=1, threads=1, tell=lambda *_: None)
    found = study.lines(plan, out, failed)
    assert [line.labels[0] for line in found] == ["shapes", "shapes", "digits", "digits"]
    shapes, digits = study.table(plan, found).split("\n\n## digits\n\n")
    assert shapes.startswith("## shapes") and "| loss | setting | frechet_distance ↓ | shapes_recall ↑ |" in shapes
    assert digits.startswith("| loss | setting | frechet_distance ↓ | |") and digits.count("\n") == 3
    files = study.write(plan, out, found)
    text, page = (files[kind].read_text(encoding="utf-8") for kind in ("md", "html"))
    # The budget curve: the setting that diverged is no draw, and the best of more settings is no worse.
    assert text.count("(1 of 2 did not end)") == 4 and page.count("(1 of 2 did not end)") == 4
    for row in study.budgets(plan, out, "digits"):
        assert float(row[1]) >= float(row[2])
    cells = json.loads(files["json"].read_text())["cells"]
    assert [cell["data"] for cell in cells] == ["shapes", "shapes", "digits", "digits"]


def test_mistakes_about_the_axis_are_told(split: Path) -> None:
    text = split.read_text()
    split.write_text(text.replace("split: data", "split: dat"))
    with pytest.raises(RecipeError, match="Did you mean 'data'"):
        study.columns(study.load(split))
    split.write_text(text.replace("[frechet_distance, shapes_recall]", "[shapes_recall, frechet_distance]"))
    with pytest.raises(RecipeError, match="no value 'shapes_recall'"):  # the first one chooses settings everywhere
        study.columns(study.load(split))


@pytest.mark.slow
def test_a_study_that_was_killed_leaves_nobody_behind_and_goes_on(split: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ganvas.cli", "bench", str(split), "--out", str(out), "--jobs", "2"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in started.stderr:
        if line.startswith("4 of "):
            break
    tasks = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    if not tasks.is_file():
        pytest.skip("this system does not list a process's children")
    children = [Path(f"/proc/{pid}") for pid in tasks.read_text().split()]
    started.kill()
    started.wait()
    deadline = time.monotonic() + 60
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) >= 2 and not any(child.exists() for child in children)
    ended = [*out.rglob("scores.jsonl"), *out.rglob(study.DIVERGED)]
    done = {file: file.stat().st_mtime_ns for file in ended}
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    already = int(again.stderr.split(" of ")[0])
    assert 1 <= already < 8 and "4 of 4" in again.stderr
    assert sum(file.stat().st_mtime_ns == before for file, before in done.items()) >= already


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_study_resolves(file: Path, tmp_path: Path) -> None:
    plan = study.load(file.stem)
    assert plan.summary and len(study.runs(plan, tmp_path)) >= 12
