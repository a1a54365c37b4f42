"""Arguments that make no sense, alone or together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ganvas.training.train import train

# (command, the error's type, what it must say); m.safetensors is a conditional model of digits
LINES = [
    ("trian digits", "UsageError", "'trian'", "Did you mean 'train'?", "ganvas --help"),
    ("train digits --ou run", "UsageError", "--ou", "ganvas train --help"),
    ("train digits --device nonsense --out run", "UsageError", "'nonsense' is no device here", "there are cpu"),
    ("train digits --device meta --out run", "UsageError", "'meta' is no device here"),
    ("train digits --device cuda:77 --out run", "UsageError", "'cuda:77' is no device here"),
    ("train digits --parts nowhere.py --out run", "UsageError", "there is no file nowhere.py"),
    ("train digits --out file", "ResumeMismatch", "file is a file", "give a folder"),
    ("train digits --out file/run", "ResumeMismatch", "file is a file"),
    ("train digits --out full", "ResumeMismatch", "full is not empty", "--resume"),
    ("train --resume --out nowhere", "ResumeMismatch", "there is no run at nowhere"),
    ("sample", "UsageError", "missing argument 'RUN'", "ganvas sample --help"),
    ("sample m.safetensors --label 10 --out a.png", "UsageError", "label 10 is outside 0 to 9"),
    ("sample m.safetensors --label -1 --out a.png", "UsageError", "label -1 is outside 0 to 9"),
    ("sample m.safetensors --label cat --out a.png", "UsageError", "no class is called 'cat'"),
    ("sample m.safetensors --n 0 --out a.png", "UsageError", "0 is not in the range x>=1"),
    ("sample m.safetensors --n many --out a.png", "UsageError", "'many'"),
    ("sample m.safetensors --seed -1 --out a.png", "UsageError", "-1 is not in the range x>=0"),
    ("sample m.safetensors --batch 0 --out a.png", "UsageError", "'--batch'"),
    ("sample m.safetensors --truncation -1 --out a.png", "UsageError", "'--truncation'"),
    ("sample m.safetensors --truncation nan --out a.png", "BadValue", "'threshold' is nan, but must be float >= 0"),
    ("sample m.safetensors --truncation 1 --sampler plain --out a.png", "UsageError", "are both given"),
    ("sample m.safetensors --sampler plane --out a.png", "UnknownPart", "Did you mean 'plain'?"),
    ("sample m.safetensors --device nonsense --out a.png", "UsageError", "'nonsense' is no device here"),
    ("sample m.safetensors --out a.gif", "UsageError", "a.gif is no place for data of modality 'image'", "FILE.png"),
    ("sample m.safetensors --out full", "UsageError", "full is there already"),
    ("sample m.safetensors --out file", "UsageError", "file is there already"),
    ("sample m.safetensors --out nowhere/a.png", "UsageError", "there is no folder nowhere"),
    ("sample m.safetensors --out file/a.png", "UsageError", "there is no folder file"),
    ("sample m.safetensors --out file/images/", "UsageError", "there is no folder file"),
    ("eval nowhere", "UsageError", "there are no images at nowhere"),
    ("eval file", "UsageError", "there are no images at file"),
    ("eval m.safetensors --protocol digts", "BadValue", "'digts'", "Did you mean 'digits'?"),
    ("eval m.safetensors --protocol nowhere.yaml", "BadValue", "nowhere.yaml"),
    ("eval m.safetensors --against nowhere", "UsageError", "there are no images at nowhere", "--against"),
    ("eval m.safetensors --protocol logits.yaml", "BadValue", "'class-agreement' reads class logits", "random-net"),
    ("eval m.safetensors --protocol typo.yaml", "UnknownKey", "typo.yaml:1:1", "Did you mean 'metrics'?"),
    ("eval m.safetensors --protocol seeds.yaml", "BadValue", "seeds.yaml:3:1", "'seeds'"),
    ("list objektives", "UnknownPart", "'objektives'", "Did you mean 'objectives'?"),
    ("list objectives --parts file", "UsageError", "file"),
    ("show network", "UsageError", "which network?", "ganvas list networks"),
    ("show network sngan", "UnknownPart", "Did you mean 'sngan-generator'?"),
    ("show system dcgn", "UnknownPart", "Did you mean 'dcgan'?", "ganvas list systems"),
    ("show recipe digts", "RecipeError", "Did you mean 'digits'?"),
    ("diff digits", "UsageError", "missing argument 'B'"),
    ("diff digits nowhere", "RecipeError", "'nowhere'"),
    ("check", "UsageError", "missing argument"),
]  # fmt: skip


@pytest.fixture
def place(workplace: Path, trained_run: Path) -> None:
    shutil.copy(trained_run / "model.safetensors", "m.safetensors")
    Path("file").write_text("not much\n")
    Path("full").mkdir()
    Path("full/note").write_text("mine")
    Path("logits.yaml").write_text("metrics: {class-agreement: {}}\nextractor: random-net\nreference: digits\n")
    Path("typo.yaml").write_text("metrcs: {class-agreement: {}}\nextractor: digit-net\n")
    Path("seeds.yaml").write_text("metrics: {class-agreement: {}}\nextractor: digit-net\nseeds: [a]\n")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("line", "kind", "snippets"), [(each[0], each[1], each[2:]) for each in LINES])
def test_bad_arguments(refused: Callable[..., None], line: str, kind: str, snippets: tuple[str, ...]) -> None:
    refused(line, kind, *snippets)


@pytest.fixture(scope="module")
def without_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    train("tiny/digits-dcgan", "train.steps=1", "train.batch=4", "eval=", out=folder, device="cpu")
    return folder / "model.safetensors"


def test_a_label_for_a_model_without_classes(refused: Callable[..., None], without_classes: Path) -> None:
    shutil.copy(without_classes, "m.safetensors")
    refused("sample m.safetensors --label 3 --out a.png", "UsageError", "label '3': this model knows no classes")


@pytest.mark.usefixtures("place")
def test_resume_with_another_recipe_shows_what_changed(refused: Callable[..., None], trained_run: Path) -> None:
    shutil.copytree(trained_run, "run")
    refused(
        "train tiny/digits eval= train.steps=3 optim.lr=0.5 --resume --out run", "ResumeMismatch",
        "train.steps: 2 -> 3", "optim.lr: ", "0.5", "--allow-changes",
    )  # fmt: skip
    refused("train digits --out run", "ResumeMismatch", "run is not empty", "ganvas train --resume --out run")
