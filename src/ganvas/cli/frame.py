"""What all verbs share: the group they belong to, their common options, and where words go.

Imports of anything heavy stand inside the verbs, so that `ganvas --help` and `ganvas list` answer at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def say(text: str) -> None:
    """To people: standard error. Where it is closed or full, nobody hears it, and the work goes on."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def tell(text: str) -> None:
    """The result itself: standard output."""
    click.echo(text)


def parts_option(command: Command) -> Command:
    def load(context: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> tuple[str, ...]:
        from ganvas import parts

        for file in files:
            parts.add_file(file)
        return files

    return click.option(
        "--parts", "parts_files", multiple=True, metavar="FILE.py", callback=load, expose_value=False, is_eager=True,
        help="A Python file with parts of your own; may be given more than once.",
    )(command)  # fmt: skip


json_option = click.option("--json", "as_json", is_flag=True, help="JSON alone on standard output.")
device_option = click.option("--device", metavar="NAME", help="Such as cpu or cuda:1. [default: a GPU if there is one]")


class Unread(Exception):
    """Nobody reads on, as in `ganvas list | head -1`; all that was asked for is done."""


class InOrder(click.Group):
    """Lists its commands in the order in which a person meets them."""

    order = (
        "train",
        "sample",
        "eval",
        "inspect",
        "data",
        "edit",
        "profile",
        "bench",
        "search",
        "scale",
        "list",
        "show",
        "check",
        "diff",
        "import",
        "export",
    )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Click itself would leave with 1 where a pipe is closed, and rich as well."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise Unread from None
        except SystemExit as leaving:
            if isinstance(leaving.__context__, BrokenPipeError):
                raise Unread from None
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands, key=self.order.index)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ganvas", prog_name="ganvas")
def cli() -> None:
    """Generative image models from recipes of named parts.

    \b
    ganvas train                                 the default recipe: handwritten digits, about a minute
    ganvas train folder data.path=photos/        a recipe on your own images
    ganvas sample runs/digits --label 3          images from what was trained
    ganvas eval runs/digits                      how good they are
    """


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Scores for people: value, interval, and how they were made."""
    if not rows:
        return "no value could be computed"
    several = len({row["extractor"] for row in rows}) > 1
    width = max(22, *(len(row["metric"]) for row in rows))
    lines = []
    for row in rows:
        arrow = "lower is better" if row["lower_is_better"] else "higher is better"
        around = f"[{row['low']:.4g}, {row['high']:.4g}]" if row["low"] is not None else ""
        with_extractor = f"  {row['extractor']}" if several else ""
        lines.append(f"  {row['metric']:{width}} {row['value']:>10.4g}  {around:22} {arrow}{with_extractor}")
    first = rows[0]
    features = "" if several else f", features of {first['extractor']}"
    reference = first["n_real"] or "statistics of unknown count"
    head = f"{first['protocol']}: {first['n_fake']} samples against {reference}{features}"
    intervals = dict.fromkeys(row["interval"] for row in rows)
    notes = [f"  interval: {how}" for how in intervals] if len(intervals) <= 2 else ["  intervals: --json says how"]
    chosen = first.get("selection")
    if chosen and chosen != "last":
        notes.append(f"  this checkpoint was chosen: {chosen}")
    return "\n".join([head, *lines, *notes])
