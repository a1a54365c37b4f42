"""Points of two numbers each, the chosen ones marked, as inline SVG in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ganvas.report.charts import number, ticks
from ganvas.report.markup import Html, tag

_WIDTH, _HEIGHT = 1000, 430  # units of the drawing, about a pixel each on the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 22, 16, 46
_FAR = 20.0  # from this ratio of the largest to the smallest value on, an axis is logarithmic
_MOST_NAMES = 14  # marked points whose names have room
_ROW, _NAMES, _BAR = 28, 300, 600


@dataclass(frozen=True)
class Axis:
    """What a direction of the plot shows."""

    title: str
    lower_is_better: bool = True
    integers: bool = False  # counts, which are never logarithmic


@dataclass(frozen=True)
class Dot:
    """A point; `name` is drawn beside a chosen one, `told` appears under the pointer."""

    x: float
    y: float
    name: str
    caption: str
    chosen: bool


@dataclass(frozen=True)
class _Scale:
    """Where the values of an axis lie between two places of the drawing."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], axis: Axis, start: float, end: float) -> _Scale:
        low, high = min(values), max(values)
        log = not axis.integers and low > 0 and high / low > _FAR
        if log:
            low, high = math.log10(low), math.log10(high)
        room = 0.07 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low - room, high + room, log, start, end)

    def at(self, value: float) -> float:
        place = math.log10(value) if self.log else value
        return round(self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self, *, integers: bool) -> list[float]:
        if not self.log:
            return [
                value for value in ticks(self.low, self.high, 5) if not integers or (value == int(value) and value >= 0)
            ]
        marks = []
        for power in range(math.floor(self.low), math.ceil(self.high) + 1):
            for digit in (1, 2, 5) if self.high - self.low < 3 else (1,):
                value = digit * 10.0**power
                if self.low <= math.log10(value) <= self.high:
                    marks.append(value)
        return marks


def scatter(title: str, x: Axis, y: Axis, dots: Sequence[Dot], line: Sequence[tuple[float, float]], means: str) -> Html:
    """A plot of at least one point under its title, in which the chosen ones stand out by size, colour and name.

    Parameters
    ----------
    line : points of a staircase through which nothing better is known, in any order; empty for none.
    means : what the staircase is, in a word or two.
    """
    across = _Scale.around([dot.x for dot in dots], x, _LEFT, _WIDTH - _RIGHT)
    up = _Scale.around([dot.y for dot in dots], y, _HEIGHT - _BOTTOM, _TOP)
    chosen = [dot for dot in dots if dot.chosen]
    pieces = [*_levels(up, y), *_marks(across, x)]
    if len(line) > 1:
        pieces.append(tag("path", d=_staircase(line, across, up, x), class_="line series1"))
    pieces += [_dot(dot, across, up, name=False) for dot in dots if not dot.chosen]
    pieces += [_dot(dot, across, up, name=len(chosen) <= _MOST_NAMES) for dot in chosen]
    spoken = f"{title}: {len(dots)} trials; marked are " + "; ".join(
        f"trial {dot.name} at {number(dot.x)}, {number(dot.y)}" for dot in chosen
    )
    legend = tag(
        "span",
        tag("i", means if len(line) > 1 else "front", class_="key series1"),
        tag("i", "other trials", class_="key series3") if len(chosen) < len(dots) else None,
        class_="legend",
    )
    return tag(
        "figure",
        tag("figcaption", tag("b", title), " ", legend),
        tag("svg", tag("title", spoken), *pieces, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img"),
        class_="chart large",
    )


def _staircase(line: Sequence[tuple[float, float]], across: _Scale, up: _Scale, x: Axis) -> str:
    """What the points dominate is on one side of it."""
    points = sorted(line)
    path = f"M{across.at(points[0][0]):g} {up.at(points[0][1]):g}"
    for a, b in points[1:]:
        path += f"H{across.at(a):g}V{up.at(b):g}" if x.lower_is_better else f"V{up.at(b):g}H{across.at(a):g}"
    return path


def _dot(dot: Dot, across: _Scale, up: _Scale, *, name: bool) -> Html:
    x, y = across.at(dot.x), up.at(dot.y)
    series = "series1" if dot.chosen else "series3"
    return tag(
        "g",
        tag("title", f"{dot.caption} ({number(dot.x)}, {number(dot.y)})"),
        tag("circle", cx=x, cy=y, r=5.5 if dot.chosen else 3.5, class_=f"dot {series}"),
        tag("text", dot.name, x=x + 8, y=y - 7, class_="axis") if dot.chosen and name else None,
    )


def _levels(up: _Scale, axis: Axis) -> list[Html]:
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    pieces = [
        tag(
            "text",
            axis.title,
            x=14,
            y=middle,
            text_anchor="middle",
            class_="axis",
            transform=f"rotate(-90 14 {middle:g})",
        )
    ]
    for value in up.ticks(integers=axis.integers):
        y = up.at(value)
        pieces.append(tag("path", d=f"M{_LEFT} {y:g}H{_WIDTH - _RIGHT}", class_="rule"))
        pieces.append(tag("text", number(value), x=_LEFT - 7, y=y + 4, text_anchor="end"))
    return pieces


def _marks(across: _Scale, axis: Axis) -> list[Html]:
    base = _HEIGHT - _BOTTOM
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    pieces = [tag("text", axis.title, x=middle, y=_HEIGHT - 8, text_anchor="middle", class_="axis")]
    for value in across.ticks(integers=axis.integers):
        x = across.at(value)
        pieces.append(tag("path", d=f"M{x:g} {base}v4", class_="zero"))
        pieces.append(tag("text", number(value), x=x, y=base + 17, text_anchor="middle"))
    return pieces


def bars(title: str, shares: Mapping[str, float]) -> Html:
    """Horizontal bars of shares in [0, 1], in their order, each with its name and per cent."""
    pieces = []
    for i, (name, share) in enumerate(shares.items()):
        y = i * _ROW
        pieces += [
            tag("text", name, x=_NAMES - 10, y=y + 17, text_anchor="end", class_="axis"),
            tag("rect", x=_NAMES, y=y + 5, width=round(_BAR * share, 1), height=_ROW - 10, rx=3, class_="bar series1"),
            tag("text", f"{100 * share:.0f} %", x=_NAMES + round(_BAR * share, 1) + 8, y=y + 17),
        ]
    spoken = f"{title}: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return tag(
        "figure",
        tag("figcaption", tag("b", title)),
        tag("svg", tag("title", spoken), *pieces, viewBox=f"0 0 {_WIDTH} {_ROW * len(shares)}", role="img"),
        class_="chart large",
    )
