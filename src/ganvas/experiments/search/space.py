"""The space of a search: which keys of a recipe vary, between which values, and what is to become good.

A search's file is YAML with the keys of `Plan`. All of it is checked against the recipe before anything is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Ge, Len

from ganvas import parts
from ganvas.errors import BadValue, GanvasError, RecipeError, UnknownKey, nearest
from ganvas.evaluation.protocol import Column, columns, load_protocol
from ganvas.experiments.study import Overrides, Seeds
from ganvas.recipe import yaml12
from ganvas.recipe.check import check_section
from ganvas.recipe.recipe import SEARCHES, Recipe
from ganvas.recipe.schema import Positive
from ganvas.recipe.yaml12 import KeyPath, Mark

Marks = Mapping[KeyPath, Mark]

MEASURED = {
    "parameters": Column(True, (0, math.inf), "weights of what is needed for sampling: the size of the generator"),
    "macs": Column(True, (0, math.inf), "multiply-accumulates of one sample"),
    "latency_ms": Column(True, (0, math.inf), "milliseconds of a batch of 64 samples on one thread"),
}
"""Objectives that need no protocol."""


@dataclass(frozen=True)
class Prune:
    """Stop a training whose best score so far is worse than the median of other trials at the same step."""

    startup: Positive = 5  # trials that must have ended before one is stopped
    warmup: Annotated[int, Ge(0)] = 0  # steps before a training may be stopped


@dataclass(frozen=True)
class Plan:
    """What a search varies and what it looks for."""

    metrics: Annotated[tuple[str, ...], Len(1)]  # objectives: values of the protocol, or of `MEASURED`
    space: Mapping[str, Any]  # path in the recipe -> {from, to, log} or {choices}
    trials: Positive  # in all, however often the search is stopped and run again
    overrides: Overrides = ()  # for every trial
    seed: Annotated[int, Ge(0)] = 0  # of the proposals
    seeds: Annotated[Seeds, Len(1)] = (0,)  # trainings a trial; their mean is what counts
    sampler: Literal["tpe", "nsga2"] | None = None  # None: tpe for one objective, nsga2 for several
    population: Annotated[int, Ge(2)] = 16  # trials a generation of nsga2
    prune: Prune | None = None
    summary: str | None = None
    name: str = field(default="", kw_only=True)


# --------------------------------------------------------------------------------------------------- axes


@dataclass(frozen=True)
class RangeKeys:
    """A range as it is written; both ends belong to it."""

    from_: int | float
    to: int | float
    log: bool = False  # proposed evenly in the logarithm


@dataclass(frozen=True)
class ChoiceKeys:
    """A choice as it is written."""

    choices: Annotated[tuple[Any, ...], Len(1)]


class Proposer(Protocol):
    """What of Optuna's `Trial` an axis asks; a name that was asked before gets the same answer."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Range:
    """Numbers between two ends: whole ones where the ends are."""

    path: str
    low: int | float
    high: int | float
    log: bool

    def propose(self, proposer: Proposer) -> None:
        if isinstance(self.low, int) and isinstance(self.high, int):
            proposer.suggest_int(self.path, self.low, self.high, log=self.log)
        else:
            proposer.suggest_float(self.path, self.low, self.high, log=self.log)

    def value(self, proposed: Any) -> Any:
        return proposed

    def facts(self) -> dict[str, Any]:
        return {"from": self.low, "to": self.high, "log": self.log}


@dataclass(frozen=True)
class Choice:
    """Any plain values. They are proposed as JSON, because a storage holds no lists and takes 1 for true."""

    path: str
    options: tuple[str, ...]  # JSON

    def propose(self, proposer: Proposer) -> None:
        proposer.suggest_categorical(self.path, self.options)

    def value(self, proposed: Any) -> Any:
        return json.loads(proposed)

    def facts(self) -> dict[str, Any]:
        return {"choices": [json.loads(option) for option in self.options]}


Axis = Range | Choice


@dataclass(frozen=True)
class Search:
    """A plan that fits its recipe."""

    plan: Plan
    recipe: Recipe  # the plan's overrides are laid in
    axes: tuple[Axis, ...]
    objectives: Mapping[str, Column]

    @property
    def sampler(self) -> str:
        return self.plan.sampler or ("tpe" if len(self.objectives) == 1 else "nsga2")

    def proposal(self, proposed: Mapping[str, Any]) -> dict[str, Any]:
        """path -> value in the recipe, in the order of the file."""
        return {axis.path: axis.value(proposed[axis.path]) for axis in self.axes}

    def trial_recipe(self, proposal: Mapping[str, Any], seed: int) -> Recipe:
        """The recipe of one training."""
        recipe = self.recipe
        for path, value in sorted(proposal.items(), key=lambda pair: pair[0].count(".")):  # a part before its keys
            recipe = recipe.put(tuple(path.split(".")), value, Mark(f"{path}={json.dumps(value)}"))
        return recipe.put(("train", "seed"), seed, Mark("seeds"))

    def facts(self) -> dict[str, Any]:
        """What must not change between sessions of one search; the number of trials may."""
        plan = self.plan
        return {
            "recipe": self.recipe.resolve(), "space": {axis.path: axis.facts() for axis in self.axes},
            "metrics": list(self.objectives), "seed": plan.seed, "seeds": list(plan.seeds), "sampler": self.sampler,
            "population": plan.population if self.sampler == "nsga2" else None,
            "prune": None if plan.prune is None else {"startup": plan.prune.startup, "warmup": plan.prune.warmup},
        }  # fmt: skip


# --------------------------------------------------------------------------------------------------- reading


def load(recipe: str | Path, source: str | Path) -> Search:
    """A search of a recipe by the file or shipped name of its space, checked as far as that goes without training.

    Raises
    ------
    RecipeError : all problems at once, each with file:line:column; also where a recipe with an end of a range, or with
        a choice, does not resolve.
    """
    base = Recipe.load(recipe)
    plan, marks = _plan(source)
    recipe_ = _overridden(base, plan, marks)
    resolved = recipe_.resolve()
    problems: list[RecipeError] = []
    axes = [axis for path in plan.space if (axis := _axis(recipe_, path, plan.space[path], marks, problems))]
    if not plan.space:
        problems.append(
            BadValue("nothing is varied", where=_where(marks, "space"), hint="write optim.lr: {from: 1e-4, to: 1e-2}")
        )
    objectives = _objectives(plan, resolved, marks, problems)
    if plan.prune is not None:
        _check_prune(plan, resolved, marks, problems)
    if problems:
        raise RecipeError.of(list({(problem.where, problem.problem): problem for problem in problems}.values()))
    return Search(plan, recipe_, tuple(axes), objectives)


def _plan(source: str | Path) -> tuple[Plan, Marks]:
    text = str(source)
    file = Path(text) if text.endswith((".yaml", ".yml")) else SEARCHES / f"{text}.yaml"
    if not file.is_file():
        known = sorted(space.stem for space in SEARCHES.glob("*.yaml"))
        raise RecipeError(
            f"there is no space {text!r}.{nearest(text, known)}",
            hint=f"there are {', '.join(known)}; or give a .yaml file",
        )  # fmt: skip
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=text, hint="a space is UTF-8 text") from None
    data, marks = yaml12.read(content, text)
    filled = check_section(Plan, {"name": file.stem, **data} if isinstance(data, dict) else data, marks, "a search")
    plan: Plan = parts.build_section(Plan, filled)
    return plan, marks


def _where(marks: Marks, *path: str) -> str:
    return f"{marks[path]}  {'.'.join(path)}"


def _overridden(recipe: Recipe, plan: Plan, marks: Marks) -> Recipe:
    """The recipe with the plan's overrides; what they set stands where they stand in the plan."""
    for i, override in enumerate(plan.overrides):
        mark = marks["overrides", str(i)]
        try:
            changed = recipe.override(override)
        except GanvasError as error:
            error.where = f"{mark}  overrides"
            raise
        new_marks = {
            path: mark if place is not recipe.marks.get(path) else place for path, place in changed.marks.items()
        }
        recipe = Recipe(changed.data, recipe.name, new_marks)
    return recipe


# --------------------------------------------------------------------------------------------------- checking


def _axis(recipe: Recipe, path: str, raw: Any, marks: Marks, problems: list[RecipeError]) -> Axis | None:
    """One line of the space, or None with what is wrong with it told."""
    place = marks["space", path]
    keys = tuple(path.split("."))
    if not all(keys) or path == "train.seed" or keys[0] in ("eval", "base"):
        hint = {"train.seed": "`seeds` says what each trial is trained with", "eval": "all trials are scored alike"}
        problems.append(
            BadValue(
                f"{path!r} cannot be searched", where=f"{place}  space",
                hint=hint.get(path, hint.get(keys[0], "write a path of the recipe, such as optim.lr")),
            )
        )  # fmt: skip
        return None
    value_marks = {
        (): place,
        **{
            full_path[2:]: mark
            for full_path, mark in marks.items()
            if full_path[:2] == ("space", path) and full_path[2:]
        },
    }
    try:
        section = ChoiceKeys if isinstance(raw, dict) and "choices" in raw else RangeKeys
        filled = check_section(section, raw, value_marks, f"the range of {path!r}")
    except RecipeError as error:
        for problem in error.problems:
            problem.hint = (
                f"write {path}: {{from: 1, to: 5}}, with log: true if you like, or {path}: {{choices: [1, 2]}}"
            )
        problems += error.problems
        return None
    if "choices" in filled:
        return _choice(recipe, path, filled["choices"], value_marks, problems)
    return _range(recipe, path, filled["from"], filled["to"], filled["log"], value_marks, problems)


def _choice(
    recipe: Recipe, path: str, values: Sequence[Any], marks: Marks, problems: list[RecipeError]
) -> Choice | None:
    options: list[str] = []
    before = len(problems)
    for i, value in enumerate(values):
        mark = marks["choices", str(i)]
        text = json.dumps(value)
        if text in options:
            problems.append(BadValue(f"{text} is among the choices twice", where=f"{mark}  {path}", hint="drop one"))
        options.append(text)
        problems += _problems(recipe, path, value, mark, marks[()])
    return Choice(path, tuple(options)) if len(problems) == before else None


def _range(
    recipe: Recipe,
    path: str,
    low: int | float,
    high: int | float,
    log: bool,
    marks: Marks,
    problems: list[RecipeError],
) -> Range | None:
    before = len(problems)
    for key, value in (("from", low), ("to", high)):
        problems += _problems(recipe, path, value, marks[key,], marks[()])
    if not low < high:
        problems.append(
            BadValue(f"from {low} to {high} holds nothing", where=f"{marks['to',]}  {path}", hint="swap them")
        )
    if log and not low > 0:
        said = f"a logarithmic range cannot begin at {low}"
        problems.append(BadValue(said, where=f"{marks['from',]}  {path}", hint="begin above 0, or drop log"))
    if len(problems) > before:
        return None
    # Ends such as 0 and 1 may be meant as floats: then the recipe takes what lies between them, too.
    between = (
        (float(low), float(high)) if _problems(recipe, path, low + 0.5, marks[()], marks[()]) == [] else (low, high)
    )
    integers = isinstance(low, int) and isinstance(high, int)
    return Range(path, *(between if integers else (float(low), float(high))), log)


def _problems(recipe: Recipe, path: str, value: Any, mark: Mark, key_mark: Mark) -> list[RecipeError]:
    """What is wrong with the recipe once it has this value; each is told to stand at the value, or at its key."""
    try:
        recipe.put(tuple(path.split(".")), value, mark).resolve()
    except RecipeError as error:
        for problem in error.problems:
            if isinstance(problem, UnknownKey):
                problem.where = f"{key_mark}  {path}"
            elif problem.where.split()[:1] != str(mark).split()[:1]:  # another place of the recipe does not go with it
                problem.problem = f"with {json.dumps(value)}, at {problem.where}: {problem.problem}"
                problem.where = f"{mark}  {path}"
        return list(error.problems)
    return []


def _objectives(
    plan: Plan, resolved: Mapping[str, Any], marks: Marks, problems: list[RecipeError]
) -> dict[str, Column]:
    protocol = (resolved["eval"] or {}).get("protocol")
    known = {**(columns(load_protocol(protocol)) if protocol else {}), **MEASURED}
    objectives: dict[str, Column] = {}
    for i, written in enumerate(plan.metrics):
        name, where = written.replace("-", "_"), f"{marks['metrics', str(i)]}  metrics"
        if name not in known:
            unscored = "" if protocol else "; a score needs a protocol, add to overrides: eval.protocol=NAME"
            problems.append(
                BadValue(
                    f"there is no value {written!r}.{nearest(name, known)}", where=where,
                    hint=f"there are {', '.join(known)}{unscored}",
                )
            )  # fmt: skip
        elif name in objectives:
            problems.append(BadValue(f"{written!r} is among the metrics twice", where=where, hint="drop one"))
        else:
            objectives[name] = known[name]
    return objectives


def _check_prune(plan: Plan, resolved: Mapping[str, Any], marks: Marks, problems: list[RecipeError]) -> None:
    if len(plan.metrics) > 1 or plan.metrics[0].replace("-", "_") in MEASURED:
        said, hint = "a training is stopped by its one objective, which must be a score", "drop prune"
    elif not (resolved["eval"] or {}).get("every"):
        said, hint = "the recipe is scored at its end alone", "add to overrides: eval.every=STEPS"
    else:
        return
    problems.append(BadValue(said, where=_where(marks, "prune"), hint=hint))
