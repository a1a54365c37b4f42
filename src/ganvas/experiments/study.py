"""Studies: a grid of recipes by training seeds, trained in parallel, scored alike, and put into one table.

A study is YAML with the keys of `Study`. Running it again trains only what is missing or has changed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Len

from ganvas import parts
from ganvas.errors import RecipeError, nearest
from ganvas.evaluation.protocol import Column, load_protocol
from ganvas.evaluation.protocol import columns as columns_of
from ganvas.experiments import places, tables
from ganvas.experiments.places import DIVERGED as DIVERGED
from ganvas.experiments.places import Local, Place, Tell, Work
from ganvas.experiments.tables import Line, Series
from ganvas.recipe import yaml12
from ganvas.recipe.check import check_section
from ganvas.recipe.recipe import STUDIES, Recipe
from ganvas.report import simple_page
from ganvas.report.markup import Html, tag
from ganvas.report.markup import table as html_table

Overrides = tuple[str, ...]
Seeds = tuple[Annotated[int, Ge(0)], ...]


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

    def work(self, *, threads: int = 1, device: str = "cpu") -> Work:
        """It as a worker is given it."""
        name = " ".join(filter(None, (*self.labels, self.setting)))
        return Work.here(self.recipe, self.folder, f"{name} seed {self.seed}".strip(), threads=threads, device=device)


def load(source: str | Path) -> Study:
    """A study by its shipped name or path.

    Raises
    ------
    RecipeError : there is none, or it has problems; the recipes of all cells are resolved, too.
    """
    text = str(source)
    file = Path(text) if text.endswith((".yaml", ".yml")) else STUDIES / f"{text}.yaml"
    if not file.is_file():
        known = sorted(shipped.stem for shipped in STUDIES.glob("*.yaml"))
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
            cells[(*((label,) if label else ()), *(value for value, _ in chosen))] = recipe
    return cells


def _run(study: Study, out: Path, labels: tuple[str, ...], recipe: Recipe, setting: str, seed: int) -> Run:
    run_recipe = recipe.override(*(study.tune[setting] if setting else ()), f"train.seed={seed}")
    parts_of_name = "_".join((*labels, setting) if setting else labels).replace(" ", "-") or "runs"
    return Run(labels, seed, run_recipe, out / parts_of_name / f"seed-{seed}", setting)


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
    by_cell: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for run in tuning(study, out):
        row = tables.newest(run.folder).get(metric) if finished(run) and divergence(run) is None else None
        if row is not None and math.isfinite(row["value"]):
            by_cell.setdefault(run.labels, {}).setdefault(run.setting, []).append(float(row["value"]))
    return {
        labels: {name: sum(scores) / len(scores) for name, scores in by.items() if len(scores) == len(study.tune_seeds)}
        for labels, by in by_cell.items()
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
    return places.finished(run.work())


def divergence(run: Run) -> str | None:
    """Why training this very recipe ended early; None where it has not. It would diverge again, to the bit."""
    return places.divergence(run.work())


def execute(
    study: Study,
    out: Path,
    *,
    jobs: int,
    threads: int,
    tell: Tell,
    place: Place | None = None,
    retries: int = places.RETRIES,
) -> dict[Path, str]:
    """Train what is not finished; the problem of each run that diverged, by its folder.

    A cell that diverges is a result of the study. Any other error ends it.

    Parameters
    ----------
    jobs, threads : trainings at a time on this machine, and threads of torch in each; a `place` has its own of both.
    place : where trainings run; None: on this machine. It is closed when they are done.
    retries : how often a training goes on from its last checkpoint when its worker is lost.

    Raises
    ------
    places.Interrupted, WorkerLost : see `places.carry_out_all`.
    """
    columns(study)  # before anything is trained: is there something to compare?
    with contextlib.closing(place or Local(jobs=jobs, threads=threads)) as at:

        def train_all(planned: Sequence[Run]) -> dict[Path, str]:
            work = [run.work(threads=at.threads, device=at.device) for run in planned]
            return places.carry_out_all(work, at, retries=retries, tell=tell)

        failed = train_all(tuning(study, out)) if study.tune else {}
        return failed | train_all(runs(study, out))


# --------------------------------------------------------------------------------------------------- the table


def lines(study: Study, out: Path, failed: Mapping[Path, str]) -> list[Line]:
    """Lines of the table, best first by the study's first metric; those where no seed finished come last.

    With `split` they are in that order within each section.

    Raises
    ------
    UsageError : scores of one table were made in different ways.
    """
    gathered: dict[tuple[str, ...], list[Run]] = {}
    for run in runs(study, out):
        gathered.setdefault(run.labels, []).append(run)
    ordered = []
    for section in sections(study):
        section_lines = [
            line_of(study, labels, its, failed) for labels, its in gathered.items() if _is_in(study, labels, section)
        ]
        tables.check_alike(section_lines)
        ordered += tables.ranked(section_lines, study.metrics[0], columns(study, section)[study.metrics[0]])
    return ordered


def _is_in(study: Study, labels: tuple[str, ...], section: str) -> bool:
    return study.split is None or labels[study.axes.index(study.split)] == section


def line_of(study: Study, labels: tuple[str, ...], seed_runs: Iterable[Run], failed: Mapping[Path, str]) -> Line:
    values: dict[str, list[tuple[int, float]]] = {metric: [] for metric in study.metrics}
    failures: list[str] = []
    made: Mapping[str, Mapping[str, Any]] = {}
    picture, setting = None, ""
    for run in seed_runs:
        setting = run.setting
        if run.folder in failed:
            failures.append(f"seed {run.seed}: {failed[run.folder]}")
            continue
        scores = tables.newest(run.folder)
        made = made or {name: row for name, row in scores.items() if name in values}
        picture = picture or tables.picture_of(run.folder)
        for metric in study.metrics:
            if metric in scores:
                values[metric].append((run.seed, float(scores[metric]["value"])))
    series = {
        metric: Series(tuple(value for _, value in pairs), tuple(seed for seed, _ in pairs))
        for metric, pairs in values.items()
    }
    return Line((*labels, setting) if study.tune else labels, series, tuple(failures), picture, made)


def sections(study: Study) -> tuple[str, ...]:
    """The labels that have a table each; a single empty one without `split`.

    Raises
    ------
    RecipeError : `split` is no axis of the study.
    """
    if study.split is None:
        return ("",)
    if study.split not in study.axes:
        raise RecipeError(
            f"split names {study.split!r}, which is no axis.{nearest(study.split, study.axes)}", where=study.name,
            hint=f"there are {', '.join(study.axes)}",
        )  # fmt: skip
    return tuple(study.grid.get(study.split, study.recipes))


def columns(study: Study, section: str | None = None) -> dict[str, Column]:
    """The study's metrics, in their order: those that the protocol of this section has, by default the first one.

    Raises
    ------
    RecipeError : a recipe is not scored, or a metric is in no protocol, or the first one is not in all of them.
    """
    known = {label: _protocol_columns(study, label) for label in sections(study)}
    first, *others = study.metrics
    for section_columns in known.values():
        _check_known(first, section_columns)
    for name in others:
        _check_known(
            name, {key: column for section_columns in known.values() for key, column in section_columns.items()}
        )
    shown = known[section if section is not None else next(iter(known))]
    return {name: shown[name] for name in study.metrics if name in shown}


def _check_known(name: str, known: Mapping[str, Column]) -> None:
    if name not in known:
        raise RecipeError(
            f"the protocol has no value {name!r}.{nearest(name, known)}", hint=f"it has {', '.join(known)}"
        )


def _protocol_columns(study: Study, section: str) -> dict[str, Column]:
    recipes = study.recipes or {"": study.recipe or ""}
    name = recipes.get(section) or next(iter(recipes.values()))
    changes = study.grid.get(study.split or "", {}).get(section, ())
    protocol = (Recipe.load(name).override(*study.overrides, *changes).resolve()["eval"] or {}).get("protocol")
    if protocol is None:
        raise RecipeError(f"recipe {name!r} is not scored", hint="add to overrides: eval.protocol=NAME")
    return columns_of(load_protocol(protocol))


@dataclass(frozen=True)
class _Section:
    """One table of the study, without the column that says the same in every line of it."""

    title: str
    axes: tuple[str, ...]
    lines: list[Line]
    columns: dict[str, Column]


def _sections(study: Study, table_lines: Sequence[Line]) -> list[_Section]:
    axes = (*study.axes, *(("setting",) if study.tune else ()))
    at = None if study.split is None else axes.index(study.split)

    def without(cells: tuple[str, ...]) -> tuple[str, ...]:
        return cells if at is None else cells[:at] + cells[at + 1 :]

    return [
        _Section(
            section,
            without(axes),
            [replace(line, labels=without(line.labels)) for line in table_lines if _is_in(study, line.labels, section)],
            columns(study, section),
        )
        for section in sections(study)
    ]


def table(study: Study, table_lines: Sequence[Line]) -> str:
    """The table in Markdown; with `split`, one under each label."""
    pieces = []
    for section in _sections(study, table_lines):
        pieces += [f"## {section.title}"] if section.title else []
        pieces.append(tables.markdown(section.axes, section.lines, section.columns))
    return "\n\n".join(pieces)


def budgets(study: Study, out: Path, section: str) -> list[list[str]]:
    """How good the best of k settings is expected to be: a row for each cell, its labels and then k = 1, 2, ...

    A setting that did not end is no draw; its cell says how many there are.
    """
    lower = columns(study, section)[study.metrics[0]].lower_is_better
    sign, n = (1 if lower else -1), len(study.tune)
    rows = []
    for labels, by_setting in tuned(study, out).items():
        if not _is_in(study, labels, section):
            continue
        scores = [sign * value for value in by_setting.values()]
        curve = [sign * expected_best(scores, k) for k in range(1, n + 1)] if scores else [math.nan] * n
        cells = [label for axis, label in zip(study.axes, labels, strict=True) if axis != study.split]
        missing = f" ({n - len(scores)} of {n} did not end)" if len(scores) < n else ""
        rows.append((sign * curve[-1], [" ".join(cells) + missing, *(f"{value:.3g}" for value in curve)]))
    return [row for _, row in sorted(rows, key=lambda row: row[0])]


def write(study: Study, out: Path, table_lines: Sequence[Line]) -> dict[str, Path]:
    """`table.md`, `table.json` and `table.html` in the study's folder."""
    notes = [
        f"Mean and 95 % t-interval over training seeds {', '.join(map(str, study.seeds))}. {tables.TIED}: not to be "
        "told apart from the first line, seed by seed where seeds are shared.",
    ]
    if study.tune:
        notes.append(
            f"Settings {', '.join(study.tune)} were tried in every cell with seeds "
            f"{', '.join(map(str, study.tune_seeds))}, which do not count; the best by {study.metrics[0]} is shown."
        )
    axes = (*study.axes, *(("setting",) if study.tune else ()))
    shown = {name: column for section in sections(study) for name, column in columns(study, section).items()}
    data: dict[str, Any] = {
        "study": study.name, "seeds": study.seeds, "cells": tables.as_data(axes, table_lines, shown),
    }  # fmt: skip
    pieces: list[Html] = []
    text = [f"# {study.name}", study.summary or "", table(study, table_lines), " ".join(notes)]
    for section in _sections(study, table_lines):
        pieces += [tag("h2", section.title)] if section.title else []
        pieces += tables.pieces(section.axes, section.lines, section.columns)
    pieces += [tag("p", note, class_="note") for note in notes]
    if study.tune:
        data["tuning"] = [{"cell": list(cell), "scores": scores} for cell, scores in tuned(study, out).items()]
        for section_name in sections(study):
            title = f"Expected best {study.metrics[0]} by number of settings tried {section_name}".strip()
            head = ["", *map(str, range(1, len(study.tune) + 1))]
            rows = budgets(study, out, section_name)
            text += [f"## {title}", tables.plain_markdown(head, rows)]
            pieces += [tag("h2", title), html_table(head, rows, class_="scores")]
    page = simple_page(study.name, study.summary or "", pieces)
    return tables.write(out, "\n\n".join(filter(None, text)) + "\n", data, page)
