"""JSON Schema (draft 2020-12) of a whole recipe, for editors and forms. It says what `Recipe.resolve` checks, as far as
a schema can: not that roles fit the task, nor that files exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganvas import parts
from ganvas.parts import Field, Slot, Slots
from ganvas.parts.values import plain, value_schema, words
from ganvas.recipe.schema import Schema
from ganvas.recipe.trained import Weights

_NULL = {"type": "null"}  # the same as leaving the key out


def json_schema() -> dict[str, Any]:
    """One definition a part, `#/$defs/KIND.NAME`, and one a shelf, `#/$defs/KIND`: any part on it."""
    keys = parts.fields_of(Schema)
    definitions: dict[str, Any] = {}
    for part in parts.every():
        definitions[f"{part.kind}.{part.name}"] = {
            "description": part.summary,
            "properties": {"use": {"const": part.name}, **_properties(part.fields())},
            "required": [key for key, field in part.fields().items() if field.required],
        }
    for kind in parts.SHELVES:
        names = [part.name for part in parts.every(kind)]
        definitions[kind] = {"anyOf": [_part(kind, name) for name in names] or [{"not": {}}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ganvas recipe",
        "type": "object",
        "properties": {
            "base": {"type": "string", "description": "the recipe below this one"},
            **{key: {} for key in keys},
        },
        "additionalProperties": False,
        # Above a base any node may say just what changes, so that the whole is known only once the two are merged.
        "if": {"not": {"required": ["base"]}},
        "then": {"properties": _properties(keys), "required": [key for key, field in keys.items() if field.required]},
        "$defs": definitions,
    }


def _of(section: type) -> dict[str, Any]:
    return _properties(parts.fields_of(section))


def _properties(fields: Mapping[str, Field]) -> dict[str, Any]:
    return {key: _field(field) for key, field in fields.items()}


def _field(field: Field) -> dict[str, Any]:
    schema = _value(field)
    if field.required:
        return schema
    if schema.get("anyOf", [])[-1:] != [_NULL]:
        schema = {"anyOf": [schema, _NULL]}
    return schema if field.marker else {**schema, "default": plain(field.default)}


def _value(field: Field) -> dict[str, Any]:
    marker = field.marker
    if isinstance(marker, Slots):
        return _set(marker)
    if marker is not None:
        extra = _of(marker.extra) if marker.extra else {}
        default = field.default if isinstance(field.default, str) else None
        return _slot(marker.kind, extra, default)
    section = parts.section_of(field.annotation)
    if section is not None:
        keys = parts.fields_of(section)
        required = [key for key, one in keys.items() if one.required]
        return {
            "type": "object", "properties": _properties(keys), "required": required, "additionalProperties": False,
        }  # fmt: skip
    return {"description": words(field.annotation), **value_schema(field.annotation)}


def _part(kind: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{kind}.{name}", "required": ["use"]}


def _slot(kind: str, extra: Mapping[str, Any], default: str | None = None) -> dict[str, Any]:
    """A name, or a node with `use:`; where there is a default part, its keys alone mean that one."""
    node: list[dict[str, Any]] = [{"$ref": f"#/$defs/{kind}"}]
    if default is not None:
        node.append({"$ref": f"#/$defs/{kind}.{default}"})
    return {
        "anyOf": [
            {"enum": [part.name for part in parts.every(kind)]},
            {"type": "object", "anyOf": node, "properties": dict(extra), "unevaluatedProperties": False},
        ]
    }


def _set(marker: Slots | Slot) -> dict[str, Any]:
    extra = _of(marker.extra) if marker.extra else {}
    anything = _slot(marker.kind, extra)
    if isinstance(marker, Slots) and marker.keys != "name":
        # With `from:` alone a network is built as it was there, so that its own keys are not known here.
        borrowed = {"type": "object", "required": ["from"], "not": {"required": ["use"]}}
        schema = {"anyOf": [*anything["anyOf"], *([borrowed] if marker.extra is Weights else []), _NULL]}
        return {"type": "object", "additionalProperties": schema}
    named = {
        part.name: {"anyOf": [*_slot(marker.kind, extra, part.name)["anyOf"], _NULL]}
        for part in parts.every(marker.kind)
    }
    return {"type": "object", "properties": named, "additionalProperties": {"anyOf": [*anything["anyOf"], _NULL]}}
