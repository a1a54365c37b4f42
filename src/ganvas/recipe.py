"""Recipes: what to build, as plain data.

A recipe is read from YAML, laid over its `base:`, changed by `key=value`, checked against the schemas of the parts that it
names, and filled with every default. Nothing is built here and nothing is written but by `save`.
"""

from __future__ import annotations

import copy
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
from ganvas.files import model_metadata
from ganvas.parts import Factory, Field, Slot, Slots
from ganvas.yaml12 import KeyPath, Mark

Positive = Annotated[int, Gt(0)]
SHIPPED = Path(__file__).parent / "recipes"
PROTOCOLS = Path(__file__).parent / "protocols"
DEFAULT = "digits"
"""The recipe that `ganvas train` takes when none is named."""


# --------------------------------------------------------------------------------------------------- the schema


@dataclass(frozen=True)
class Train:
    """How long, how much at once, how exactly."""

    steps: Positive = 10_000
    batch: Positive = 64
    seed: Annotated[int, Ge(0)] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the forward passes; weights and penalties stay float32
    accumulate: Positive = 1  # micro-batches that a batch is cut into
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
class Weights:
    """Where a network's weights come from, and which of them stay as they are."""

    from_: str | None = None  # a run folder or model.safetensors
    net: str | None = None  # its role there; None: the same
    freeze: Literal["all"] | tuple[str, ...] | None = None  # or the beginnings of parameter names


@dataclass(frozen=True)
class Schema:
    """A whole recipe."""

    data: Annotated[Any, Slot("dataset")]
    networks: Annotated[Mapping[str, Any], Slots("network", Weights, keys="role")]
    task: Annotated[Any, Slot("task")]
    optim: Annotated[Any, Slot("optimizer", OptimOptions)] = "adam"
    ema: Ema | None = None
    train: Train = Train()
    eval: Eval | None = None
    sampler: Annotated[Any, Slot("sampler")] | None = None
    sinks: Annotated[Mapping[str, Any], Slots("sink")] = field(default_factory=dict)
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
            base_name = data.pop("base")
            if not isinstance(base_name, str):
                raise BadValue("base: is the name or path of one recipe", where=str(marks[("base",)]))
            base_file = locate(base_name, beside=file.parent, where=str(marks[("base",)]))
            base, base_marks = _read(base_file)
            if "base" in base:
                raise RecipeError(
                    f"the base {base_name!r} has a base itself; one level is as deep as it goes",
                    where=str(base_marks[("base",)]), hint="copy what is needed into one of the two",
                )  # fmt: skip
            marks = {**base_marks, **marks}
            data = _merge(base, data)
        return cls(_drop_none(data), file.stem, marks).override(*overrides)

    def override(self, *assignments: str) -> Recipe:
        """A recipe with `key=value` applied in order; a name put on a part replaces it, `~` drops the key."""
        data, marks = copy.deepcopy(dict(self.data)), dict(self.marks)
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            path = tuple(key.strip().split("."))
            if not equals or not all(path):
                raise UsageError(
                    f"{assignment!r} is no override",
                    where="command line",
                    hint="write key=value, such as train.steps=500",
                )
            place = f"command line: {assignment}"
            # Shells turn the unquoted ~ of `key=~` into the home folder; nobody means that folder itself.
            value = None if text == str(Path.home()) else yaml12.read(text, place)[0]
            marks = {old: mark for old, mark in marks.items() if old[: len(path)] != path}
            marks[path] = Mark(place)
            _assign(data, path, value, place)
        return Recipe(data, self.name, marks)

    def resolve(self) -> dict[str, Any]:
        """Every key checked and every default filled; plain data that `resolve` maps to itself.

        Raises
        ------
        RecipeError : all problems at once, each with its place.
        """
        checker = _Checker(self.marks)
        resolved = checker.recipe(copy.deepcopy(dict(self.data)))
        if checker.problems:
            raise RecipeError.of(checker.problems)
        return resolved

    def save(self, path: Path) -> None:
        """Write as YAML that loads to the same recipe."""
        path.write_text(yaml12.write(dict(self.data)), encoding="utf-8")


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
        raise RecipeError(f"there is no recipe file {text}", where=where, hint="ganvas list recipes")
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
        in_tiny = file.parent.name == "tiny"
        found[f"tiny/{file.stem}" if in_tiny else file.stem] = file
    return found


def used_parts(node: Any) -> Iterator[str]:
    """The names that a recipe mentions: every `use:`, every key of a set, every bare word. For `ganvas show`."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key)
            yield from used_parts(value)
    elif isinstance(node, str):
        yield node


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
        node.update({key: values.plain(value) for key, value in parts.find("network", node["use"]).tiny.items()})
        node.update({"from": None, "freeze": None})
    small["train"] = {**small["train"], "steps": 1, "batch": 4, "accumulate": 1, "compile": False}
    return small


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
    filled = checker.keys(parts.fields_of(section), raw, (), owner, "")
    if checker.problems:
        raise RecipeError.of(checker.problems)
    return filled


# --------------------------------------------------------------------------------------------------- laying together


def _read(file: Path) -> tuple[dict[str, Any], dict[KeyPath, Mark]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=str(file)) from None
    data, marks = yaml12.read(text, _shown(file))
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a map of keys", where=_shown(file), hint="ganvas show recipe digits")
    return data, marks


def _shown(file: Path) -> str:
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def _merge(base: Any, top: Any) -> Any:
    """`top` over `base`: maps key by key, a new name replaces its node, None drops."""
    if isinstance(base, str) and isinstance(top, dict) and "use" not in top:
        base = {"use": base}
    if isinstance(base, dict) and isinstance(top, str) and "use" in base:
        return {"use": top}
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    if "use" in top and top["use"] != base.get("use", top["use"]):
        return top
    merged = dict(base)
    for key, value in top.items():
        merged[key] = _merge(base[key], value) if key in base else value
    return merged


def _drop_none(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _drop_none(value) for key, value in node.items() if value is not None}
    return node


def _assign(data: dict[str, Any], path: KeyPath, value: Any, place: str) -> None:
    here = data
    for key in path[:-1]:
        below = here.get(key)
        if isinstance(below, str):
            below = {"use": below}
        elif below is None:
            below = {}
        elif not isinstance(below, dict):
            raise BadValue(f"{key!r} holds {below!r}, which has no keys below it", where=place)
        here[key] = below
        here = below
    last = path[-1]
    if value is None:
        here.pop(last, None)
    else:
        here[last] = _drop_none(_merge(here.get(last), value) if isinstance(value, str) else value)


# --------------------------------------------------------------------------------------------------- checking


class _Checker:
    """Walks a recipe along the schemas; gathers every problem instead of stopping at the first."""

    def __init__(self, marks: Mapping[KeyPath, Mark]) -> None:
        self.marks = marks
        self.problems: list[RecipeError] = []

    def where(self, path: KeyPath) -> str:
        for cut in range(len(path), -1, -1):
            if path[:cut] in self.marks:
                return f"{self.marks[path[:cut]]}  {'.'.join(path)}".rstrip()
        return ".".join(path)

    # ------------------------------------------------------------------ the whole

    def recipe(self, raw: dict[str, Any]) -> dict[str, Any]:
        self.borrow_networks(raw)
        filled = self.keys(parts.fields_of(Schema), raw, (), "a recipe", "ganvas show recipe")
        if self.problems:
            return filled
        self.roles(filled)
        self.protocol(filled)
        return filled

    def borrow_networks(self, raw: dict[str, Any]) -> None:
        """`from:` without `use:` means the network that is there, as it was built there."""
        networks = raw.get("networks")
        for role, node in networks.items() if isinstance(networks, dict) else ():
            if not (isinstance(node, dict) and isinstance(node.get("from"), str)):
                continue
            try:
                source = model_metadata(Path(node["from"]))["recipe"]["networks"]
                wanted = str(node.get("net", role))
                if wanted not in source:
                    raise CheckpointError(f"it has no network {wanted!r}, but {', '.join(sorted(source))}")
            except CheckpointError as error:
                path = ("networks", role, "from")
                self.problems.append(
                    BadValue(f"{node['from']}: {error.problem}", where=self.where(path), hint=error.hint)
                )
                node.setdefault("use", "unknown")  # one problem, not two
                continue
            if "use" not in node:
                own = {key: value for key, value in source[wanted].items() if key not in parts.fields_of(Weights)}
                node.update({**own, **node})

    def roles(self, filled: dict[str, Any]) -> None:
        task = parts.find("task", filled["task"]["use"])
        wanted: tuple[str, ...] = task.load().roles  # type: ignore[attr-defined]
        for role in wanted:
            if role not in filled["networks"]:
                have = ", ".join(filled["networks"]) or "none"
                self.problems.append(
                    RoleMissing(
                        f"task {task.name!r} needs a network {role!r}; the recipe has {have}",
                        where=self.where(("networks",)), hint=f"networks.{role}=… (ganvas list networks)",
                    )
                )  # fmt: skip
        for role in filled["networks"]:
            if role not in wanted:
                self.problems.append(
                    UnknownKey(
                        f"task {task.name!r} has no role {role!r}.{nearest(role, wanted)}",
                        where=self.where(("networks", role)), hint=f"its roles are {', '.join(wanted)}",
                    )
                )  # fmt: skip
        optimizer = parts.find("optimizer", filled["optim"]["use"])
        for role, keys in filled["optim"]["roles"].items():
            path = ("optim", "roles", role)
            if role not in filled["networks"]:
                self.problems.append(
                    UnknownKey(
                        f"the recipe has no network {role!r}.{nearest(role, filled['networks'])}",
                        where=self.where(path),
                    )
                )
                continue
            fields = optimizer.fields()
            own = {**{key: filled["optim"][key] for key in fields}, **keys}
            self.keys(fields, own, path, f"optimizer {optimizer.name!r}", f"ganvas show optimizer {optimizer.name}")
        if filled["sampler"] is None:
            filled["sampler"] = self.node("sampler", task.load().sampler, ("sampler",))  # type: ignore[attr-defined]

    def protocol(self, filled: dict[str, Any]) -> None:
        wanted = (filled["eval"] or {}).get("protocol")
        if wanted and not wanted.endswith((".yaml", ".yml")) and not (PROTOCOLS / f"{wanted}.yaml").is_file():
            known = [file.stem for file in PROTOCOLS.glob("*.yaml")]
            self.problems.append(
                BadValue(
                    f"no protocol is called {wanted!r}.{nearest(wanted, known)}",
                    where=self.where(("eval", "protocol")), hint=f"there are {', '.join(sorted(known))}",
                )
            )  # fmt: skip

    # ------------------------------------------------------------------ the pieces

    def keys(self, fields: Mapping[str, Field], raw: Any, path: KeyPath, owner: str, hint: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.problems.append(BadValue(f"{owner} is a map of keys, not {raw!r}", where=self.where(path), hint=hint))
            return {}
        for key in raw:
            if key not in fields:
                self.problems.append(
                    UnknownKey(
                        f"{owner} has no parameter {key!r}.{nearest(key, fields)}",
                        where=self.where((*path, key)),
                        hint=hint,
                    )
                )
        filled = {}
        for key, each in fields.items():
            here = (*path, key)
            if raw.get(key) is None:
                if each.required:
                    self.problems.append(
                        BadValue(
                            f"{owner} needs {key!r}",
                            where=self.where(path) or key,
                            hint=_missing_hint(each, here, hint),
                        )
                    )
                    continue
                filled[key] = self.default(each, here)
            else:
                filled[key] = self.value(each, raw[key], here, hint)
        return filled

    def default(self, each: Field, path: KeyPath) -> Any:
        if each.marker is not None and each.default is not None:
            return self.value(each, values.plain(each.default), path, "")
        return values.plain(each.default)

    def value(self, each: Field, raw: Any, path: KeyPath, hint: str) -> Any:
        marker = each.marker
        if isinstance(marker, (Slot, Factory)):
            return self.node(marker.kind, raw, path, marker.extra)
        if isinstance(marker, Slots):
            return self.set(marker, raw, path)
        section = parts.section_of(each.annotation)
        if section is not None:
            return self.keys(parts.fields_of(section), raw, path, repr(path[-1]), hint)
        try:
            values.read_value(each.annotation, raw)
        except ValueError as error:
            self.problems.append(
                BadValue(f"{path[-1]!r} is {raw!r}: {_pydantic_words(error)}", where=self.where(path), hint=hint)
            )
        return raw

    def node(self, kind: str, raw: Any, path: KeyPath, extra: type | None = None) -> dict[str, Any]:
        if isinstance(raw, str):
            raw = {"use": raw}
        if not (isinstance(raw, dict) and isinstance(raw.get("use"), str)):
            self.problems.append(
                BadValue(
                    f"{path[-1]!r} names no {kind}: {raw!r}", where=self.where(path),
                    hint=f"write {path[-1]}: {{use: NAME}}; ganvas list {parts.SHELVES[kind]}",
                )
            )  # fmt: skip
            return {}
        try:
            part = parts.find(kind, raw["use"])
        except UnknownPart as error:
            place = (*path, "use") if (*path, "use") in self.marks else path
            self.problems.append(UnknownPart(error.problem, where=self.where(place), hint=error.hint))
            return {}
        fields = {**part.fields(), **(parts.fields_of(extra) if extra else {})}
        own = {key: value for key, value in raw.items() if key != "use"}
        return {
            "use": part.name,
            **self.keys(fields, own, path, f"{kind} {part.name!r}", f"ganvas show {kind} {part.name}"),
        }

    def set(self, marker: Slots, raw: Any, path: KeyPath) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.problems.append(
                BadValue(
                    f"{path[-1]!r} is a set of parts of kind {marker.kind}, not {raw!r}", where=self.where(path),
                    hint=f"write {path[-1]}: {{NAME: {{…}}}}; ganvas list {parts.SHELVES[marker.kind]}",
                )
            )  # fmt: skip
            return {}
        filled = {}
        for key, node in raw.items():
            if marker.keys == "name" and isinstance(node, dict):
                node = {"use": key, **node}
            filled[key] = self.node(marker.kind, node, (*path, key), marker.extra)
        return filled


def _missing_hint(each: Field, path: KeyPath, otherwise: str) -> str:
    kind = getattr(each.marker, "kind", None)
    return (
        f"set {'.'.join(path)} (ganvas list {parts.SHELVES[kind]})" if kind else f"set {'.'.join(path)}=…; {otherwise}"
    )


def _pydantic_words(error: ValueError) -> str:
    """What pydantic found, in one line; a union reports each of its branches."""
    found = getattr(error, "errors", None)
    if found is None:
        return str(error)
    words = [str(each["msg"]) for each in found() if each["type"] != "none_required"]
    return "; or ".join(dict.fromkeys(word[0].lower() + word[1:] for word in words))


# --------------------------------------------------------------------------------------------------- JSON Schema


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a whole recipe, one definition a part."""
    definitions: dict[str, Any] = {}
    for part in parts.every():
        properties = _properties(part.fields())
        definitions[f"{part.kind}.{part.name}"] = {
            "type": "object",
            "description": part.summary,
            "properties": {"use": {"const": part.name}, **properties},
            "required": ["use", *(key for key, each in part.fields().items() if each.required)],
        }
    root = _properties(parts.fields_of(Schema))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ganvas recipe",
        "type": "object",
        "properties": {"base": {"type": "string"}, **root},
        "anyOf": [{"required": ["base"]}, {"required": ["data", "networks", "task"]}],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _properties(fields: Mapping[str, Field]) -> dict[str, Any]:
    return {key: _field_schema(each) for key, each in fields.items()}


def _field_schema(each: Field) -> dict[str, Any]:
    marker = each.marker
    if marker is None:
        section = parts.section_of(each.annotation)
        if section is not None:
            return {
                "type": "object",
                "properties": _properties(parts.fields_of(section)),
                "additionalProperties": False,
            }
        schema = values.value_schema(each.annotation)
        return schema if each.required else {**schema, "default": values.plain(each.default)}
    extra = _properties(parts.fields_of(marker.extra)) if marker.extra else {}
    names = [part.name for part in parts.every(marker.kind)]
    nodes = [{"$ref": f"#/$defs/{marker.kind}.{name}", **({"properties": extra} if extra else {})} for name in names]
    one: dict[str, Any] = {"anyOf": [{"enum": names}, *nodes]}
    if isinstance(marker, Slots):
        if marker.keys == "role":
            return {"type": "object", "additionalProperties": one}
        loose = {"type": "object", "description": "the key is the part's name, unless `use` says otherwise"}
        return {"type": "object", "additionalProperties": loose, "propertyNames": {"examples": names}}
    return one
