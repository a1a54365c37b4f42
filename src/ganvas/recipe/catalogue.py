"""What there is, for people and scripts: parts, recipes, systems. Lists read source and YAML as text."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ganvas import parts
from ganvas.errors import GanvasError, UnknownPart, nearest
from ganvas.parts import Field, Part, Slot, Slots
from ganvas.parts.values import plain, words
from ganvas.recipe.check import PROTOCOLS
from ganvas.recipe.recipe import STUDIES, Recipe, named_parts, shipped
from ganvas.recipe.schema import Schema
from ganvas.recipe.sources import explained, source_of

_TITLES = Path(__file__).with_name("catalogue.json")
_TESTS = Path(__file__).parents[3] / "tests" / "systems"  # there in a checkout, not in a wheel
_CHECKOUT = _TESTS / "claims"


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
        for name, (file, text) in sorted(_texts(shipped).items())
    ]


def protocols() -> list[dict[str, Any]]:
    """Name, summary and file of every shipped protocol."""
    return [
        {"name": name, "summary": _line(text, "summary"), "where": str(file)}
        for name, (file, text) in sorted(_texts(_protocols).items())
    ]


def systems() -> list[dict[str, Any]]:
    """One object per catalogue system that a part or a recipe carries: id, title, parts, recipes, test."""
    titles: Mapping[str, Mapping[str, str]] = json.loads(_TITLES.read_text(encoding="utf-8"))
    by_part: dict[str, list[str]] = {}
    for part in parts.every():
        if part.system:
            by_part.setdefault(part.system, []).append(f"{part.kind} {part.name}")
    by_recipe: dict[str, list[str]] = {}
    for recipe in recipes():
        if recipe["system"]:
            by_recipe.setdefault(recipe["system"], []).append(recipe["name"])
    by_study: dict[str, list[str]] = {}
    for folder in (STUDIES, PROTOCOLS):
        for file in sorted(folder.glob("*.yaml")):
            if system_id := _line(file.read_text(encoding="utf-8"), "system"):
                by_study.setdefault(system_id, []).append(f"{folder.name.removesuffix('s')} {file.stem}")
    tests = dict(_system_tests())
    noted = {file.stem for file in _claims().glob("*.json")}
    return [
        {
            "id": system,
            "title": titles.get(system, {}).get("title", system),
            "parts": by_part.get(system, []),
            "recipes": by_recipe.get(system, []),
            "studies": by_study.get(system, []),
            "test": tests.get(system),
        }
        for system in sorted({*by_part, *by_recipe, *by_study, *tests, *noted})
    ]


def system_text(entry: Mapping[str, Any]) -> str:
    """`system` for a terminal."""
    lines = [f"{entry['id']}  {entry['title']}", ""]
    for name in ("parts", "recipes", "studies"):
        lines += [f"  {name:8} {', '.join(entry[name])}"] if entry[name] else []
    lines += [f"  {'test':8} {entry['test']}"] if entry["test"] else []
    lines += ["", *(f"  {claim_text(claim)}" for claim in entry["claims"])]
    return "\n".join(lines).rstrip()


def claim_text(claim: Mapping[str, Any]) -> str:
    """One statement of a system and what its test found, on a line."""
    verdict = "shown    " if claim["held"] and claim["shown"] else "not shown" if claim["held"] else "FAILED   "
    value = f": {json.dumps(claim['value'], ensure_ascii=False)}" if "value" in claim else ""
    seeds = f" (seeds {claim['seeds']})" if claim.get("seeds") else ""
    return f"{verdict}  {claim['statement']}{value}{seeds}  [{claim['commit']}{', slow' if claim['slow'] else ''}]"


def claims(system: str) -> list[dict[str, Any]]:
    """What each test of a system showed, see `tests/systems/conftest.py`; empty where nothing was noted."""
    file = _claims() / f"{system}.json"
    entries: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return list(entries.values())


def _claims() -> Path:
    """Where the claims lie: beside the tests in a checkout, in the package of a wheel."""
    return _CHECKOUT if _CHECKOUT.is_dir() else Path(__file__).parents[1] / "claims"


def system(name: str) -> dict[str, Any]:
    """One of `systems` by its id.

    Raises
    ------
    UnknownPart : none of the code's systems is called so.
    """
    known = {entry["id"]: entry for entry in systems()}
    if name not in known:
        raise UnknownPart(f"no system is called {name!r}.{nearest(name, known)}", hint="ganvas list systems")
    return {**known[name], "claims": claims(name)}


def source_text(resolved: Mapping[str, Any]) -> str:
    """The published setting of a resolved recipe and what differs, as YAML's comments; "" where it names none."""
    source = source_of(resolved)
    if source is None:
        return ""
    lines = [f"source {resolved['source']}: {source.where}"]
    for deviation in explained(resolved, source):
        ours, published = (
            "nothing" if value is None else json.dumps(value, ensure_ascii=False)
            for value in (deviation.ours, deviation.published)
        )
        reason = f": {deviation.reason}" if deviation.reason else ""
        lines.append(f"{deviation.path} is {ours} here and {published} there{reason}")
    return "\n".join(f"# {line}" for line in lines)


def matches(entry: Mapping[str, Any], pattern: str) -> bool:
    """Whether what a person would look for in an entry holds the pattern: names and sentences, not places."""
    looked_at = " ".join(
        str(entry[key]) for key in ("name", "id", "summary", "title", "paper", "system") if entry.get(key)
    )
    return pattern.casefold() in looked_at.casefold()


# ---------------------------------------------------------------------------------------------------- one part


def details(part: Part) -> dict[str, Any]:
    """Everything about a part: its keys with types and defaults, its text, its place, and what ships that names it."""
    return {
        **describe(part),
        "doc": part.doc,
        "keys": [_key(field) for field in part.fields().values()],
        "recipes": [name for name in sorted(_texts(shipped)) if _names(name, part)],
        "protocols": [name for name, (_, text) in _texts(_protocols).items() if _word(part.name).search(text)],
    }


def as_text(described: Mapping[str, Any]) -> str:
    """`details` for a terminal."""
    lines = [f"{described['kind']} {described['name']}", ""]
    lines += [f"  {line}" for key in described["keys"] for line in _key_lines(key)] or ["  It has no keys."]
    lines += ["", *described["doc"].splitlines(), ""]
    facts = {
        "paper": described["paper"],
        "system": described["system"],
        "source": described["where"],
        "recipes": ", ".join(described["recipes"]) or "none shipped",
        "protocols": ", ".join(described["protocols"]),
    }
    return "\n".join([*lines, *(f"{name:9}  {fact}" for name, fact in facts.items() if fact)])


def recipe_keys() -> str:
    """Every key of a recipe with its type and default, for people."""
    lines = [line for field in parts.fields_of(Schema).values() for line in _key_lines(_key(field))]
    return "\n".join(
        [*lines, "", "ganvas show KIND NAME says which keys a part has; ganvas list KIND, what parts there are."]
    )


def _key(field: Field) -> dict[str, Any]:
    """A key's type in words and its default; `keys` are those below it that belong to it and to no part."""
    section = parts.section_of(field.annotation)
    below = field.marker.extra if field.marker else section
    entry = {
        "key": field.key,
        "type": _type_words(field),
        "required": field.required,
        "default": None if field.required else plain(field.default),
    }
    return {**entry, "keys": [_key(one) for one in parts.fields_of(below).values()]} if below else entry


def _key_lines(key: Mapping[str, Any]) -> Iterator[str]:
    inner = key.get("keys", ())
    default = "" if key["default"] is None and inner else f"  = {json.dumps(key['default'], ensure_ascii=False)}"
    if key["required"]:
        default = "  (required)"
    elif inner and isinstance(key["default"], Mapping):
        default = ""  # its keys say theirs
    yield f"{key['key']}: {key['type']}{default}"
    for inner_key in inner:
        yield from (f"  {line}" for line in _key_lines(inner_key))


def _type_words(field: Field) -> str:
    if isinstance(field.marker, Slots):
        by_role = "by role" if field.marker.keys == "role" else "by name"
        return f"set of {parts.SHELVES[field.marker.kind]} {by_role}{', each with' if field.marker.extra else ''}"
    if field.marker is not None:
        beside = isinstance(field.marker, Slot) and field.marker.extra
        return f"{field.marker.kind}{', and beside its own keys' if beside else ''}"
    return "keys" if parts.section_of(field.annotation) else words(field.annotation)


# ---------------------------------------------------------------------------------------------------- texts


def _names(name: str, part: Part) -> bool:
    """Whether a shipped recipe names a part; a name in its text may be another kind's, or a word."""
    _, text = _texts(shipped)[name]
    if not _word(part.name).search(text):
        return False
    try:
        return (part.kind, part.name) in named_parts(Recipe.load(name).resolve())
    except GanvasError:  # a recipe that begins `from:` a run cannot be resolved without it
        return True


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")


def _line(text: str, key: str) -> str:
    match = re.search(rf"^{key}:[ ]*(.+)$", text, re.MULTILINE)
    value = match.group(1).split("  #")[0].strip().strip("'\"") if match else ""
    return "" if value in ("~", "null") else value  # dropped from what the base says


def _protocols() -> dict[str, Path]:
    return {file.stem: file for file in sorted(PROTOCOLS.glob("*.yaml"))}


@functools.cache
def _texts(files: Any) -> dict[str, tuple[Path, str]]:
    return {name: (file, file.read_text(encoding="utf-8")) for name, file in files().items()}


def _system_tests() -> Iterator[tuple[str, str]]:
    for file in sorted(_TESTS.glob("test_*.py")) if _TESTS.is_dir() else ():
        for system in re.findall(r"""mark\.system\(\s*["']([^"']+)["']""", file.read_text(encoding="utf-8")):
            yield system, f"tests/systems/{file.name}"
