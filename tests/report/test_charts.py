"""Curves as SVG: round ticks, no spike lost, numbers with as many digits as mean something."""

from __future__ import annotations

import math
import re

import pytest

from ganvas.report.charts import Point, line_chart, number, numbers, smoothed, thinned, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.03, 0.004), (50, 300), (0, 100_000), (0.9931, 0.9957), (-3e8, 5e9), (1e-9, 3e-9)]
)
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    width = found[1] - found[0]
    assert all(low - 1e-6 * width <= tick <= high + 1e-6 * width for tick in found)
    leading = width / 10.0 ** math.floor(math.log10(width) + 1e-9)
    assert any(math.isclose(leading, round_one, rel_tol=1e-6) for round_one in (1, 2, 2.5, 5))


def test_ticks_of_nothing() -> None:
    assert ticks(3.0, 3.0) == [3.0]


def test_thinning_keeps_spikes_and_ends() -> None:
    points = [Point(step, 0.0) for step in range(10_000)]
    points[1234] = Point(1234, 9.0)
    points[7777] = Point(7777, -9.0)
    kept = thinned(points)
    assert len(kept) <= 400
    assert {0, 1234, 7777, 9999} <= {point.step for point in kept}
    assert [point.step for point in kept] == sorted(point.step for point in kept)


def test_smoothing_is_a_moving_mean() -> None:
    points = [Point(step, float(step % 2)) for step in range(400)]
    middle = smoothed(points)[20:-20]
    assert all(abs(point.value - 0.5) < 0.03 for point in middle)
    assert len(smoothed(points)) == 400


def test_numbers_for_people() -> None:
    assert [number(value) for value in (1.23456, -0.5, 12345.6, float("nan"), float("-inf"), None)] == [
        "1.235", "−0.5", "12,346", "NaN", "−∞", "–",
    ]  # fmt: skip
    assert numbers(0.98933, 0.969254, 1.00941) == ("0.989", "0.969", "1.009")
    assert numbers(13.14159, 11.8, 14.4) == ("13.1", "11.8", "14.4")
    assert numbers(12345.6, 11000, 14000) == ("12,346", "11,000", "14,000")
    assert numbers(0.5, None, None) == ("0.5", "–", "–")
    assert numbers(0.5, 0.5, 0.5) == ("0.5", "0.5", "0.5")


@pytest.mark.parametrize(
    "points",
    [
        [Point(100, 2.0)],
        [Point(1, 2.0), Point(2, 2.0)],
        [Point(0, 0.0), Point(10, 1e-12)],
        [Point(step, (-1) ** step * 1e6, -2e6, 2e6) for step in range(1, 30)],
        [Point(step, math.sin(step / 50)) for step in range(5000)],
    ],
)
def test_nothing_is_drawn_outside(points: list[Point]) -> None:
    svg = str(line_chart("loss", points))
    assert "nan" not in svg.lower() and "inf" not in svg.lower()
    for path in re.findall(r'd="M([^V"]+)" class="line', svg):
        for pair in path.split(" L"):
            x, y = map(float, pair.split())
            assert 0 <= x <= 360 and 0 <= y <= 210


def test_a_chart_says_what_it_shows() -> None:
    svg = line_chart("Fréchet <distance>", [Point(10, 3.0, 2.5, 3.5), Point(20, 1.0, 0.5, 1.5)], note="lower is better")
    assert "<title>Fréchet &lt;distance&gt;: 3 at step 10, 1 at step 20; between 1 and 3</title>" in svg
    assert svg.count('class="interval"') == 2 and svg.count("<circle") == 2


def test_many_noisy_points_are_faint_under_their_mean() -> None:
    points = [Point(step, float(step)) for step in range(100)]
    assert str(line_chart("loss", points)).count("<path") == 2
    assert "faint" in line_chart("loss", points)
    assert str(line_chart("rate", points, noisy=False)).count("<path") == 1
