"""AM score and mode score: closed forms, what tells them from the inception score, errors."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics.am_score import AMScore, ModeScore, am_score, mode_score
from ganvas.shelves.metrics.inception_score import inception_score
from ganvas.types import Evidence, EvidenceSet

pytestmark = pytest.mark.filterwarnings("ignore:.*samples are few")

logits = hnp.arrays(np.float64, (12, 4), elements=st.floats(-20, 20))


def of_shares(*counts: int, sure: float = 60) -> np.ndarray:
    """One-hot predictions, so many of each class."""
    return sure * np.eye(len(counts))[np.repeat(np.arange(len(counts)), counts)]


def test_sure_predictions_leave_the_divergence_of_the_shares() -> None:
    real, fake = of_shares(5, 5, 10), of_shares(4, 12, 4)
    p, q = np.array([0.25, 0.25, 0.5]), np.array([0.2, 0.6, 0.2])
    assert am_score(real, fake) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-9)
    entropy = -(q * np.log(q)).sum()
    assert mode_score(real, fake) == pytest.approx(np.exp(entropy - (q * np.log(q / p)).sum()), rel=1e-9)


def test_a_class_that_is_left_out_costs_what_the_classifier_leaves_to_it() -> None:
    """Finite, because a softmax leaves something to every class: ln 1/2 + the logit, halved."""
    real, fake = of_shares(10, 10), of_shares(20, 0)
    assert am_score(real, fake) == pytest.approx(math.log(0.5) + 60 / 2, rel=1e-9)


@given(logits, logits)
def test_ranges_and_identities(real: np.ndarray, fake: np.ndarray) -> None:
    am, mode, inception = am_score(real, fake), mode_score(real, fake), inception_score(fake)
    assert am >= 0
    assert 0 < mode <= inception * (1 + 1e-9)
    assert mode_score(fake, fake) == pytest.approx(inception, rel=1e-9)
    same = am_score(fake, fake)
    p = np.exp(fake - fake.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    mean = p.mean(0)
    assert math.log(inception) + same == pytest.approx(-(mean * np.log(mean)).sum(), abs=1e-9)
    # Che et al.'s own form, with the real shares in both places, is the inception score whatever the real data are.
    log_real = np.log(np.mean(np.exp(real) / np.exp(real).sum(1, keepdims=True), 0))
    literal = (p * (np.log(p) - log_real)).sum(1).mean() - (mean * (np.log(mean) - log_real)).sum()
    assert literal == pytest.approx(math.log(inception), abs=1e-9)


def test_order_and_type_change_nothing() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 4)), rng.normal(size=(50, 4))
    for score in (am_score, mode_score):
        value = score(real, fake)
        assert score(real[::-1], rng.permutation(fake)) == pytest.approx(value, rel=1e-12)
        assert score(torch.from_numpy(real), torch.from_numpy(fake)) == value


def test_the_parts_read_evidence() -> None:
    real, fake = (torch.from_numpy(of_shares(20, 20, 20)).float() for _ in range(2))
    evidence = Evidence(EvidenceSet(logits=real), EvidenceSet(logits=fake))
    assert AMScore()(evidence) == {"am_score": pytest.approx(0, abs=1e-6)}
    assert ModeScore()(evidence) == {"mode_score": pytest.approx(3, rel=1e-6)}


def test_warns_of_few_samples_and_only_of_them() -> None:
    with pytest.warns(UserWarning, match="39 generated samples are few for the shares of 4 classes"):
        am_score(np.zeros((40, 4)), np.zeros((39, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        am_score(np.zeros((40, 4)), np.zeros((40, 4)))


def test_errors_name_the_fault() -> None:
    good = np.zeros((40, 4))
    with pytest.raises(UsageError, match="am-score needs logits"):
        AMScore()(Evidence(EvidenceSet(), EvidenceSet(logits=torch.zeros(40, 4))))
    with pytest.raises(UsageError, match="mode-score needs logits"):
        ModeScore()(Evidence(EvidenceSet(logits=torch.zeros(40, 4)), EvidenceSet()))
    with pytest.raises(UsageError, match="of 4 classes and fake ones of 3"):
        mode_score(good, good[:, :3])
    with pytest.raises(UsageError, match="0 fake logits"):
        am_score(good, good[:0])
    with pytest.raises(DataError, match="40 of 40 real logits hold NaN"):
        am_score(good * np.nan, good)
