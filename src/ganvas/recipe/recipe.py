"""Recipes: what to build, as plain data.

A recipe is read from YAML, laid over its `base:`, changed by `key=value`, checked against the schemas of the parts that
it names, and filled with every default. Nothing is built here and nothing is written but by `save`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ganvas import parts
from ganvas.errors import BadValue, RecipeError, UsageError, nearest
from ganvas.files.files import write_bytes
from ganvas.parts import values
from ganvas.recipe import yaml12
from ganvas.recipe.as_written import takes_text
from ganvas.recipe.check import Checker, nested_parts, shortened
from ganvas.recipe.layering import assign, merge, merge_marks, without_nulls
from ganvas.recipe.schema import RENAMED, Schema
from ganvas.recipe.yaml12 import KeyPath, Mark

SHIPPED = Path(__file__).parents[1] / "recipes"
STUDIES = SHIPPED / "studies"
SEARCHES = SHIPPED / "searches"
SOURCES = SHIPPED / "sources.yaml"
"""Published numbers by source, which recipes name under `source:`."""
DEFAULT = "digits"
"""The recipe that `ganvas train` takes when none is named."""
_DEEPEST = 50  # levels of keys; a recipe has six


@dataclass(frozen=True)
class Recipe:
    """A recipe as written: its base and overrides are laid in, its defaults are not yet filled.

    `data` is plain; `marks` says where each key stands, for errors; `name` is what runs are called after.
    """

    data: Mapping[str, Any]
    name: str = "recipe"
    marks: Mapping[KeyPath, Mark] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, source: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe by its shipped name or by its path, and apply `key=value` overrides.

        Raises
        ------
        RecipeError : unreadable, unknown, or an override that is none.
        """
        file = locate(source if source is not None else DEFAULT)
        data, marks = _read(file)
        if "base" in data:
            place = str(marks[("base",)])
            base_name = data.pop("base")
            if not isinstance(base_name, str):
                raise BadValue(
                    f"'base' is {base_name!r}, not the name or path of one recipe", where=place,
                    hint="ganvas list recipes",
                )  # fmt: skip
            base, base_marks = _read(locate(base_name, beside=file.parent, where=place))
            if "base" in base:
                raise RecipeError(
                    f"the base {base_name!r} has a base itself; one level is as deep as it goes",
                    where=str(base_marks[("base",)]), hint="copy what is needed into one of the two",
                )  # fmt: skip
            merged = merge(base, data)
            marks, data = merge_marks(base_marks, marks, base, merged), merged
        return cls(without_nulls(data), _run_name(file), marks).override(*overrides)

    def override(self, *assignments: str) -> Recipe:
        """A recipe with `key=value` applied in order; a name put on a part replaces it, `~` drops the key.

        A value is YAML, but a key that holds a path or text takes it as written: `data.path=my photos #2`.
        Schedules of what is dropped are dropped with it.

        Raises
        ------
        UsageError, RecipeError : not of the form key=value, a value that is no YAML, or a key that cannot be reached.
        """
        recipe = self
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            path = tuple(key.strip().split("."))
            if not equals or not all(path) or len(path) > _DEEPEST:
                raise UsageError(
                    f"{shortened(assignment)!r} is no override",
                    where="command line",
                    hint="write key=value, such as train.steps=500",
                )
            place = f"command line: {shortened(assignment)}"
            try:
                if text == str(Path.home()):
                    value = None  # shells turn the unquoted ~ of `key=~` into the home folder; nobody means that one
                elif takes_text(recipe.data, path, text):
                    value = text
                else:
                    value = yaml12.read(text, place)[0]
            except RecipeError as error:
                error.where = place
                error.hint = f"to mean the text itself, quote it twice: '{key}=\"…\"'"
                raise
            recipe = recipe.put(path, value, Mark(place))
        return recipe

    def put(self, path: KeyPath, value: Any, mark: Mark) -> Recipe:
        """A recipe with one plain value at a path, said to stand at `mark`; see `override`.

        Raises
        ------
        BadValue : the path leads through something that has no keys.
        """
        data = copy.deepcopy(dict(self.data))
        path = _below_schedules(data, path)
        marks = {old: old_mark for old, old_mark in self.marks.items() if old[: len(path)] != path}
        marks[path] = mark
        for cut in range(1, len(path)):  # what it has to make on its way stands there, too
            marks.setdefault(path[:cut], mark)
        assign(data, path, value, str(mark))
        if value is None and isinstance(schedules := data.get("schedules"), dict):
            dropped = ".".join(path)
            data["schedules"] = {
                key: node for key, node in schedules.items() if not f"{key}.".startswith(f"{dropped}.")
            }
        return Recipe(data, self.name, marks)

    def resolve(self) -> dict[str, Any]:
        """Every key checked and every default filled; plain data that `resolve` maps to itself.

        Raises
        ------
        RecipeError : all problems at once, each with its place.
        """
        return copy.deepcopy(self._resolved)

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        """What `resolve` gives, checked once; nobody else sees it, so nobody can change it."""
        checker = Checker(self.marks)
        resolved = checker.recipe(values.plain(self.data))
        if checker.problems:
            raise RecipeError.of(checker.problems)
        return resolved

    def save(self, path: Path) -> None:
        """Write as YAML that loads to the same recipe."""
        write_bytes(path, yaml12.write(values.plain(self.data)).encode())


def _below_schedules(data: Mapping[str, Any], path: KeyPath) -> KeyPath:
    """A path whose second key is whole where it is that of a schedule, which has dots in it."""
    if path[0] != "schedules" or len(path) < 3:
        return path
    dotted = ".".join(path[1:])
    known = data.get("schedules")
    for key in known if isinstance(known, dict) else ():
        if f"{dotted}.".startswith(f"{key}."):
            rest = dotted[len(key) + 1 :]
            return ("schedules", key, *(rest.split(".") if rest else ()))
    return ("schedules", dotted)


def renewed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a run of version 0.1, as recipes are written now; others as they are."""
    return {RENAMED.get(key, key): value for key, value in data.items()}


def locate(source: str | Path, *, beside: Path | None = None, where: str = "") -> Path:
    """The file of a recipe that is named by path or by shipped name.

    Raises
    ------
    RecipeError : there is none; says which name is nearest.
    """
    text = str(source)
    if text.endswith((".yaml", ".yml")):
        for folder in (beside, Path()):
            if folder is not None and (folder / text).is_file():
                return folder / text
        clue = nearest(Path(text).stem, shipped())
        raise RecipeError(f"there is no recipe file {text}.{clue}", where=where, hint="ganvas list recipes")
    known = shipped()
    if text in known:
        return known[text]
    if (Path(text) / "recipe.yaml").is_file():  # a run folder: do again what it did
        return Path(text) / "recipe.yaml"
    raise RecipeError(f"no recipe is called {text!r}.{nearest(text, known)}", where=where, hint="ganvas list recipes")


def shipped() -> dict[str, Path]:
    """name -> file of every recipe in the package; those in `tiny/` are called `tiny/<name>`."""
    files = {}
    for file in sorted(SHIPPED.rglob("*.yaml")):
        if file.parent in (STUDIES, SEARCHES) or file == SOURCES:  # about recipes; see study.py and space.py
            continue
        in_tiny = file.parent.name == "tiny"
        files[f"tiny/{file.stem}" if in_tiny else file.stem] = file
    return files


def named_parts(resolved: Mapping[str, Any], section: type = Schema) -> set[tuple[str, str]]:
    """(kind, name) of every part in a resolved recipe."""
    return set(nested_parts(parts.fields_of(section), resolved))


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """`{"train.steps": 10, ...}`: one entry a leaf."""
    if isinstance(node, Mapping) and node:
        return {k: v for key, value in node.items() for k, v in flatten(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): node}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """key -> (its value in one, in the other) for all that differ; None where a key is absent."""
    left, right = flatten(one), flatten(other)
    return {key: (left.get(key), right.get(key)) for key in sorted({*left, *right}) if left.get(key) != right.get(key)}


def made_tiny(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe with networks and sampler as small as their parts declare for checks, one step of four data."""
    small = copy.deepcopy(dict(resolved))
    sizes = {
        role: values.plain(dict(parts.find("network", node["use"]).tiny)) for role, node in small["networks"].items()
    }
    for role, node in small["networks"].items():
        node |= _laid_over(node, {**sizes[role], **_shared_sizes(role, resolved["networks"], sizes)})
    if node := small["sampler"]:
        node |= _laid_over(node, values.plain(dict(parts.find("sampler", node["use"]).tiny)))
    return made_short(small)


def made_short(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe that takes one step of four data, from weights of its own."""
    short = copy.deepcopy(dict(resolved))
    for node in short["networks"].values():
        node.update({"from": None, "freeze": None})
    short["train"] = {**short["train"], "steps": 1, "batch": 4, "accumulate": 1, "compile": False}
    return short


def _shared_sizes(
    role: str, networks: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Keys that several networks of a recipe have with one value keep one value: the largest that their parts declare.

    Else parts that must agree, as on the length of a latent, would be shrunk apart.
    """
    shared = {}
    for key, value in networks[role].items():
        alike = [other for other, node in networks.items() if node.get(key) == value and isinstance(value, int)]
        declared = [sizes[other][key] for other in alike if isinstance(sizes[other].get(key), int)]
        if len(alike) > 1 and declared and not isinstance(value, bool):
            shared[key] = max(declared)
    return shared


def _laid_over(base: Any, over: Any) -> Any:
    """Of sections, such as a mapping network's, only the keys that `over` names are replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)) or over.get("use", base.get("use")) != base.get("use"):
        return over
    return {**base, **{key: _laid_over(base.get(key), value) for key, value in over.items()}}


# --------------------------------------------------------------------------------------------------- laying together


def _read(file: Path) -> tuple[dict[str, Any], dict[KeyPath, Mark]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=str(file), hint="a recipe is UTF-8 text") from None
    data, marks = yaml12.read(text, _shown(file))
    if isinstance(data, dict) and file.name == "recipe.yaml":  # of a run, which may be an old one
        data = renewed(data)
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a map of keys", where=_shown(file), hint="ganvas show recipe digits")
    return data, marks


def _run_name(file: Path) -> str:
    """What runs of a recipe file are called after."""
    if file.name == "recipe.yaml":  # in a run folder
        return file.resolve().parent.name
    return next((name for name, shipped_file in shipped().items() if shipped_file == file), file.stem)


def _shown(file: Path) -> str:
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)
