"""The worked example of CONTRIBUTING.md is a system that works."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, blocks

from ganvas import cli, parts
from ganvas.files.files import read_rows


@pytest.fixture
def example(desk: Path) -> dict[str, Path]:
    """Its three files, written below the working directory where the page says."""
    found = {}
    for _, name, text in blocks(ROOT / "CONTRIBUTING.md"):
        if name:
            file = desk / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            if file.parts[-2] != "examples":
                found[file.parts[-2]] = file
    return found


def test_an_example_of_each_kind_works_with_the_others(
    example: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["dataset", "edit", "metric", "network", "sampler", "task"]
    own = [word for kind in kinds for word in ("--parts", f"examples/{kind}.py")]
    for words in (
        ["check", "examples/waves.yaml"],
        ["train", "examples/waves.yaml", "train.steps=20", "train.checkpoint_every=10", "--out", "runs/waves"],
        ["train", "--resume", "--out", "runs/waves"],
        ["sample", "runs/waves", "--label", "along", "--n", "3", "--out", "along.png"],
        ["eval", "runs/waves"],
        ["edit", "runs/waves", "towards-mean", "--strength", "0,0.5,1"],
    ):
        assert cli.run([*words, *own]) == 0, capsys.readouterr().err
    rows = read_rows(Path("runs/waves/scores.jsonl"))
    assert {row["metric"] for row in rows} == {"brightness_gap", "frechet_distance"}


def test_there_are_three_files(example: dict[str, Path]) -> None:
    assert sorted(example) == ["objectives", "systems", "tiny"]
    taken = [file for file in example.values() if (ROOT / file.relative_to(Path.cwd())).exists()]
    assert not taken, "it is in the package by now: choose another example"


def test_the_recipe_checks_trains_and_resumes(example: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--parts", str(example["objectives"])]
    assert cli.run(["check", str(example["tiny"]), *own]) == 0, capsys.readouterr().err
    assert cli.run(["train", str(example["tiny"]), "--out", "runs/try", *own]) == 0, capsys.readouterr().err
    assert len(read_rows(Path("runs/try/log.jsonl"))) == 2
    assert cli.run(["train", "--resume", "--out", "runs/try", *own]) == 0
    assert cli.run(["sample", "runs/try", "--n", "2"]) == 0  # the loss is not needed any more


def test_its_own_test_passes(example: dict[str, Path]) -> None:
    parts.add_file(example["objectives"])
    names: dict[str, object] = {}
    exec(compile(example["systems"].read_text(encoding="utf-8"), str(example["systems"]), "exec"), names)
    loss = parts.build("objective", {"use": "softmax-gan"})
    tests = [thing for name, thing in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for each in tests:
        each(loss)  # type: ignore[operator]


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_its_code_passes_the_linter(example: dict[str, Path], words: list[str]) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed")
    for file in (example["objectives"], example["systems"], *sorted(Path("examples").resolve().glob("*.py"))):
        command = [ruff, *words, "--stdin-filename", str(ROOT / file.relative_to(Path.cwd())), "-"]
        text = file.read_text(encoding="utf-8")
        done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
