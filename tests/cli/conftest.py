"""The command line as a script sees it, and what must be true whenever it refuses something."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ganvas import cli, errors
from ganvas.engine.trainer import Trainer

Ganvas = Callable[..., "Said"]
TYPES = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.GanvasError)}


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def ganvas(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Ganvas:
    """`ganvas("train digits --json")` in the empty working directory."""

    def go(line: str | list[str]) -> Said:
        capsys.readouterr()
        code = cli.run(shlex.split(line) if isinstance(line, str) else line)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return go


def contents(folder: Path) -> dict[str, str]:
    """Every file below, with a digest of what is in it; folders with nothing."""
    return {
        str(each.relative_to(folder)): hashlib.sha256(each.read_bytes()).hexdigest() if each.is_file() else ""
        for each in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(ganvas: Ganvas, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`refused(line, kind, *snippets)`: the command ends with a typed error that says all of it, and leaves nothing."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("GANVAS_CACHE", str(cache))

    def never(trainer: Trainer) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(Trainer, "run", never)

    def look(line: str | list[str], kind: str, *snippets: str) -> None:
        words = shlex.split(line) if isinstance(line, str) else line
        before, begun = contents(workplace), time.process_time()
        said = ganvas([*words, "--json"])
        took = time.process_time() - begun
        assert said.code == 2, said.err
        assert "Traceback" not in said.err
        told = said.json["errors"]
        assert told and all(each["type"] in TYPES and each["problem"] and each["hint"] for each in told), told
        assert kind in {each["type"] for each in told}, said.err
        for each in told:  # people are told the same as scripts
            assert each["problem"] in said.err and each["hint"] in said.err and f"{each['type']}: " in said.err
        for snippet in snippets:
            assert snippet in said.err, said.err
        assert contents(workplace) == before
        # Features of a set that was embedded before the mistake showed are whole, and of use later.
        left = [each for each in cache.rglob("*") if each.is_file() and each.suffix != ".safetensors"]
        assert not left
        assert took < 2  # it fails before anything long begins; imports are done by the fixtures

    return look


@pytest.fixture(scope="session", autouse=True)
def everything_imported(trained_run: Path) -> None:
    """The first command of a process imports torch; no test of time should pay for that."""
