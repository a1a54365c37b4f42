"""Recipes as text: YAML 1.2 read into plain data, with the place of every key and value.

The parser is ruamel.yaml's. Scalars are resolved here by the YAML 1.2 core schema, because `2e-4` must be a number,
`no` a string and a date a string, and because an alias must not be able to blow a small file up.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ganvas.errors import RecipeError

KeyPath = tuple[str, ...]

_MAX_NODES = 100_000  # a recipe has hundreds; more is an alias bomb
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)")
_PLAIN = re.compile(r"[^\W\d][\w./+×–-]*( [\w./+×–-]+)*")  # text that needs no quotes anywhere
_WIDTH = 110
_HINT = "ganvas show recipe digits prints a whole one"
_CORE = "tag:yaml.org,2002:"
# What the parser itself puts on a bare scalar by its own rules, dates and merge keys among them, says nothing here.
_TAGS = {
    "mapping": {f"{_CORE}map"},
    "sequence": {f"{_CORE}seq"},
    "scalar": {_CORE + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")},
}


@dataclass(frozen=True)
class Mark:
    """Where something was written: a file's line and column (from 1), or the command line."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


def read(text: str, file: str) -> tuple[Any, dict[KeyPath, Mark]]:
    """(plain data, where each key stands). List items are keyed by their index as a string.

    Raises
    ------
    RecipeError : the text is not YAML, repeats a key, or has keys that are not words.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        root = YAML(typ="safe", pure=True).compose(io.StringIO(text))
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = Mark(file, at.line + 1, at.column + 1) if at else Mark(file)
        clue = "indent with spaces, not tabs; " if "'\\t'" in str(error.problem) else ""
        raise RecipeError(
            f"not readable as YAML: {error.problem or error.context}", where=str(place), hint=f"{clue}{_HINT}"
        ) from None
    except (YAMLError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecipeError(f"not readable as YAML: {reason}", where=file, hint=_HINT) from None
    reader = _Reader(file)
    return (None if root is None else reader.value(root, ())), reader.marks


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.marks: dict[KeyPath, Mark] = {}
        self.count = 0

    def mark(self, node: Any) -> Mark:
        return Mark(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def value(self, node: Any, path: KeyPath) -> Any:
        self.count += 1
        if self.count > _MAX_NODES or len(path) > 50:
            raise RecipeError(
                "far larger than any recipe: an alias (*name) within itself, or too many of them",
                where=str(self.mark(node)), hint="write the values out",
            )  # fmt: skip
        self.marks.setdefault(path, self.mark(node))
        if node.tag and str(node.tag) not in _TAGS[node.id]:
            raise RecipeError(
                f"the tag {str(node.tag)!r} means nothing in a recipe", where=str(self.mark(node)),
                hint="leave the tag out; a recipe is plain words, numbers, lists and maps",
            )  # fmt: skip
        if node.id == "mapping":
            return self.mapping(node, path)
        if node.id == "sequence":
            return [self.value(child, (*path, str(i))) for i, child in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if key_node.id == "scalar" else None
            if not isinstance(key, str):
                raise RecipeError(
                    "a key must be a word", where=str(self.mark(key_node)), hint="write key: value, one a line"
                )
            if key in result:
                first = self.marks[(*path, key)]
                raise RecipeError(
                    f"the key {key!r} stands here twice, first at line {first.line}",
                    where=str(self.mark(key_node)), hint="keep one of the two",
                )  # fmt: skip
            self.marks[(*path, key)] = self.mark(key_node)
            result[key] = self.value(value_node, (*path, key))
        return result

    def scalar(self, node: Any) -> Any:
        try:
            return node.value if node.style else resolve(node.value)
        except ValueError:  # Python reads no integer of more than 4300 digits
            raise RecipeError(
                "a number with far too many digits", where=str(self.mark(node)), hint="write a smaller number"
            ) from None


def resolve(text: str) -> Any:
    """A bare scalar by the YAML 1.2 core schema (section 10.3.2)."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return float(text.lower().replace(".", ""))
    if text in (".nan", ".NaN", ".NAN"):
        return float("nan")
    return text


# --------------------------------------------------------------------------------------------------- writing


def write(data: Any) -> str:
    """Plain data as YAML that `read` gives back unchanged: one line a map or list where it is short and flat."""
    if isinstance(data, (dict, list, tuple)) and data:
        return "\n".join(_block(data, "")) + "\n"
    return f"{_flow(data)}\n"


def _block(data: Any, indent: str) -> Iterator[str]:
    pairs = [(f"{_flow(str(key))}:", item) for key, item in data.items()] if isinstance(data, dict) else [
        ("-", item) for item in data
    ]  # fmt: skip
    for head, value in pairs:
        line = f"{indent}{head} {_flow(value)}"
        if _depth(value) == 0 or (_depth(value) < 3 and len(line) <= _WIDTH):
            yield line
        else:
            yield f"{indent}{head}"
            yield from _block(value, f"{indent}  ")


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) and resolve(text) == text else f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _depth(value: Any) -> int:
    """Levels of maps and lists; empty ones are as good as a word."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return 1 + max(map(_depth, below)) if below else 0
