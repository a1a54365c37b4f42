"""The guide's pages, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"# (\S+\.(?:yaml|py))\n")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, file name in the first line or "", text) of each block, in order."""
    found = []
    for language, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        named = _NAMED.match(text)
        found.append((language, named[1] if named else "", text))
    return found
