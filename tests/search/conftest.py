"""Searches that run in this process, on a recipe that trains in a blink."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Go, Here

from ganvas.experiments.places import Place
from ganvas.experiments.search import pareto, session, space

pytest.importorskip("optuna", reason="searches need the package optuna")

SPACE = """\
metrics: [{metrics}]
overrides: [train.steps=4, train.checkpoint_every=2, train.log_every=2]
space:
  networks.generator.width: {{from: 4, to: 64, log: true}}
  networks.generator.z_dim: {{choices: [2, 4, 8]}}
  optim.lr: {{from: 1e-4, to: 1e-2, log: true}}
trials: {trials}
population: 4
{more}
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a space called `small`."""

    def write(
        trials: int = 6, metrics: str = "parameters, macs", more: str = "", text: str = SPACE, name: str = "small"
    ) -> Path:
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.format(trials=trials, metrics=metrics, more=more))
        return file

    return write


@pytest.fixture
def go() -> Go:
    """Searches to the end and writes what was found; gives back `search.json`."""

    def to_the_end(
        file: Path,
        out: Path,
        place: Place | None = None,
        storage: str | None = None,
        recipe: str = "tiny/gaussians-mlp",
    ) -> dict[str, Any]:
        plan = space.load(recipe, file)
        out.mkdir(exist_ok=True)
        store = session.open_store(plan, storage or str(out / "search.journal"))
        trials = session.execute(plan, store, out, place or Here())
        files = pareto.write(plan, trials, store.importances(), out)
        data: dict[str, Any] = json.loads(files.data.read_text())
        return data

    return to_the_end
