"""A model comes from a run folder or from its one file; anything else is refused with a reason."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ganvas
from ganvas import cli
from ganvas.errors import CheckpointError, UnknownPart
from ganvas.files.files import model_metadata, read_tensors, write_tensors
from ganvas.model import Model


def test_folder_and_file_are_the_same_model(trained_run: Path) -> None:
    one, other = ganvas.load(trained_run), Model.load(trained_run / "model.safetensors")
    assert torch.equal(one.sample(4, seed=0), other.sample(4, seed=0))
    assert one.step == other.step == 2
    assert one.spec.shape == (1, 8, 8)
    assert one.class_names == tuple("0123456789")
    assert one.recipe == other.recipe


def test_the_file_loads_alone(trained_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "renamed.safetensors"
    shutil.copy(trained_run / "model.safetensors", file)
    assert torch.equal(ganvas.load(file).sample(4, seed=0), ganvas.load(trained_run).sample(4, seed=0))
    assert model_metadata(file)["recipe"]["networks"]["generator"]["from"] is None


def test_loading_what_training_returned(tmp_path: Path) -> None:
    """The averaged weights are in the file, and training hands back the same model."""
    returned = ganvas.train("tiny/digits", "train.steps=2", "eval=", out=tmp_path / "run", device="cpu")
    assert torch.equal(returned.sample(4, seed=0), ganvas.load(tmp_path / "run").sample(4, seed=0))


# --------------------------------------------------------------------------------------------------- what is refused


def rewritten(change: Callable[[dict[str, Any]], None]) -> Callable[[Path, Path], None]:
    """A model whose header was changed."""

    def write(source: Path, file: Path) -> None:
        tensors, metadata = read_tensors(source)
        content = json.loads(metadata["ganvas"])
        change(content)
        write_tensors(file, tensors, {"ganvas": json.dumps(content)})

    return write


def without_a_weight(source: Path, file: Path) -> None:
    tensors, metadata = read_tensors(source)
    tensors.popitem()
    write_tensors(file, tensors, metadata)


FOREIGN: dict[str, Callable[[Path, Path], Any]] = {
    "empty": lambda source, file: file.write_bytes(b""),
    "text": lambda source, file: file.write_text("hello, this is not a model at all"),
    "pickle": lambda source, file: file.write_bytes(pickle.dumps({"state": 1})),
    "torch-save": lambda source, file: torch.save({"w": torch.zeros(2)}, file),
    "other-safetensors": lambda source, file: write_tensors(file, {"w": torch.zeros(2)}, {}),
    "other-metadata": lambda source, file: write_tensors(file, {"w": torch.zeros(2)}, {"format": "pt"}),
    "header-is-no-json": lambda source, file: write_tensors(file, {"w": torch.zeros(2)}, {"ganvas": "{"}),
    "header-is-a-list": lambda source, file: write_tensors(file, {"w": torch.zeros(2)}, {"ganvas": "[1]"}),
    "header-is-empty": lambda source, file: write_tensors(file, {"w": torch.zeros(2)}, {"ganvas": "{}"}),
    "no-spec": rewritten(lambda content: content.pop("spec")),
    "no-class-names": rewritten(lambda content: content.pop("class_names")),
    "no-step": rewritten(lambda content: content.pop("step")),
    "spec-with-more": rewritten(lambda content: content["spec"].update(depth=3)),
    "networks-are-a-list": rewritten(lambda content: content["recipe"].update(networks=[1])),
    "unknown-key": rewritten(lambda content: content["recipe"]["networks"]["generator"].update(colour="red")),
    "other-width": rewritten(lambda content: content["recipe"]["networks"]["generator"].update(width=16)),
    "width-is-a-word": rewritten(lambda content: content["recipe"]["networks"]["generator"].update(width="wide")),
    "weight-missing": without_a_weight,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_or_changed_file(kind: str, trained_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    FOREIGN[kind](trained_run / "model.safetensors", file)
    with pytest.raises(CheckpointError) as caught:
        ganvas.load(tmp_path)
    assert str(file) in caught.value.where
    assert caught.value.hint


def test_file_cut_short_anywhere(trained_run: Path, tmp_path: Path) -> None:
    whole = (trained_run / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        file = tmp_path / "cut.safetensors"
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            ganvas.load(file)


def test_part_that_is_not_on_the_shelves(trained_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    rewritten(lambda content: content["recipe"]["networks"]["generator"].update(use="my-generator"))(
        trained_run / "model.safetensors", file
    )
    with pytest.raises(UnknownPart, match="my-generator") as caught:
        ganvas.load(file)
    assert str(file) in caught.value.where


def test_nothing_there(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.safetensors"):
        with pytest.raises(CheckpointError, match="there is no model at"):
            ganvas.load(place)


def test_command_line_says_so_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    assert cli.run(["sample", str(tmp_path), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "CheckpointError" in said
    assert "Traceback" not in said
