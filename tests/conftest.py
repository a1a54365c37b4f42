"""What all tests share: one thread, a cache of their own, one small trained run, and how two runs are compared."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest
import torch

from ganvas import parts

# The same examples in every run, and none that fails for being slow.
hypothesis.settings.register_profile("ganvas", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ganvas")

KILL_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill_resume.py"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side; each keeps to one core."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Every test begins with the same seed, whatever ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_part_stays() -> Iterator[None]:
    """A part that a test brings with `--parts` or `add_file` is off the shelves again for the next one."""
    yield
    parts.drop_added()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or fills the cache of the person who runs it."""
    folder = tmp_path_factory.mktemp("ganvas-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANVAS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a class-conditional model of digits after two steps. Read it, never write into it."""
    from ganvas.training.train import train

    folder = tmp_path_factory.mktemp("trained") / "digits"
    train("tiny/digits", "train.steps=2", "eval=", out=folder, device="cpu")
    return folder


@pytest.fixture(scope="session")
def killing() -> ModuleType:
    """`benchmarks/kill_resume.py`: a recipe with one of everything, and the comparison of two runs to the last bit."""
    spec = importlib.util.spec_from_file_location("kill_resume", KILL_SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
