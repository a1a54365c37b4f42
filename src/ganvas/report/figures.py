"""Charts with several series as inline SVG: curves, points and histograms, each series with its own colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ganvas.report.charts import number, ticks
from ganvas.report.markup import Html, join, tag
from ganvas.types import Chart

_WIDTH, _HEIGHT = 560, 320  # units of the drawing, about a pixel each on the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 40
_BINS = 40
_COLOURS = 3  # the page's series colours


def figure(chart: Chart) -> Html:
    """The chart under its caption, with a legend where there are several series."""
    series = {name: tuple(np.asarray(part, dtype=np.float64) for part in parts) for name, parts in chart.series.items()}
    series = {name: _finite(parts) for name, parts in series.items()}
    series = {name: parts for name, parts in series.items() if len(parts[0])}
    if not series:
        return tag("p", f"{chart.caption}: nothing that is finite.", class_="note")
    drawn = _histogram(series) if chart.kind == "histogram" else series
    points = chart.kind == "points"
    frame = _Frame.around(drawn.values(), from_zero=chart.kind == "histogram", bare=points)
    pieces: list[Html] = [] if points else [*frame.axes(chart.x, chart.y)]
    for i, (x, y) in enumerate(drawn.values()):
        if points:
            dots = "".join(f"M{frame.x(a):g} {frame.y(b):g}h0" for a, b in zip(x, y, strict=True))
            pieces.append(tag("path", d=dots, class_=f"dots series{1 + i % _COLOURS}"))
        else:
            line = "M" + " L".join(f"{frame.x(a):g} {frame.y(b):g}" for a, b in zip(x, y, strict=True))
            kind = "steps" if chart.kind == "histogram" else "line"
            pieces.append(tag("path", d=line, class_=f"{kind} series{1 + i % _COLOURS}"))
    lengths = "; ".join(f"{name}: {len(parts[0])} values" for name, parts in series.items())
    return tag(
        "figure",
        tag("figcaption", tag("b", chart.caption), " ", _legend(list(series)) if len(series) > 1 else None),
        tag("svg", tag("title", f"{chart.caption}. {lengths}"), *pieces, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img"),
        class_="chart large",
    )


def _legend(names: Sequence[str]) -> Html:
    return tag(
        "span", join(tag("i", name, class_=f"key series{1 + i % _COLOURS}") for i, name in enumerate(names)),
        class_="legend",
    )  # fmt: skip


def _finite(parts: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    good = np.logical_and.reduce([np.isfinite(part) for part in parts])
    return tuple(part[good] for part in parts)


def _histogram(series: Mapping[str, tuple[np.ndarray, ...]]) -> dict[str, tuple[np.ndarray, ...]]:
    """Outlines of the shares in common bins: sets of unlike size can be compared."""
    everything = np.concatenate([parts[0] for parts in series.values()])
    low, high = everything.min(), everything.max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    outlines: dict[str, tuple[np.ndarray, ...]] = {}
    for name, (values, *_) in series.items():
        share = np.histogram(values, edges)[0] / len(values)
        x = np.repeat(edges, 2)
        y = np.concatenate([[0.0], np.repeat(share, 2), [0.0]])
        outlines[name] = (x, y)
    return outlines


class _Frame:
    """Where values lie in the drawing."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], left: int, bottom: int) -> None:
        self.x_range, self.y_range = x, y
        self.left, self.bottom = left, bottom

    @classmethod
    def around(cls, series: object, *, from_zero: bool, bare: bool) -> _Frame:
        parts = list(series)  # type: ignore[call-overload]
        xs, ys = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        low, high = float(ys.min()), float(ys.max())
        room = 0.06 * (high - low) or 1.0
        y = (0.0 if from_zero else low - room, high + room)
        x0, x1 = float(xs.min()), float(xs.max())
        x = (x0, x1) if x1 > x0 else (x0 - 0.5, x0 + 0.5)
        if bare:
            x = (x[0] - 0.03 * (x[1] - x[0]), x[1] + 0.03 * (x[1] - x[0]))
        return cls(x, y, _RIGHT if bare else _LEFT, _TOP if bare else _BOTTOM)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(self.left + (value - low) / (high - low) * (_WIDTH - self.left - _RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return round(_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - self.bottom), 1)

    def axes(self, x_name: str, y_name: str) -> list[Html]:
        pieces = []
        for value in ticks(*self.y_range, 5):
            at = self.y(value)
            pieces.append(tag("path", d=f"M{self.left} {at:g}H{_WIDTH - _RIGHT}", class_="rule"))
            pieces.append(tag("text", _short(value), x=self.left - 6, y=at + 4, text_anchor="end"))
        base = _HEIGHT - self.bottom + 16
        pieces.extend(
            tag("text", _short(value), x=self.x(value), y=base, text_anchor="middle")
            for value in ticks(*self.x_range, 6)
        )
        if x_name:
            middle = (self.left + _WIDTH - _RIGHT) / 2
            pieces.append(tag("text", x_name, x=middle, y=_HEIGHT - 6, text_anchor="middle", class_="axis"))
        if y_name:
            middle = (_TOP + _HEIGHT - self.bottom) / 2
            pieces.append(
                tag("text", y_name, x=12, y=middle, text_anchor="middle", class_="axis",
                    transform=f"rotate(-90 12 {middle:g})")
            )  # fmt: skip
        return pieces


def _short(value: float) -> str:
    return "0" if math.isclose(value, 0, abs_tol=1e-12) else number(float(f"{value:.3g}"))
