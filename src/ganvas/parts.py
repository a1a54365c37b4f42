"""Named parts on shelves: how they are registered, found, described, checked and built.

A part is a class or a function under a decorator that is named after its kind::

    @regularizer("r1", paper="Mescheder et al. 2018, eq. 9", system="reg-norm-study")
    class R1:
        '''Zero-centred gradient penalty on real data.'''
        def __init__(self, *, on: Literal["real", "fake"] = "real"): ...

Its keyword-only typed parameters *are* the schema of its recipe entry; positional ones are given by whoever builds it.
A parameter may itself be a part, a set of parts, a factory of parts, or a group of flat keys; see `Slot`, `Slots`,
`Factory` and `Flat`.

Shelves are read as source, not imported: names, summaries and places are known in milliseconds and a module is imported
only when one of its parts is used. So decorator arguments must be literals.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from ganvas.errors import BadValue, GanvasError, UnknownPart, UsageError, nearest
from ganvas.values import read_value

SHELVES: dict[str, str] = {
    "dataset": "data",
    "network": "networks",
    "mixer": "mixers",
    "conditioning": "conditioning",
    "objective": "objectives",
    "regularizer": "regularizers",
    "augment": "augment",
    "task": "tasks",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "sampler": "samplers",
    "extractor": "features",
    "metric": "metrics",
    "edit": "edits",
    "surgery": "surgery",
    "forensic": "forensics",
    "analysis": "analysis",
    "sink": "sinks",
}
"""kind -> the package under `ganvas` that holds its parts."""

REQUIRED: Any = dataclasses.MISSING
"""The default of a parameter that has none."""

T = TypeVar("T", bound=Callable[..., Any])


# ---------------------------------------------------------------------------------------------------- markers


@dataclass(frozen=True)
class Slot:
    """`Annotated[Objective, Slot("objective")]`: the parameter is one part, built before it is handed in."""

    kind: str
    extra: type | None = None  # a dataclass of keys that belong to the owner; the part arrives as `Entry`


@dataclass(frozen=True)
class Slots:
    """`Annotated[Mapping[str, Entry[Term]], Slots("regularizer", Term)]`: a set of parts; the key is the name."""

    kind: str
    extra: type | None = None
    keys: str = "name"  # or "role" or "path": that is what the key is, and `use:` names the part


@dataclass(frozen=True)
class Factory:
    """`Annotated[Callable[..., CriticHead], Factory("conditioning")]`: handed in unbuilt, for its owner to call
    with the positional arguments that only the owner knows."""

    kind: str
    extra: None = None


@dataclass(frozen=True)
class Flat:
    """`Annotated[ImageOptions, Flat()]`: a dataclass whose fields are keys beside the part's own."""


Marker = Slot | Slots | Factory


@dataclass(frozen=True)
class Entry:
    """A part together with the keys that its owner put beside it."""

    name: str
    part: Any
    extra: Any


@dataclass(frozen=True)
class Field:
    """One key of a part or section: its annotation, its default (`REQUIRED` where there is none), its marker."""

    key: str
    parameter: str
    annotation: Any
    default: Any
    marker: Marker | None = None
    group: tuple[str, type] | None = None  # the Flat parameter that it belongs to, and its dataclass

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


# ---------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Part:
    """What a shelf knows of a part without importing it."""

    kind: str
    name: str
    module: str
    symbol: str
    file: Path
    line: int
    summary: str
    doc: str = field(repr=False)
    system: str | None = None  # catalogue id
    paper: str = ""  # authors, year, equation
    tiny: Mapping[str, Any] = field(default_factory=dict)  # keys that make it small enough for a check

    @property
    def where(self) -> str:
        """`file:line`, relative to the working directory where that is shorter."""
        try:
            return f"{self.file.relative_to(Path.cwd())}:{self.line}"
        except ValueError:
            return f"{self.file}:{self.line}"

    def load(self) -> Callable[..., Any]:
        """Import the part's module and return the class or function itself."""
        if self.module not in sys.modules and not self.module.startswith("ganvas."):
            _import_file(self.module, self.file)
        return typing.cast("Callable[..., Any]", getattr(importlib.import_module(self.module), self.symbol))

    def fields(self) -> dict[str, Field]:
        """The recipe keys of this part, in the order of its signature."""
        return _fields_of(self.load())


def shelf(kind: str) -> Callable[..., Callable[[T], T]]:
    """The decorator that puts parts of one kind on their shelf.

    The work is done by reading the source (`_scan`); at run time the decorator only marks its object, and raises where
    a positional name is missing.
    """

    def decorate(name: str, *, system: str | None = None, paper: str = "", tiny: Mapping[str, Any] | None = None):  # type: ignore[no-untyped-def]
        def mark(thing: T) -> T:
            thing.part_kind, thing.part_name = kind, name  # type: ignore[attr-defined]
            return thing

        return mark

    decorate.__name__ = kind
    return decorate


dataset = shelf("dataset")
network = shelf("network")
mixer = shelf("mixer")
conditioning = shelf("conditioning")
objective = shelf("objective")
regularizer = shelf("regularizer")
augment = shelf("augment")
task = shelf("task")
optimizer = shelf("optimizer")
schedule = shelf("schedule")
sampler = shelf("sampler")
extractor = shelf("extractor")
metric = shelf("metric")
edit = shelf("edit")
surgery = shelf("surgery")
forensic = shelf("forensic")
analysis = shelf("analysis")
sink = shelf("sink")


def kind_of(word: str) -> str:
    """The kind that a user means by `objectives`, `objective` or the folder's name.

    Raises
    ------
    UnknownPart : where no shelf is called so.
    """
    folders = {folder: kind for kind, folder in SHELVES.items()}
    for candidate in (word, word.removesuffix("s"), word.removesuffix("s") + "s"):
        if candidate in SHELVES:
            return candidate
        if candidate in folders:
            return folders[candidate]
    names = [*SHELVES, *folders, "recipes", "systems"]
    raise UnknownPart(f"there is no shelf {word!r}.{nearest(word, names)}", hint="ganvas list")


def every(kind: str | None = None) -> list[Part]:
    """All parts, or those of one kind, sorted by kind and name."""
    return sorted(
        (part for shelf in _index().values() for part in shelf.values() if kind in (None, part.kind)),
        key=lambda part: (list(SHELVES).index(part.kind), part.name),
    )


def find(kind: str, name: str, *, where: str = "") -> Part:
    """The part of this kind with this name.

    Raises
    ------
    UnknownPart : names the nearest match, and the shelf where the name exists on another one.
    """
    shelf_ = _index()[kind]
    if name in shelf_:
        return shelf_[name]
    other = [other for other, parts in _index().items() if name in parts]
    clue = f" {name!r} is a part of kind {other[0]!r}." if other else nearest(name, shelf_)
    raise UnknownPart(f"no {kind} is called {name!r}.{clue}", where=where, hint=f"ganvas list {SHELVES[kind]}")


def add_file(path: str | Path) -> list[Part]:
    """Put the parts of a Python file outside the package on the shelves (`--parts my_loss.py`).

    The file's code runs when one of its parts is used, so only files that the user names come here, never ones named by
    a recipe or a model file.

    Raises
    ------
    UsageError : the file is missing, is not Python, holds no part, or a name in it is taken.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise UsageError(
            f"there is no file {path}", where="--parts", hint="give the path of a Python file that defines parts"
        )
    module = "ganvas_parts_" + re.sub(r"\W", "_", str(file.with_suffix("")))
    try:
        compile(file.read_bytes(), str(path), "exec")  # the whole of it, before anything is looked for in it
        found = _scan(file, module)
    except SyntaxError as error:
        raise UsageError(
            f"{error.msg}: {(error.text or '').strip()}",
            where=f"{path}:{error.lineno}",
            hint="mend the file and try again",
        ) from None
    if not found:
        raise UsageError(
            f"{path} holds no part",
            where="--parts",
            hint='a part is a class under a decorator, like @objective("my-loss") from ganvas.parts',
        )
    taken = {kind: dict(shelf_) for kind, shelf_ in _index().items()}
    for part in found:
        present = taken[part.kind].get(part.name)
        if present and (present.file, present.symbol) != (part.file, part.symbol):
            raise UsageError(
                f"{part.kind} {part.name!r} is already defined at {present.where}",
                where=part.where,
                hint="choose another name",
            )
        taken[part.kind][part.name] = part
    for part in found:
        _index()[part.kind][part.name] = part
    return found


# ---------------------------------------------------------------------------------------------------- the index

_OPTIONS = {"system", "paper", "tiny"}
_DECORATED = re.compile(r"^@(?:\w+\.)*(" + "|".join(SHELVES) + r")\(", re.MULTILINE)


@functools.cache
def _index() -> dict[str, dict[str, Part]]:
    """kind -> name -> part, for every module on every shelf."""
    root = Path(__file__).parent
    index: dict[str, dict[str, Part]] = {kind: {} for kind in SHELVES}
    for folder in SHELVES.values():
        for file in sorted((root / folder).rglob("*.py")):
            module = ".".join(("ganvas", *file.relative_to(root).with_suffix("").parts))
            for part in _scan(file, module):
                if part.name in index[part.kind]:
                    raise RuntimeError(f"{part.where}: {part.name!r} is also at {index[part.kind][part.name].where}")
                index[part.kind][part.name] = part
    return index


def _scan(file: Path, module: str) -> list[Part]:
    """The parts of one source file, read without running it."""
    source = file.read_text(encoding="utf-8")
    if not _DECORATED.search(source):
        return []
    found = []
    for node in ast.parse(source, filename=str(file)).body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            continue
        for decorator in node.decorator_list:
            kind = _decorator_name(decorator)
            if kind not in SHELVES or not (isinstance(decorator, ast.Call) and decorator.args):
                continue
            try:
                options = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords if word.arg}
                name = ast.literal_eval(decorator.args[0])
            except ValueError:
                raise UsageError(
                    "arguments of a part's decorator must be plain values",
                    where=f"{file}:{decorator.lineno}",
                    hint='write @objective("my-loss", paper="...") with literal strings, numbers and dicts',
                ) from None
            for option in options.keys() - _OPTIONS:
                raise UsageError(
                    f"a part has no option {option!r}.{nearest(option, _OPTIONS)}",
                    where=f"{file}:{decorator.lineno}",
                    hint=f"its options are {', '.join(sorted(_OPTIONS))}",
                )
            doc = ast.get_docstring(node) or ""
            found.append(
                Part(
                    kind=kind, name=str(name), module=module, symbol=node.name, file=file,
                    line=node.lineno, summary=doc.split("\n\n")[0].replace("\n", " "), doc=doc, **options,
                )
            )  # fmt: skip
    return found


def _decorator_name(decorator: ast.expr) -> str:
    """`objective` of both `@objective(…)` and `@parts.objective(…)`."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _import_file(module: str, file: Path) -> None:
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except GanvasError:
        raise
    except Exception as error:
        del sys.modules[module]
        raise UsageError(
            f"{type(error).__name__}: {error}", where=str(file), hint="the file must import cleanly"
        ) from error


# ---------------------------------------------------------------------------------------------------- schemas


@functools.cache
def _fields_of(thing: Callable[..., Any]) -> dict[str, Field]:
    """Keyword-only parameters of a part, or the fields of a dataclass, as recipe keys."""
    if dataclasses.is_dataclass(thing) and isinstance(thing, type) and not hasattr(thing, "part_kind"):
        return dict(_dataclass_fields(thing))
    function = thing.__init__ if isinstance(thing, type) else thing  # type: ignore[misc]
    if function is object.__init__:
        return {}
    place = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UsageError(
            f"a type of {thing.__name__}'s keys is not known: {error}", where=place,
            hint="import it where it is used, outside `if TYPE_CHECKING`",
        ) from None  # fmt: skip
    fields: dict[str, Field] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.name not in hints:
            raise UsageError(
                f"the key {parameter.name!r} of {thing.__name__} has no type", where=place,
                hint=f"write it as {parameter.name}: float = 1.0, or the like",
            )  # fmt: skip
        default = REQUIRED if parameter.default is inspect.Parameter.empty else parameter.default
        annotation = hints[parameter.name]
        if _marker(annotation, Flat):
            for key, each in _dataclass_fields(get_args(annotation)[0]):
                fields[key] = dataclasses.replace(each, group=(parameter.name, get_args(annotation)[0]))
        else:
            fields_key = parameter.name.removesuffix("_")
            fields[fields_key] = Field(fields_key, parameter.name, annotation, default, _any_marker(annotation))
    return fields


def fields_of(section: type) -> dict[str, Field]:
    """The recipe keys of a dataclass."""
    return _fields_of(section)


def _dataclass_fields(section: type) -> Iterator[tuple[str, Field]]:
    hints = typing.get_type_hints(section, include_extras=True)
    for each in dataclasses.fields(section):
        default = each.default
        if default is dataclasses.MISSING and each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        key = each.name.removesuffix("_")
        yield key, Field(key, each.name, hints[each.name], default, _any_marker(hints[each.name]))


def _marker(annotation: Any, marker: type) -> Any:
    if get_origin(annotation) is Annotated:
        return next((extra for extra in get_args(annotation)[1:] if isinstance(extra, marker)), None)
    return None


def _any_marker(annotation: Any) -> Marker | None:
    """The marker of an annotation, also where it is optional (`Annotated[...] | None`)."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((found for each in get_args(annotation) if (found := _any_marker(each))), None)
    for kind in (Slot, Slots, Factory):
        if found := _marker(annotation, kind):
            return typing.cast("Marker", found)
    return None


# ---------------------------------------------------------------------------------------------------- building


def build(kind: str, node: Mapping[str, Any], *given: Any) -> Any:
    """A part from its validated recipe node, nested parts first.

    `given` are the positional arguments of its kind. A function part comes back with its keys bound.
    """
    part = find(kind, node["use"])
    values = _arguments(part.fields(), {key: value for key, value in node.items() if key != "use"})
    thing = part.load()
    if isinstance(thing, type):
        return thing(*given, **values)
    return functools.partial(thing, *given, **values)


def preview(part: Part, node: Mapping[str, Any]) -> Any:
    """What a data set's `preview` promises for these keys, without touching its files."""
    return part.load().preview(**_arguments(part.fields(), node))  # type: ignore[attr-defined]


def build_set(kind: str, nodes: Mapping[str, Mapping[str, Any]], extra: type, *given: Any) -> dict[str, Entry]:
    """Every node of a set, each an `Entry`; a `BadValue` that a part raises is told its place in the set."""
    built = {}
    for name, node in nodes.items():
        own, beside = split(extra, node)
        try:
            built[name] = Entry(name, build(kind, own, *given), build_section(extra, beside))
        except BadValue as error:
            error.where = error.where or ".".join(filter(None, (name, error.key)))
            raise
    return built


def build_section(section: type, node: Mapping[str, Any]) -> Any:
    """A dataclass from its validated recipe section."""
    return section(**_arguments(fields_of(section), node))


def split(extra: type, node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the part's own node, the keys that belong to its owner) of a slot with extra keys."""
    keys = fields_of(extra)
    return {k: v for k, v in node.items() if k not in keys}, {k: v for k, v in node.items() if k in keys}


def _arguments(fields: Mapping[str, Field], node: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    groups: dict[tuple[str, type], dict[str, Any]] = {}
    for key, raw in node.items():
        each = fields[key]
        value = _value(each, raw)
        if each.group:
            groups.setdefault(each.group, {})[each.parameter] = value
        else:
            values[each.parameter] = value
    for (parameter, section), members in groups.items():
        values[parameter] = section(**members)
    return values


def _value(each: Field, raw: Any) -> Any:
    if each.marker is None:
        section = section_of(each.annotation)
        if section and raw is not None:
            return build_section(section, raw)
        return read_value(each.annotation, raw)
    if raw is None:
        return None
    if isinstance(each.marker, Factory):
        return functools.partial(build, each.marker.kind, raw)
    if isinstance(each.marker, Slot):
        return _entry(each.marker, each.key, raw)
    return {name: _entry(each.marker, name, node) for name, node in raw.items()}


def _entry(marker: Slot | Slots, name: str, node: Mapping[str, Any]) -> Any:
    if marker.extra is None:
        return build(marker.kind, node)
    own, extra = split(marker.extra, node)
    return Entry(name, build(marker.kind, own), build_section(marker.extra, extra))


def section_of(annotation: Any) -> type | None:
    """The dataclass that an annotation asks for (also `Section | None`), or None."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and dataclasses.is_dataclass(each):
            return each
    return None
