"""Studies: a grid of recipes by training seeds, trained in parallel, scored alike, and put into one table.

A study is YAML with the keys of `Study`. Running it again trains only what is missing or has changed.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from annotated_types import Ge, Len

from ganvas import bench, parts, yaml12
from ganvas.errors import DivergenceError, GanvasError, RecipeError, nearest
from ganvas.files import read_rows, write_bytes
from ganvas.recipe import STUDIES, Recipe, check_section, differences
from ganvas.run import train
from ganvas.types import Metric

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """Which recipes are compared, and on what."""

    recipe: str
    grid: Mapping[str, Mapping[str, Overrides]]  # axis -> label -> what it changes
    metrics: Annotated[tuple[str, ...], Len(1)]  # columns of the table, the first decides the order
    overrides: Overrides = ()  # for every cell
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], Len(1)] = (0, 1, 2)
    summary: str | None = None
    name: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Run:
    """One training of one cell."""

    labels: tuple[str, ...]
    seed: int
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Cell:
    """A row of the table: what every seed came to."""

    labels: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]  # metric -> one value a seed that finished
    failures: tuple[str, ...]  # one line a seed that did not


def load(source: str | Path) -> Study:
    """A study by its shipped name or path.

    Raises
    ------
    RecipeError : there is none, or it has problems; the recipes of all cells are resolved, too.
    """
    text = str(source)
    file = Path(text) if text.endswith((".yaml", ".yml")) else STUDIES / f"{text}.yaml"
    if not file.is_file():
        known = sorted(each.stem for each in STUDIES.glob("*.yaml"))
        raise RecipeError(f"there is no study {text!r}.{nearest(text, known)}", hint=f"there are {', '.join(known)}")
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=text, hint="a study is UTF-8 text") from None
    data, marks = yaml12.read(content, text)
    filled = check_section(Study, {"name": file.stem, **data} if isinstance(data, dict) else data, marks, "a study")
    study: Study = parts.build_section(Study, filled)
    return study


def runs(study: Study, out: Path) -> list[Run]:
    """Every training of a study, each recipe resolved once so that a mistake is told before anything is trained."""
    base = Recipe.load(study.recipe).override(*study.overrides)
    planned = []
    for cell in itertools.product(*(axis.items() for axis in study.grid.values())):
        labels = tuple(label for label, _ in cell)
        recipe = base.override(*(change for _, changes in cell for change in changes))
        recipe.resolve()
        for seed in study.seeds:
            seeded = recipe.override(f"train.seed={seed}")
            planned.append(Run(labels, seed, seeded, out / "_".join(labels).replace(" ", "-") / f"seed-{seed}"))
    return planned


def finished(run: Run) -> bool:
    """Whether the run has been trained to its end by this very recipe."""
    resolved = run.recipe.resolve()
    return last_step(run.folder) == resolved["train"]["steps"] and same_recipe(run, resolved)


def last_step(folder: Path) -> int:
    rows = read_rows(folder / "scores.jsonl")
    return int(rows[-1]["step"]) if rows else -1


def same_recipe(run: Run, resolved: Mapping[str, Any]) -> bool:
    file = run.folder / "resolved.yaml"
    if not file.is_file():
        return False
    before, _ = yaml12.read(file.read_text(encoding="utf-8"), str(file))
    return not differences(before, json.loads(json.dumps(resolved)))


def carry_out(run: Run, threads: int) -> str | None:
    """Train one run in this process, from where it stands; the problem in one line where it fails."""
    import shutil

    import torch

    torch.set_num_threads(threads)
    if run.folder.exists() and not same_recipe(run, run.recipe.resolve()):
        shutil.rmtree(run.folder)  # of another version of the study
    try:
        train(run.recipe, out=run.folder, resume=run.folder.exists(), device="cpu")
    except DivergenceError as error:
        return error.problem
    return None


def execute(
    study: Study, out: Path, *, jobs: int, threads: int, tell: Callable[[int, int, str], None]
) -> dict[Path, str]:
    """Train what is not finished, `jobs` at a time; the problem of each run that diverged, by its folder.

    A cell that diverges is a result of the study. Any other error ends it.
    """
    columns(study)  # before anything is trained: is there something to compare?
    planned = runs(study, out)
    waiting = [run for run in planned if not finished(run)]
    done, failed = len(planned) - len(waiting), {}
    tell(done, len(planned), "already there")
    # Spawned, not forked: torch's thread pools do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        started = {pool.submit(carry_out, run, threads): run for run in waiting}
        try:
            for future in as_completed(started):
                run = started[future]
                problem = future.result()
                done += 1
                if problem:
                    failed[run.folder] = problem
                tell(
                    done, len(planned), f"{' '.join(run.labels)} seed {run.seed}" + (f": {problem}" if problem else "")
                )
        except (KeyboardInterrupt, GanvasError):
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


# --------------------------------------------------------------------------------------------------- the table


def cells(study: Study, out: Path, failed: Mapping[Path, str]) -> list[Cell]:
    """Rows of the table, best first by the study's first metric; those where no seed finished come last."""
    first = columns(study)[study.metrics[0]]
    gathered: dict[tuple[str, ...], list[Run]] = {}
    for run in runs(study, out):
        gathered.setdefault(run.labels, []).append(run)
    rows = [cell_of(study, labels, own, failed) for labels, own in gathered.items()]

    def key(cell: Cell) -> tuple[bool, float]:
        values = cell.values[study.metrics[0]]
        mean = fmean(values) if values else 0.0
        return not values, mean if first.lower_is_better else -mean

    return sorted(rows, key=key)


def cell_of(study: Study, labels: tuple[str, ...], own: Iterable[Run], failed: Mapping[Path, str]) -> Cell:
    values: dict[str, list[float]] = {metric: [] for metric in study.metrics}
    failures = []
    for run in own:
        if run.folder in failed:
            failures.append(f"seed {run.seed}: {failed[run.folder]}")
            continue
        end = last_step(run.folder)
        found = {row["metric"]: row["value"] for row in read_rows(run.folder / "scores.jsonl") if row["step"] == end}
        for metric in study.metrics:
            if metric in found:
                values[metric].append(found[metric])
    return Cell(labels, {metric: tuple(each) for metric, each in values.items()}, tuple(failures))


@dataclass(frozen=True)
class Column:
    """What is known of a metric: which way is better, and what its values can be."""

    lower_is_better: bool
    limits: tuple[float, float]


def columns(study: Study) -> dict[str, Column]:
    """The study's metrics, in their order.

    Raises
    ------
    RecipeError : the recipe is not scored, or its protocol has no such metric.
    """
    protocol = (Recipe.load(study.recipe).override(*study.overrides).resolve()["eval"] or {}).get("protocol")
    if protocol is None:
        raise RecipeError(f"recipe {study.recipe!r} is not scored", hint="add to overrides: eval.protocol=NAME")
    known: dict[str, Column] = {}
    for node in bench.load_protocol(protocol)["metrics"].values():
        metric: Metric = parts.build("metric", node)
        known |= {name: Column(metric.lower_is_better[name], metric.limits[name]) for name in metric.limits}
    for name in study.metrics:
        if name not in known:
            raise RecipeError(
                f"protocol {protocol!r} has no value {name!r}.{nearest(name, known)}", hint=f"it has {', '.join(known)}"
            )
    return {name: known[name] for name in study.metrics}


def tied(best: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two cells cannot be told apart: their 95 % t-intervals over the seeds overlap."""
    (low, high), (other_low, other_high) = bench.t_interval(best), bench.t_interval(other)
    if low is None or high is None or other_low is None or other_high is None:
        return True  # a single seed tells nothing apart
    return low <= other_high and other_low <= high


def table(study: Study, found: Sequence[Cell]) -> str:
    """Markdown: mean and 95 % t-interval over the training seeds; ≈ marks cells that are tied with the first."""
    head = [*study.grid, *study.metrics]
    lines = [f"| {' | '.join(head)} | |", f"|{'---|' * len(head)}---|"]
    best = found[0].values[study.metrics[0]] if found else ()
    known = columns(study)
    for cell in found:
        own = cell.values[study.metrics[0]]
        mark = "≈ best" if own and best and tied(best, own) else ""
        notes = "; ".join(filter(None, [mark, *cell.failures]))
        numbers = (shown(cell.values[name], column.limits) for name, column in known.items())
        lines.append(f"| {' | '.join([*cell.labels, *numbers])} | {notes} |")
    return "\n".join(lines)


def shown(values: Sequence[float], limits: tuple[float, float]) -> str:
    if not values:
        return "–"
    low, high = bench.t_interval(values, limits)
    return f"{fmean(values):.3g}" + ("" if low is None else f" [{low:.3g}, {high:.3g}]")


def write(study: Study, out: Path, found: Sequence[Cell]) -> tuple[Path, Path]:
    """`table.md` and `table.json` in the study's folder."""
    text = f"# {study.name}\n\n{study.summary or ''}\n\n{table(study, found)}\n\n"
    text += f"Mean and 95 % t-interval over training seeds {', '.join(map(str, study.seeds))}; recipe {study.recipe}.\n"
    rows = [
        {**dict(zip(study.grid, cell.labels, strict=True)), "values": cell.values, "failures": cell.failures}
        for cell in found
    ]
    write_bytes(out / "table.md", text.encode())
    write_bytes(
        out / "table.json", json.dumps({"study": study.name, "seeds": study.seeds, "cells": rows}, indent=1).encode()
    )
    return out / "table.md", out / "table.json"
