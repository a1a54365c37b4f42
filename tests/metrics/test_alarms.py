"""Alarms: honest halves of real data raise none, whatever the halves; planted models raise the one meant for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.stats import binom, mannwhitneyu

from ganvas import parts
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.authenticity import Authenticity
from ganvas.shelves.metrics.data_copying import DataCopying
from ganvas.shelves.metrics.duplicates import Duplicates
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.shelves.metrics.neighbourhoods import DensityCoverage, PrecisionRecall
from ganvas.stats.moments import Rows
from ganvas.types import Evidence, EvidenceSet, Extractor, Metric

NAMES = ("data-copying", "authenticity", "duplicates", "precision-recall")
COPYING = {"data-copying", "authenticity", "duplicates"}
SIDE = 400  # held-out images, and as many samples


@pytest.fixture(scope="module")
def net() -> Extractor:
    return parts.build("extractor", check_node("extractor", "digit-net"))


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": "all"}))
    return dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).data


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": "all"}))
    return dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).label.numpy()


@pytest.fixture(scope="module")
def features(net: Extractor, pixels: torch.Tensor) -> Rows:
    return net(pixels)[0].numpy()


def thirds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of training, held-out and fresh images, at random."""
    order = np.random.default_rng(seed).permutation(count)
    return order[2 * SIDE :], order[:SIDE], order[SIDE : 2 * SIDE]


def alarms(training: Rows, held_out: Rows, fake: Rows) -> dict[str, str]:
    """By metric, those that say something."""
    seen = Evidence(*(EvidenceSet(features=torch.as_tensor(each)) for each in (held_out, fake, training)))
    found = {}
    for name in NAMES:
        metric: Metric = parts.build("metric", check_node("metric", name))
        text = metric.alarm(metric(seen))
        if text:
            found[name] = text
    return found


@pytest.mark.parametrize("seed", range(12))
def test_fresh_images_raise_none(features: Rows, seed: int) -> None:
    training, held_out, fresh = thirds(len(features), seed)
    assert alarms(features[training], features[held_out], features[fresh]) == {}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_copies_raise_those_of_copying(features: Rows, share: float) -> None:
    for seed in range(3):
        training, held_out, fresh = thirds(len(features), seed)
        rows = fresh.copy()
        n = int(share * SIDE)
        rows[:n] = training[:n]
        found = alarms(features[training], features[held_out], features[rows])
        # Half copies halve the share of new samples, by 25 points or so: authenticity may stay silent.
        assert (COPYING if share == 1 else COPYING - {"authenticity"}) <= set(found) <= COPYING
        told = int(found["duplicates"].partition("%")[0]) / 100
        assert share <= told <= share + 0.05


def test_slightly_changed_copies_raise_them_too(features: Rows, pixels: torch.Tensor, net: Extractor) -> None:
    training, held_out, _ = thirds(len(features), 0)
    noise = 0.1 * torch.randn(SIDE, *pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    changed = net((pixels[training[:SIDE]] + noise).clamp(-1, 1))[0].numpy()
    assert set(alarms(features[training], features[held_out], changed)) == COPYING


def test_fresh_images_of_few_classes_are_missing_modes(features: Rows, labels: np.ndarray) -> None:
    for seed in range(3):
        held_out = thirds(len(features), seed)[1]
        rest = np.setdiff1d(np.arange(len(features)), held_out)
        fresh = rest[np.isin(labels[rest], (0, 6))][:SIDE]
        found = alarms(features[np.setdiff1d(rest, fresh)], features[held_out], features[fresh])
        assert set(found) == {"precision-recall"} and found["precision-recall"].startswith("modes are missing")


def test_one_picture_over_and_over_repeats_itself(features: Rows, pixels: torch.Tensor, net: Extractor) -> None:
    training, held_out, fresh = thirds(len(features), 0)
    noise = 0.02 * torch.randn(SIDE, *pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    one = net(pixels[fresh[:1]] + noise)[0].numpy()
    found = alarms(features[training], features[held_out], one)
    assert found["duplicates"].startswith("the model repeats itself: 100%")
    assert found["precision-recall"].startswith("modes are missing")


def test_noise_does_not_look_like_the_data(features: Rows, pixels: torch.Tensor, net: Extractor) -> None:
    for seed in range(3):
        training, held_out, _ = thirds(len(features), seed)
        uniform = torch.rand(SIDE, *pixels.shape[1:], generator=torch.Generator().manual_seed(seed)) * 2 - 1
        found = alarms(features[training], features[held_out], net(uniform)[0].numpy())
        assert set(found) == {"precision-recall"}
        assert found["precision-recall"].startswith("the samples do not look like the data")


def test_the_distance_alone_takes_copies_for_fresh_images(features: Rows, labels: np.ndarray) -> None:
    """The table of docs/scores.md: means over ten random partitions. Only duplicates tell the memoriser."""
    table: dict[str, list[dict[str, float]]] = {"fresh images": [], "copies of training images": [], "two classes": []}
    for seed in range(10):
        training, held_out, fresh = thirds(len(features), seed)
        few = np.setdiff1d(np.arange(len(features)), held_out)
        few = few[np.isin(labels[few], (0, 6))]
        replayed = training[np.random.default_rng(seed).permutation(len(training))[:SIDE]]
        for name, rows, seen in zip(
            table, (fresh, replayed, few), (training, training, np.setdiff1d(training, few)), strict=True
        ):
            sets = (EvidenceSet(features=torch.as_tensor(features[own])) for own in (held_out, rows, seen))
            found = Evidence(*sets)
            values = {"frechet": frechet_distance_of_features(features[held_out], features[rows])}
            for metric in (PrecisionRecall(), DensityCoverage(), Duplicates(), DataCopying()):
                values |= metric(found)
            table[name].append(values)
    for name, tries in table.items():
        print(name, {key: round(float(np.mean([each[key] for each in tries])), 3) for key in tries[0]})  # noqa: T201
    column = {name: np.array([each["frechet"] for each in tries]) for name, tries in table.items()}
    honest, copied, dropped = column.values()
    assert mannwhitneyu(copied, honest).pvalue > 0.05
    assert dropped.min() > 10 * honest.max()
    copies = [[each["duplicates_of_training"] for each in tries] for tries in table.values()]
    assert max(copies[0]) < 0.05 and min(copies[1]) == 1.0


# ------------------------------------------------------------------------------------------- the thresholds


def test_the_rate_of_false_alarms_of_duplicates_is_what_the_docs_say() -> None:
    """Of n held-out distances at most r - 1 lie below the level that ten times the rate of fresh data lie below."""
    worst = max(
        binom.cdf(int(rate * (n + 1)) - 1, n, 10 * rate) for rate in (0.001, 0.01, 0.05)
        for n in range(int(np.ceil(1 / rate)) - 1, int(20 / rate))
    )  # fmt: skip
    assert worst < 1 / 20_000
    assert not Duplicates().alarm({"duplicates_of_training": 0.1, "duplicates_within": 0.5})
    assert Duplicates(false_positive_rate=0.05).alarm({"duplicates_of_training": 0.4}) == ""


@pytest.mark.parametrize(
    ("metric", "quiet", "loud"),
    [
        (DataCopying(), {"ct_score": -4.0}, {"ct_score": -4.1}),
        (Authenticity(), {"authpct": 20.0, "authpct_gap": -30.0}, {"authpct": 19.0, "authpct_gap": -31.0}),
        (PrecisionRecall(), {"precision": 0.2, "recall": 0.0}, {"precision": 0.19, "recall": 0.9}),
        (PrecisionRecall(), {"precision": 0.9, "recall": 0.3}, {"precision": 0.9, "recall": 0.29}),
    ],
)
def test_alarms_begin_at_their_thresholds(
    metric: DataCopying | Authenticity | PrecisionRecall, quiet: Mapping[str, float], loud: Mapping[str, float]
) -> None:
    assert metric.alarm(quiet) == "" != metric.alarm(loud)


def test_few_samples_still_show_copies_of_training(features: Rows) -> None:
    training, held_out, _ = thirds(len(features), 0)
    seen = Evidence(*(EvidenceSet(features=torch.as_tensor(features[rows]))
                      for rows in (held_out, training[:30], training)))  # fmt: skip
    with pytest.warns(UserWarning, match="duplicates_within is left out: it needs 99 samples"):
        values = Duplicates()(seen)
    assert values == {"duplicates_of_training": 1.0} and "copies" in Duplicates().alarm(values)
