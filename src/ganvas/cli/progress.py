"""A run as a person sees it in a terminal: a bar with rate, time left and the main losses."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from ganvas.cost.clock import clock
from ganvas.training.session import Watcher


def short(values: Mapping[str, float]) -> str:
    """The values of a row in one line, without the counters."""
    shown = {name: value for name, value in values.items() if name not in ("step", "images") and name[:3] != "lr."}
    return "  ".join(f"{name.removeprefix('score.')} {value:.4g}" for name, value in shown.items())


def totals(values: Mapping[str, float]) -> str:
    """What each role minimises, the sum of its terms: short enough to stand beside a bar."""
    sums: dict[str, float] = {}
    for name, value in values.items():
        role = name.partition(".")[0]
        sums[role] = sums.get(role, 0.0) + value
    return "  ".join(f"{role} {value:.3g}" for role, value in sums.items())


class Pace(ProgressColumn):
    """How fast it goes and how long it still takes; nothing before both are known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if not task.speed or task.remaining is None:
            return Text("")
        # A step of a large model takes longer than a second: then seconds per step are the number to read.
        rate = f"{task.speed:.3g} steps/s" if task.speed >= 1 else f"{1 / task.speed:.3g} s/step"
        return Text(f"{rate}  {clock(task.remaining / task.speed)} left", style="cyan")


class Rate(ProgressColumn):
    """Images per second and the time that is left."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if not task.speed or task.remaining is None:
            return Text("")
        return Text(f"{task.speed:.3g} images/s  {clock(task.remaining / task.speed)} left", style="cyan")


class Pipe(Console):
    """A console that lets its caller know where the reader has left; rich would end the process before it saves."""

    def on_broken_pipe(self) -> None:
        """Called while a BrokenPipeError is handled."""
        raise BrokenPipeError


class Progress(Watcher):
    """A bar where standard error is a terminal, a line per logged row elsewhere."""

    def __init__(self) -> None:
        self.console = Pipe(stderr=True, highlight=False)
        self.bar: Bar | None = None
        self.task = TaskID(0)

    def say(self, text: str) -> None:
        # Lines are left whole: a path that is broken by us cannot be copied.
        self.console.print(text, markup=False, soft_wrap=True)

    def begin(self, step: int, steps: int) -> None:
        if not sys.stderr.isatty():
            return
        # The losses give way where the terminal is narrow; a second line would leave its traces at each redraw.
        losses = TextColumn(
            "{task.fields[losses]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        )
        self.bar = Bar(
            BarColumn(20), MofNCompleteColumn(), Pace(table_column=Column(no_wrap=True)), losses,
            console=self.console, refresh_per_second=4, expand=True,
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=steps, completed=step, losses="")
        self.bar.start()

    def tick(self, step: int, values: Mapping[str, float]) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=step, losses=totals(values))

    def row(self, step: int, values: Mapping[str, float]) -> None:
        if self.bar is None or any(name.startswith("score.") for name in values):
            # Wrapped between words on a terminal; a file gets one line per row.
            self.console.print(f"step {step}  {short(values)}", markup=False, soft_wrap=self.bar is None)

    def end(self) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self.bar.stop()
            self.bar = None


@contextlib.contextmanager
def images_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar for images that are embedded: call it with (images done, images in all); silent where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    console = Console(stderr=True, highlight=False)
    with Bar(
        TextColumn("embedding"), BarColumn(20), MofNCompleteColumn(), Rate(), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
