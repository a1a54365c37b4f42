"""Training and scoring on data that are not held: the models that a folder gives, and streams resumed to the bit."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ganvas.errors import ResumeMismatch
from ganvas.recipe.recipe import Recipe
from ganvas.training.train import train

COUNT = 40


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """The same images as a folder and as four shards."""
    folder = tmp_path / "folder"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    for shard in range(4):
        (tmp_path / "shards").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as tar:
            for number in range(10 * shard, 10 * shard + 10):
                tar.add(folder / f"{number:03d}.png", f"{number:03d}.png")
                label = io.BytesIO(str(number % 2).encode())
                info = tarfile.TarInfo(f"{number:03d}.cls")
                info.size = 1
                tar.addfile(info, label)
    return {"folder": folder, "shards": tmp_path / "shards"}


def recipe(data: dict[str, Any], steps: int = 6) -> dict[str, Any]:
    return {
        "data": data,
        "networks": {
            "generator": {"use": "sngan-generator", "width": 4, "z_dim": 4},
            "discriminator": {"use": "sngan-discriminator", "width": 4},
        },
        "task": {"use": "adversarial", "objective": "hinge"},
        "optim": {"use": "adam", "lr": 0.0002},
        "train": {"steps": steps, "batch": 8, "log_every": 1, "checkpoint_every": 3},
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_shards_train_the_model_that_the_folder_trains(places: dict[str, Path], tmp_path: Path) -> None:
    train(recipe({"use": "folder", "path": str(places["folder"]), "labels": "none"}), out=tmp_path / "a")
    train(recipe({"use": "webdataset", "path": str(places["shards"]), "labels": "none"}), out=tmp_path / "b")
    assert equal(tmp_path / "a", tmp_path / "b")


def test_a_streamed_run_resumes_to_the_bit(places: dict[str, Path], tmp_path: Path) -> None:
    data = {"use": "webdataset-stream", "path": str(places["shards"]), "classes": 2, "block": 7, "flip": True}
    train(recipe(data, 6), out=tmp_path / "whole")
    train(recipe(data, 6), out=tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-0000006")  # as if it had been killed after its third step
    (tmp_path / "cut" / "model.safetensors").unlink()
    train(recipe(data, 6), out=tmp_path / "cut", resume=True)
    assert equal(tmp_path / "whole", tmp_path / "cut")
    assert (tmp_path / "whole" / "log.jsonl").read_text() == (tmp_path / "cut" / "log.jsonl").read_text()


def test_the_command_line_checks_trains_resumes_and_scores(
    ganvas: Callable[..., Any], workplace: Path, places: dict[str, Path]
) -> None:
    shards = {"use": "webdataset-stream", "path": f"{places['shards']}/{{0..3}}.tar"}
    Recipe(recipe(shards, 3)).save(workplace / "mine.yaml")
    said = ganvas("check mine.yaml")
    assert said.code == 0
    assert "random data" not in said.out + said.err  # a pattern is looked up, though it is no path
    assert ganvas("train mine.yaml --out run").code == 0
    assert ganvas("train run/recipe.yaml --out run --resume train.steps=5 --allow-changes").code == 0
    said = ganvas("eval run --metric frechet-distance --json")
    assert said.code == 0
    assert said.json[0]["n_real"] == COUNT


def test_another_set_of_shards_is_not_gone_on_with(places: dict[str, Path], tmp_path: Path) -> None:
    data = {"use": "webdataset-stream", "path": str(places["shards"])}
    train(recipe(data, 3), out=tmp_path / "run")
    (places["shards"] / "3.tar").unlink()
    with pytest.raises(ResumeMismatch, match="the data have changed"):
        train(recipe(data, 3), out=tmp_path / "run", resume=True)
