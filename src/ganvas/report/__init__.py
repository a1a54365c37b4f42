"""A run on one page, to be sent to a colleague: `report.html` needs no network and no other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ganvas.files.files import write_bytes
from ganvas.report.page import page, simple_page
from ganvas.report.record import Record

if TYPE_CHECKING:
    from ganvas.model import Model

__all__ = ["Record", "page", "simple_page", "write"]


def write(folder: Path, model: Model | None = None) -> Path:
    """Write `report.html` into a run folder, whole or not at all, and return its path.

    Whatever the run does not have yet, such as scores or samples, is left out. `model` is that of the run where it is
    at hand.

    Raises
    ------
    CheckpointError : the disk is full or the folder cannot be written.
    """
    file = folder / "report.html"
    write_bytes(file, page(Record.read(folder, model)).encode())
    return file
