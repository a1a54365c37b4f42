"""Modes of stacked digits: closed forms of the divergence, the count on real and planted pictures, calibration."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from ganvas import parts
from ganvas.errors import DataError, UsageError
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.stacked_modes import StackedModes, kl_from_uniform, modes_of
from ganvas.types import Evidence, EvidenceSet, Extractor


@pytest.fixture(scope="module")
def digit_net() -> Extractor:
    return parts.build("extractor", check_node("extractor", "digit-net"))


def pictures(count: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    node = {"use": "stacked-digits", "count": count, "seed": seed, "split": "test"}
    batch = parts.build("dataset", check_node("dataset", node)).batch(np.arange(count), np.random.default_rng(0))
    return ((batch.data + 1) * 127.5).round().byte(), batch.label.numpy()


def measured(images: torch.Tensor, extractor: Extractor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*samples are few")
        return StackedModes()(Evidence(EvidenceSet(), EvidenceSet(images=images), extractor=extractor))


def test_divergence_in_closed_form() -> None:
    assert kl_from_uniform(np.arange(1000), 1000) == 0
    assert kl_from_uniform(np.zeros(50, int), 1000) == pytest.approx(math.log(1000))
    assert kl_from_uniform(np.repeat(np.arange(250), 3), 1000) == pytest.approx(math.log(4))
    shares = np.random.default_rng(0).integers(1, 20, 30)
    assert kl_from_uniform(np.repeat(np.arange(30), shares), 30) == pytest.approx(entropy(shares, np.ones(30)))
    with pytest.raises(DataError, match="modes from 0 to 3 of 3"):
        kl_from_uniform([0, 3], 3)
    with pytest.raises(UsageError, match="no samples"):
        kl_from_uniform([], 3)


def test_divergence_of_even_samples_is_that_of_chance() -> None:
    """E KL = (K - 1) / (2 N) to first order."""
    rng = np.random.default_rng(0)
    found = [kl_from_uniform(rng.integers(1000, size=26_000), 1000) for _ in range(20)]
    assert np.mean(found) == pytest.approx(999 / 52_000, rel=0.03)


def test_modes_of_held_out_digits_are_read_off(digit_net: Extractor) -> None:
    images, labels = pictures(3000)
    found = modes_of(images, digit_net)
    assert (found == labels).mean() > 0.93  # three digits right at once
    assert np.array_equal(modes_of(images.float() / 127.5 - 1, digit_net), found)
    assert np.array_equal(modes_of(images.flip(0), digit_net), found[::-1])


def test_dropped_modes_are_missed(digit_net: Extractor) -> None:
    images, labels = pictures(8000)
    whole = measured(images, digit_net)
    kept = images[labels < 300]  # red is 0, 1 or 2
    dropped = measured(kept, digit_net)
    one = measured(images[:1].repeat(500, 1, 1, 1), digit_net)
    assert whole["modes_reached"] > 990 and whole["modes_kl"] < 0.15
    assert 300 <= dropped["modes_reached"] < 400
    assert dropped["modes_kl"] == pytest.approx(math.log(1000 / 300), abs=0.15)
    assert one == {"modes_reached": 1, "modes_kl": pytest.approx(math.log(1000))}


def test_too_few_samples_are_warned_of(digit_net: Extractor) -> None:
    images, _ = pictures(100)
    with pytest.warns(UserWarning, match="100 samples are few for 1000 modes: .* about 95"):
        StackedModes()(Evidence(EvidenceSet(), EvidenceSet(images=images), extractor=digit_net))


def test_errors_name_the_fault(digit_net: Extractor) -> None:
    images, _ = pictures(10)
    with pytest.raises(UsageError, match="1 channels"):
        modes_of(images[:, :1], digit_net)
    with pytest.raises(UsageError, match="knows 0 classes"):
        modes_of(images, parts.build("extractor", check_node("extractor", "random-net")))
    with pytest.raises(UsageError, match="no extractor"):
        StackedModes()(Evidence(EvidenceSet(), EvidenceSet(images=images)))
