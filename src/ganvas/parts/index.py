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
import functools
import importlib
import importlib.util
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ganvas.errors import GanvasError, UnknownPart, UsageError, nearest
from ganvas.parts.schema import Field, fields_of

SHELVES: dict[str, str] = {
    "modality": "modalities",
    "dataset": "data",
    "network": "networks",
    "mixer": "mixers",
    "conditioning": "conditioning",
    "objective": "objectives",
    "regularizer": "regularizers",
    "augment": "augment",
    "path": "paths",
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
"""kind -> the package under `ganvas.shelves` that holds its parts."""

BASES: dict[str, tuple[str, ...]] = {
    "modality": ("Modality",),
    "dataset": ("Dataset", "StreamedDataset"),
    "network": ("Network",),
    "conditioning": ("CriticHead",),
    "objective": ("Objective",),
    "regularizer": ("Regularizer", "Constraint", "Gauge"),
    "augment": ("Augment",),
    "path": ("Path",),
    "task": ("Task",),
    "sampler": ("Sampler",),
    "extractor": ("Extractor",),
    "metric": ("Metric",),
    "analysis": ("Analysis",),
    "edit": ("Edit",),
    "sink": ("Sink",),
}
"""kind -> the classes of `ganvas.types` of which a part of this kind is one. The other kinds are plain functions."""

T = TypeVar("T", bound=Callable[..., Any])


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
        thing = getattr(importlib.import_module(self.module), self.symbol)
        self._check_base(thing)
        return typing.cast("Callable[..., Any]", thing)

    def _check_base(self, thing: Any) -> None:
        """Refuse a class that does not say what it is, or leaves a method of its kind out."""
        if self.kind not in BASES:
            return
        types = importlib.import_module("ganvas.types")
        bases = tuple(getattr(types, name) for name in BASES[self.kind])
        words = " or ".join(BASES[self.kind])
        if not isinstance(thing, type):
            raise UsageError(
                f"{self.kind} {self.name!r} is a function, and should be a class", where=self.where,
                hint=f"derive a class from {words} of ganvas.types",
            )  # fmt: skip
        if not issubclass(thing, bases):
            raise UsageError(
                f"{thing.__name__} is no {words}", where=self.where,
                hint=f"write class {thing.__name__}({BASES[self.kind][0]}), after from ganvas.types import "
                f"{BASES[self.kind][0]}",
            )  # fmt: skip
        missing = sorted(thing.__abstractmethods__)  # type: ignore[attr-defined]
        if missing:
            raise UsageError(
                f"{thing.__name__} has no {' and no '.join(missing)}", where=self.where,
                hint=f"a {self.kind} has to have it; see {words} in ganvas.types",
            )  # fmt: skip

    def fields(self) -> dict[str, Field]:
        """The recipe keys of this part, in the order of its signature."""
        return fields_of(self.load())


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


modality = shelf("modality")
dataset = shelf("dataset")
network = shelf("network")
mixer = shelf("mixer")
conditioning = shelf("conditioning")
objective = shelf("objective")
regularizer = shelf("regularizer")
augment = shelf("augment")
path = shelf("path")
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
    names = [*SHELVES, *folders, "recipes", "protocols", "systems"]
    raise UnknownPart(f"there is no shelf {word!r}.{nearest(word, names)}", hint="ganvas list --help")


def every(kind: str | None = None) -> list[Part]:
    """All parts, or those of one kind, sorted by kind and name."""
    return sorted(
        (
            part
            for shelves in (_index(), _added)
            for shelf in shelves.values()
            for part in shelf.values()
            if kind in (None, part.kind)
        ),
        key=lambda part: (list(SHELVES).index(part.kind), part.name),
    )


def find(kind: str, name: str, *, where: str = "") -> Part:
    """The part of this kind with this name.

    Raises
    ------
    UnknownPart : names the nearest match, and the shelf where the name exists on another one.
    """
    shelf_ = {**_index()[kind], **_added[kind]}
    if name in shelf_:
        return shelf_[name]
    other = [other for other, parts in _index().items() if name in parts or name in _added[other]]
    clue = nearest(name, shelf_) + (f" {name!r} is a part of kind {other[0]!r}." if other else "")
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
        defined = _scan(file, module)
    except SyntaxError as error:
        raise UsageError(
            f"{error.msg}: {(error.text or '').strip()}",
            where=f"{path}:{error.lineno}",
            hint="mend the file and try again",
        ) from None
    if not defined:
        raise UsageError(
            f"{path} holds no part",
            where="--parts",
            hint='a part is a class under a decorator, like @objective("my-loss") from ganvas.parts',
        )
    taken = {kind: {**shelf_, **_added[kind]} for kind, shelf_ in _index().items()}
    for part in defined:
        present = taken[part.kind].get(part.name)
        if present and (present.file, present.symbol) != (part.file, part.symbol):
            raise UsageError(
                f"{part.kind} {part.name!r} is already defined at {present.where}",
                where=part.where,
                hint="choose another name",
            )
        taken[part.kind][part.name] = part
    for part in defined:
        _added[part.kind][part.name] = part
    return defined


def drop_added() -> None:
    """Take every part that `add_file` brought off the shelves again."""
    for shelf_ in _added.values():
        shelf_.clear()


# ---------------------------------------------------------------------------------------------------- the index

_added: dict[str, dict[str, Part]] = {kind: {} for kind in SHELVES}
"""kind -> name -> part, for files of the user's."""

_OPTIONS = {"system", "paper", "tiny"}
_DECORATED = re.compile(r"^@(?:\w+\.)*(" + "|".join(SHELVES) + r")\(", re.MULTILINE)


@functools.cache
def _index() -> dict[str, dict[str, Part]]:
    """kind -> name -> part, for every module on every shelf."""
    shelves = Path(__file__).parents[1] / "shelves"
    index: dict[str, dict[str, Part]] = {kind: {} for kind in SHELVES}
    for folder in SHELVES.values():
        for file in sorted((shelves / folder).rglob("*.py")):
            module = ".".join(("ganvas.shelves", *file.relative_to(shelves).with_suffix("").parts))
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
    defined = []
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
            defined.append(
                Part(
                    kind=kind, name=str(name), module=module, symbol=node.name, file=file,
                    line=node.lineno, summary=doc.split("\n\n")[0].replace("\n", " "), doc=doc, **options,
                )
            )  # fmt: skip
    return defined


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
