"""What a search found: its Pareto front, as a table, as a page and as recipes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from ganvas.evaluation.protocol import Column
from ganvas.experiments import tables
from ganvas.experiments.search.space import Search
from ganvas.files.files import write_bytes
from ganvas.report import simple_page
from ganvas.report.charts import numbers
from ganvas.report.embedding import embed
from ganvas.report.markup import Html, tag
from ganvas.report.markup import table as html_table
from ganvas.report.pareto import Axis, Dot, bars, scatter
from ganvas.stats.intervals import t_interval

State = Literal["complete", "stopped", "failed", "running"]

_SAMPLERS = {"tpe": "TPE", "nsga2": "NSGA-II"}
_SHOWN = 10  # trials of a search for one objective
_PICTURE = {"width": 320, "most_bytes": 60_000}


@dataclass(frozen=True)
class Trial:
    """One proposal and what came of it.

    Attributes
    ----------
    proposal : path in the recipe -> value.
    seeds : objective -> a value for each training seed; empty unless complete.
    problem : why it failed or was stopped.
    made : score -> how it was made.
    """

    number: int
    state: State
    proposal: Mapping[str, Any]
    seeds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    problem: str = ""
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """objective -> mean over training seeds."""
        return {name: fmean(by_seed) for name, by_seed in self.seeds.items()} if self.state == "complete" else {}


# --------------------------------------------------------------------------------------------------- the front


def on_pareto_front(points: np.ndarray) -> np.ndarray:
    """(N,) bool: which of these (N, K) points, smaller being better in each column, no other one dominates.

    A point dominates another where it is nowhere worse and somewhere better; equal points do not dominate each other.
    """
    on_front = np.ones(len(points), dtype=bool)
    for i, point in enumerate(points):  # (K,)
        if on_front[i]:  # else its own dominator dominates all that it does
            on_front &= ~((points >= point).all(1) & (points > point).any(1))
    return on_front


def pareto_front(trials: Sequence[Trial], objectives: Mapping[str, Column]) -> list[Trial]:
    """The trials that none is better than, best first by the first objective; of one objective, the best alone."""
    ended = [trial for trial in trials if trial.state == "complete"]
    if not ended:
        return []
    signs = np.array([1.0 if column.lower_is_better else -1.0 for column in objectives.values()])  # (K,)
    points = signs * np.array([[trial.values[name] for name in objectives] for trial in ended])  # (N, K)
    chosen = list(np.flatnonzero(on_pareto_front(points)))
    chosen.sort(key=lambda i: (*points[i], ended[i].number))
    return [ended[i] for i in (chosen if len(objectives) > 1 else chosen[:1])]


def _shown(search: Search, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that a table has lines for."""
    if len(search.objectives) > 1:
        return pareto_front(trials, search.objectives)
    ((name, column),) = search.objectives.items()
    ended = [trial for trial in trials if trial.state == "complete"]
    return sorted(ended, key=lambda t: t.values[name] * (1 if column.lower_is_better else -1))[:_SHOWN]


# --------------------------------------------------------------------------------------------------- text


def _head(search: Search) -> list[str]:
    arrows = [f"{name} {'↓' if column.lower_is_better else '↑'}" for name, column in search.objectives.items()]
    return ["trial", *arrows, *(axis.path for axis in search.axes)]


def _cells(search: Search, trial: Trial) -> list[str]:
    values = []
    for name, column in search.objectives.items():
        value, low, high = numbers(trial.values[name], *t_interval(trial.seeds[name], column.limits))
        values.append(f"{value} [{low}, {high}]" if low != high else value)
    return [str(trial.number), *values, *(_plain(trial.proposal[axis.path]) for axis in search.axes)]


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def markdown(search: Search, trials: Sequence[Trial]) -> str:
    """The front, or the best trials by the one objective, in Markdown."""
    return tables.plain_markdown(_head(search), [_cells(search, trial) for trial in _shown(search, trials)])


def tally(search: Search, trials: Sequence[Trial]) -> str:
    """How many trials there are and what became of them, in a sentence."""
    counts = {state: sum(trial.state == state for trial in trials) for state in ("stopped", "failed", "running")}
    complete = sum(trial.state == "complete" for trial in trials)
    more = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{complete} of {search.plan.trials} trials complete" + (f", {more}" if more else "")


def as_data(search: Search, trials: Sequence[Trial], importances: Mapping[str, float]) -> dict[str, Any]:
    """Everything as plain data; nothing in it depends on when, where or by how many workers it was found."""
    best = [trial.number for trial in pareto_front(trials, search.objectives)]
    return {
        "search": search.plan.name, "recipe": search.recipe.name, **search.facts(),
        "objectives": {name: column.lower_is_better for name, column in search.objectives.items()},
        "front": best, "importances": dict(importances),
        "trials": [
            {
                "trial": trial.number, "state": trial.state, "values": trial.values, "proposal": dict(trial.proposal),
                "by_seed": {name: list(values) for name, values in trial.seeds.items()}, "problem": trial.problem,
            }
            for trial in trials
        ],
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- the page


def page(search: Search, trials: Sequence[Trial], importances: Mapping[str, float], out: Path) -> str:
    """One page that needs no other file."""
    several = len(search.objectives) > 1
    best = pareto_front(trials, search.objectives)
    pieces: list[Html] = [tag("p", f"{tally(search, trials)}; proposed by {_SAMPLERS[search.sampler]}.", class_="note")]
    if best:
        pieces += [tag("h2", "Pareto front" if several else "Course of the search")]
        pieces.append(tag("div", *(_plots(search, trials, best)), class_="panels"))
        pieces += [tag("h2", "Trials on the front" if several else "Best trials")]
        rows = [
            [*(tag("span", cell, class_="n") for cell in _cells(search, trial))] for trial in _shown(search, trials)
        ]
        pieces += [tag("p", _caution(search), class_="note"), html_table(_head(search), rows, class_="scores")]
        pieces += _samples(search, best if several else _shown(search, trials), out)
    if importances:
        pieces += [tag("h2", "What mattered"), bars("Share of the spread between trials", importances)]
        pieces.append(
            tag("p", "By functional ANOVA of a forest that was fitted to the trials; read little into few trials.",
                class_="note")
        )  # fmt: skip
    missed = [trial for trial in trials if trial.state in ("failed", "stopped")]
    if missed:
        pieces.append(tag("h2", "Trials without a value"))
        axes = [axis.path for axis in search.axes]
        lines = [
            [str(trial.number), trial.problem, *(_plain(trial.proposal[path]) for path in axes if trial.proposal)]
            for trial in missed
        ]  # fmt: skip
        pieces.append(html_table(["trial", "what became of it", *axes], lines, class_="scores"))
    return simple_page(search.plan.name, search.plan.summary or f"A search of {search.recipe.name}", pieces)


def _caution(search: Search) -> str:
    seeds = search.plan.seeds
    spread = (
        f"Mean and 95 % t-interval over training seeds {', '.join(map(str, seeds))}. " if len(seeds) > 1
        else f"One training a trial, seed {seeds[0]}. "
    )  # fmt: skip
    return spread + "The best of many trials is partly luck: train it with other seeds before you rely on its value."


def _plots(search: Search, trials: Sequence[Trial], best: Sequence[Trial]) -> list[Html]:
    ended = [trial for trial in trials if trial.state == "complete"]
    chosen = {trial.number for trial in best}
    named = {
        trial.number: ", ".join(f"{key} {_plain(value)}" for key, value in trial.proposal.items()) for trial in ended
    }

    def dot(trial: Trial, x: float, y: float) -> Dot:
        return Dot(x, y, str(trial.number), f"trial {trial.number}: {named[trial.number]}", trial.number in chosen)

    if len(search.objectives) == 1:
        ((name, column),) = search.objectives.items()
        pick = min if column.lower_is_better else max
        so_far: list[tuple[float, float]] = []
        for trial in ended:
            value = trial.values[name]
            so_far.append((trial.number, pick(value, so_far[-1][1]) if so_far else value))
        dots = [dot(trial, trial.number, trial.values[name]) for trial in ended]
        return [
            scatter(f"{name} by trial", Axis("trial", integers=True), _axis(name, column), dots, so_far, "best so far")
        ]
    plots = []
    for one, two in combinations(search.objectives, 2):
        x, y = (_axis(name, search.objectives[name]) for name in (two, one))
        dots = [dot(trial, trial.values[two], trial.values[one]) for trial in ended]
        # In more than two objectives the front's shadow on two of them is no line.
        line = [(trial.values[two], trial.values[one]) for trial in best] if len(search.objectives) == 2 else []
        plots.append(scatter(f"{one} and {two}", x, y, dots, line, "front"))
    return plots


def _axis(name: str, column: Column) -> Axis:
    return Axis(f"{name} ({'lower' if column.lower_is_better else 'higher'} is better)", column.lower_is_better)


def _samples(search: Search, shown: Sequence[Trial], out: Path) -> list[Html]:
    """The samples of these trials, as far as they were trained into this folder."""
    figures = []
    for trial in shown:
        file = tables.picture_of(out / "trials" / str(trial.number) / f"seed-{search.plan.seeds[0]}")
        picture = embed(file, **_PICTURE) if file is not None else None
        if picture is not None:
            name = f"samples of trial {trial.number}"
            image = tag("img", src=picture.uri, width=picture.width, height=picture.height, alt=name)
            figures.append(tag("figure", image, tag("figcaption", f"trial {trial.number}")))
    return [tag("h2", "Samples"), tag("div", *figures, class_="thumbnails")] if figures else []


# --------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Files:
    """What `write` wrote."""

    data: Path
    page: Path
    recipes: tuple[Path, ...]  # in the order of the front


def write(search: Search, trials: Sequence[Trial], importances: Mapping[str, float], out: Path) -> Files:
    """`search.json`, `search.html`, and the recipe of each trial on the front.

    For one objective that is `best.yaml`; for several, `front/trial-<number>.yaml` each, and what an earlier session
    put there and is dominated by now is removed.

    Raises
    ------
    CheckpointError : the disk is full or the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    best = pareto_front(trials, search.objectives)
    recipes: tuple[Path, ...] = ()
    if len(search.objectives) > 1:
        folder = out / "front"
        folder.mkdir(exist_ok=True)
        recipes = tuple(folder / f"trial-{trial.number}.yaml" for trial in best)
        for old in set(folder.glob("trial-*.yaml")) - set(recipes):
            old.unlink()
    elif best:
        recipes = (out / "best.yaml",)
    for file, trial in zip(recipes, best, strict=True):
        search.trial_recipe(trial.proposal, search.plan.seeds[0]).save(file)
    files = Files(out / "search.json", out / "search.html", recipes)
    write_bytes(files.data, json.dumps(as_data(search, trials, importances), indent=1).encode())
    write_bytes(files.page, page(search, trials, importances, out).encode())
    return files
