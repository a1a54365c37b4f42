"""What publications set: the numbers of papers and official code, and where a recipe of ours has others."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganvas.errors import BadValue, nearest
from ganvas.recipe import yaml12
from ganvas.recipe.layering import merge
from ganvas.recipe.recipe import SOURCES, flatten


@dataclass(frozen=True)
class Source:
    """One published setting.

    Attributes
    ----------
    where : the repository with commit and file, or the paper with its table or section.
    values : path in a recipe -> the published value, as our recipes write it; None says that the source has none.
    base : the setting that it changes, whose values are in `values`, too.
    """

    where: str
    values: Mapping[str, Any]
    base: str | None = None


@functools.cache
def sources(file: Path = SOURCES) -> dict[str, Source]:
    """Every published setting by its name."""
    entries, _ = yaml12.read(file.read_text(encoding="utf-8"), str(file))
    return {name: _read(name, entries) for name in entries}


def _read(name: str, entries: Mapping[str, Any]) -> Source:
    """One entry, laid over the settings that it changes as a recipe is over its base."""
    line = [name]
    while (base := entries[line[-1]].get("base")) is not None:
        line.append(base)
    values: Any = {}
    for ancestor in reversed(line):
        values = merge(values, entries[ancestor]["values"])
    where = "; ".join(entries[ancestor]["where"] for ancestor in line)
    return Source(where, flatten(values), entries[name].get("base"))


def source_of(resolved: Mapping[str, Any]) -> Source | None:
    """The published setting that a resolved recipe names, or None.

    Raises
    ------
    BadValue : there is no such source; says which name is nearest.
    """
    name = resolved.get("source")
    if name is None:
        return None
    known = sources()
    if name not in known:
        raise BadValue(
            f"no source is called {name!r}.{nearest(name, known)}", where="source",
            hint="leave source out, or add it to recipes/sources.yaml",
        )  # fmt: skip
    return known[name]


def deviations(resolved: Mapping[str, Any], source: Source) -> dict[str, tuple[Any, Any]]:
    """path -> (the recipe's value, the published one) where the two differ; None where the recipe has no such key."""
    ours = flatten(resolved)
    return {
        path: (ours.get(path), published)
        for path, published in source.values.items()
        if path not in ours or not _equal(ours[path], published)
    }


@dataclass(frozen=True)
class Deviation:
    """A number of a recipe that is not its source's: where, both values (None: there is none), and why."""

    path: str
    ours: Any
    published: Any
    reason: str


def explained(resolved: Mapping[str, Any], source: Source) -> list[Deviation]:
    """What a resolved recipe has other than its source, each with the reason that it gives; "" where it gives none."""
    reasons = resolved["differs"]
    return [
        Deviation(path, ours, published, reasons.get(path, ""))
        for path, (ours, published) in deviations(resolved, source).items()
    ]


def _equal(one: Any, other: Any) -> bool:
    """Whether two values of recipes mean the same: 1 and 1.0 do, lists are compared by their items."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
