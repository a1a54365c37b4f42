"""Exact state on disk: written whole or not at all, and nothing in it can run code.

A state is a tree of dicts, lists and tuples over tensors and plain values. Tensors go into one safetensors file, the
tree itself as JSON into its header. Tensors of which every rank has a piece go into `shards/` beside it, each rank's
into a file of its own, by torch's distributed checkpointing in its safetensors form; any number of processes can read
them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganvas.engine.distributed import agreed
from ganvas.engine.layout import local
from ganvas.errors import CheckpointError
from ganvas.files.files import full_disk, read_tensors, sweep, write_bytes, write_tensors
from ganvas.files.reading import mapping_of
from ganvas.runtime import ranks

STATE = "state.safetensors"
SHARDS = "shards"
BEST = "best.json"
FORMAT = "ganvas-state-1"


# --------------------------------------------------------------------------------------------------- trees


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """(tensors by name, the tree as JSON-able data that refers to them). Whole tensors are copied to the CPU."""
    tensors: dict[str, Tensor] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, Tensor):
            name = str(len(tensors))
            is_whole = local(node) is node
            tensors[name] = node.detach().to("cpu", copy=True).contiguous() if is_whole else node.detach()
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
        return [unpack(tensors, child) for child in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, value),) = skeleton.items()
    if kind == "@tensor":
        return tensors[value]
    if kind == "@tuple":
        return tuple(unpack(tensors, child) for child in value)
    return {key: unpack(tensors, child) for key, child in value}


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
        names = [
            folder.name.removeprefix("step-") for folder in self.folder.glob("step-*") if (folder / STATE).is_file()
        ]
        return sorted(int(name) for name in names if name.isdigit())

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"

    def save(self, step: int, state: Mapping[str, Any], best: int | None) -> Path:
        """Write one, then drop the oldest beyond `keep`, never the best.

        Every rank calls it; the first writes what is whole.
        """
        tensors, skeleton = pack(state)
        shards = {name: tensors.pop(name) for name, tensor in list(tensors.items()) if local(tensor) is not tensor}
        target = self.path(step)
        lead = ranks.rank() == 0
        if not (lead or shards):
            return target
        process = agreed(os.getpid) if shards else os.getpid()
        temporary = self.folder / f".step-{step:07d}.{process}.tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            if shards:
                _write_shards(temporary / SHARDS, shards)
            if not lead:
                return target
            write_tensors(temporary / STATE, tensors, {"format": FORMAT, "tree": json.dumps(skeleton)})
            if target.exists() and not shards:  # a save of the same step that was cut short
                (temporary / STATE).replace(target / STATE)
            else:
                shutil.rmtree(target, ignore_errors=True)
                temporary.rename(target)
        except OSError as error:
            raise full_disk(error, target) from None
        finally:
            if lead:
                shutil.rmtree(temporary, ignore_errors=True)
        for old in self.steps()[: -self.keep]:
            if old != best:
                shutil.rmtree(self.path(old), ignore_errors=True)
        return target

    def mark_best(self, step: int, value: float) -> None:
        """Note that the checkpoint of this step scored best so far; it is then kept."""
        write_bytes(self.folder / BEST, json.dumps({"step": step, "value": value}).encode())

    def best(self, until: int) -> tuple[int, float] | None:
        """(step, score) of the best checkpoint, where there is one that was marked at step `until` or before."""
        try:
            noted = mapping_of(self.folder / BEST)
            step, value = int(noted["step"]), float(noted["value"])
        except (CheckpointError, ValueError, KeyError, TypeError):
            return None  # none was marked, or the mark is damaged, and the next best score marks anew
        return (step, value) if step <= until else None

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
            if (self.path(step) / SHARDS).is_dir():
                tensors |= _read_shards(self.path(step) / SHARDS)
            return dict(unpack(tensors, json.loads(metadata["tree"])))
        except (KeyError, ValueError, TypeError, RecursionError, OSError, RuntimeError):
            raise CheckpointError(
                "it is not a checkpoint", where=str(file), hint=f"delete {file.parent} and resume"
            ) from None

    def set_aside(self, step: int) -> None:
        """Take a damaged checkpoint out of the way, under a name that no step has; nothing in it is lost."""
        place = self.path(step)
        target = place.with_name(f"damaged-{place.name}")
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process has done it, or nothing can be written
            place.rename(target)

    def sweep(self) -> None:
        """Remove what an interrupted save, or an interrupted removal, left behind."""
        sweep(self.folder)
        for folder in self.folder.glob("step-*"):
            if not (folder / STATE).is_file():
                shutil.rmtree(folder, ignore_errors=True)


def _write_shards(folder: Path, shards: dict[str, Tensor]) -> None:
    """Every rank its pieces. Returns when all are written."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    save(shards, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """Every tensor whole, whatever number of processes wrote its pieces."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of being one process: every rank reads the whole for itself
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return tensors


def to_device(tree: Any, device: torch.device) -> Any:
    """The tree with every tensor on the device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: to_device(value, device) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(to_device(value, device) for value in tree)
    return tree
