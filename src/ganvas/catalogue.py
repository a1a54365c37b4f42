"""What there is, for people and scripts: parts, recipes, systems. Reads source and YAML as text, imports no part."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ganvas import parts, recipe
from ganvas.parts import Part

_TITLES = Path(__file__).with_name("catalogue.json")
_TESTS = Path(__file__).parents[2] / "tests" / "systems"  # there in a checkout, not in a wheel


def describe(part: Part) -> dict[str, Any]:
    """One line's worth of a part."""
    return {
        "kind": part.kind,
        "name": part.name,
        "summary": part.summary,
        "paper": part.paper,
        "system": part.system,
        "where": part.where,
    }


def recipes() -> list[dict[str, Any]]:
    """Name, summary, system and file of every shipped recipe."""
    return [
        {"name": name, "summary": _line(text, "summary"), "system": _line(text, "system") or None, "where": str(file)}
        for name, (file, text) in _recipe_texts().items()
    ]


def systems() -> list[dict[str, Any]]:
    """One object per catalogue system that a part or a recipe carries: id, title, parts, recipes, test."""
    titles: Mapping[str, Mapping[str, str]] = json.loads(_TITLES.read_text(encoding="utf-8"))
    by_part: dict[str, list[str]] = {}
    for part in parts.every():
        if part.system:
            by_part.setdefault(part.system, []).append(f"{part.kind} {part.name}")
    by_recipe: dict[str, list[str]] = {}
    for each in recipes():
        if each["system"]:
            by_recipe.setdefault(each["system"], []).append(each["name"])
    tests = dict(_system_tests())
    return [
        {
            "id": system,
            "title": titles.get(system, {}).get("title", system),
            "parts": by_part.get(system, []),
            "recipes": by_recipe.get(system, []),
            "test": tests.get(system),
        }
        for system in sorted({*by_part, *by_recipe})
    ]


def details(part: Part) -> dict[str, Any]:
    """Everything about a part: its keys with types and defaults, its text, its place, the recipes that use it."""
    keys = [
        {
            "key": key,
            "type": _type_words(each),
            "required": each.required,
            "default": None if each.required else plain(each.default),
        }
        for key, each in part.fields().items()
    ]
    named = re.compile(rf"(?<![\w-]){re.escape(part.name)}(?![\w-])")
    users = [name for name, (_, text) in _recipe_texts().items() if named.search(text)]
    return {**describe(part), "doc": part.doc, "keys": keys, "recipes": users}


def as_text(found: Mapping[str, Any]) -> str:
    """`details` for a terminal."""
    lines = [f"{found['kind']} {found['name']}", ""]
    for key in found["keys"]:
        default = "required" if key["required"] else f"= {json.dumps(key['default'], ensure_ascii=False)}"
        lines.append(f"  {key['key']}: {key['type']}  {default}")
    lines += ["", *found["doc"].splitlines(), ""]
    if found["paper"]:
        lines.append(f"paper    {found['paper']}")
    if found["system"]:
        lines.append(f"system   {found['system']}")
    lines.append(f"source   {found['where']}")
    lines.append(f"recipes  {', '.join(found['recipes']) or 'none shipped'}")
    return "\n".join(lines)


def recipe_keys() -> list[str]:
    """Every key of a recipe with its type, for people."""
    return [f"{key}: {_type_words(each)}" for key, each in parts.fields_of(recipe.Schema).items()]


def _type_words(field: parts.Field) -> str:
    if field.marker is not None:
        many = "set of " if isinstance(field.marker, parts.Slots) else ""
        return f"{many}{field.marker.kind}"
    words = str(getattr(field.annotation, "__name__", None) or field.annotation)
    if words == "Annotated" or "[" in str(field.annotation) or "|" in str(field.annotation):
        words = str(field.annotation)
    section = parts.section_of(field.annotation)
    if section is not None:
        inner = ", ".join(parts.fields_of(section))
        return f"{{{inner}}}"
    return re.sub(r"(typing|pathlib|annotated_types|ganvas\.\w+)\.", "", words).replace("NoneType", "None")


def _line(text: str, key: str) -> str:
    found = re.search(rf"^{key}:[ ]*(.+)$", text, re.MULTILINE)
    return found.group(1).split("  #")[0].strip().strip("'\"") if found else ""


@functools.cache
def _recipe_texts() -> dict[str, tuple[Path, str]]:
    return {name: (file, file.read_text(encoding="utf-8")) for name, file in recipe.shipped().items()}


def _system_tests() -> Iterator[tuple[str, str]]:
    for file in sorted(_TESTS.glob("test_*.py")) if _TESTS.is_dir() else ():
        for system in re.findall(r'mark\.system\(\s*"([^"]+)"', file.read_text(encoding="utf-8")):
            yield system, f"tests/systems/{file.name}"
