"""Exact state on disk: written whole or not at all, and nothing in it can run code.

A state is a tree of dicts, lists and tuples over tensors and plain values. Tensors go into one safetensors file, the
tree itself as JSON into its header.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganvas.errors import CheckpointError
from ganvas.files import full_disk, read_tensors, sweep, write_tensors

STATE = "state.safetensors"
FORMAT = "ganvas-state-1"


# --------------------------------------------------------------------------------------------------- trees


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """(tensors by name, the tree as JSON-able data that refers to them)."""
    tensors: dict[str, Tensor] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, Tensor):
            name = str(len(tensors))
            tensors[name] = node.detach().to("cpu", copy=True).contiguous()
            return {"@tensor": name}
        if isinstance(node, Mapping):
            return {"@map": [[key, walk(value)] for key, value in node.items()]}
        if isinstance(node, tuple):
            return {"@tuple": [walk(value) for value in node]}
        if isinstance(node, list):
            return [walk(value) for value in node]
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        raise TypeError(f"a state holds tensors and plain values, not {type(node).__name__}")

    return tensors, walk(tree)


def unpack(tensors: Mapping[str, Tensor], skeleton: Any) -> Any:
    """The tree that `pack` took apart."""
    if isinstance(skeleton, list):
        return [unpack(tensors, each) for each in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, value),) = skeleton.items()
    if kind == "@tensor":
        return tensors[value]
    if kind == "@tuple":
        return tuple(unpack(tensors, each) for each in value)
    return {key: unpack(tensors, each) for key, each in value}


# --------------------------------------------------------------------------------------------------- a folder of them


class Checkpoints:
    """`checkpoints/step-0010000/` of a run; each is complete or absent."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """The steps that there are complete checkpoints of, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [each.name.removeprefix("step-") for each in self.folder.glob("step-*") if (each / STATE).is_file()]
        return sorted(int(name) for name in found if name.isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"

    def save(self, step: int, state: Mapping[str, Any], best: int | None) -> Path:
        """Write one, then drop the oldest beyond `keep`, never the best."""
        tensors, skeleton = pack(state)
        target = self.path(step)
        temporary = self.folder / f".step-{step:07d}.{os.getpid()}.tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            write_tensors(temporary / STATE, tensors, {"format": FORMAT, "tree": json.dumps(skeleton)})
            if target.exists():  # a save of the same step that was cut short
                (temporary / STATE).replace(target / STATE)
            else:
                temporary.rename(target)
        except OSError as error:
            raise full_disk(error, target) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in self.steps()[: -self.keep]:
            if old != best:
                shutil.rmtree(self.path(old), ignore_errors=True)
        return target

    def load(self, step: int) -> dict[str, Any]:
        """The state of one checkpoint, on the CPU.

        Raises
        ------
        CheckpointError : unreadable, or not a state of ours.
        """
        file = self.path(step) / STATE
        tensors, metadata = read_tensors(file)
        try:
            if metadata["format"] != FORMAT:
                raise ValueError(metadata["format"])
            return dict(unpack(tensors, json.loads(metadata["tree"])))
        except (KeyError, ValueError, TypeError):
            raise CheckpointError(
                "it is not a checkpoint", where=str(file), hint=f"delete {file.parent} and resume"
            ) from None

    def sweep(self) -> None:
        """Remove what an interrupted save, or an interrupted removal, left behind."""
        sweep(self.folder)
        for each in self.folder.glob("step-*"):
            if not (each / STATE).is_file():
                shutil.rmtree(each, ignore_errors=True)


def to_device(tree: Any, device: torch.device) -> Any:
    """The tree with every tensor on the device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: to_device(value, device) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(to_device(value, device) for value in tree)
    return tree
