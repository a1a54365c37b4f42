"""The folder of a run: where it lies, what is written into it first, and whether it may be gone on with."""

from __future__ import annotations

import contextlib
import copy
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import ganvas
from ganvas import parts
from ganvas.engine.build import Plan
from ganvas.errors import BadValue, DataError, RecipeError, ResumeMismatch
from ganvas.files.files import claimed, write_bytes
from ganvas.files.reading import check_data_places, damaged, mapping_of, text_of
from ganvas.recipe import yaml12
from ganvas.recipe.layering import without_nulls
from ganvas.recipe.recipe import Recipe, differences, renewed
from ganvas.runtime import ranks
from ganvas.types import Dataset

RUNS = Path("runs")


def held(folder: Path) -> contextlib.AbstractContextManager[None]:
    """`claimed` by the process that writes, which is the first of those that train together."""
    return claimed(folder) if ranks.rank() == 0 else contextlib.nullcontext()


def run_folder(name: str, out: str | Path | None, *, resume: bool) -> Path:
    """The folder of a run: the given one, else `runs/<name>`, numbered where that is taken.

    Raises
    ------
    ResumeMismatch : it holds a run and resume was not asked for, or the other way round.
    """
    if out is None:
        folder = RUNS / name.replace("/", "-")
        if resume:
            return folder
        count = 1
        while folder.exists():
            count += 1
            folder = RUNS / f"{name.replace('/', '-')}-{count}"
        return folder
    folder = Path(out)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ResumeMismatch(f"{place} is a file", where="--out", hint="give a folder")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise not_empty(folder)
    return folder


def check_unused(folder: Path, first_file: str) -> None:
    """Look again, once the folder is held, whether another process has begun a run there since `run_folder` looked.

    `first_file` is what a run writes first.

    Raises
    ------
    ResumeMismatch : it has.
    """
    if (folder / first_file).exists():
        raise not_empty(folder)


def not_empty(folder: Path) -> ResumeMismatch:
    """What to tell a user whose new run would be written over another one."""
    return ResumeMismatch(
        f"{folder} is not empty", where="--out",
        hint=f"go on with it: ganvas train --resume --out {folder}; or give another folder",
    )  # fmt: skip


def check_same_recipe(folder: Path, resolved: Mapping[str, Any], *, allow_changes: bool) -> None:
    before, _ = yaml12.read(text_of(folder / "resolved.yaml"), str(folder / "resolved.yaml"))
    with contextlib.suppress(RecipeError):  # keys that are newer than the run have their defaults
        before = Recipe(renewed(before)).resolve()
    changed = differences(before, json.loads(json.dumps(resolved)))
    if changed and not allow_changes:
        lines = "\n".join(f"    {key}: {old!r} -> {new!r}" for key, (old, new) in changed.items())
        raise ResumeMismatch(
            f"the recipe is not the one that this run began with:\n{lines}", where=str(folder),
            hint="train it into another --out, or add --allow-changes if you mean it",
        )  # fmt: skip


def check_same_data(folder: Path, dataset: Dataset, *, allow_changes: bool) -> None:
    file = folder / "provenance.json"
    before = mapping_of(file).get("data")
    if not isinstance(before, str):
        raise damaged(file, "it does not say which data the run began with")
    if before != dataset.fingerprint and not allow_changes:
        raise ResumeMismatch(
            f"the data have changed since this run began (fingerprint {before[:12]} -> {dataset.fingerprint[:12]})",
            where=str(folder), hint="put the data back as they were, or add --allow-changes if you mean it",
        )  # fmt: skip


def write_recipe(folder: Path, recipe: Recipe, resolved: Mapping[str, Any]) -> None:
    """The recipe in its own words, borrowed networks spelled out (their source may be gone), and with every default."""
    written = copy.deepcopy(dict(recipe.data))
    for role, node in written["networks"].items():
        if isinstance(node, dict) and "use" not in node:
            written["networks"][role] = {**resolved["networks"][role], **node}
    write_bytes(folder / "recipe.yaml", yaml12.write(without_nulls(written)).encode())
    write_bytes(folder / "resolved.yaml", yaml12.write(dict(resolved)).encode())


def provenance(plan: Plan) -> dict[str, Any]:
    """What the numbers of a run depend on, besides its recipe."""
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        package = Path(__file__).parent
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=package, capture_output=True, text=True, timeout=5, check=True
        )
        commit = asked.stdout.strip()
    return {
        "ganvas": ganvas.__version__, "commit": commit, "torch": torch.__version__, "python": platform.python_version(),
        "machine": platform.machine(), "device": str(plan.device), "threads": torch.get_num_threads(),
        "processes": ranks.world(), "seed": plan.settings.seed, "data": plan.dataset.fingerprint,
        "data_count": len(plan.dataset),
    }  # fmt: skip


def open_data(resolved: Mapping[str, Any]) -> Dataset:
    """The data that a recipe trains on.

    Raises
    ------
    BadValue : keys of it that cannot be together; says which.
    DataError : they are not at hand, or there are less than two.
    """
    check_data_places(resolved["data"])
    try:
        dataset: Dataset = parts.build("dataset", resolved["data"])
    except BadValue as error:
        error.where = error.where or ".".join(filter(None, ("data", error.key)))
        raise
    if len(dataset) < 2:
        raise DataError("there is one datum; training needs at least 2", where="data")
    return dataset
