"""Which keys of a recipe hold a path or text, so that a command's words reach them as they were typed.

A recipe file is YAML, a command line is not: `#`, `{`, digits and `~` are ordinary in the name of a folder.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ganvas import parts
from ganvas.errors import UnknownPart
from ganvas.parts import Factory, Field, Slot, Slots
from ganvas.recipe.schema import Schema
from ganvas.recipe.yaml12 import KeyPath


def takes_text(data: Mapping[str, Any], path: KeyPath, text: str) -> bool:
    """Whether this text, put at a path of a recipe, is meant letter by letter.

    It is where the key takes nothing but a path or text. Text in quotes is YAML all the same, `~` and nothing at all
    drop the key, and `null` does so where the key can be without a value.
    """
    if text in ("", "~") or (len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"):
        return False
    field = _field_at(data, path)
    if field is None:
        return False
    kinds = _kinds(field.annotation)
    return bool(kinds) and kinds <= {str, Path, type(None)} and not (type(None) in kinds and text.lower() == "null")


def _kinds(annotation: Any) -> set[Any]:
    """The types that a value may have; empty where they are not all plain. Words of a Literal are text."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(choice) or {object} for choice in typing.get_args(annotation)))
    if origin is Literal:
        return {type(choice) for choice in typing.get_args(annotation)}
    return {annotation} if isinstance(annotation, type) and origin is None else set()


def _field_at(data: Mapping[str, Any], path: KeyPath) -> Field | None:
    """The key at a path, along the schemas of the parts that the recipe names; None where it is no key of a part."""
    fields: Mapping[str, Field] = parts.fields_of(Schema)
    node: Any = data
    steps = list(path)
    while steps:
        key = steps.pop(0)
        if (field := fields.get(key)) is None:
            return None
        if not steps:
            return None if field.marker else field
        node = node.get(key) if isinstance(node, Mapping) else None
        marker = field.marker
        if marker is None:
            if (section := parts.section_of(field.annotation)) is None:
                return None
            fields = parts.fields_of(section)
            continue
        usual: Any = field.default
        if isinstance(marker, Slots):
            usual = key = steps.pop(0)
            if not steps:
                return None
            node = node.get(key) if isinstance(node, Mapping) else None
        name = node if isinstance(node, str) else node.get("use", usual) if isinstance(node, Mapping) else usual
        if not isinstance(name, str):
            return None
        try:
            part = parts.find(marker.kind, name)
        except UnknownPart:
            return None
        extra = marker.extra if isinstance(marker, (Slot, Slots)) else None
        assert isinstance(marker, (Slot, Slots, Factory))
        fields = {**part.fields(), **(parts.fields_of(extra) if extra else {})}
    return None
