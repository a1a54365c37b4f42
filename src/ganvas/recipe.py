"""Recipes: what to build, as plain data.

A recipe is read from YAML, laid over its `base:`, changed by `key=value`, checked against the schemas of the parts that
it names, and filled with every default. Nothing is built here and nothing is written but by `save`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from ganvas import parts, values, yaml12
from ganvas.errors import (
    BadValue,
    CheckpointError,
    RecipeError,
    RoleMissing,
    UnknownKey,
    UnknownPart,
    UsageError,
    nearest,
)
from ganvas.files import model_metadata, write_bytes
from ganvas.layering import assign, merge, merge_marks, without_nulls
from ganvas.parts import Factory, Field, Slot, Slots
from ganvas.trained import Weights
from ganvas.yaml12 import KeyPath, Mark

Positive = Annotated[int, Gt(0)]
SHIPPED = Path(__file__).parent / "recipes"
STUDIES = SHIPPED / "studies"
SEARCHES = SHIPPED / "searches"
PROTOCOLS = Path(__file__).parent / "protocols"
DEFAULT = "digits"
"""The recipe that `ganvas train` takes when none is named."""
_DEEPEST = 50  # levels of keys; a recipe has six


# --------------------------------------------------------------------------------------------------- the schema


@dataclass(frozen=True)
class Train:
    """How long, how much at once, how exactly."""

    steps: Positive = 10_000
    batch: Positive = 64
    seed: Annotated[int, Ge(0)] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the forward passes; weights and penalties stay float32
    accumulate: Positive = 1  # micro-batches that a batch is cut into
    parallel: Literal["replicated", "sharded"] = "replicated"  # how weights lie where several processes train
    compile: bool = False
    channels_last: bool = False
    log_every: Positive = 50  # steps
    checkpoint_every: Positive = 1000  # steps
    sample_every: Positive | None = None  # steps; None: with each checkpoint
    keep: Positive = 2  # checkpoints, besides the best


@dataclass(frozen=True)
class Ema:
    """Moving average of the weights, `decay` per step; it starts, and may ramp up, after so many real images."""

    decay: Annotated[float, Ge(0), Le(1)] = 0.999
    half_life_images: Annotated[float, Gt(0)] | None = None  # in place of `decay`, whatever the batch
    start_images: Annotated[int, Ge(0)] = 0
    rampup_ratio: Annotated[float, Gt(0)] | None = None  # half-life is at most this share of the images seen so far


@dataclass(frozen=True)
class Eval:
    """Scores while training: the protocol's name or path, each `every` steps (None: at the end alone)."""

    protocol: str
    every: Positive | None = None


@dataclass(frozen=True)
class OptimOptions:
    """What stands beside the optimizer's own keys."""

    schedule: Annotated[Any, Slot("schedule")] = "constant"
    clip_norm: Annotated[float, Gt(0)] | None = None  # global L2 norm of one role's gradient
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # role -> the optimizer's keys for it alone


@dataclass(frozen=True)
class Course:
    """Between which values a number moves; the schedule beside them says when."""

    from_: float
    to: float


@dataclass(frozen=True)
class Schema:
    """A whole recipe."""

    data: Annotated[Any, Slot("dataset")]
    networks: Annotated[Mapping[str, Any], Slots("network", Weights, keys="role")]
    task: Annotated[Any, Slot("task")]
    optim: Annotated[Any, Slot("optimizer", OptimOptions)] = "adam"
    ema: Ema | None = None
    courses: Annotated[Mapping[str, Any], Slots("schedule", Course, keys="path")] = field(default_factory=dict)
    train: Train = Train()
    eval: Eval | None = None
    sampler: Annotated[Any, Slot("sampler")] | None = None
    sinks: Annotated[Mapping[str, Any], Slots("sink")] = field(default_factory=dict)
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> changes; trained first, in order
    system: str | None = None  # catalogue id
    summary: str | None = None  # one line for `ganvas list recipes`


# --------------------------------------------------------------------------------------------------- the object


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
                    f"{_cut(assignment)!r} is no override",
                    where="command line",
                    hint="write key=value, such as train.steps=500",
                )
            place = f"command line: {_cut(assignment)}"
            try:
                # Shells turn the unquoted ~ of `key=~` into the home folder; nobody means that folder itself.
                value = None if text == str(Path.home()) else yaml12.read(text, place)[0]
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
        marks = {old: own for old, own in self.marks.items() if old[: len(path)] != path}
        marks[path] = mark
        for cut in range(1, len(path)):  # what it has to make on its way stands there, too
            marks.setdefault(path[:cut], mark)
        assign(data, path, value, str(mark))
        return Recipe(data, self.name, marks)

    def resolve(self) -> dict[str, Any]:
        """Every key checked and every default filled; plain data that `resolve` maps to itself.

        Raises
        ------
        RecipeError : all problems at once, each with its place.
        """
        checker = _Checker(self.marks)
        resolved = checker.recipe(values.plain(self.data))
        if checker.problems:
            raise RecipeError.of(checker.problems)
        return resolved

    def save(self, path: Path) -> None:
        """Write as YAML that loads to the same recipe."""
        write_bytes(path, yaml12.write(values.plain(self.data)).encode())


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
    found = {}
    for file in sorted(SHIPPED.rglob("*.yaml")):
        if file.parent in (STUDIES, SEARCHES):  # over recipes; see study.py and space.py
            continue
        in_tiny = file.parent.name == "tiny"
        found[f"tiny/{file.stem}" if in_tiny else file.stem] = file
    return found


def named_parts(resolved: Mapping[str, Any], section: type = Schema) -> set[tuple[str, str]]:
    """(kind, name) of every part in a resolved recipe."""
    return set(_named(parts.fields_of(section), resolved))


def _named(fields: Mapping[str, Field], node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, each in fields.items():
        below = node.get(key)
        if not each.marker or not below:
            continue
        for own in below.values() if isinstance(each.marker, Slots) else (below,):
            yield each.marker.kind, own["use"]
            yield from _named(parts.find(each.marker.kind, own["use"]).fields(), own)


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
    """A resolved recipe with every network at the size that its part declares for checks, one step of four data."""
    small = copy.deepcopy(dict(resolved))
    for node in small["networks"].values():
        node |= _laid_over(node, values.plain(dict(parts.find("network", node["use"]).tiny)))
        node.update({"from": None, "freeze": None})
    small["train"] = {**small["train"], "steps": 1, "batch": 4, "accumulate": 1, "compile": False}
    return small


def _laid_over(own: Any, over: Any) -> Any:
    """Of sections, such as a mapping network's, only the keys that `over` names are replaced."""
    if not (isinstance(own, dict) and isinstance(over, dict)) or over.get("use", own.get("use")) != own.get("use"):
        return over
    return {**own, **{key: _laid_over(own.get(key), value) for key, value in over.items()}}


def check_node(kind: str, raw: Any) -> dict[str, Any]:
    """One part's node, checked and filled, for parts that are chosen outside a recipe.

    Raises
    ------
    RecipeError : as for a whole recipe.
    """
    checker = _Checker({})
    node = checker.node(kind, copy.deepcopy(raw), (kind,))
    if checker.problems:
        raise RecipeError.of(checker.problems)
    return node


def check_section(section: type, raw: Any, marks: Mapping[KeyPath, Mark], owner: str) -> dict[str, Any]:
    """A map of keys, checked against a dataclass and filled.

    Raises
    ------
    RecipeError : as for a whole recipe.
    """
    checker = _Checker(marks)
    fields = parts.fields_of(section)
    filled = checker.keys(fields, raw, (), owner, f"its keys are {', '.join(fields)}")
    if checker.problems:
        raise RecipeError.of(checker.problems)
    return filled


# --------------------------------------------------------------------------------------------------- laying together


def _read(file: Path) -> tuple[dict[str, Any], dict[KeyPath, Mark]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=str(file), hint="a recipe is UTF-8 text") from None
    data, marks = yaml12.read(text, _shown(file))
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a map of keys", where=_shown(file), hint="ganvas show recipe digits")
    return data, marks


def _run_name(file: Path) -> str:
    """What runs of a recipe file are called after."""
    if file.name == "recipe.yaml":  # in a run folder
        return file.resolve().parent.name
    return next((name for name, each in shipped().items() if each == file), file.stem)


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _shown(file: Path) -> str:
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)


# --------------------------------------------------------------------------------------------------- checking


class _Checker:
    """Walks a recipe along the schemas; gathers every problem instead of stopping at the first."""

    def __init__(self, marks: Mapping[KeyPath, Mark]) -> None:
        self.marks = marks
        self.problems: list[RecipeError] = []
        self.lost: set[KeyPath] = set()  # nodes whose one problem is told already

    def where(self, path: KeyPath) -> str:
        for cut in range(len(path), -1, -1):
            if path[:cut] in self.marks:
                return f"{self.marks[path[:cut]]}  {'.'.join(path)}".rstrip()
        return ".".join(path)

    def tell(self, kind: type[RecipeError], problem: str, path: KeyPath, hint: str) -> None:
        self.problems.append(kind(problem, where=self.where(path), hint=hint))

    # ------------------------------------------------------------------ the whole

    def recipe(self, raw: dict[str, Any]) -> dict[str, Any]:
        self.borrow_networks(raw)
        filled = self.keys(parts.fields_of(Schema), raw, (), "a recipe", "ganvas show recipe")
        if task := (filled.get("task") or {}).get("use"):
            self.roles(parts.find("task", task), filled)
        if filled.get("optim") and "networks" in filled:
            self.optimizer_of_roles(filled)
        self.protocol(filled)
        return filled

    def borrow_networks(self, raw: dict[str, Any]) -> None:
        """`from:` without `use:` means the network that is there, as it was built there."""
        networks = raw.get("networks")
        for role, node in networks.items() if isinstance(networks, dict) else ():
            if not (isinstance(node, dict) and isinstance(node.get("from"), str)) or "use" in node:
                continue
            try:
                source = model_metadata(Path(node["from"]))["recipe"]["networks"]
                wanted = str(node.get("net") or role)
                if wanted not in source:
                    raise CheckpointError(
                        f"it has no network {wanted!r}, but {', '.join(sorted(source))}",
                        hint=f"say which: networks.{role}.net=NAME",
                    )
            except CheckpointError as error:
                path = ("networks", role)
                self.tell(BadValue, f"{node['from']}: {error.problem}", (*path, "from"), error.hint)
                self.lost.add(path)
                continue
            own = {key: value for key, value in source[wanted].items() if key not in parts.fields_of(Weights)}
            raw["networks"][role] = {**own, **node}

    def roles(self, task: parts.Part, filled: dict[str, Any]) -> None:
        wanted: tuple[str, ...] = task.load().roles  # type: ignore[attr-defined]
        present: Mapping[str, Any] = filled.get("networks", {})
        for role in wanted if "networks" in filled else ():
            if role not in present:
                have = ", ".join(present) or "none"
                self.tell(
                    RoleMissing, f"task {task.name!r} needs a network {role!r}; the recipe has {have}",
                    ("networks",), f"set networks.{role}=NAME (ganvas list networks {role})",
                )  # fmt: skip
        for role in present:
            if role not in wanted:
                self.tell(
                    UnknownKey, f"task {task.name!r} has no role {role!r}.{nearest(role, wanted)}",
                    ("networks", role), f"its roles are {', '.join(wanted)}",
                )  # fmt: skip
        if "sampler" in filled and filled["sampler"] is None:
            filled["sampler"] = self.node("sampler", task.load().sampler, ("sampler",))  # type: ignore[attr-defined]

    def optimizer_of_roles(self, filled: dict[str, Any]) -> None:
        """`optim.roles` holds some of the optimizer's keys, for one role alone."""
        optimizer = parts.find("optimizer", filled["optim"]["use"])
        fields = {key: dataclasses.replace(each, default=None) for key, each in optimizer.fields().items()}
        roles = filled["optim"].get("roles")
        for role, keys in roles.items() if isinstance(roles, dict) else ():
            path = ("optim", "roles", role)
            if role not in filled["networks"]:
                known = ", ".join(filled["networks"])
                self.tell(
                    UnknownKey, f"the recipe has no network {role!r}.{nearest(role, filled['networks'])}",
                    path, f"its networks are {known}; drop it: optim.roles.{role}=~",
                )  # fmt: skip
            elif isinstance(keys, dict):
                self.keys(
                    fields, keys, path, f"optimizer {optimizer.name!r}", f"ganvas show optimizer {optimizer.name}"
                )

    def protocol(self, filled: dict[str, Any]) -> None:
        wanted = (filled.get("eval") or {}).get("protocol")
        if not isinstance(wanted, str):
            return
        if wanted.endswith((".yaml", ".yml")):
            if not Path(wanted).is_file():
                self.tell(BadValue, f"there is no file {wanted}", ("eval", "protocol"), "check the path")
        elif not (PROTOCOLS / f"{wanted}.yaml").is_file():
            known = sorted(file.stem for file in PROTOCOLS.glob("*.yaml"))
            self.tell(
                BadValue, f"no protocol is called {wanted!r}.{nearest(wanted, known)}", ("eval", "protocol"),
                f"there are {', '.join(known)}",
            )  # fmt: skip

    # ------------------------------------------------------------------ the pieces

    def keys(self, fields: Mapping[str, Field], raw: Any, path: KeyPath, owner: str, hint: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.tell(BadValue, f"{owner} is a map of keys, not {raw!r}", path, hint)
            return {}
        for key in raw:
            if key not in fields:
                self.tell(UnknownKey, f"{owner} has no parameter {key!r}.{nearest(key, fields)}", (*path, key), hint)
        filled = {}
        for key, each in fields.items():
            here = (*path, key)
            if raw.get(key) is not None:
                filled[key] = self.value(each, raw[key], here, hint)
            elif each.required:
                self.tell(BadValue, f"{owner} needs {key!r}", here, _missing_hint(each, here, hint))
            else:
                filled[key] = self.default(each, here)
        return filled

    def default(self, each: Field, path: KeyPath) -> Any:
        if each.marker is not None and each.default is not None:
            return self.value(each, values.plain(each.default), path, "")
        return values.plain(each.default)

    def value(self, each: Field, raw: Any, path: KeyPath, hint: str) -> Any:
        marker = each.marker
        if isinstance(marker, (Slot, Factory)):
            if isinstance(raw, dict) and "use" not in raw and isinstance(each.default, str):
                raw = {"use": each.default, **raw}
            return self.node(marker.kind, raw, path, marker.extra)
        if isinstance(marker, Slots):
            return self.set(marker, raw, path)
        section = parts.section_of(each.annotation)
        if section is not None:
            return self.keys(parts.fields_of(section), raw, path, repr(path[-1]), hint)
        if isinstance(raw, dict):
            raw = {key: value for key, value in raw.items() if value is not None}
        try:
            values.read_value(each.annotation, raw)
        except (ValueError, TypeError):
            clue = nearest(raw, values.choices(each.annotation)) if isinstance(raw, str) else ""
            problem = f"{path[-1]!r} is {_cut(repr(raw))}, but must be {values.words(each.annotation)}.{clue}"
            self.tell(BadValue, problem, path, hint)
        return raw

    def node(self, kind: str, raw: Any, path: KeyPath, extra: type | None = None) -> dict[str, Any]:
        if isinstance(raw, str):
            raw = {"use": raw}
        if not (isinstance(raw, dict) and isinstance(raw.get("use"), str)):
            hint = f"write {path[-1]}: {{use: NAME}}; ganvas list {parts.SHELVES[kind]}"
            self.tell(BadValue, f"{path[-1]!r} names no {kind}: {_cut(repr(raw))}", path, hint)
            return {}
        part = self.exists(kind, raw["use"], (*path, "use") if (*path, "use") in self.marks else path)
        if part is None:
            return {}
        fields = {**part.fields(), **(parts.fields_of(extra) if extra else {})}
        own = {key: value for key, value in raw.items() if key != "use"}
        return {
            "use": part.name,
            **self.keys(fields, own, path, f"{kind} {part.name!r}", f"ganvas show {kind} {part.name}"),
        }

    def exists(self, kind: str, name: str, path: KeyPath) -> parts.Part | None:
        try:
            return parts.find(kind, name)
        except UnknownPart as error:
            self.tell(UnknownPart, error.problem, path, error.hint)
            return None

    def set(self, marker: Slots, raw: Any, path: KeyPath) -> dict[str, Any]:
        if not isinstance(raw, dict):
            hint = f"write {path[-1]}: {{NAME: {{…}}}}; ganvas list {parts.SHELVES[marker.kind]}"
            self.tell(BadValue, f"{path[-1]!r} is a set of parts of kind {marker.kind}, not {raw!r}", path, hint)
            return {}
        filled: dict[str, Any] = {}
        for key, node in raw.items():
            here = (*path, key)
            if node is None:  # dropped, though it is not there; a name that is nowhere was meant to be another
                if marker.keys == "name":
                    self.exists(marker.kind, key, here)
            elif here in self.lost:
                filled[key] = {}
            else:
                if marker.keys == "name" and isinstance(node, dict):
                    node = {"use": key, **node}
                filled[key] = self.node(marker.kind, node, here, marker.extra)
        return filled


def _missing_hint(each: Field, path: KeyPath, otherwise: str) -> str:
    kind = getattr(each.marker, "kind", None)
    return (
        f"set {'.'.join(path)} (ganvas list {parts.SHELVES[kind]})" if kind else f"set {'.'.join(path)}=…; {otherwise}"
    )
