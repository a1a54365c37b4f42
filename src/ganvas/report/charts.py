"""Line charts as inline SVG. Colours are CSS variables of the page, so a chart follows light and dark by itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ganvas.report.markup import Html, tag

_WIDTH, _HEIGHT = 360, 210  # units of the drawing; text of 11 units is then 11 pixels or more on the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 10, 26
_MOST_POINTS = 400
_MOST_DOTS = 40  # above that many, dots hide the line


@dataclass(frozen=True)
class Point:
    """A value at a step, with its interval where there is one."""

    step: int
    value: float
    low: float | None = None
    high: float | None = None


def number(value: float | None) -> str:
    """A number for people: four digits, a true minus, commas between thousands."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}").replace("-", "−")


def numbers(value: float, low: float | None, high: float | None) -> tuple[str, str, str]:
    """(value, low, high) to the same decimals: as many as its interval makes worth reading, two digits of its width."""
    if low is None or high is None or not (math.isfinite(value) and 0 < high - low < math.inf):
        return number(value), number(low), number(high)
    decimals = max(0, 1 - math.floor(math.log10(high - low)))
    first, second, third = (f"{quantity:,.{decimals}f}".replace("-", "−") for quantity in (value, low, high))
    return first, second, third


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers inside [low, high]: steps are 1, 2, 2.5 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    width = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda w: abs(span / w - count))
    return [width * i for i in range(math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9) + 1)]


def thinned(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most `most` points: of each stretch its lowest and highest, so that no spike is lost; both ends stay."""
    if len(points) <= most:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    chosen = [points[0]]
    for i in range(stretches):
        piece = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
        ends = {min(piece, key=lambda p: p.value), max(piece, key=lambda p: p.value)}
        chosen.extend(sorted(ends, key=lambda p: p.step))
    return [*chosen, points[-1]]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Means over a window of a twentieth of the points, centred and cut off at the ends."""
    half = len(points) // 40
    sums = list(itertools.accumulate((point.value for point in points), initial=0.0))
    means = []
    for i, point in enumerate(points):
        start, end = max(0, i - half), min(len(points), i + half + 1)
        means.append(Point(point.step, (sums[end] - sums[start]) / (end - start)))
    return means


def line_chart(title: str, points: Sequence[Point], *, colour: int = 1, note: str = "", noisy: bool = True) -> Html:
    """A small chart under its title: one line over steps, with interval bars where points have intervals.

    Few points are dots on the line; of many noisy ones the line is faint, and their moving mean lies over it.

    Parameters
    ----------
    points : finite values in the order of their steps, at least one.
    colour : which of the page's two series colours.
    note : stands beside the title, such as "lower is better".
    noisy : False for values that are exact, such as a learning rate.
    """
    dots = len(points) <= _MOST_DOTS
    mean = smoothed(points) if noisy and not dots else []
    points = thinned(points)
    bounds = [bound for p in points for bound in (p.value, p.low, p.high) if bound is not None]
    low, high = _padded(min(bounds), max(bounds))
    first, last = points[0].step, max(points[-1].step, points[0].step + 1)

    def x(step: float) -> float:
        return round(_LEFT + (step - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    def path(through: Sequence[Point]) -> str:
        return "M" + " L".join(f"{x(p.step):g} {y(p.value):g}" for p in through)

    drawn = [
        *(_level(y(value), _tick_text(value, high - low), zero=value == 0) for value in ticks(low, high, 4)),
        *(_mark(x(step), _step_text(step, last)) for step in ticks(first, last, 5) if step == int(step)),
        *(_interval(x(p.step), y(p.low), y(p.high)) for p in points if p.low is not None and p.high is not None),
        tag("path", d=path(points), class_="line faint" if mean else "line"),
    ]
    if mean:
        drawn.append(tag("path", d=path(thinned(mean)), class_="line"))
    if dots:
        drawn += [tag("circle", cx=x(p.step), cy=y(p.value), r=3, class_="dot") for p in points]
    spoken = (
        f"{title}: {number(points[0].value)} at step {points[0].step}, {number(points[-1].value)} at step "
        f"{points[-1].step}; between {number(min(p.value for p in points))} and {number(max(p.value for p in points))}"
    )
    return tag(
        "figure",
        tag("figcaption", tag("b", title), " ", tag("span", note) if note else None),
        tag(
            "svg", tag("title", spoken), *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_=f"series{colour}"
        ),
        class_="chart",
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _level(y: float, text: str, *, zero: bool) -> Html:
    return tag(
        "g",
        tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="zero" if zero else "rule"),
        tag("text", text, x=_LEFT - 7, y=y + 3.8, text_anchor="end"),
    )


def _mark(x: float, text: str) -> Html:
    base = _HEIGHT - _BOTTOM
    return tag(
        "g",
        tag("line", x1=x, x2=x, y1=base, y2=base + 4, class_="zero"),
        tag("text", text, x=x, y=base + 17, text_anchor="middle"),
    )


def _interval(x: float, low: float, high: float) -> Html:
    return tag("path", d=f"M{x:g} {low:g} V{high:g} M{x - 4:g} {low:g} h8 M{x - 4:g} {high:g} h8", class_="interval")


def _tick_text(value: float, span: float) -> str:
    """Just as many decimals as tell neighbouring ticks apart."""
    if abs(value) < span * 1e-9:
        return "0"
    if span < 1e-4 or abs(value) >= 1e5:
        return f"{value:.3g}".replace("-", "−")
    text = f"{value:.{max(0, 2 - math.floor(math.log10(span)))}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def _step_text(step: float, last: float) -> str:
    """Steps of one axis in one unit, whichever its end asks for."""
    unit, letter = next(((u, c) for u, c in ((1e6, "M"), (1e3, "k")) if last >= 10 * u), (1, ""))
    return f"{step / unit:g}{letter if step else ''}"
