"""A hook of mkdocs: pages that are written from the code each time the guide is built.

They are not kept in the repository, so that whoever adds a part has no page to edit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path

from make_reference import parts_page, protocols_page, recipes_page, systems_page
from mkdocs.structure.files import File, Files

PAGES = {
    "reference/parts.md": parts_page,
    "reference/protocols.md": protocols_page,
    "reference/recipes.md": recipes_page,
    "reference/systems.md": systems_page,
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages to those that mkdocs found."""
    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files
