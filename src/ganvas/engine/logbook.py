"""Numbers of a run as rows of JSON: the same rows whether or not the run was interrupted.

Rows hold nothing of the clock or the machine; speed is for the progress bar.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ganvas.files.files import append_rows
from ganvas.runtime import ranks


class Logbook:
    """Means of what was added since the last row."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.sums.items()}

    def row(
        self, step: int, extra: Mapping[str, float], words: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, float]:
        """Write a row of the means and start over; `words` stand in the file alone."""
        row = {"step": step, **extra, **self.means()}
        if ranks.rank() == 0:
            append_rows(self.file, [{**row, **words}])
        self.sums = {}
        return row

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: list(pair) for name, pair in self.sums.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = {name: (total, count) for name, (total, count) in state["sums"].items()}
