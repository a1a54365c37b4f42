"""How recipes are laid over each other: a recipe over its base, and `key=value` over a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganvas.errors import BadValue
from ganvas.recipe.yaml12 import KeyPath, Mark


def merge(base: Any, top: Any) -> Any:
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
        merged[key] = merge(base[key], value) if key in base else value
    return merged


def merge_marks(
    base: Mapping[KeyPath, Mark], top: Mapping[KeyPath, Mark], base_data: Any, merged: Any
) -> dict[KeyPath, Mark]:
    """Where each key of `merged` stands: in the base only where the base still has its say."""
    still = {path: mark for path, mark in base.items() if at(base_data, path) == at(merged, path)}
    return {**still, **top}


def at(data: Any, path: KeyPath) -> Any:
    """The value at a path, or None."""
    for key in path:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        else:
            return None
    return data


def without_nulls(node: Any) -> Any:
    """A tree of maps without the keys that hold None."""
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return node


def assign(data: dict[str, Any], path: KeyPath, value: Any, place: str) -> None:
    """Put `value` at a path; a name put on a part replaces it, None drops what is there.

    Where nothing is there to drop, a None is left at the first unknown key, so that the check can tell a typing error.

    Raises
    ------
    BadValue : the path leads through something that has no keys.
    """
    node = data
    for key in path[:-1]:
        below = node.get(key)
        if below is None:
            if value is None:
                node[key] = None
                return
            below = {}
        elif isinstance(below, str):
            below = {"use": below}
        elif not isinstance(below, dict):
            raise BadValue(
                f"{key!r} holds {below!r}, which has no keys below it", where=place, hint=f"give {key!r} as a whole"
            )
        node[key] = below
        node = below
    last = path[-1]
    if value is not None:
        node[last] = without_nulls(merge(node.get(last), value) if isinstance(value, str) else value)
    elif last in node:
        del node[last]
    else:
        node[last] = None
