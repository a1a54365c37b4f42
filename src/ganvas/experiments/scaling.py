"""Scaling laws: how an error falls with the compute of training, fitted to runs (Zhai et al. 2022, arXiv 2106.04560).

    E(C) = a (C + d)^(−b) + c                                                                  (their section 2.1)

C is the compute of a training in FLOPs (see `ganvas.cost.flops`); d > 0 says where small models saturate, c > 0 what no
compute gets rid of. The law is one of the frontier: the runs that nothing else beats with as much compute.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ganvas.errors import UsageError, nearest
from ganvas.evaluation.protocol import columns, load_protocol
from ganvas.experiments import study, tables
from ganvas.experiments.study import Study
from ganvas.files.files import read_rows, write_bytes
from ganvas.recipe.recipe import Recipe
from ganvas.report import simple_page
from ganvas.report.charts import number
from ganvas.report.law import Dot, law_figure
from ganvas.report.markup import table, tag
from ganvas.stats.intervals import CONFIDENCE
from ganvas.training.forecast import Rehearsal, amount

Numbers = NDArray[np.float64]
Tell = Callable[[str], None]

LEAST_POINTS = 5  # one more than the law has numbers
REFITS = 400
_STARTS = 6  # of the grid's best, from which the fit goes on
_SLOPES = (1e-3, 10.0)
_NOTHING = 1e-9  # the search keeps off its bounds by less than that
_NO_WORK = ("seed", "steps", "log_every", "checkpoint_every", "sample_every", "keep")  # keys that cost no FLOPs a step
_POINT = "at least five runs of unlike compute on the frontier; more sizes or more lengths give some"


def _silent(text: str) -> None:
    return


@dataclass(frozen=True)
class Law:
    """E(C) = a (C + d)^(−b) + c, all four at least 0; C and d in the same unit."""

    a: float
    b: float
    c: float
    d: float

    def __call__(self, compute: float | Numbers) -> Numbers:
        """The error that this compute comes to."""
        return np.asarray(self.a * (np.asarray(compute, dtype=np.float64) + self.d) ** -self.b + self.c)


@dataclass(frozen=True)
class Fit:
    """A law, the points that it was fitted to, and the laws that other draws of their scatter would have given."""

    law: Law
    compute: Numbers  # (N,)
    error: Numbers  # (N,)
    refits: tuple[Law, ...]
    scatter: Numbers  # (N,) residuals log E − log E(C), blown up for the four numbers that were fitted

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """a, b, c, d -> where 95 % of the refits lie."""
        return {name: _middle([getattr(refit, name) for refit in self.refits]) for name in "abcd"}

    def predict(self, compute: float) -> tuple[float, float, float]:
        """(error, low, high) of one more training of so much compute; its own scatter is in the interval."""
        futures = np.array([float(refit(compute)) for refit in self.refits])[:, None] * np.exp(self.scatter)  # (R, N)
        low, high = _middle(futures.ravel())
        return float(self.law(compute)), low, high


def _middle(values: Sequence[float] | Numbers) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


# --------------------------------------------------------------------------------------------------- the fit


def frontier(compute: Sequence[float], error: Sequence[float]) -> list[int]:
    """Which of N points none beats with as much compute or less, by rising compute."""
    chosen: list[int] = []
    for i in sorted(range(len(compute)), key=lambda i: (compute[i], error[i])):
        if not chosen or error[i] < error[chosen[-1]]:
            chosen.append(i)
    return chosen


def fit(compute: Sequence[float], error: Sequence[float], *, refits: int = REFITS, seed: int = 0) -> Fit:
    """The law of these points, by least squares of log E, and its scatter, by a bootstrap of the residuals.

    Compute was chosen and not drawn, so residuals are resampled and not points (Davison & Hinkley 1997, section 6.2.3).

    Parameters
    ----------
    compute, error : (N,) positive; at least 5 unlike computes.
    refits : draws of the bootstrap.

    Raises
    ------
    UsageError : too few points, or one that is not positive and finite.
    """
    x, y = np.asarray(compute, dtype=np.float64), np.asarray(error, dtype=np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
        raise UsageError(
            "a law of compute needs finite compute and errors above 0",
            hint="leave out runs that failed, or take another --metric",
        )
    if len(np.unique(x)) < LEAST_POINTS:
        raise UsageError(f"{len(np.unique(x))} points of unlike compute do not make a law", hint=f"give {_POINT}")
    # In units of their geometric means all numbers of the search are near 1.
    units = float(np.exp(np.log(x).mean())), float(np.exp(np.log(y).mean()))
    x, y = x / units[0], y / units[1]
    best = min((_polished(x, y, start) for start in _starts(x, y)), key=lambda solution: solution[1])[0]
    fitted = _modelled(best, x)
    scatter = np.log(y / fitted)
    if len(x) > len(best):
        scatter = scatter * np.sqrt(len(x) / (len(x) - len(best)))
    scatter = scatter - scatter.mean()
    rng = np.random.default_rng(seed)
    draws = [fitted * np.exp(rng.choice(scatter, len(x))) for _ in range(refits)]
    others = tuple(_in_units(_polished(x, drawn, best)[0], units) for drawn in draws)
    return Fit(_in_units(best, units), x * units[0], y * units[1], others, scatter)


def _in_units(theta: Numbers, units: tuple[float, float]) -> Law:
    """A (x + δ)^(−b) + γ for x = C / C₀ and y = E / E₀, in C and E."""
    A, b, gamma, delta = (float(value) if value > _NOTHING else 0.0 for value in theta)
    return Law(A * units[1] * units[0] ** b, b, gamma * units[1], delta * units[0])


def _modelled(theta: Numbers, x: Numbers) -> Numbers:
    A, b, gamma, delta = theta
    return np.asarray(A * (x + delta) ** -b + gamma)


def _starts(x: Numbers, y: Numbers) -> list[Numbers]:
    """The best points of a grid of b and δ, with A and γ, in which the law is linear, solved for."""
    b = np.geomspace(0.03, 4, 24)[:, None, None]  # (24, 1, 1)
    delta = np.concatenate([[0.0], np.geomspace(0.1 * x.min(), x.max(), 15)])[None, :, None]  # (1, 16, 1)
    f, w = (x + delta) ** -b / y, 1 / y  # of relative errors: 1 ≈ A f + γ w; (24, 16, N), (N,)
    ff, fw, ww, f1, w1 = (f * f).sum(2), (f * w).sum(2), (w * w).sum(), f.sum(2), w.sum()
    determinant = ff * ww - fw**2
    with np.errstate(divide="ignore", invalid="ignore"):
        A, gamma = (f1 * ww - w1 * fw) / determinant, (w1 * ff - f1 * fw) / determinant  # (24, 16)
    negative = ~((gamma > 0) & np.isfinite(gamma))
    A, gamma = np.where(negative, f1 / ff, A), np.where(negative, 0.0, gamma)
    A = np.maximum(A, 1e-9)
    loss = np.square(A[..., None] * f + gamma[..., None] * w - 1).sum(2)
    order = np.argsort(loss.ravel())[:_STARTS]
    rows, columns = np.unravel_index(order, loss.shape)
    return [np.array([A[i, j], b[i, 0, 0], gamma[i, j], delta[0, j, 0]]) for i, j in zip(rows, columns, strict=True)]


def _polished(x: Numbers, y: Numbers, start: Numbers) -> tuple[Numbers, float]:
    """The nearest least of Σ (log E − log E(C))², and what it is."""
    target = np.log(y)
    low = np.array([1e-12, _SLOPES[0], 0.0, 0.0])
    high = np.array([np.inf, _SLOPES[1], y.min() * 1.05, 10 * x.max()])
    inside = np.clip(start, low + 1e-9, np.where(np.isinf(high), 1e300, high) * (1 - 1e-9))

    def residual(theta: Numbers) -> Numbers:
        return np.asarray(np.log(_modelled(theta, x)) - target)

    def slope(theta: Numbers) -> Numbers:
        A, b, gamma, delta = theta
        power = (x + delta) ** -b
        value = A * power + gamma
        towards = [power, -A * power * np.log(x + delta), np.ones_like(x), -A * b * power / (x + delta)]
        return np.asarray(np.stack(towards, 1) / value[:, None])  # (N, 4)

    solution = least_squares(residual, inside, jac=slope, bounds=(low, high), x_scale="jac", max_nfev=300)
    return solution.x, float(solution.cost)


# --------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Point:
    """A training, or the mean over seeds of several: FLOPs that it took, and the error that it came to."""

    name: str
    compute: float
    error: float


def step_flops(recipe: Recipe) -> float:
    """FLOPs of the mean step of a training, counted in one of each update at its beginning."""
    rehearsal = Rehearsal(recipe, device="cpu")
    counted = zip(rehearsal.updates, rehearsal.counted, strict=True)
    return float(sum(flops * Fraction(update.repeat, update.every) for update, (_, flops, *_) in counted))


class Counter:
    """FLOPs of whole trainings; recipes that differ in seed and length alone are counted once."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}

    def __call__(self, recipe: Recipe, steps: int) -> float:
        resolved = recipe.resolve()
        train = {key: value for key, value in resolved["train"].items() if key not in _NO_WORK}
        optim = {key: value for key, value in resolved["optim"].items() if key not in ("lr", "schedule")}
        key = json.dumps({**resolved, "train": train, "optim": optim, "eval": None}, sort_keys=True, default=str)
        if key not in self.known:
            self.known[key] = step_flops(recipe)
        return steps * self.known[key]


def points_of_runs(folders: Sequence[Path], metric: str | None, tell: Tell = _silent) -> tuple[list[Point], str]:
    """A point a run, and what its error is called; None takes the first score that the first run has.

    Raises
    ------
    UsageError : no run, or one without this score; scores that were made in different ways.
    """
    return _points({str(folder): [(folder, _recipe_of(folder))] for folder in folders}, metric, tell)


def points_of_study(plan: Study, out: Path, metric: str | None, tell: Tell = _silent) -> tuple[list[Point], str]:
    """A point a cell, the mean over its seeds; None takes the study's first metric.

    Raises
    ------
    UsageError : a training is missing or diverged, or see `points_of_runs`.
    """
    cells: dict[str, list[tuple[Path, Recipe]]] = {}
    for run in study.runs(plan, out):
        if not study.finished(run):
            raise UsageError("it has not been trained", where=str(run.folder), hint=f"ganvas bench {plan.name}")
        cells.setdefault(" ".join(run.labels) or plan.name, []).append((run.folder, run.recipe))
    return _points(cells, metric or plan.metrics[0], tell)


def _recipe_of(folder: Path) -> Recipe:
    if not (folder / "recipe.yaml").is_file():
        raise UsageError("there is no run", where=str(folder), hint="give folders that ganvas train wrote")
    return Recipe.load(folder)


def _points(
    cells: Mapping[str, Sequence[tuple[Path, Recipe]]], metric: str | None, tell: Tell
) -> tuple[list[Point], str]:
    first = next(iter(cells.values()))[0][0]
    metric = metric or next(iter(tables.newest(first)), None)
    if metric is None:
        raise UsageError("it has no scores", where=str(first), hint=f"ganvas eval {first}, or --metric with a loss")
    count, points, lines, label = Counter(), [], [], metric
    for name, runs in cells.items():
        readings = [_reading(folder, metric) for folder, _ in runs]
        lines += [tables.Line((name,), {}, made={metric: reading.made}) for reading in readings if reading.made]
        compute = fmean(count(recipe, reading.step) for (_, recipe), reading in zip(runs, readings, strict=True))
        points.append(Point(name, compute, fmean(reading.error for reading in readings)))
        label = readings[0].label
        tell(f"{name}: {amount(compute)}FLOPs, {label} {points[-1].error:.4g}")
    tables.check_alike(lines)
    return points, label


@dataclass(frozen=True)
class _Reading:
    error: float
    step: int
    label: str
    made: Mapping[str, Any]  # how a score was made; empty for a loss


def _reading(folder: Path, metric: str) -> _Reading:
    scores = tables.newest(folder)
    if metric in scores:
        row = scores[metric]
        if row["lower_is_better"]:
            return _Reading(float(row["value"]), int(row["step"]), metric, row)
        best = columns(load_protocol(row["protocol"]))[metric].limits[1]
        if not math.isfinite(best):
            raise UsageError(f"{metric} has no best value to fall short of", hint="take a score that lower is better")
        return _Reading(best - float(row["value"]), int(row["step"]), f"{best:g} − {metric}", row)
    rows = [row for row in read_rows(folder / "log.jsonl") if metric in row]
    if not rows:
        known = [
            *scores,
            *dict.fromkeys(key for row in read_rows(folder / "log.jsonl") for key in row if key != "step"),
        ]
        raise UsageError(
            f"it has neither a score nor a loss {metric!r}.{nearest(metric, known)}", where=str(folder),
            hint=f"it has {', '.join(known)}" if known else f"ganvas eval {folder}",
        )  # fmt: skip
    last = rows[-max(1, len(rows) // 10) :]  # one row is of few batches
    return _Reading(fmean(float(row[metric]) for row in last), int(rows[-1]["step"]), metric, {})


# --------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class HeldOut:
    """What the law of the others says about the run of most compute, and what that came to."""

    point: Point
    predicted: tuple[float, float, float]  # error, low, high

    @property
    def off(self) -> float:
        """By what share of the truth it is wrong."""
        return self.predicted[0] / self.point.error - 1


@dataclass(frozen=True)
class Report:
    """A law of runs, and what it says about others."""

    label: str
    points: Sequence[Point]
    chosen: Sequence[int]  # of the points, those that were fitted
    fit: Fit
    held_out: HeldOut | None
    ahead: Mapping[float, tuple[float, float, float]]  # compute -> error, low, high


def report(points: Sequence[Point], label: str, *, ahead: Sequence[float] = (), every_run: bool = False) -> Report:
    """Fit the frontier of these runs, try the law on the largest of them, and look ahead.

    Parameters
    ----------
    ahead : computes in FLOPs to predict; none: ten times the largest.
    every_run : fit all runs, not the frontier alone.

    Raises
    ------
    UsageError : too few points.
    """

    def fitted(candidates: Sequence[Point]) -> tuple[list[int], Fit]:
        compute, error = [point.compute for point in candidates], [point.error for point in candidates]
        chosen = list(range(len(candidates))) if every_run else frontier(compute, error)
        return chosen, fit([compute[i] for i in chosen], [error[i] for i in chosen])

    chosen, full_fit = fitted(points)
    largest = max(points, key=lambda point: point.compute)
    held_out = None
    try:
        _, before = fitted([point for point in points if point.compute < largest.compute])
        held_out = HeldOut(largest, before.predict(largest.compute))
    except UsageError:  # too few without it
        pass
    computes = ahead or (10 * largest.compute,)
    return Report(label, points, chosen, full_fit, held_out, {flops: full_fit.predict(flops) for flops in computes})


def as_data(result: Report) -> dict[str, Any]:
    """All of it as plain data."""
    law, intervals = result.fit.law, result.fit.intervals
    return {
        "error": result.label, "law": "a (C + d)^(-b) + c, C in FLOPs",
        "numbers": {name: {"value": getattr(law, name), "interval": list(intervals[name])} for name in "abcd"},
        "points": [
            {"name": point.name, "flops": point.compute, "error": point.error, "law": float(law(point.compute)),
             "fitted": i in result.chosen}
            for i, point in enumerate(result.points)
        ],
        "held_out": None if result.held_out is None else {
            "name": result.held_out.point.name, "error": result.held_out.point.error,
            "predicted": list(result.held_out.predicted), "off": result.held_out.off,
        },
        "ahead": [
            {"flops": compute, "error": value, "interval": [low, high]}
            for compute, (value, low, high) in result.ahead.items()
        ],
    }  # fmt: skip


def _rows(result: Report) -> tuple[list[str], list[list[str]]]:
    law = result.fit.law
    rows = [
        [point.name, f"{amount(point.compute)}FLOPs", number(point.error), number(float(law(point.compute))),
         "fitted" if i in result.chosen else "beaten"]
        for i, point in sorted(enumerate(result.points), key=lambda pair: pair[1].compute)
    ]  # fmt: skip
    return ["run", "compute", result.label, "law", ""], rows


def _sentences(result: Report) -> list[str]:
    law, intervals = result.fit.law, result.fit.intervals
    units = {"a": "", "b": "", "c": "", "d": " FLOPs"}
    numbers = ", ".join(
        f"{name} = {getattr(law, name):.4g} [{intervals[name][0]:.4g}, {intervals[name][1]:.4g}]{units[name]}"
        for name in "bcda"
    )
    sentences = [f"E(C) = a (C + d)^(−b) + c through {len(result.chosen)} of {len(result.points)} points: {numbers}."]
    if result.held_out is not None:
        value, low, high = result.held_out.predicted
        sentences.append(
            f"Without {result.held_out.point.name} it says {value:.4g} [{low:.4g}, {high:.4g}] for it; it came to "
            f"{result.held_out.point.error:.4g}, {abs(result.held_out.off):.1%} off."
        )
    for compute, (value, low, high) in result.ahead.items():
        sentences.append(f"At {amount(compute)}FLOPs it says {value:.4g} [{low:.4g}, {high:.4g}].")
    return sentences


def text(result: Report) -> str:
    """What `ganvas scale` prints."""
    head, rows = _rows(result)
    return "\n".join([tables.plain_markdown(head, rows), "", *_sentences(result)])


def page(result: Report, title: str) -> str:
    """One page that needs no other file."""
    head, rows = _rows(result)
    dots = [Dot(point.compute, point.error, point.name, i in result.chosen) for i, point in enumerate(result.points)]
    x = np.geomspace(min(dot.x for dot in dots), max([*(dot.x for dot in dots), *result.ahead]), 100)
    predicted = [result.fit.predict(float(value)) for value in x]
    picture = law_figure(
        f"{result.label} by compute", "FLOPs of the training", result.label, dots, x, np.array(predicted)
    )
    notes = [tag("p", sentence, class_="note") for sentence in _sentences(result)]
    caution = (
        "Intervals are of 95 %, by a bootstrap of the residuals; they hold as far as the law does, and far beyond the "
        "runs nobody knows."
    )
    return simple_page(
        title, "How the error falls with the compute of training",
        [picture, *notes, tag("p", caution, class_="note"), table(head, rows, class_="scores")],
    )  # fmt: skip


def write(result: Report, title: str, out: Path) -> dict[str, Path]:
    """`scaling.json` and `scaling.html`.

    Raises
    ------
    CheckpointError : the disk is full or the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = {kind: out / f"scaling.{kind}" for kind in ("json", "html")}
    write_bytes(files["json"], json.dumps(as_data(result), indent=1).encode())
    write_bytes(files["html"], page(result, title).encode())
    return files
