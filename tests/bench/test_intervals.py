"""Intervals are Student's, variances add, and halves say what a larger sample would have said."""

import math

import numpy as np
import pytest
from scipy import stats

from ganvas.stats.intervals import around, halves, t_interval


def test_t_interval_is_students_and_says_nothing_of_one_value() -> None:
    values = [1.0, 2.0, 4.0]
    low, high = t_interval(values)
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert t_interval([3.0]) == (None, None)


def test_two_errors_are_welchs() -> None:
    """The difference of two means with unlike variances: scipy's Welch test knows its interval."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 8), rng.normal(0, 3, 5)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    errors = [(float(stats.sem(a)), 7), (float(stats.sem(b)), 4)]
    assert around(float(a.mean() - b.mean()), errors) == pytest.approx((welch.low, welch.high))


def test_an_interval_is_cut_at_what_a_value_can_be() -> None:
    low, high = around(0.98, [(0.1, 3)], (0.0, 1.0))
    assert high == 1.0 and low is not None and low < 0.98


def test_no_spread_is_an_interval_of_no_width() -> None:
    assert around(2.0, [(0.0, 4)]) == (2.0, 2.0)
    assert around(2.0, []) == (None, None)


def test_the_spread_of_halves_is_the_standard_error_of_the_whole() -> None:
    """For a mean this is exact in expectation; 4,000 halves know it to about 1 %."""
    values = np.random.default_rng(0).exponential(size=200)
    means = [values[rows].mean() for rows in halves(200, 4000, 0)]
    assert np.std(means) == pytest.approx(values.std(ddof=1) / math.sqrt(200), rel=0.05)


def test_halves_hold_no_copies_and_are_drawn_alike_every_time() -> None:
    once, again = list(halves(11, 3, 5)), list(halves(11, 3, 5))
    for rows, same in zip(once, again, strict=True):
        assert len(set(rows.tolist())) == 5 and (rows == same).all()
    assert not (once[0] == once[1]).all()


def test_an_interval_from_halves_covers_the_truth_as_often_as_it_says() -> None:
    """The mean of 60 values, 20 halves each, 400 times over: 95 % of intervals hold the true mean."""
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(400):
        values = rng.normal(size=60)
        error = float(np.std([values[rows].mean() for rows in halves(60, 20, trial)], ddof=1))
        low, high = around(float(values.mean()), [(error, 19)])
        assert low is not None and high is not None
        inside += low <= 0 <= high
    assert 0.92 <= inside / 400 <= 0.98
