"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from types import ModuleType

import pytest
from pages import DOCS, ROOT

import ganvas
from ganvas import parts


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "scripts" / "make_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_up_to_date(maker: ModuleType) -> None:
    for page, text in maker.pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: run python scripts/make_reference.py"


def test_every_key_has_its_meaning_and_no_other(maker: ModuleType) -> None:
    keys = {f"{prefix}{key}" for section, prefix in maker.SECTIONS.values() for key in parts.fields_of(section)}
    assert keys == set(maker.MEANING)


def test_every_verb_is_described() -> None:
    listed = subprocess.run([sys.executable, "-m", "ganvas.cli", "--help"], capture_output=True, text=True, check=True)
    verbs = re.findall(r"^  ([a-z]+)  ", listed.stdout.split("Commands:")[1], re.MULTILINE)
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert len(verbs) >= 7
    for verb in verbs:
        assert f"\n## {verb}\n" in text


def test_every_public_name_is_described() -> None:
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    for name in ganvas.__all__:
        assert name.startswith("__") or f"`{name}`" in text or f"`ganvas.{name}`" in text
