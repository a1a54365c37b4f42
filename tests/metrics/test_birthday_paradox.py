"""The birthday paradox test: planted supports are found, the threshold comes from the real set."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics import arrays, birthday_paradox
from ganvas.shelves.metrics.birthday_paradox import (
    BirthdayParadox,
    collision_batch_size,
    nearest_distance,
    support_size,
)
from ganvas.types import Evidence, EvidenceSet


def planted(support: int, n: int, seed: int = 0) -> np.ndarray:
    """n draws with replacement from so many points far apart, each a little off, (n, 8)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(support, 8))[rng.integers(support, size=n)] + 1e-4 * rng.normal(size=(n, 8))


def exact_batch_size(support: int) -> int:
    """The least s with 1 - (1 - 1/N) (1 - 2/N) ... (1 - (s - 1)/N) >= 1/2."""
    alone, s = 1.0, 1
    while alone > 0.5:
        alone *= 1 - s / support
        s += 1
    return s


@pytest.mark.parametrize("support", [1, 23, 365, 3000])
def test_a_planted_support_is_found(support: int) -> None:
    """With 365 birthdays, 23 people do."""
    batch = collision_batch_size(planted(support, 4000), 0.01, orders=1001)
    exact = exact_batch_size(support)
    assert exact == {1: 2, 365: 23}.get(support, exact)
    assert batch == pytest.approx(exact, rel=0.1, abs=1)
    if support >= 365:
        assert support_size(batch) == pytest.approx(support, rel=0.25)


def test_support_size_is_the_square_over_two_log_two() -> None:
    assert support_size(100) == pytest.approx(10_000 / (2 * math.log(2)))
    assert support_size(0.1) == 1


def test_no_pair_means_a_lower_bound_and_a_warning() -> None:
    x = np.random.default_rng(0).normal(size=(50, 8))
    with pytest.warns(UserWarning, match="no two of 50 samples are the same: 50 samples are few"):
        assert collision_batch_size(x, 1e-6) == 50
    x[1] = x[0]  # the one pair is complete at draw s with probability s (s - 1) / (50 * 49): median 35 or 36
    assert collision_batch_size(x, 1e-6, orders=4001) == pytest.approx(35.5, abs=1)


def test_the_threshold_is_a_quantile_of_nearest_distances() -> None:
    x = np.array([[0.0], [1.0], [3.0], [6.0], [10.0]])  # nearest others at 1, 1, 2, 3, 4
    assert [nearest_distance(x, share) for share in (0.2, 0.4, 0.6, 0.8)] == pytest.approx([1, 2, 3, 4])
    with pytest.warns(UserWarning, match="5 real samples are few"):
        assert nearest_distance(x, 0.01) == pytest.approx(1)


def test_blocks_and_caps_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    x = planted(40, 600)
    whole = collision_batch_size(x, 0.01, orders=501)
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 7)
    assert collision_batch_size(x, 0.01, orders=501) == whole
    monkeypatch.setattr(birthday_paradox, "_PAIRS", 500)
    assert collision_batch_size(x, 0.01, orders=501) == pytest.approx(whole, abs=2)


def test_a_set_of_one_image_looks_at_a_bounded_number_of_pairs() -> None:
    pairs, count = birthday_paradox._close_pairs(np.ones((5000, 2)), 0)
    assert len(pairs) == count * (count - 1) // 2 <= birthday_paradox._PAIRS
    assert pairs.max() < count
    assert collision_batch_size(np.ones((5000, 2)), 0) == 2


def test_the_part_reads_evidence() -> None:
    real = torch.from_numpy(np.random.default_rng(1).normal(size=(300, 8))).float()
    many, few = (torch.from_numpy(planted(support, 1000)).float() for support in (300, 20))
    metric = BirthdayParadox()
    values = [metric(Evidence(EvidenceSet(features=real), EvidenceSet(features=fake))) for fake in (many, few)]
    assert values[0] == metric(Evidence(EvidenceSet(features=real), EvidenceSet(features=many)))
    assert [each["birthday_support_size"] for each in values] == pytest.approx([300, 20], rel=0.4)
    assert values[1]["birthday_support_size"] == support_size(values[1]["birthday_batch_size"])


def test_errors_name_the_fault() -> None:
    x = np.ones((5, 3))
    with pytest.raises(UsageError, match="no features"):
        BirthdayParadox()(Evidence(EvidenceSet(), EvidenceSet()))
    with pytest.raises(UsageError, match="1 fake features"):
        collision_batch_size(x[:1], 1.0)
    with pytest.raises(UsageError, match="1 real features"):
        nearest_distance(x[:1], 0.5)
    with pytest.raises(DataError, match="NaN"):
        collision_batch_size(x * np.nan, 1.0)
