"""The Pareto front, and the page that shows it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ganvas.evaluation.protocol import Column
from ganvas.experiments.search.pareto import Trial, on_pareto_front, pareto_front
from ganvas.report.pareto import Axis, Dot, bars, scatter

LOW, HIGH = Column(True, (-np.inf, np.inf), ""), Column(False, (-np.inf, np.inf), "")


def dominates(one: list[float], other: list[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@given(st.integers(1, 4).flatmap(lambda k: st.lists(st.lists(st.integers(0, 6), min_size=k, max_size=k), min_size=1)))
def test_the_front_is_what_no_other_point_dominates(points: list[list[int]]) -> None:
    """Against the definition, pair by pair; small integers make ties and copies common."""
    found = on_pareto_front(np.array(points, dtype=float))
    assert found.tolist() == [not any(dominates(other, point) for other in points) for point in points]
    assert found.any()


def complete(number: int, **values: float) -> Trial:
    return Trial(number, "complete", {}, {name: (value,) for name, value in values.items()})


def test_directions_count_and_trials_without_values_do_not() -> None:
    trials = [
        complete(0, fd=2.0, coverage=0.5),
        complete(1, fd=1.0, coverage=0.4),
        complete(2, fd=2.5, coverage=0.4),
        Trial(3, "failed", {}),
        Trial(4, "running", {}),
    ]
    assert [each.number for each in pareto_front(trials, {"fd": LOW, "coverage": HIGH})] == [1, 0]
    assert [each.number for each in pareto_front(trials, {"fd": LOW, "coverage": LOW})] == [1]
    assert [each.number for each in pareto_front(trials, {"coverage": HIGH})] == [0]  # of one objective, the best alone
    assert pareto_front(trials[3:], {"fd": LOW}) == []


def test_of_equal_bests_the_first_counts() -> None:
    assert [each.number for each in pareto_front([complete(3, fd=1.0), complete(5, fd=1.0)], {"fd": LOW})] == [3]


def test_seeds_are_averaged() -> None:
    assert Trial(0, "complete", {}, {"fd": (1.0, 2.0, 6.0)}).values == {"fd": 3.0}


DOTS = [
    Dot(1, 9, "0", "<width 4>", True),
    Dot(2, 4, "1", "", True),
    Dot(3, 3, "2", "", True),
    Dot(3, 8, "3", "", False),
]


def svg_of(figure: str) -> ElementTree.Element:
    found = re.search(r"<svg.*</svg>", figure, re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0])


def test_every_trial_is_a_dot_and_those_on_the_front_have_names() -> None:
    drawn = svg_of(scatter("a", Axis("size"), Axis("fd"), DOTS, [(1, 9), (2, 4), (3, 3)], "front"))
    circles = drawn.findall(".//circle")
    assert len(circles) == 4 and sum("series1" in (each.get("class") or "") for each in circles) == 3
    assert {each.text for each in drawn.findall(".//g/text")} == {"0", "1", "2"}
    assert any("<width 4>" in (each.text or "") for each in drawn.findall(".//g/title"))  # escaped, not markup


def test_no_point_of_the_front_is_beyond_its_staircase() -> None:
    """Where both are minimised the line runs right at the height of the last point, then down: never through less."""
    path = svg_of(scatter("a", Axis("size"), Axis("fd"), DOTS, [(2, 4), (1, 9), (3, 3)], "front")).findall("path")
    line = next(each.get("d") or "" for each in path if "line" in (each.get("class") or ""))
    assert re.fullmatch(r"M[\d.]+ [\d.]+(H[\d.]+V[\d.]+){2}", line)
    higher = scatter("a", Axis("coverage", lower_is_better=False), Axis("fd"), DOTS, [(1, 3), (2, 4)], "front")
    assert re.search(r"M[\d.]+ [\d.]+V[\d.]+H[\d.]+", higher)


def test_values_of_several_magnitudes_have_a_logarithmic_axis() -> None:
    """Equal ratios are equal distances."""
    dots = [Dot(x, 1.0 + x, str(i), "", True) for i, x in enumerate((1.0, 10.0, 100.0, 1000.0))]
    places = [
        float(each.get("cx") or 0) for each in svg_of(scatter("a", Axis("x"), Axis("y"), dots, [], "")).iter("circle")
    ]
    steps = np.diff(places)
    assert np.allclose(steps, steps[0], atol=0.11) and steps[0] > 50


def test_a_single_trial_and_equal_values_can_be_drawn() -> None:
    for dots in ([Dot(3, 0, "0", "", True)], [Dot(5, 5, "0", "", True), Dot(5, 5, "1", "", True)]):
        for circle in svg_of(scatter("a", Axis("x"), Axis("y"), dots, [], "")).iter("circle"):
            assert np.isfinite([float(circle.get("cx") or "nan"), float(circle.get("cy") or "nan")]).all()


def test_bars_are_as_long_as_their_shares() -> None:
    widths = [float(each.get("width") or 0) for each in svg_of(bars("a", {"lr": 0.75, "width": 0.25})).iter("rect")]
    assert widths[0] == 3 * widths[1] > 0


def test_the_stylesheet_knows_both_colours_of_the_plot() -> None:
    style = (Path(__file__).parents[2] / "src/ganvas/report/style.css").read_text()
    assert "svg .series1" in style and "svg .bar" in style
