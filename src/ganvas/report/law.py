"""A law through points on two logarithmic axes, as inline SVG in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ganvas.report.charts import number
from ganvas.report.markup import Html, tag

_WIDTH, _HEIGHT = 640, 380  # units of the drawing, about a pixel each on the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 22, 16, 46


@dataclass(frozen=True)
class Dot:
    """A point of positive numbers; those that were `fitted` stand out, `name` appears under the pointer."""

    x: float
    y: float
    name: str
    fitted: bool


class _Log:
    """Where the values of a logarithmic axis lie between two places of the drawing."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        room = 0.05 * (high - low) or 0.05
        self.low, self.high, self.start, self.end = low - room, high + room, start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Powers of ten, with 2 and 5 times them or finer steps where there are few."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
            every = [digit * 10.0**power for power in powers for digit in digits]
            shown = [value for value in every if self.low <= math.log10(value) <= self.high]
            if len(shown) > 2:
                return shown[:: max(1, len(shown) // 6)]
        return shown


def law_figure(title: str, x: str, y: str, dots: Sequence[Dot], along: np.ndarray, law: np.ndarray) -> Html:
    """Points, the law through them, and the band in which further points are expected.

    Parameters
    ----------
    x, y : what the axes say, with units.
    along, law : (K,) places, and (K, 3) the law, the lower and the upper edge of the band there; all positive.
    """
    across = _Log([*(dot.x for dot in dots), *along.tolist()], _LEFT, _WIDTH - _RIGHT)
    floor = min(min(dot.y for dot in dots), float(law[:, 0].min())) / 3  # a band may reach next to 0
    band = np.clip(law, floor, None)
    up = _Log([*(dot.y for dot in dots), float(band.min()), float(law[:, 0].max())], _HEIGHT - _BOTTOM, _TOP)
    roof = 10**up.high
    pieces: list[Html] = []
    for value in up.ticks():
        pieces.append(tag("path", d=f"M{_LEFT} {up.at(value):g}H{_WIDTH - _RIGHT}", class_="rule"))
        pieces.append(tag("text", number(value), x=_LEFT - 7, y=up.at(value) + 4, text_anchor="end"))
    for value in across.ticks():
        pieces.append(tag("path", d=f"M{across.at(value):g} {_HEIGHT - _BOTTOM}v4", class_="zero"))
        shown = f"{value:.1e}".replace("e+0", "e").replace("e+", "e").replace(".0e", "e")
        pieces.append(tag("text", shown, x=across.at(value), y=_HEIGHT - _BOTTOM + 17, text_anchor="middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    pieces.append(
        tag("text", x, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 8, text_anchor="middle", class_="axis")
    )  # fmt: skip
    pieces.append(
        tag("text", y, x=14, y=middle, text_anchor="middle", class_="axis", transform=f"rotate(-90 14 {middle:g})")
    )
    for column, class_ in ((1, "line faint series1"), (2, "line faint series1"), (0, "line series1")):
        line = zip(along.tolist(), np.clip(band[:, column], None, roof).tolist(), strict=True)
        path = "M" + " L".join(f"{across.at(a):g} {up.at(b):g}" for a, b in line)
        pieces.append(tag("path", d=path, class_=class_))
    for dot in sorted(dots, key=lambda dot: dot.fitted):
        circle = tag(
            "circle", cx=across.at(dot.x), cy=up.at(dot.y), r=5 if dot.fitted else 3.5,
            class_=f"dot series{1 if dot.fitted else 3}",
        )  # fmt: skip
        pieces.append(tag("g", tag("title", f"{dot.name} ({number(dot.x)}, {number(dot.y)})"), circle))
    beaten = sum(not dot.fitted for dot in dots)
    legend = tag(
        "span",
        tag("i", "law, and where further runs are expected", class_="key series1"),
        tag("i", "beaten by others", class_="key series3") if beaten else None,
        class_="legend",
    )
    spoken = f"{title}: {len(dots)} points, {len(dots) - beaten} of them fitted"
    return tag(
        "figure",
        tag("figcaption", tag("b", title), " ", legend),
        tag("svg", tag("title", spoken), *pieces, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img"),
        class_="chart large",
    )
