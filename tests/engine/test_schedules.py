"""Learning-rate schedules against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ganvas.shelves.schedules.factors import constant, cosine, linear


@pytest.mark.parametrize("schedule", [constant, linear, cosine])
def test_warm_up_rises_linearly_and_reaches_1(schedule: Callable[..., float]) -> None:
    factors = [schedule(step, 10**9, warmup_steps=5) for step in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0], abs=1e-6)


def test_linear_is_a_straight_line_from_start_to_final() -> None:
    assert [linear(step, 100) for step in (0, 25, 50, 100)] == pytest.approx([1, 0.75, 0.5, 0])
    assert [linear(step, 100, start=0.5, final=0.2) for step in (0, 50, 75, 100)] == pytest.approx([1, 1, 0.6, 0.2])


def test_cosine_is_half_a_cosine_from_1_to_final() -> None:
    assert [cosine(step, 100) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert cosine(25, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert [cosine(step, 100, start=0.5, final=0.1) for step in (0, 50, 75, 100)] == pytest.approx([1, 1, 0.55, 0.1])


def test_a_course_that_starts_at_the_end_never_falls() -> None:
    assert [linear(step, 10, start=1.0) for step in range(10)] == [1.0] * 10
