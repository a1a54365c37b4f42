"""Weights & Biases by a stand-in that notes what it is asked; the package itself is not needed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ganvas import parts
from ganvas.errors import BadValue, MissingExtra
from ganvas.recipe.check import check_node


class Run:
    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def log(self, values: dict[str, Any], *, step: int) -> None:
        self.calls.append(("log", values, step))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    noted: list[Any] = []
    fake = ModuleType("wandb")

    def init(**settings: Any) -> Run:
        noted.append(("init", settings))
        return Run(noted)

    fake.init = init  # type: ignore[attr-defined]
    fake.Image = lambda path: ("image", path)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return noted


def test_calls(tmp_path: Path, calls: list[Any]) -> None:
    (tmp_path / "resolved.yaml").write_text("train: {steps: 4}\n", encoding="utf-8")
    sink = parts.build("sink", check_node("sink", {"use": "wandb", "project": "digits"}), tmp_path)
    assert calls == []  # nothing is sent before there is something to send
    sink.row(2, {"step": 2, "images": 128, "generator.adversarial": 0.5})
    sink.images(2, "samples/step-0000002.png")
    sink.row(2, {"score.frechet_distance": 1.5})
    sink.close()
    settings = {
        "project": "digits", "mode": "offline", "dir": str(tmp_path), "name": tmp_path.name,
        "config": {"train": {"steps": 4}},
    }  # fmt: skip
    assert calls == [
        ("init", settings),
        ("log", {"images": 128, "generator/adversarial": 0.5}, 2),
        ("log", {"samples": ("image", "samples/step-0000002.png")}, 2),
        ("log", {"score/frechet_distance": 1.5}, 2),
        ("finish",),
    ]


def test_closing_without_a_row(tmp_path: Path, calls: list[Any]) -> None:
    parts.build("sink", {"use": "wandb"}, tmp_path).close()
    assert calls == []


def test_online_is_asked_for(tmp_path: Path, calls: list[Any]) -> None:
    parts.build("sink", {"use": "wandb", "mode": "online"}, tmp_path).row(1, {"a": 1.0})
    assert calls[0][1]["mode"] == "online"
    with pytest.raises(BadValue, match="mode"):
        check_node("sink", {"use": "wandb", "mode": "sometimes"})


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match="needs the package wandb") as caught:
        parts.build("sink", {"use": "wandb"}, tmp_path)
    assert 'pip install "ganvas[wandb]" -c constraints.txt' in caught.value.hint


def test_a_folder_called_wandb_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline runs leave a folder `wandb/`, which Python imports as an empty package."""
    try:
        installed = importlib.import_module("wandb").__file__
    except ImportError:
        installed = None
    if installed:
        pytest.skip("wandb is installed")
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(MissingExtra):
        parts.build("sink", {"use": "wandb"}, tmp_path)
