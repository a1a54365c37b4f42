"""A hook of mkdocs: the page `reference/parts.md`, written from the shelves each time the guide is built.

It is not kept in the repository, so that whoever adds a part has no page to edit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path

from make_reference import parts_page
from mkdocs.structure.files import File, Files

PAGE = "reference/parts.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the page to those that mkdocs found."""
    files.append(File.generated(config, PAGE, content=parts_page()))
    return files
