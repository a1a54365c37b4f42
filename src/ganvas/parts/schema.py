"""The keys of parts: markers in annotations, and signatures and dataclasses as recipe keys."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from ganvas.errors import UsageError

REQUIRED: Any = dataclasses.MISSING
"""The default of a parameter that has none."""


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


# ---------------------------------------------------------------------------------------------------- schemas


@functools.cache
def fields_of(thing: Callable[..., Any]) -> dict[str, Field]:
    """Keyword-only parameters of a part, or the fields of a dataclass, as recipe keys."""
    if dataclasses.is_dataclass(thing) and isinstance(thing, type) and "part_kind" not in vars(thing):
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
            for key, field in _dataclass_fields(get_args(annotation)[0]):
                fields[key] = dataclasses.replace(field, group=(parameter.name, get_args(annotation)[0]))
        else:
            fields_key = parameter.name.removesuffix("_")
            fields[fields_key] = Field(fields_key, parameter.name, annotation, default, _any_marker(annotation))
    return fields


def _dataclass_fields(section: type) -> Iterator[tuple[str, Field]]:
    hints = typing.get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        key = field.name.removesuffix("_")
        yield key, Field(key, field.name, hints[field.name], default, _any_marker(hints[field.name]))


def _marker(annotation: Any, marker: type) -> Any:
    if get_origin(annotation) is Annotated:
        return next((extra for extra in get_args(annotation)[1:] if isinstance(extra, marker)), None)
    return None


def _any_marker(annotation: Any) -> Marker | None:
    """The marker of an annotation, also where it is optional (`Annotated[...] | None`)."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((marker for member in get_args(annotation) if (marker := _any_marker(member))), None)
    for kind in (Slot, Slots, Factory):
        if marker := _marker(annotation, kind):
            return typing.cast("Marker", marker)
    return None


def section_of(annotation: Any) -> type | None:
    """The dataclass that an annotation asks for (also `Section | None`), or None."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None
