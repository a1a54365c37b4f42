"""Trainings that faults are put into: what they would have come to undisturbed, and who works at them now."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ganvas.experiments.places import Local, Work, carry_out_all
from ganvas.experiments.places.work import last_saved
from ganvas.recipe.recipe import Recipe

STEPS = 16


@pytest.fixture(scope="session")
def recipe(killing: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """One of everything that has a state, a checkpoint at every second step, scores at the sixth and the last."""
    return Recipe.load(killing.write_recipe(tmp_path_factory.mktemp("places"), steps=STEPS))


@pytest.fixture(scope="session")
def undisturbed(killing: ModuleType, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What it comes to in a worker of this machine that is left alone."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    place = Local()
    carry_out_all([Work.here(recipe, folder, "undisturbed", threads=1)], place)
    place.close()
    return killing.contents(folder)


def holder_of(folder: Path) -> int | None:
    """The other process that has the folder open, as one that trains into it has."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == folder and (pid := int(link.parts[2])) != os.getpid():
                return pid
        except OSError:  # gone since, or somebody else's
            continue
    return None


@pytest.fixture
def in_mid_run() -> Iterator[Callable[..., None]]:
    """`in_mid_run(folder, act)`: call act(pid) of the worker, from a thread, once it has saved or `ready` says so."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list the files that a process has open")
    over = threading.Event()
    threads: list[threading.Thread] = []

    def watch(folder: Path, act: Callable[[int], None], ready: Callable[[], object] | None = None) -> None:
        is_ready = ready or (lambda: last_saved(folder))

        def look() -> None:
            while not over.is_set():
                if is_ready() and (pid := holder_of(folder)) is not None:
                    act(pid)
                    return
                time.sleep(0.005)

        threads.append(threading.Thread(target=look, daemon=True))
        threads[-1].start()

    yield watch
    over.set()
    for thread in threads:
        thread.join()
