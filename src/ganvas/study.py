"""Studies: a grid of recipes by training seeds, trained in parallel, scored alike, and put into one table.

A study is YAML with the keys of `Study`. Running it again trains only what is missing or has changed.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Len

from ganvas import bench, parts, tables, yaml12
from ganvas.errors import DivergenceError, GanvasError, RecipeError, nearest
from ganvas.files import read_rows
from ganvas.recipe import STUDIES, Recipe, check_section, differences
from ganvas.run import train
from ganvas.tables import Line, Series

Overrides = tuple[str, ...]
Seeds = tuple[Annotated[int, Ge(0)], ...]
Tell = Callable[[int, int, str], None]  # (runs done, runs in all, which one)


@dataclass(frozen=True)
class Study:
    """Which recipes are compared, and on what.

    The cells are all combinations of `recipes` and the axes of `grid`. Where there is `tune`, every setting of it is
    first trained in every cell with `tune_seeds`; the one that is best by the first metric, in the mean, is then
    trained with `seeds`, and only these count. A cell so has the same budget as every other.
    """

    metrics: Annotated[tuple[str, ...], Len(1)]  # columns of the table, the first decides the order
    recipe: str | None = None
    recipes: Mapping[str, str] = field(default_factory=dict)  # label -> recipe: instead of one recipe, an axis
    grid: Mapping[str, Mapping[str, Overrides]] = field(default_factory=dict)  # axis -> label -> what it changes
    split: str | None = None  # an axis: each of its labels has a table of its own, and may have a protocol of its own
    overrides: Overrides = ()  # for every cell
    tune: Mapping[str, Overrides] = field(default_factory=dict)  # label -> a setting to try
    tune_seeds: Seeds = (1000,)
    seeds: Annotated[Seeds, Len(1)] = (0, 1, 2)
    summary: str | None = None
    name: str = field(default="", kw_only=True)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the columns that say which cell it is."""
        return (*(("recipe",) if self.recipes else ()), *self.grid)


@dataclass(frozen=True)
class Run:
    """One training of one cell."""

    labels: tuple[str, ...]
    seed: int
    recipe: Recipe
    folder: Path
    setting: str = ""  # the label in `tune`


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


def cells_of(study: Study) -> dict[tuple[str, ...], Recipe]:
    """The recipe of every cell, each resolved once so that a mistake is told before anything is trained.

    Raises
    ------
    RecipeError : neither or both of `recipe` and `recipes`, or a recipe has problems.
    """
    if bool(study.recipe) == bool(study.recipes):
        raise RecipeError("a study names one recipe, or several", where=study.name, hint="set recipe, or recipes")
    cells = {}
    for label, name in study.recipes.items() or (("", study.recipe),):
        base = Recipe.load(name).override(*study.overrides)
        for chosen in itertools.product(*(axis.items() for axis in study.grid.values())):
            recipe = base.override(*(change for _, changes in chosen for change in changes))
            for setting in study.tune.values() or ((),):
                recipe.override(*setting).resolve()
            cells[(*((label,) if label else ()), *(own for own, _ in chosen))] = recipe
    return cells


def _run(study: Study, out: Path, labels: tuple[str, ...], recipe: Recipe, setting: str, seed: int) -> Run:
    own = recipe.override(*(study.tune[setting] if setting else ()), f"train.seed={seed}")
    parts_of_name = "_".join((*labels, setting) if setting else labels).replace(" ", "-") or "runs"
    return Run(labels, seed, own, out / parts_of_name / f"seed-{seed}", setting)


def tuning(study: Study, out: Path) -> list[Run]:
    """The trainings that settings are chosen by; none without `tune`."""
    return [
        _run(study, out, labels, recipe, setting, seed)
        for labels, recipe in cells_of(study).items()
        for setting in study.tune
        for seed in study.tune_seeds
    ]


def runs(study: Study, out: Path) -> list[Run]:
    """The trainings that count. With `tune`, the tuning must be there."""
    chosen = choices(study, out)
    return [
        _run(study, out, labels, recipe, chosen.get(labels, ""), seed)
        for labels, recipe in cells_of(study).items()
        for seed in study.seeds
    ]


def tuned(study: Study, out: Path) -> dict[tuple[str, ...], dict[str, float]]:
    """cell -> setting -> mean of the first metric over the tuning seeds that ended; absent where none did."""
    metric = study.metrics[0]
    found: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for run in tuning(study, out):
        row = tables.newest(run.folder).get(metric) if finished(run) else None
        if row is not None and math.isfinite(row["value"]):
            found.setdefault(run.labels, {}).setdefault(run.setting, []).append(float(row["value"]))
    return {
        labels: {name: sum(own) / len(own) for name, own in by.items() if len(own) == len(study.tune_seeds)}
        for labels, by in found.items()
    }


def choices(study: Study, out: Path) -> dict[tuple[str, ...], str]:
    """cell -> the setting that was best in it; the first one where none ended."""
    if not study.tune:
        return {}
    sign = 1 if columns(study)[study.metrics[0]].lower_is_better else -1
    scores = tuned(study, out)
    return {
        labels: min(scores[labels], key=lambda name: sign * scores[labels][name])
        if scores.get(labels)
        else next(iter(study.tune))
        for labels in cells_of(study)
    }


def expected_best(scores: Sequence[float], budget: int) -> float:
    """The expected least of `budget` draws with replacement from these scores (Lucic et al. 2018, section 5.1).

    The sum over sorted scores s_(i) of s_(i) ((1 - (i - 1)/n)^k - (1 - i/n)^k): what a bootstrap tends to.
    """
    n = len(scores)
    return sum(value * ((1 - i / n) ** budget - (1 - (i + 1) / n) ** budget) for i, value in enumerate(sorted(scores)))


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


def execute(study: Study, out: Path, *, jobs: int, threads: int, tell: Tell) -> dict[Path, str]:
    """Train what is not finished, `jobs` at a time; the problem of each run that diverged, by its folder.

    A cell that diverges is a result of the study. Any other error ends it.
    """
    columns(study)  # before anything is trained: is there something to compare?
    failed = carry_out_all(tuning(study, out), jobs, threads, tell) if study.tune else {}
    return failed | carry_out_all(runs(study, out), jobs, threads, tell)


def carry_out_all(planned: Sequence[Run], jobs: int, threads: int, tell: Tell) -> dict[Path, str]:
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
                name = " ".join(filter(None, (*run.labels, run.setting)))
                tell(done, len(planned), f"{name} seed {run.seed}" + (f": {problem}" if problem else ""))
        except (KeyboardInterrupt, GanvasError):
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


# --------------------------------------------------------------------------------------------------- the table


def lines(study: Study, out: Path, failed: Mapping[Path, str]) -> list[Line]:
    """Lines of the table, best first by the study's first metric; those where no seed finished come last.

    Raises
    ------
    UsageError : their scores were made in different ways.
    """
    gathered: dict[tuple[str, ...], list[Run]] = {}
    for run in runs(study, out):
        gathered.setdefault(run.labels, []).append(run)
    found = [line_of(study, labels, own, failed) for labels, own in gathered.items()]
    tables.check_alike(found)
    return tables.ranked(found, study.metrics[0], columns(study)[study.metrics[0]])


def line_of(study: Study, labels: tuple[str, ...], own: Iterable[Run], failed: Mapping[Path, str]) -> Line:
    values: dict[str, list[tuple[int, float]]] = {metric: [] for metric in study.metrics}
    failures: list[str] = []
    made: Mapping[str, Mapping[str, Any]] = {}
    picture, setting = None, ""
    for run in own:
        setting = run.setting
        if run.folder in failed:
            failures.append(f"seed {run.seed}: {failed[run.folder]}")
            continue
        found = tables.newest(run.folder)
        made = made or {name: row for name, row in found.items() if name in values}
        picture = picture or tables.picture_of(run.folder)
        for metric in study.metrics:
            if metric in found:
                values[metric].append((run.seed, float(found[metric]["value"])))
    series = {
        metric: Series(tuple(value for _, value in pairs), tuple(seed for seed, _ in pairs))
        for metric, pairs in values.items()
    }
    return Line((*labels, setting) if study.tune else labels, series, tuple(failures), picture, made)


def columns(study: Study) -> dict[str, bench.Column]:
    """The study's metrics, in their order.

    Raises
    ------
    RecipeError : the recipe is not scored, or its protocol has no such metric.
    """
    name = study.recipe or next(iter(study.recipes.values()))
    protocol = (Recipe.load(name).override(*study.overrides).resolve()["eval"] or {}).get("protocol")
    if protocol is None:
        raise RecipeError(f"recipe {name!r} is not scored", hint="add to overrides: eval.protocol=NAME")
    known = bench.columns(bench.load_protocol(protocol))
    for name in study.metrics:
        if name not in known:
            raise RecipeError(
                f"protocol {protocol!r} has no value {name!r}.{nearest(name, known)}", hint=f"it has {', '.join(known)}"
            )
    return {name: known[name] for name in study.metrics}


def write(study: Study, out: Path, found: Sequence[Line]) -> dict[str, Path]:
    """`table.md`, `table.json` and `table.html` in the study's folder."""
    axes = (*study.axes, *(("setting",) if study.tune else ()))
    known = columns(study)
    text = tables.markdown(axes, found, known)
    notes = [
        f"Mean and 95 % t-interval over training seeds {', '.join(map(str, study.seeds))}. {tables.TIED}: not to be "
        "told apart from the first line, seed by seed where seeds are shared.",
    ]
    if study.tune:
        notes.append(
            f"Settings {', '.join(study.tune)} were tried in every cell with seeds "
            f"{', '.join(map(str, study.tune_seeds))}, which do not count; the best by {study.metrics[0]} is shown."
        )
    data: dict[str, Any] = {
        "study": study.name, "seeds": study.seeds, "cells": tables.as_data(axes, found, known),
    }  # fmt: skip
    if study.tune:
        data["tuning"] = [{"cell": list(cell), "scores": own} for cell, own in tuned(study, out).items()]
    whole = f"# {study.name}\n\n{study.summary or ''}\n\n{text}\n\n{' '.join(notes)}\n"
    page = tables.html(study.name, study.summary or "", axes, found, known, notes)
    return tables.write(out, whole, data, page)


def table(study: Study, found: Sequence[Line]) -> str:
    """The table in Markdown."""
    return tables.markdown((*study.axes, *(("setting",) if study.tune else ())), found, columns(study))
