"""What `ganvas inspect` found, kept in the run's folder so that every later report shows it, too.

`inspection/panels.json` holds texts and the numbers of charts; pictures lie beside it as PNG files, and what can be
heard or played as HTML files.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganvas.errors import CheckpointError
from ganvas.files import pictures
from ganvas.files.files import write_bytes
from ganvas.files.reading import mapping_of
from ganvas.types import Chart, Modality, Panel

FOLDER = "inspection"
_DIGITS = 5  # of each number of a chart


@dataclass(frozen=True)
class Kept:
    """One section as it was written: pictures are files."""

    title: str
    text: str
    sheets: tuple[tuple[str, Path, Path | None], ...]  # (caption, picture, players)
    charts: tuple[Chart, ...]


def write(folder: Path, panels: Mapping[str, Panel], facts: Mapping[str, Any], modality: Modality) -> None:
    """Write sections by their analysis' name, and what they were made of, in place of earlier ones.

    `modality` says how the data of sheets are shown.

    Raises
    ------
    CheckpointError : the disk is full or the folder cannot be written.
    """
    target = folder / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, panel in panels.items():
        files = []
        for i, sheet in enumerate(panel.sheets):
            data = modality.restored(sheet.images)
            pictures.save(modality.show(data, sheet.columns), target / f"{name}-{i}.png")
            entry = {"caption": sheet.caption, "file": f"{name}-{i}.png"}
            if player := modality.player(data):
                entry["player"] = f"{name}-{i}.html"
                write_bytes(target / entry["player"], player.encode())
            files.append(entry)
        charts = [
            {
                "caption": chart.caption, "kind": chart.kind, "x": chart.x, "y": chart.y,
                "series": {key: [_plain(part) for part in parts] for key, parts in chart.series.items()},
            }
            for chart in panel.charts
        ]  # fmt: skip
        rows.append({"name": name, "title": panel.title, "text": panel.text, "sheets": files, "charts": charts})
    # Last: without it, the folder is not read.
    write_bytes(target / "panels.json", json.dumps({"facts": dict(facts), "panels": rows}).encode())


def read(folder: Path) -> tuple[Sequence[Kept], Mapping[str, Any]]:
    """The sections that are there, and what they were made of; nothing where there are none or they are damaged."""
    try:
        content = mapping_of(folder / FOLDER / "panels.json")
        sections = [
            Kept(
                title=str(row["title"]),
                text=str(row["text"]),
                sheets=tuple(
                    (
                        str(sheet["caption"]),
                        folder / FOLDER / _name(sheet["file"], "png"),
                        folder / FOLDER / _name(sheet["player"], "html") if "player" in sheet else None,
                    )
                    for sheet in row["sheets"]
                ),
                charts=tuple(
                    Chart(
                        str(chart["caption"]), chart["kind"],
                        {name: tuple(np.asarray(xy, float) for xy in xys) for name, xys in chart["series"].items()},
                        str(chart["x"]), str(chart["y"]),
                    )
                    for chart in row["charts"]
                ),
            )
            for row in content["panels"]
        ]  # fmt: skip
        return sections, dict(content["facts"])
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError):
        return (), {}


def _name(file: object, suffix: str) -> str:
    """A file of this folder and of no other."""
    if not re.fullmatch(rf"[\w-]+\.{suffix}", str(file)):
        raise ValueError(f"{file} is no file of ours")
    return str(file)


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in np.asarray(values, float)]
