"""What holds for every part on every shelf, and who may know whom."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganvas
from ganvas import parts
from ganvas.parts import Part, values
from ganvas.recipe.json_schema import json_schema

PACKAGE = Path(ganvas.__file__).parent
ALLOWED = {("networks", "mixers"), ("forensics", "features"), ("analysis", "metrics")}

every_part = pytest.mark.parametrize("part", parts.every(), ids=lambda part: f"{part.kind}-{part.name}")


@every_part
def test_record_read_from_source_is_the_imported_object(part: Part) -> None:
    thing = part.load()
    assert (thing.part_kind, thing.part_name) == (part.kind, part.name)
    assert thing.__name__ == part.symbol
    assert inspect.getdoc(thing) == inspect.cleandoc(part.doc)
    assert part.file == Path(inspect.getsourcefile(thing))


@every_part
def test_summary_is_one_short_line(part: Part) -> None:
    assert 10 <= len(part.summary) < 140
    assert "  " not in part.summary


@every_part
def test_every_key_has_a_type_that_makes_a_schema(part: Part) -> None:
    for key, each in part.fields().items():
        if each.marker is None:
            schema = values.value_schema(each.annotation)
            json.dumps(schema)
            assert schema, f"{key} takes anything at all"
            if not each.required:
                values.read_value(each.annotation, values.plain(each.default))  # the default is a value of that type
        else:
            assert each.marker.kind in parts.SHELVES


@every_part
def test_tiny_keys_are_keys_of_the_part(part: Part) -> None:
    fields = part.fields()
    for key, value in part.tiny.items():
        values.read_value(fields[key].annotation, value)


def test_schema_of_recipes_defines_every_part() -> None:
    schema = json_schema()
    assert {f"{part.kind}.{part.name}" for part in parts.every()} <= set(schema["$defs"])
    json.dumps(schema)


# --------------------------------------------------------------------------------------------------- who knows whom


def imports_of(file: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def shelves_imported(file: Path) -> set[str]:
    found = {module.split(".")[2] for module in imports_of(file) if module.startswith("ganvas.shelves.")}
    return found & set(parts.SHELVES.values())


def python_files(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("shelf", parts.SHELVES.values())
def test_shelves_do_not_import_each_other(shelf: str) -> None:
    for file in python_files(f"shelves/{shelf}"):
        for other in shelves_imported(file) - {shelf}:
            assert (shelf, other) in ALLOWED, f"{file.relative_to(PACKAGE)} imports ganvas.shelves.{other}"


@pytest.mark.parametrize("file", python_files("engine"), ids=lambda file: file.name)
def test_engine_knows_no_part(file: Path) -> None:
    names = {part.name for part in parts.every()}
    literals = {
        node.value: node.lineno
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {name: line for name, line in literals.items() if name in names} == {}
    assert shelves_imported(file) == set()


def test_the_check_for_names_would_find_one() -> None:
    assert {"adversarial", "adam", "digits"} <= {part.name for part in parts.every()}
    assert "ganvas.shelves.tasks" in set(imports_of(Path(__file__))) | {"ganvas.shelves.tasks"}
    assert shelves_imported(PACKAGE / "shelves" / "tasks" / "adversarial.py") == set()
    assert len(python_files("engine")) >= 7
