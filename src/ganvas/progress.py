"""A run as a person sees it in a terminal: a bar with rate, time left and the main losses."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ganvas.run import Watcher


def short(values: Mapping[str, float]) -> str:
    """The values of a row in one line, without the counters."""
    shown = {name: value for name, value in values.items() if name not in ("step", "images") and name[:3] != "lr."}
    return "  ".join(f"{name.removeprefix('score.')} {value:.4g}" for name, value in shown.items())


class Progress(Watcher):
    """A bar where standard error is a terminal, a line per logged row elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.bar: Bar | None = None
        self.task = TaskID(0)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def begin(self, step: int, steps: int) -> None:
        if not sys.stderr.isatty():
            return
        columns = (
            TextColumn("training"), BarColumn(30), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"),
        )  # fmt: skip
        self.bar = Bar(*columns, console=self.console, refresh_per_second=4)
        self.task = self.bar.add_task("training", total=steps, completed=step, losses="", rate="")
        self.bar.start()

    def tick(self, step: int, values: Mapping[str, float]) -> None:
        if self.bar is not None:
            speed = self.bar.tasks[0].speed
            rate = f"{speed:.3g} steps/s" if speed else ""
            self.bar.update(self.task, completed=step, losses=short(values), rate=rate)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        if self.bar is None or any(name.startswith("score.") for name in values):
            self.say(f"step {step}  {short(values)}")

    def end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
