"""`from:` and `freeze:`: networks that begin as another run left them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ganvas.errors import BadValue
from ganvas.model import Model
from ganvas.recipe.recipe import Recipe
from ganvas.training.check import check
from ganvas.training.train import train

QUICK = ("train.steps=2", "train.batch=4", "eval=", "ema=~")


def test_a_network_without_use_is_built_as_it_was_there(trained_run: Path) -> None:
    recipe = Recipe.load("tiny/digits", [f"networks.generator={{from: {trained_run}, freeze: all}}"])
    there = Model.load(trained_run).recipe["networks"]["generator"]
    assert recipe.resolve()["networks"]["generator"] == {**there, "from": str(trained_run), "freeze": "all"}
    assert Recipe(recipe.resolve()).resolve() == recipe.resolve()


def test_net_names_another_role_there(trained_run: Path) -> None:
    text = f"{{from: {trained_run}, net: discriminator}}"
    resolved = Recipe.load("tiny/digits", [f"networks.discriminator={text}"]).resolve()
    assert resolved["networks"]["discriminator"]["use"] == "sngan-discriminator"
    with pytest.raises(BadValue, match="it has no network 'teacher', but discriminator, generator") as caught:
        Recipe.load("tiny/digits", [f"networks.generator={{from: {trained_run}, net: teacher}}"]).resolve()
    assert caught.value.where.endswith("networks.generator.from")


def test_a_missing_source_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="there is no model at") as caught:
        Recipe.load("tiny/digits", [f"networks.generator={{from: {tmp_path / 'none'}}}"]).resolve()
    assert len(caught.value.problems) == 1


def test_frozen_weights_stay_and_the_others_learn(trained_run: Path, tmp_path: Path) -> None:
    before = Model.load(trained_run).nets
    model = train(
        "tiny/digits", *QUICK, f"networks.generator={{from: {trained_run}, freeze: all}}",
        f"networks.discriminator={{from: {trained_run}, freeze: [head]}}", out=tmp_path / "run", device="cpu",
    )  # fmt: skip
    for name, parameter in model.nets["generator"].named_parameters():
        assert torch.equal(parameter, dict(before["generator"].named_parameters())[name]), name
    moved = {
        name.split(".")[0]: not torch.equal(parameter, dict(before["discriminator"].named_parameters())[name])
        for name, parameter in model.nets["discriminator"].named_parameters()
    }
    assert not moved.pop("head")
    assert all(moved.values())


def test_check_needs_the_source_but_not_its_size(trained_run: Path) -> None:
    check(Recipe.load("tiny/digits", [f"networks.generator={{from: {trained_run}, freeze: all}}"]))
