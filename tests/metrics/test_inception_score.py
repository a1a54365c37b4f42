"""The Inception score: closed forms, pieces, order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics.inception_score import InceptionScore, inception_score, inception_scores
from ganvas.types import Evidence, EvidenceSet


def score(logits: np.ndarray, **options: int) -> float:
    fake = EvidenceSet(logits=torch.from_numpy(logits))
    return InceptionScore(**options)(Evidence(EvidenceSet(), fake))["inception_score"]


def test_sure_and_even_is_the_number_of_classes_and_all_alike_is_1() -> None:
    sure = 60.0 * np.eye(5)[np.arange(100) % 5]
    assert inception_score(sure) == pytest.approx(5)
    assert inception_score(np.tile(sure[:1], (100, 1))) == pytest.approx(1)
    assert inception_score(np.zeros((10, 5))) == pytest.approx(1)


def test_pieces_are_cut_where_the_published_code_cuts_them() -> None:
    logits = np.random.default_rng(0).normal(0, 2, size=(11, 4))
    cuts = [(0, 3), (3, 7), (7, 11)]  # i N // 3
    assert inception_scores(logits, splits=3) == pytest.approx([inception_score(logits[a:b]) for a, b in cuts])


def test_samples_sorted_by_class_do_not_lower_the_mean_over_pieces() -> None:
    sure = 60.0 * np.eye(5)[np.sort(np.arange(1000) % 5)]
    assert inception_score(sure, splits=5) == pytest.approx(1)  # in this order each piece has one class
    assert score(sure, splits=5) > 4.8
    assert score(sure, splits=5) == score(sure, splits=5) != score(sure, splits=5, seed=1)


def test_errors_name_the_fault() -> None:
    logits = np.zeros((3, 2))
    with pytest.raises(UsageError, match="3 logits, and at least 4"):
        inception_score(logits, splits=4)
    with pytest.raises(UsageError, match="splits must be at least 1"):
        inception_scores(logits, splits=0)
    with pytest.raises(DataError, match="NaN"):
        inception_score(logits * np.nan)
    with pytest.raises(UsageError, match="extractor has none"):
        InceptionScore()(Evidence(EvidenceSet(), EvidenceSet()))
