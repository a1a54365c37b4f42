"""Golden cases re-packed as their authors' programs save them, pickles that embed source code included."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganvas.interop.registry import OfficialCase

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
FOLDERS = [Path(each) for each in os.environ.get("GANVAS_GOLDEN", str(DEFAULT)).split(os.pathsep) if each]


def golden(name: str) -> OfficialCase:
    """The first case of a folder, or a skip where there is none."""
    for folder in FOLDERS:
        for file in sorted((folder / name).glob("*.safetensors")):
            return OfficialCase.read(file)
    pytest.skip(f"there is no golden case {name}; set GANVAS_GOLDEN")


class Official:
    """Classes of other code bases, as far as pickling asks for them.

    They live in `sys.modules` while files are written, and are gone when files are read, so that a reader that imports
    anything by name fails.
    """

    def __init__(self) -> None:
        self.modules: dict[str, types.ModuleType] = {}

    def module(self, name: str) -> types.ModuleType:
        parts = name.split(".")
        for i in range(1, len(parts) + 1):
            own = ".".join(parts[:i])
            self.modules.setdefault(own, types.ModuleType(own))
        return self.modules[name]

    def cls(self, module: str, name: str, base: type) -> type:
        """A class of this name in this module, made when it is first asked for."""
        home = self.module(module)
        if not hasattr(home, name):
            made = type(name, (base,), {"__module__": module})
            setattr(home, name, made)
        found: type = getattr(home, name)
        return found

    def dumps(self, content: Any, protocol: int = 4) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            for name, module in self.modules.items():
                patch.setitem(sys.modules, name, module)
            return pickle.dumps(content, protocol)


def tree(
    state: Mapping[str, Tensor], make: Callable[[str], nn.Module], buffers: Callable[[str], bool]
) -> nn.Module:  # fmt: skip
    """Modules nested as a state dict's names say; `make` gives the module of a dotted name, "" is the outermost."""
    found = {"": make("")}
    for key, value in state.items():
        *path, name = key.split(".")
        for i in range(1, len(path) + 1):
            own, parent = ".".join(path[:i]), ".".join(path[: i - 1])
            if own not in found:
                found[own] = make(own)
                found[parent].add_module(path[i - 1], found[own])
        owner = found[".".join(path)]
        if buffers(name) or not value.is_floating_point():
            owner.register_buffer(name, value)
        else:
            owner.register_parameter(name, nn.Parameter(value))
    return found[""]


def save_zip(content: Any, file: Path) -> None:
    torch.save(content, file)


def save_legacy(content: Any, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


SAVES = {"zip": save_zip, "legacy": save_legacy}
