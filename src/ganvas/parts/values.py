"""Plain values of a recipe: read by a type annotation, and described for people and for JSON Schema."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

_INT64 = 2**63 - 1  # no count, size or seed of ours is larger, and tensors cannot be


@functools.cache
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # Any hashable annotation will do; arbitrary classes are let through for parts that Python hands over ready made.
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if isinstance(bare, type) and dataclasses.is_dataclass(bare):
        return TypeAdapter(annotation)
    # What is neither finite nor a number is no setting; JSON could not carry it into a model file either.
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))


def read_value(annotation: Any, value: Any) -> Any:
    """A plain recipe value as the annotated type; lists become tuples, integers floats, nothing else is bent.

    Raises
    ------
    ValueError : pydantic's, with one line a problem.
    """
    if _largest(value) > _INT64:
        raise ValueError("a number with too many digits")
    # JSON is the strict mode in which a list may stand for a tuple and a string for a path, as in a recipe.
    return _adapter(annotation).validate_json(json.dumps(value), strict=True)


def _largest(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def value_schema(annotation: Any) -> dict[str, Any]:
    """JSON Schema of a plain value."""
    return typing.cast("dict[str, Any]", _adapter(annotation).json_schema())


def plain(value: Any) -> Any:
    """A default as it would stand in a recipe: tuples as lists, paths as strings, parts left as they are named."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name.removesuffix("_"): plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


# ---------------------------------------------------------------------------------------------------- words

_NAMES: Mapping[Any, str] = {type(None): "null", str: "text", Path: "path", Any: "anything"}


def words(annotation: Any) -> str:
    """A type as it is told to people: `int > 0`, `"a" | "b"`, `[0 <= float < 1, 0 <= float < 1]`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(words(inner[0]), inner[1:])
    if origin is Literal:
        return " | ".join(json.dumps(word, ensure_ascii=False) for word in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(words(member) for member in inner)
    if origin is tuple and inner[-1:] == (Ellipsis,):
        return f"list of {_grouped(inner[0])}"
    if origin is tuple:
        return f"[{', '.join(words(member) for member in inner)}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "map" if inner[1] is Any else f"map of {_grouped(inner[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {_grouped(inner[0])}"
    if annotation in _NAMES:
        return _NAMES[annotation]
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def choices(annotation: Any) -> list[str]:
    """The words that an annotation lets one choose from, also where it is optional."""
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for inner in get_args(annotation) if get_origin(annotation) is not None for word in choices(inner)]


def _grouped(annotation: Any) -> str:
    said = words(annotation)
    return f"({said})" if " " in said and said[0] not in "([" else said


def _bounded(said: str, limits: Sequence[Any]) -> str:
    left = right = ""
    for limit in limits:
        if isinstance(limit, Ge):
            left = f"{limit.ge} <= "
        elif isinstance(limit, Gt):
            left = f"{limit.gt} < "
        elif isinstance(limit, Le):
            right = f" <= {limit.le}"
        elif isinstance(limit, Lt):
            right = f" < {limit.lt}"
    if left and not right:  # one bound reads better behind the name: `int > 0`
        number, sign = left.split()
        return f"{said} {'>' if sign == '<' else '>='} {number}"
    return f"{left}{said}{right}"
