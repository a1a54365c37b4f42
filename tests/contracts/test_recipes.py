"""The contract of recipes: every one validates; every tiny one trains, resumes bit-exactly, samples and is scored."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import ganvas
from ganvas import parts
from ganvas.errors import CheckpointError, MissingExtra
from ganvas.evaluation.judge import judge_for
from ganvas.evaluation.protocol import load_protocol
from ganvas.files.files import read_rows
from ganvas.parts import values
from ganvas.recipe import yaml12
from ganvas.recipe.recipe import Recipe, shipped
from ganvas.training.check import check
from ganvas.training.session import Watcher
from ganvas.training.train import train
from ganvas.types import Condition

TINY = [name for name in shipped() if name.startswith("tiny/")]
TWO_STEPS = ("train.steps=2", "train.checkpoint_every=1", "train.log_every=1", "train.sample_every=2")


class AsKilled(Watcher):
    """Keeps the run's folder as a kill in the second step would leave it."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self.folder, self.kept = folder, kept

    def tick(self, step: int, values: object) -> None:
        if step == 2 and not self.kept.exists():  # in the first of several stages
            shutil.copytree(self.folder, self.kept)


@pytest.mark.parametrize("name", shipped())
def test_recipe_validates_and_resolves_to_itself(name: str) -> None:
    recipe = Recipe.load(name)
    resolved = recipe.resolve()
    json.dumps(resolved)
    assert Recipe(resolved).resolve() == resolved
    assert 10 <= len(resolved["summary"]) < 140


def large(name: str) -> bool:
    """Whether a recipe's images are so large that a step takes long at any width."""
    return int(Recipe.load(name).resolve()["data"].get("size") or 0) > 256


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if large(name) else ()) for name in shipped() if name not in TINY],
)
def test_recipe_builds_and_takes_a_step_at_tiny_size(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where data of a relative path are not at hand, wherever the tests are run
    try:
        check(Recipe.load(name), data=False)
    except MissingExtra as missing:
        pytest.skip(missing.problem)
    except CheckpointError as missing:  # published weights of an extractor, which training needs, too
        if "are not on this machine" not in missing.problem:
            raise
        pytest.skip(missing.problem)
    assert list(tmp_path.iterdir()) == []


def quick_protocol(name: str | None, folder: Path) -> tuple[str, ...]:
    """An override that keeps the recipe's protocol but for its reference and counts, which are made small."""
    if name is None:
        return ()
    protocol = load_protocol(name)
    if protocol["reference"]:
        reference = protocol["reference"]
        reference.update(values.plain(parts.find("dataset", reference["use"]).tiny))
    file = folder / "quick.yaml"
    file.write_text(yaml12.write({**protocol, "samples": 64, "seeds": [0]}), encoding="utf-8")
    return (f"eval.protocol={file}",)


def asked_of(model: ganvas.Model, n: int) -> Condition:
    """What n samples are made of, besides classes: the first data of the model's set have it."""
    names = [name for name in model.reads if name != "label"]
    return parts.build("dataset", model.recipe["data"]).batch(np.arange(n), np.random.default_rng(0)).asked(names)


@pytest.mark.filterwarnings("ignore:.*samples are few")
@pytest.mark.parametrize("name", TINY)
def test_tiny_recipe_trains_resumes_exactly_samples_and_is_scored(
    name: str, killing: ModuleType, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    protocol = (Recipe.load(name).resolve()["eval"] or {}).get("protocol")
    overrides = (*TWO_STEPS, *quick_protocol(protocol, tmp_path))
    model = train(name, *overrides, out=whole, device="cpu", watcher=AsKilled(whole, broken))
    train(name, *overrides, out=broken, device="cpu", resume=True)
    assert killing.differences(killing.contents(whole), killing.contents(broken)) == []

    loaded = ganvas.load(whole)
    given = asked_of(loaded, 5)
    images = loaded.sample(5, seed=1, condition=given)
    assert images.shape == (5, *loaded.spec.shape)
    assert torch.isfinite(images).all()
    assert torch.equal(images, model.sample(5, seed=1, condition=given))
    assert list((whole / "samples").glob("*.png"))

    rows = read_rows(whole / "scores.jsonl")
    if protocol is None:
        quick = {**load_protocol(loaded.spec.modality.protocol), "samples": 64, "seeds": [0]}
        rows = [{"step": 2, **row} for row in judge_for(quick, model.recipe["data"]).score_model(loaded)]
    assert rows
    for row in rows:
        assert row["step"] == 2
        assert math.isfinite(row["value"])
        assert {"metric", "protocol", "n_fake", "n_real", "reference", "extractor", "sha256", "seeds"} <= set(row)
