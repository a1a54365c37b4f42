"""FID-infinity: the line it fits, the bias that it takes away, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganvas.errors import UsageError
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features, gaussian_of_features
from ganvas.shelves.metrics.frechet_infinity import FrechetInfinity, distances_of_subsets, extrapolated
from ganvas.stats.moments import moments_of
from ganvas.types import Evidence, EvidenceSet, Moments


def evidence(moments: Moments, fake: np.ndarray) -> Evidence:
    return Evidence(EvidenceSet(moments=moments), EvidenceSet(features=torch.from_numpy(fake)))


def test_reads_a_line_at_infinity() -> None:
    counts = np.array([100, 150, 400, 1000])
    assert extrapolated(counts, 3.5 + 70 / counts) == pytest.approx(3.5, rel=1e-12)


def test_takes_the_bias_of_few_generated_samples_away() -> None:
    truth = Moments(np.zeros(8), np.eye(8), 0)  # the reference is exact, so the true distance is 0
    rng = np.random.default_rng(0)
    plain, at_infinity = [], []
    for seed in range(20):
        fake = rng.normal(size=(400, 8))
        counts, distances = distances_of_subsets(gaussian_of_truth(truth), fake, points=10, seed=seed)
        plain.append(distances[-1])
        at_infinity.append(extrapolated(counts, distances))
    assert np.mean(plain) > 0.03  # about d (d + 3) / (4 n)
    error = np.std(at_infinity) / np.sqrt(20)
    assert abs(np.mean(at_infinity)) < 3 * error < np.mean(plain) / 2


def gaussian_of_truth(moments: Moments):
    from ganvas.shelves.metrics.frechet_distance import DenseGaussian

    return DenseGaussian(moments)


def test_the_last_subset_is_the_whole_and_the_seed_decides_the_others() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(200, 4)), rng.normal(0.3, 1, size=(150, 4))
    counts, distances = distances_of_subsets(gaussian_of_features(real), fake, points=5, seed=0)
    assert counts.tolist() == [15, 49, 82, 116, 150]
    assert distances[-1] == pytest.approx(frechet_distance_of_features(real, fake), rel=1e-9)
    first, again, other = (
        FrechetInfinity(points=5, seed=seed)(evidence(moments_of(real), fake))["frechet_infinity"] for seed in (0, 0, 1)
    )
    assert first == again == extrapolated(counts, distances) != other


def test_warns_of_subsets_below_full_rank_and_refuses_too_few() -> None:
    rng = np.random.default_rng(0)
    real, fake = moments_of(rng.normal(size=(200, 8))), rng.normal(size=(60, 8))
    with pytest.warns(UserWarning, match="smallest subset has 6 samples for 8 dimensions"):
        FrechetInfinity(points=5)(evidence(real, fake))
    with pytest.raises(UsageError, match="4 samples have no 15 subsets"):
        FrechetInfinity()(evidence(real, fake[:4]))
    with pytest.raises(UsageError, match="no features of generated"):
        FrechetInfinity()(Evidence(EvidenceSet(moments=real), EvidenceSet()))
