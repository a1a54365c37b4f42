"""Parts say what they are by their base class: nothing looks for names that an object happens to have."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganvas
from ganvas import parts
from ganvas.errors import UsageError

ROOT = Path(ganvas.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))


def probes(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of every `hasattr`, every `getattr` with a default, and every protocol made for isinstance."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "hasattr":
                yield node.lineno, "hasattr"
            if node.func.id == "getattr" and len(node.args) > 2:
                yield node.lineno, "getattr with a default"
        if isinstance(node, ast.Name) and node.id == "runtime_checkable":
            yield node.lineno, "runtime_checkable"
        if isinstance(node, ast.ImportFrom) and any(name.name == "runtime_checkable" for name in node.names):
            yield node.lineno, "runtime_checkable"


def test_the_finder_finds() -> None:
    planted = "from typing import runtime_checkable\nhasattr(a, 'b')\ngetattr(a, 'b', None)\ngetattr(a, 'b')\n"
    assert [line for line, _ in probes(planted)] == [1, 2, 3]


def test_nothing_is_probed() -> None:
    found = {str(file.relative_to(ROOT)): list(probes(file.read_text(encoding="utf-8"))) for file in SOURCES}
    assert len(found) > 300
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_every_part_derives_from_its_kinds_base() -> None:
    for part in parts.every():
        part.load()  # refuses what does not


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Loss:\n    def critic(self, real, fake): ...\n    def generator(self, real, fake): ...\n", "Objective"),
        ("class Loss(Objective):\n    def critic(self, real, fake): ...\n", "generator"),
    ],
)
def test_a_part_of_the_users_that_breaks_its_contract_is_named_with_its_place(
    tmp_path: Path, source: str, said: str
) -> None:
    file = tmp_path / "mine.py"
    head = "from ganvas.parts import objective\nfrom ganvas.types import Objective\n\n\n@objective('mine')\n"
    file.write_text(head + source, encoding="utf-8")
    parts.add_file(file)
    try:
        with pytest.raises(UsageError) as caught:
            parts.find("objective", "mine").load()
    finally:
        parts.drop_added()
    assert said in str(caught.value) and "mine.py:6" in str(caught.value)
