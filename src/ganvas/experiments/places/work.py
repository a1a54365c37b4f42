"""One training as it is handed to a worker, what the worker does with it, and what a run folder says of it."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ganvas import parts
from ganvas.engine.checkpoint import Checkpoints
from ganvas.engine.trainer import Interrupted
from ganvas.errors import CheckpointError, DivergenceError, InUse, UsageError
from ganvas.files.files import is_claimed, model_metadata, read_rows, write_bytes
from ganvas.files.reading import text_of
from ganvas.recipe import yaml12
from ganvas.recipe.recipe import Recipe, differences
from ganvas.training.session import Watcher
from ganvas.training.train import train

DIVERGED = "diverged.txt"  # in a run's folder: what its last training ended with


@dataclass(frozen=True)
class Work:
    """One training, wherever it is done. Paths are those of `directory`, which every worker must see under its name."""

    recipe: Recipe
    folder: Path  # of the run
    title: str  # for people
    threads: int  # of torch; another number may change the last bits
    device: str
    directory: Path
    parts_files: tuple[Path, ...] = ()  # parts of the user's own
    watcher: Watcher | None = None  # sees the training in its worker, and may end it by raising

    @classmethod
    def here(cls, recipe: Recipe, folder: Path, title: str, *, threads: int, device: str = "cpu") -> Work:
        """With this process's working directory and parts."""
        return cls(recipe, folder, title, threads, device, Path.cwd(), _parts_files())


@dataclass(frozen=True)
class Ended:
    """How a training ended, told by its worker; `lost` is told by the place, of a worker that is gone.

    `stopped` has saved its state. `in use` has done nothing, because another process trains into the folder.
    """

    how: Literal["done", "diverged", "stopped", "in use", "failed", "lost"]
    problem: str = ""
    error: Exception | None = None  # of what failed


def carry_out(work: Work) -> Ended:
    """Train in this process, from where the run folder stands. Nothing is raised: what happens is told as a value."""
    import torch

    try:
        if not work.directory.is_dir():
            raise UsageError(
                f"there is no {work.directory} on {platform.node()}, where a worker runs", where=work.title,
                hint="the working directory and the data must lie on a file system that all machines share",
            )  # fmt: skip
        os.chdir(work.directory)
        for file in work.parts_files:
            parts.add_file(file)
        torch.set_num_threads(work.threads)
        if work.folder.exists() and not same_recipe(work.folder, work.recipe.resolve()):
            if is_claimed(work.folder):
                return Ended("in use")
            shutil.rmtree(work.folder)  # of another version of the recipe
        train(work.recipe, out=work.folder, resume=work.folder.exists(), device=work.device, watcher=work.watcher)
    except InUse:
        return Ended("in use")
    except DivergenceError as error:
        write_bytes(work.folder / DIVERGED, error.problem.encode())
        return Ended("diverged", error.problem)
    except Interrupted as stop:
        return Ended("stopped", str(stop))
    except Exception as error:
        return Ended("failed", str(error), _portable(error))
    return Ended("done")


def _portable(error: Exception) -> Exception:
    """The error as it can travel to another process; its traceback goes along as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # of our own making a moment ago
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def _parts_files() -> tuple[Path, ...]:
    every = {part.file: None for kind in parts.SHELVES for part in parts.every(kind) if part.module[:7] != "ganvas."}
    return tuple(every)


# --------------------------------------------------------------------------------------------------- what is there


def finished(work: Work) -> bool:
    """Whether it has been trained to its end, and scored where it is to be, by this very recipe."""
    resolved = work.recipe.resolve()
    steps = resolved["train"]["steps"]
    if resolved["eval"] and last_scored(work.folder) != steps:
        return False
    try:
        if model_metadata(work.folder)["step"] != steps:  # a kill may have come between the scores and the model
            return False
    except CheckpointError:
        return False
    return same_recipe(work.folder, resolved)


def divergence(work: Work) -> str | None:
    """Why training this very recipe ended early; None where it has not. It would diverge again, to the bit."""
    note = work.folder / DIVERGED
    if not note.is_file() or not same_recipe(work.folder, work.recipe.resolve()):
        return None
    return text_of(note).strip()


def last_scored(folder: Path) -> int:
    """The step of the newest scores; -1 where there are none."""
    rows = read_rows(folder / "scores.jsonl", "step")
    return int(rows[-1]["step"]) if rows else -1


def last_saved(folder: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max(Checkpoints(folder / "checkpoints", keep=1).steps(), default=0)


def same_recipe(folder: Path, resolved: Mapping[str, Any]) -> bool:
    """Whether the folder holds a run of this resolved recipe."""
    file = folder / "resolved.yaml"
    if not file.is_file():
        return False
    before, _ = yaml12.read(text_of(file), str(file))
    return not differences(before, json.loads(json.dumps(resolved)))
