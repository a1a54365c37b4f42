"""Tables of scores: what may stand side by side, what can be told apart, in Markdown, JSON and HTML with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ganvas.errors import UsageError
from ganvas.evaluation.protocol import MADE_BY, Column
from ganvas.files.files import read_rows, write_bytes
from ganvas.report import simple_page
from ganvas.report.embedding import embed
from ganvas.report.markup import Html, tag
from ganvas.report.markup import table as html_table
from ganvas.stats.intervals import t_interval

TIED = "≈ best"
_PICTURE = {"width": 320, "most_bytes": 60_000}


@dataclass(frozen=True)
class Series:
    """One value of one line of a table: a number a training seed, or a single one with an interval of its own."""

    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    own_interval: tuple[float | None, float | None] = (None, None)  # from sampling seeds and halves, for a single run

    def interval(self, limits: tuple[float, float]) -> tuple[float | None, float | None]:
        return t_interval(self.values, limits) if len(self.values) > 1 else self.own_interval


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    labels: tuple[str, ...]
    values: Mapping[str, Series]  # by metric; one without any number has an empty series
    failures: tuple[str, ...] = ()  # one line a seed that did not end
    picture: Path | None = None
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by metric: how it was made


def tied(best: Series, other: Series, limits: tuple[float, float]) -> bool:
    """Whether two lines cannot be told apart with 95 % confidence.

    With at least two training seeds in common, the interval of the differences seed by seed must hold 0; else the
    intervals of the two must overlap. A single number without an interval tells nothing apart.
    """
    common = [seed for seed in best.seeds if seed in other.seeds]
    if len(common) > 1:
        one, two = (dict(zip(series.seeds, series.values, strict=True)) for series in (best, other))
        low, high = t_interval([one[seed] - two[seed] for seed in common])
        assert low is not None and high is not None
        return low <= 0 <= high
    (low, high), (other_low, other_high) = best.interval(limits), other.interval(limits)
    if low is None or high is None or other_low is None or other_high is None:
        return True
    return low <= other_high and other_low <= high


def ranked(lines: Sequence[Line], metric: str, column: Column) -> list[Line]:
    """Best first by one metric; lines without a number come last."""

    def key(line: Line) -> tuple[bool, float]:
        values = line.values[metric].values
        mean = fmean(values) if values else 0.0
        return not values, mean if column.lower_is_better else -mean

    return sorted(lines, key=key)


def check_alike(lines: Sequence[Line]) -> None:
    """Refuse lines whose numbers were made in different ways.

    Raises
    ------
    UsageError : with what differs between which lines.
    """
    first: dict[str, tuple[Line, Mapping[str, Any]]] = {}
    for line in lines:
        for metric, made in line.made.items():
            other, before = first.setdefault(metric, (line, made))
            unlike = [key for key in MADE_BY if before.get(key) != made.get(key)]
            if unlike:
                unequal = "; ".join(f"{key} {_brief(before.get(key))} and {_brief(made.get(key))}" for key in unlike)
                both = f"{' '.join(other.labels)} and {' '.join(line.labels)}"
                raise UsageError(
                    f"{metric} was made in different ways for {both}: {unequal}",
                    hint="score all of them anew by one protocol: ganvas eval RUN --protocol NAME",
                )


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


# --------------------------------------------------------------------------------------------------- forms


def markdown(axes: Sequence[str], lines: Sequence[Line], columns: Mapping[str, Column]) -> str:
    """Lines in their order, mean and interval of each value; the first metric decides who is tied with the first."""
    head = [*axes, *(f"{name} {'↓' if column.lower_is_better else '↑'}" for name, column in columns.items())]
    text = [f"| {' | '.join(head)} | |", f"|{'---|' * len(head)}---|"]
    for cells, note in _cells(lines, columns):
        text.append(f"| {' | '.join(cells)} | {note} |")
    return "\n".join(text)


def plain_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body])


def html(
    title: str,
    summary: str,
    axes: Sequence[str],
    lines: Sequence[Line],
    columns: Mapping[str, Column],
) -> str:
    """One page that needs no other file: the table, and each line's picture under its name."""
    return simple_page(title, summary, pieces(axes, lines, columns))


def pieces(axes: Sequence[str], lines: Sequence[Line], columns: Mapping[str, Column]) -> list[Html]:
    """The table, and each line's picture under its name."""
    head = [*axes, *(f"{name} {'↓' if column.lower_is_better else '↑'}" for name, column in columns.items()), ""]
    body = [[*(tag("span", cell, class_="n") for cell in cells), note] for cells, note in _cells(lines, columns)]
    figures = []
    for line in lines:
        picture = embed(line.picture, **_PICTURE) if line.picture is not None else None
        if picture is not None:
            image = tag(
                "img", src=picture.uri, width=picture.width, height=picture.height,
                alt=f"samples of {' '.join(line.labels)}",
            )  # fmt: skip
            figures.append(tag("figure", image, tag("figcaption", " · ".join(line.labels))))
    shown: list[Html] = [html_table(head, body, class_="scores")]
    if figures:
        shown.append(tag("h3", "Samples"))
        shown.append(tag("div", *figures, class_="thumbnails"))
    return shown


def _cells(lines: Sequence[Line], columns: Mapping[str, Column]) -> list[tuple[list[str], str]]:
    first = next(iter(columns))
    best = lines[0].values[first] if lines else Series(())
    rows = []
    for i, line in enumerate(lines):
        series = line.values[first]
        mark = TIED if series.values and best.values and (i == 0 or tied(best, series, columns[first].limits)) else ""
        numbers = [shown(line.values[name], column.limits) for name, column in columns.items()]
        rows.append(([*line.labels, *numbers], "; ".join(filter(None, [mark, *line.failures]))))
    return rows


def shown(series: Series, limits: tuple[float, float]) -> str:
    """`mean [low, high]`, or a dash."""
    if not series.values:
        return "–"
    low, high = series.interval(limits)
    return f"{fmean(series.values):.3g}" + ("" if low is None else f" [{low:.3g}, {high:.3g}]")


def as_data(axes: Sequence[str], lines: Sequence[Line], columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Everything of a table as plain data."""
    return [
        {
            **dict(zip(axes, line.labels, strict=True)),
            "values": {name: list(line.values[name].values) for name in columns},
            "seeds": {name: list(line.values[name].seeds) for name in columns},
            "intervals": {name: list(line.values[name].interval(column.limits)) for name, column in columns.items()},
            "failures": list(line.failures),
        }
        for line in lines
    ]


# --------------------------------------------------------------------------------------------------- runs


def newest(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run's last scoring, by metric; a best checkpoint's count only where there are no others."""
    rows = read_rows(folder / "scores.jsonl", "metric")
    rows = [row for row in rows if row.get("selection") in (None, "last")] or rows
    if not rows:
        return {}
    end, protocol = rows[-1].get("step"), rows[-1].get("protocol")
    return {row["metric"]: row for row in rows if row.get("step") == end and row.get("protocol") == protocol}


def picture_of(folder: Path) -> Path | None:
    """The newest sheet of samples of a run."""
    sheets = sorted((folder / "samples").glob("step-*.png"))
    return sheets[-1] if sheets else None


def of_runs(folders: Sequence[Path]) -> tuple[list[Line], dict[str, Column]]:
    """A line for each run, from the scores that are on disk; best first by the first metric that all have.

    Raises
    ------
    UsageError : a run has no scores, they have no metric in common, or were made differently.
    """
    lines, common = [], None
    for folder in folders:
        rows = newest(folder)
        if not rows:
            raise UsageError("it has no scores", where=str(folder), hint=f"ganvas eval {folder}")
        series = {
            name: Series((float(row["value"]),), own_interval=(row.get("low"), row.get("high")))
            for name, row in rows.items()
        }
        lines.append(Line((str(folder),), series, picture=picture_of(folder), made=rows))
        common = list(series) if common is None else [name for name in common if name in series]
    if not common:
        raise UsageError("these runs have no score in common", hint="ganvas eval RUN --protocol NAME for each of them")
    check_alike([Line(line.labels, {}, made={name: line.made[name] for name in common}) for line in lines])
    columns = {}
    for name in common:
        row = lines[0].made[name]
        columns[name] = Column(bool(row["lower_is_better"]), (float("-inf"), float("inf")), "")
    return ranked(lines, common[0], columns[common[0]]), columns


def write(folder: Path, text: str, data: Mapping[str, Any], page: str) -> dict[str, Path]:
    """`table.md`, `table.json` and `table.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {kind: folder / f"table.{kind}" for kind in ("md", "json", "html")}
    write_bytes(files["md"], text.encode())
    write_bytes(files["json"], json.dumps(data, indent=1).encode())
    write_bytes(files["html"], page.encode())
    return files
