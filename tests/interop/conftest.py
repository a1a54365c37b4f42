"""Official programs' objects as fixtures, and the watch over files that hostile code would write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_files import Official, tree
from torch import nn

from ganvas.interop.registry import OfficialCase


@pytest.fixture
def official() -> Iterator[Official]:
    made = Official()
    yield made
    left = {name for name, module in made.modules.items() if sys.modules.get(name) is module}
    assert not left  # torch may have imported the real dill


@pytest.fixture
def nvidia(official: Official, tmp_path: Path) -> Callable[..., nn.Module]:
    """`nvidia(case)`: the case's network as an object of NVIDIA's persistent classes.

    The source code in the pickle writes a file when it is run; that file must never appear.
    """
    canary = tmp_path / "canary"
    source = f"open({str(canary)!r}, 'w').close()\nclass Generator: pass\n"
    persistence = official.module("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("a persistent object was reconstructed")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]

    class Persistent(nn.Module):
        cls = "Layer"

        def __reduce__(self) -> Any:
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.cls}
            return _reconstruct_persistent_obj, (
                {**meta, "state": {k: v for k, v in vars(self).items() if k != "cls"}},
            )

    def build(case: OfficialCase) -> nn.Module:
        easy = official.cls("dnnlib.util", "EasyDict", dict)

        def make(name: str) -> nn.Module:
            layer = Persistent()
            layer.size = np.broadcast_to([16, 16], [2])  # type: ignore[assignment]
            if name == "":
                layer.cls = case.cls.rpartition(".")[2]
                kwargs = {k: easy(v) if isinstance(v, dict) else v for k, v in case.kwargs.items()}
                layer._init_args, layer._init_kwargs = (), kwargs  # type: ignore[assignment]
            return layer

        fixed = ("resample_filter", "w_avg", "noise_const", "up_filter", "down_filter", "freqs", "phases", "transform")
        return tree(case.state, make, lambda name: name in (*fixed, "magnitude_ema"))

    return build


@pytest.fixture(autouse=True)
def nothing_was_run(tmp_path: Path) -> Iterator[None]:
    """No test here may find the file that embedded or hostile code writes."""
    yield
    assert not (tmp_path / "canary").exists()
