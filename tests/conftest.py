"""What all tests share: one thread, a cache of their own, one small trained run, and how two runs are compared."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch

from ganvas import parts

# The same examples in every run, and none that fails for being slow.
hypothesis.settings.register_profile("ganvas", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ganvas")

KILL_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill_resume.py"


DEAREST = 15  # files whose cost is told at the end of a run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note what a test costs: processor time, its children's included, which other work on the machine hardly moves."""
    before = os.times()
    result = yield
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    _COSTS[item.nodeid.split("::")[0]] += spent
    return result


_COSTS: Counter[str] = Counter()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands its costs to the process that prints the summary."""
    if worker_output := vars(session.config).get("workeroutput"):
        worker_output["costs"] = dict(_COSTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    _COSTS.update((vars(node).get("workeroutput") or {}).get("costs", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the run cost in all, and the files that cost most."""
    if not _COSTS:
        return
    total = sum(_COSTS.values())
    terminalreporter.section(f"{total / 60:.1f} minutes of one processor")
    for file, seconds in _COSTS.most_common(DEAREST):
        terminalreporter.write_line(f"{seconds:7.1f} s  {seconds / total:4.0%}  {file}")


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
