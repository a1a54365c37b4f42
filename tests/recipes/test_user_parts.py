"""A part of one's own, in a file outside the package: as good as a shipped one, and nothing runs before it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ganvas import cli, parts
from ganvas.errors import UnknownPart, UsageError

LOSS = '''\
"""A loss of my own."""
import torch.nn.functional as F
from ganvas.parts import objective
from ganvas.types import Objective


@objective("my-loss", paper="me, today")
class MyLoss(Objective):
    """Softplus on both sides, divided by `heat`."""

    reads_real = False

    def __init__(self, *, heat: float = 1.0) -> None:
        self.heat = heat

    def critic(self, real_logits, fake_logits):
        return F.softplus(-real_logits / self.heat).mean() + F.softplus(fake_logits / self.heat).mean()

    def generator(self, real_logits, fake_logits):
        return F.softplus(-fake_logits / self.heat).mean()
'''


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(LOSS)
    return tmp_path


@pytest.mark.usefixtures("work")
def test_it_is_listed_shown_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "objectives", "--parts", "my_loss.py", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert listed["my-loss"]["where"] == "my_loss.py:8"
    assert "hinge" in listed
    assert cli.run(["show", "objective", "my-loss", "--parts", "my_loss.py"]) == 0
    shown = capsys.readouterr().out
    assert "heat: float  = 1.0" in shown and "Softplus on both sides" in shown and "me, today" in shown
    line = ["check", "tiny/digits", "task.objective=my-loss", "--parts", "my_loss.py"]
    assert cli.run([*line, "task.objective.heat=2"]) == 0
    capsys.readouterr()
    assert cli.run([*line, "task.objective.heat=cold"]) == 2
    assert "'heat' is 'cold', but must be float" in capsys.readouterr().err


def test_it_trains_and_its_model_needs_no_file_of_it(work: Path) -> None:
    line = ["train", "tiny/digits", "task.objective=my-loss", "train.steps=2", "train.batch=4", "eval="]
    assert cli.run([*line, "--parts", "my_loss.py", "--out", "run", "--device", "cpu"]) == 0
    assert "my-loss" in (work / "run" / "resolved.yaml").read_text()
    parts.drop_added()
    assert cli.run(["sample", "run", "--out", "a.png", "--n", "2"]) == 0  # a loss is not needed to sample


def test_without_its_file_the_name_is_unknown(work: Path) -> None:
    with pytest.raises(UnknownPart, match="'my-loss'"):
        parts.find("objective", "my-loss")
    parts.add_file("my_loss.py")
    assert parts.find("objective", "my-loss").fields()["heat"].default == 1.0
    parts.add_file("my_loss.py")  # the same file again is no clash


def test_listing_runs_nothing_of_it(work: Path) -> None:
    (work / "my_loss.py").write_text(LOSS + "\nopen('ran', 'w')\n")
    assert cli.run(["list", "objectives", "--parts", "my_loss.py"]) == 0
    assert not (work / "ran").exists()


BROKEN = [
    ("def (:\n", "my_loss.py:1", "invalid syntax"),
    ("x = 1\n", "--parts", "holds no part"),
    (LOSS.replace("my-loss", "hinge"), "my_loss.py:8", "'hinge' is already defined at"),
    (LOSS.replace('"my-loss"', 'str("my") + "-loss"'), "my_loss.py:7", "must be plain values"),
    (LOSS.replace('"me, today"', "f'{1}'"), "my_loss.py:7", "must be plain values"),
    (LOSS.replace("paper=", "papr="), "my_loss.py:7", "'papr'"),
    (LOSS + LOSS.replace("MyLoss", "Other"), "my_loss.py", "'my-loss' is already defined at"),
]


@pytest.mark.parametrize(("text", "where", "problem"), BROKEN)
def test_a_broken_file_is_refused(work: Path, text: str, where: str, problem: str) -> None:
    (work / "my_loss.py").write_text(text)
    with pytest.raises(UsageError) as caught:
        parts.add_file("my_loss.py")
    assert where in caught.value.where
    assert problem in caught.value.problem
    assert caught.value.hint
    assert "my-loss" not in {part.name for part in parts.every("objective")}


def test_bytes_that_are_no_text(work: Path) -> None:
    (work / "my_loss.py").write_bytes(b"\xff\xfe@objective(")
    with pytest.raises(UsageError, match="can't decode byte 0xff"):
        parts.add_file("my_loss.py")


RAISING = [
    ("import nosuchmodule\n" + LOSS, "nosuchmodule"),
    (LOSS + "\nraise RuntimeError('no luck')\n", "no luck"),
    (LOSS.replace("heat: float = 1.0", "heat=1.0"), "heat"),
]


@pytest.mark.parametrize(("text", "problem"), RAISING)
def test_a_file_that_fails_when_it_is_used(
    work: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    (work / "my_loss.py").write_text(text)
    line = ["train", "tiny/digits", "task.objective=my-loss", "--parts", "my_loss.py", "--out", "run"]
    assert cli.run(line) == 2
    said = capsys.readouterr().err
    assert problem in said and "my_loss.py" in said and "Traceback" not in said
    assert not (work / "run").exists()
