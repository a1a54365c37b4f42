"""Model files and run folders that are not what they should be. Nothing in them may run, and nothing is written."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ganvas.errors import DataError
from ganvas.files.files import read_tensors, write_tensors
from ganvas.model import Model


class Harm:
    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (Path("harmed"),)


def edited(model: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """The file with another header: `change(safetensors header, our metadata)`."""
    size = struct.unpack("<Q", model[:8])[0]
    head = json.loads(model[8 : 8 + size])
    own = json.loads(head["__metadata__"]["ganvas"])
    change(head, own)
    head["__metadata__"]["ganvas"] = json.dumps(own)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + model[8 + size :]


def unknown_part(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["recipe"]["networks"]["generator"]["use"] = "sngan-generatr"


def unknown_key(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["recipe"]["networks"]["generator"]["hidden"] = 3


def wrong_width(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["recipe"]["networks"]["generator"]["width"] = 16


def wrong_value(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["recipe"]["networks"]["generator"]["width"] = "wide"


def no_spec(head: dict[str, Any], own: dict[str, Any]) -> None:
    del own["spec"]


def no_networks(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["recipe"]["networks"] = "none"


def shape_of_text(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["spec"]["shape"] = ["a", "b", "c"]


def lost_tensor(head: dict[str, Any], own: dict[str, Any]) -> None:
    del head[next(name for name in head if name.startswith("generator."))]


def old_form(**changes: Any) -> Callable[..., None]:
    def change(head: dict[str, Any], own: dict[str, Any]) -> None:
        shape = own["spec"]["shape"]
        own["spec"] = {"shape": shape, "modality": "image", "num_classes": 10, **changes}

    return change


def step_of_minus_one(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["step"] = -1


def minus_three_categories(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["spec"]["conditions"]["label"]["categories"] = -3


def no_pixels(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["spec"]["shape"] = [1, 0, 8]


def nine_names(head: dict[str, Any], own: dict[str, Any]) -> None:
    own["class_names"] = own["class_names"][:9]


EDITS = [
    (unknown_part, "UnknownPart", "Did you mean 'sngan-generator'?"),
    (unknown_key, "CheckpointError", "hidden"),
    (wrong_width, "CheckpointError", "size mismatch"),
    (wrong_value, "CheckpointError", "wide"),
    (no_spec, "CheckpointError", "its header is not one of ours"),
    (no_networks, "CheckpointError", "networks"),
    (shape_of_text, "CheckpointError", "its header is not one of ours"),
    (lost_tensor, "CheckpointError", "copy it again"),
    (step_of_minus_one, "CheckpointError", "step -1"),
    (minus_three_categories, "CheckpointError", "-3 categories"),
    (no_pixels, "CheckpointError", "shape (1, 0, 8)"),
    (nine_names, "CheckpointError", "9 names of 10 classes"),
]


@pytest.mark.parametrize(("change", "kind", "snippet"), EDITS, ids=[each[0].__name__ for each in EDITS])
def test_edited_header(
    refused: Callable[..., None], trained_run: Path, change: Callable[..., None], kind: str, snippet: str
) -> None:
    Path("m.safetensors").write_bytes(edited((trained_run / "model.safetensors").read_bytes(), change))
    refused("sample m.safetensors --out a.png", kind, "m.safetensors", snippet)


@pytest.mark.parametrize("num_classes", [-3, 1.5, "ten", None, True, [10]])
def test_header_of_version_0_1_that_makes_no_sense(
    refused: Callable[..., None], trained_run: Path, num_classes: Any
) -> None:
    change = old_form(num_classes=num_classes)
    Path("m.safetensors").write_bytes(edited((trained_run / "model.safetensors").read_bytes(), change))
    for line in ("sample m.safetensors --out a.png", "eval m.safetensors"):
        refused(line, "CheckpointError", "its header is not one of ours")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(refused: Callable[..., None], trained_run: Path, value: float) -> None:
    """One such number is enough, and it is found before anything of it becomes a picture."""
    tensors, metadata = read_tensors(trained_run / "model.safetensors")
    name = next(name for name in tensors if name.startswith("generator."))
    tensors[name].view(-1)[-1] = value
    shutil.copytree(trained_run, "run")
    write_tensors(Path("run", "model.safetensors"), tensors, metadata)
    for line in (
        "sample run --out a.png",
        "eval run",
        "inspect run",
        "sample run --walk a.gif",
        "export run --onnx --out a.onnx",
    ):
        refused(line, "CheckpointError", "NaN or infinite", name)
    refused("train tiny/digits networks.generator.from=run --out new", "BadValue", "NaN or infinite")


def test_samples_that_are_not_finite_are_no_black_pictures(trained_run: Path) -> None:
    model = Model.load(trained_run)
    with torch.no_grad():
        next(model.nets["generator"].parameters()).fill_(3e38)  # finite, and what it makes is not
    with pytest.raises(DataError, match="samples from number 0 on hold NaN or infinite"):
        model.sample(2)


def test_files_that_are_no_model(refused: Callable[..., None], trained_run: Path) -> None:
    model = (trained_run / "model.safetensors").read_bytes()
    files = {
        "empty": b"",
        "head": model[:4],
        "cut": model[:-100],
        "early": model[:2000],
        "noise": random.Random(0).randbytes(5000),
        "pickle": pickle.dumps(Harm()),
        "huge": struct.pack("<Q", 1 << 62) + model[8:],
        "deep": struct.pack("<Q", 200_000) + b"[" * 200_000,
    }
    for name, data in files.items():
        Path(f"{name}.safetensors").write_bytes(data)
        refused(f"sample {name}.safetensors --out a.png", "CheckpointError", f"{name}.safetensors")
        refused(f"eval {name}.safetensors", "CheckpointError", f"{name}.safetensors")


def test_weights_of_others(refused: Callable[..., None]) -> None:
    save_file({"conv.weight": torch.zeros(3)}, "theirs.safetensors", {"format": "pt"})
    refused("sample theirs.safetensors", "CheckpointError", "it holds weights, but not a Ganvas model")
    refused(
        "train digits networks.generator.from=theirs.safetensors --out run", "BadValue",
        "networks.generator.from", "theirs.safetensors has no network 'generator', but conv",
    )  # fmt: skip


def test_a_run_without_a_model(refused: Callable[..., None], trained_run: Path) -> None:
    Path("run").mkdir()
    for name in ("recipe.yaml", "resolved.yaml", "log.jsonl"):
        Path("run", name).write_bytes((trained_run / name).read_bytes())
    for words in ("sample run", "eval run", "sample nowhere"):
        refused(words, "CheckpointError", f"there is no model at {words.split()[1]}", "model.safetensors")
    refused("sample run/recipe.yaml", "CheckpointError", "run/recipe.yaml", "not a readable model file")


def test_weights_of_a_network_that_does_not_fit(refused: Callable[..., None], trained_run: Path) -> None:
    wanted = f"train tiny/digits eval= networks.generator.from={trained_run} --out run"
    refused(
        f"{wanted} networks.generator.net=teacher",
        "BadValue",
        "has no network 'teacher', but discriminator, generator",
        "generator.net=NAME",
    )
    refused(f"{wanted} networks.generator.width=16", "BadValue", "do not fit", "networks.generator.from")
    refused(f"{wanted} networks.generator.net=discriminator", "BadValue", "do not fit")


def test_an_unreadable_checkpoint_is_named(ganvas: Callable[..., Any], trained_run: Path) -> None:
    Path("run/checkpoints/step-0000002").mkdir(parents=True)
    for name in ("recipe.yaml", "resolved.yaml", "provenance.json"):
        Path("run", name).write_bytes((trained_run / name).read_bytes())
    Path("run/checkpoints/step-0000002/state.safetensors").write_bytes(b"broken")
    Path("run/samples").mkdir()
    said = ganvas("train --resume --out run --device cpu")
    assert said.code == 2
    assert "CheckpointError: run/checkpoints/step-0000002/state.safetensors" in said.err
    assert Path("run/checkpoints/step-0000002/state.safetensors").read_bytes() == b"broken"
