"""Copying of training data: the three metrics for it by hand, calibrated, and on planted models."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom, mannwhitneyu

from ganvas import parts
from ganvas.errors import UsageError
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.authenticity import Authenticity, authpct
from ganvas.shelves.metrics.data_copying import (
    DataCopying,
    ct_score,
    data_copying_z,
    mann_whitney_z,
    principal_components,
    probability_below,
)
from ganvas.shelves.metrics.duplicates import Duplicates, copies_of_training, copies_within
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.shelves.metrics.neighbourhoods import density_coverage, precision_recall
from ganvas.types import Evidence, EvidenceSet

Rows = np.ndarray


def column(*values: float) -> Rows:
    return np.array(values, dtype=float)[:, None]


def evidence(training: Rows, held_out: Rows, fake: Rows) -> Evidence:
    real, made, trained = (EvidenceSet(features=torch.from_numpy(each)) for each in (held_out, fake, training))
    return Evidence(real, made, training=trained)


# ------------------------------------------------------------------------------------------- data copying


def test_z_by_hand() -> None:
    # U counts the pairs in which the first is larger: 1 of 6, where a tie is half.
    assert mann_whitney_z([1, 2], [2, 3, 4]) == pytest.approx((0.5 - 3) / math.sqrt(6 * 6 / 12))
    # Distances to {0, 10}: generated 1 and 1, held out 2, 4, 3.
    z = data_copying_z(column(0, 10), column(2, 6, 7), column(1, 11))
    assert z == pytest.approx(-3 / math.sqrt(6 * 6 / 12))
    assert probability_below(-1.959964) == pytest.approx(0.025, abs=1e-6)
    assert probability_below(0) == 0.5


def test_z_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    for m, n in ((30, 50), (200, 100)):
        x, y = rng.normal(size=m), rng.normal(0.2, 1, size=n)
        U, p = mannwhitneyu(x, y, alternative="less", use_continuity=False, method="asymptotic")
        z = mann_whitney_z(x, y)
        assert z == pytest.approx((U - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12))
        assert probability_below(z) == pytest.approx(p)


def test_cells_are_weighted_by_held_out_samples_and_thin_ones_left_out() -> None:
    """Clusters around 0, 100 and 200: copies at the first, fresh draws at the second, 20 samples at the third."""
    rng = np.random.default_rng(0)

    def around(*counts: int) -> Rows:
        return np.concatenate([rng.normal(100 * cell, 1, size=(count, 3)) for cell, count in enumerate(counts)])

    training, held_out = around(200, 200, 200), around(60, 30, 400)
    copied = np.concatenate([training[:100], around(0, 80, 20)])
    z = [
        data_copying_z(training[200 * cell :][:200], held_out[start:stop], copied[first:last])
        for cell, (start, stop, first, last) in enumerate([(0, 60, 0, 100), (60, 90, 100, 180)])
    ]
    assert z[0] < -10 < -3 < z[1] < 3
    assert ct_score(training, held_out, copied) == pytest.approx((60 * z[0] + 30 * z[1]) / 90)
    shuffled = [np.random.default_rng(1).permutation(each) for each in (training, held_out, copied)]
    assert ct_score(*shuffled) == pytest.approx(ct_score(training, held_out, copied), abs=1e-9)


def test_copying_in_one_cell_hides_from_the_global_test_alone() -> None:
    """Half of the samples are copies, the other half far from everything: the distances cancel out over all."""
    rng = np.random.default_rng(0)
    training, held_out = (np.repeat([[0.0, 0], [50, 0]], 300, 0) + rng.normal(size=(600, 2)) for _ in range(2))
    fake = np.concatenate([training[:200], held_out[300:500] + rng.normal(0, 4, size=(200, 2))])
    assert abs(data_copying_z(training, held_out, fake)) < 3
    assert data_copying_z(training[:300], held_out[:300], fake[:200]) < -10


def test_honest_samplers_are_flagged_as_often_as_stated() -> None:
    """400 honest models: one in twenty outside of 1.96 either way, one in twenty below p = 0.05, none copying."""
    rng = np.random.default_rng(0)
    z, c, gaps, shares = [], [], [], []
    for _ in range(400):
        training, held_out, fake = rng.normal(size=(100, 4)), rng.normal(size=(150, 4)), rng.normal(size=(120, 4))
        z.append(data_copying_z(training, held_out, fake))
        gaps.append(authpct(training, fake) - authpct(training, held_out))
        shares.append(copies_of_training(training, held_out, fake, 0.1).mean())
        if len(c) < 40:
            c.append(ct_score(training, held_out, fake, 2))
    low, high = binom.ppf([0.001, 0.999], 400, 0.05)
    assert low <= sum(abs(each) > 1.959964 for each in z) <= high
    assert low <= sum(probability_below(each) < 0.05 for each in z) <= high
    assert np.mean(z) == pytest.approx(0, abs=4 / math.sqrt(400))
    assert min(c) > -3
    assert np.mean(gaps) == pytest.approx(0, abs=4 * np.std(gaps) / math.sqrt(400))
    expected = math.floor(0.1 * 151) / 151  # by exchangeability, exactly
    assert np.mean(shares) == pytest.approx(expected, abs=4 * np.std(shares) / math.sqrt(400))


def test_principal_components_keep_the_directions_of_training() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([5.0, 0.01, 3.0, 0.02])
    training, other = rng.normal(size=(500, 4)) * scales + 7, rng.normal(size=(20, 4)) * scales
    kept, moved = principal_components(2, training, other)
    assert kept.shape == (500, 2) and moved.shape == (20, 2)
    assert kept[:, 0].std() > kept[:, 1].std()
    distance = np.linalg.norm(moved[0] - kept, axis=1)  # the first and third coordinates, turned
    np.testing.assert_allclose(distance, np.linalg.norm((other[0] - training)[:, [0, 2]], axis=1), atol=0.1)
    assert principal_components(4, training, other)[0] is training


# ------------------------------------------------------------------------------------------- authenticity


def test_authenticity_by_hand() -> None:
    # Training 0, 1, 5: their own neighbours are 1, 1 and 4 away. 0.5 copies (.5 < 1), 2.5 does not (1.5 > 1),
    # 8 copies 5 (3 < 4), -1 is exactly as far as the neighbour, which is not further.
    training = column(0, 1, 5)
    assert authpct(training, column(0.5, 2.5, 8, -1)) == 25
    assert authpct(training, column(0, 1, 5)) == 0
    assert authpct(training, column(100)) == 100
    with pytest.raises(UsageError, match="neighbours"):
        authpct(column(1), column(1))


# ------------------------------------------------------------------------------------------- duplicates


def test_duplicates_by_hand() -> None:
    training, held_out = column(*range(0, 100, 10)), column(1, 12, 23, 34, 45)  # distances 1, 2, 3, 4, 5
    fake = column(0.5, 1, 51, 51.99, 52, 64)  # 0.5, 1, 1, 1.99, 2, 4
    assert copies_of_training(training, held_out, fake, 1 / 3).tolist() == [True, True, True, True, False, False]
    assert copies_of_training(training, held_out, fake, 1 / 6).tolist() == [True, False, False, False, False, False]
    with pytest.raises(UsageError, match="5 held-out samples"):
        copies_of_training(training, held_out, fake, 0.1)
    # Held out, nearest others: 11, all of them; generated: 0.5, 0.5, 0.99, 0.01, 0.01, 12.
    assert copies_within(held_out, np.concatenate([fake[:4], column(70)]), 0.2) == 4 / 5


def test_real_data_with_copies_of_their_own_are_warned_of() -> None:
    training = column(*range(10))
    with pytest.warns(UserWarning, match="held-out samples are copies"):
        assert not copies_of_training(training, training[:5], training, 0.3).any()


def test_sets_of_different_size_are_compared_at_the_same_size() -> None:
    """Neighbours among 2,000 samples are nearer than among 200; that alone is no collapse."""
    rng = np.random.default_rng(0)
    share = [copies_within(rng.normal(size=(200, 2)), rng.normal(size=(2000, 2)), 0.05) for _ in range(40)]
    assert np.mean(share) == pytest.approx(0.05, abs=0.02)


def test_pixels_find_copies_without_features() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (400, 1, 6, 6), generator=generator, dtype=torch.uint8)
    training, held_out, fresh = (EvidenceSet(images=images[a:b]) for a, b in ((0, 100), (100, 250), (250, 400)))
    metric = Duplicates(space="pixels")
    assert metric.needs == {"training:images", "real:images", "fake:images"}
    honest = metric(Evidence(held_out, fresh, training=training))
    replayed = images[:50].repeat(3, 1, 1, 1).clone()
    replayed[:, :, 0, 0] ^= 3  # nearly
    copied = metric(Evidence(held_out, EvidenceSet(images=replayed), training=training))
    assert honest["duplicates_of_training"] <= 0.05
    assert copied == {"duplicates_of_training": 1, "duplicates_within": 1}


# ------------------------------------------------------------------------------------------- planted models


@pytest.fixture(scope="module")
def drawn() -> Callable[[int], Rows]:
    """400 fresh drawn shapes by seed, and their features in an untrained network."""
    extractor = parts.build("extractor", check_node("extractor", "random-net"))

    def draw(seed: int) -> Rows:
        dataset = parts.build("dataset", check_node("dataset", {"use": "shapes", "count": 400, "seed": seed}))
        features, _ = extractor(dataset.batch(np.arange(400), np.random.default_rng(0)).data)
        found: Rows = features.numpy()
        return found

    return draw


def test_planted_models_are_caught_by_the_metric_meant_for_each(drawn: Callable[[int], Rows]) -> None:
    training, held_out = drawn(0), drawn(1)
    rng = np.random.default_rng(0)
    fakes = {
        "honest": drawn(2),
        "memoriser": training[rng.permutation(400)],
        "mode dropper": drawn(3)[np.argsort(drawn(3)[:, 0])][:100].repeat(4, 0),
        "noise": rng.normal(held_out.mean(0), 4 * held_out.std(0), size=held_out.shape).astype(np.float32),
    }
    table = {}
    for name, fake in fakes.items():
        found = evidence(training, held_out, fake)
        table[name] = {
            **DataCopying()(found),
            **Authenticity()(found),
            **Duplicates()(found),
            "frechet": frechet_distance_of_features(held_out, fake),
            "precision": precision_recall(held_out, fake)[0],
            "coverage": density_coverage(held_out, fake)[1],
        }
        print(name, {key: round(value, 3) for key, value in table[name].items()})  # noqa: T201
    honest, memoriser, dropper, noise = table.values()
    # Copying is seen by each of the three metrics, and by no other.
    assert memoriser["ct_score"] < -3 and memoriser["data_copying_p"] < 1e-6
    assert memoriser["authpct"] == 0 and memoriser["authpct_gap"] < -20
    assert memoriser["duplicates_of_training"] == 1
    assert memoriser["coverage"] > 0.5 * honest["coverage"] and memoriser["precision"] > 0.9 * honest["precision"]
    # The others do not copy.
    for each in (honest, noise):
        assert each["ct_score"] > -3 and each["duplicates_of_training"] < 0.03 and each["duplicates_within"] < 0.05
    assert honest["data_copying_p"] > 0.05 and abs(honest["authpct_gap"]) < 10
    # They have faults of their own.
    assert dropper["coverage"] < 0.4 < 0.8 < honest["coverage"]
    assert dropper["duplicates_within"] == 1
    assert noise["precision"] < 0.1 < 0.8 < honest["precision"]
    assert noise["data_copying_z"] > 10


def test_the_frechet_distance_alone_misses_the_memoriser(drawn: Callable[[int], Rows]) -> None:
    """Ten models that replay their training data, each with data of its own, score like ten that draw afresh."""
    held_out = drawn(1)
    replayed = [drawn(100 + seed) for seed in range(10)]
    fresh = [drawn(200 + seed) for seed in range(10)]
    copied = [frechet_distance_of_features(held_out, each) for each in replayed]
    honest = [frechet_distance_of_features(held_out, each) for each in fresh]
    print(f"Fréchet distance: copied {np.mean(copied):.4f}, honest {np.mean(honest):.4f}")  # noqa: T201
    assert mannwhitneyu(copied, honest).pvalue > 0.05
    # The test for copying separates them without exception.
    z = [[data_copying_z(training, held_out, fake) for fake in (training, fresh[0])] for training in replayed]
    assert max(copying for copying, _ in z) < -20 < -3 < min(honest for _, honest in z)


def test_nearly_copied_images_are_caught_too(drawn: Callable[[int], Rows]) -> None:
    training, held_out = drawn(0), drawn(1)
    spread = np.linalg.norm(held_out - held_out.mean(0), axis=1).mean() / math.sqrt(held_out.shape[1])
    noise = np.random.default_rng(0).normal(0, 0.05 * spread, size=training.shape)
    found = evidence(training, held_out, (training + noise).astype(np.float32))
    assert DataCopying()(found)["ct_score"] < -3
    assert Duplicates()(found)["duplicates_of_training"] > 0.9


def test_the_parts_say_what_they_read() -> None:
    with pytest.raises(UsageError, match="no features of the training set"):
        DataCopying()(Evidence(EvidenceSet(features=torch.zeros(3, 2)), EvidenceSet(features=torch.zeros(3, 2))))
    with pytest.raises(UsageError, match="no pixels of the training set"):
        Duplicates(space="pixels")(Evidence(EvidenceSet(), EvidenceSet()))
    x = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(UsageError, match="none of 30 cells"):
        ct_score(x, x, x, 30)
