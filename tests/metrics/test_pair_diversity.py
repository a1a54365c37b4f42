"""Diversity by pairs of generated images: closed forms, which pairs are made, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics import arrays
from ganvas.shelves.metrics.pair_diversity import (
    MSSSIMDiversity,
    PerceptualDiversity,
    mean_squared_distance,
    ms_ssim_diversity,
)
from ganvas.shelves.metrics.paired import MSSSIM
from ganvas.types import Evidence, EvidenceSet

pytestmark = pytest.mark.filterwarnings("ignore:images of")


def noise(n: int, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(256, (n, 1, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def similarity(x: Tensor, y: Tensor) -> float:
    return MSSSIM()(Evidence(EvidenceSet(images=x), EvidenceSet(images=y)))["ms_ssim"]


def test_pairs_are_of_the_same_class() -> None:
    """Three images, each four times: within its class every pair is one image, among all not."""
    images, label = noise(3).repeat_interleave(4, 0), torch.tensor([0, 1, 2]).repeat_interleave(4)
    evidence = Evidence(EvidenceSet(), EvidenceSet(images=images, label=label))
    assert MSSSIMDiversity()(evidence) == {"ms_ssim_diversity": pytest.approx(1)}
    among_all = MSSSIMDiversity(within="all", pairs=400)(evidence)["ms_ssim_diversity"]
    unlike = [similarity(images[i : i + 1], images[j : j + 1]) for i, j in ((0, 4), (0, 8), (4, 8))]
    same = 3 / 11  # of the other eleven images, three are the same one
    assert among_all == pytest.approx(same + (1 - same) * np.mean(unlike), abs=0.05)
    assert MSSSIMDiversity().needs == {"fake:images", "fake:label"}
    assert MSSSIMDiversity(within="all").needs == {"fake:images"}


def test_no_image_is_paired_with_itself() -> None:
    images = noise(2)
    assert ms_ssim_diversity(images, pairs=50) == pytest.approx(similarity(images[:1], images[1:]), rel=1e-9)


def test_classes_count_alike() -> None:
    """One class of one image nine times, one of two different ones: the mean of 1 and their similarity."""
    images = torch.cat([noise(1, seed=1).expand(9, -1, -1, -1), noise(2, seed=2)])
    label = torch.tensor([4] * 9 + [7] * 2)
    alone = ms_ssim_diversity(images[9:], pairs=5)
    assert ms_ssim_diversity(images, label, pairs=30) == pytest.approx((1 + alone) / 2, rel=1e-9)


def test_a_seed_decides_the_pairs() -> None:
    images = noise(30)
    assert ms_ssim_diversity(images, seed=3, pairs=9) == ms_ssim_diversity(images, seed=3, pairs=9)
    assert ms_ssim_diversity(images, seed=3, pairs=9) != ms_ssim_diversity(images, seed=4, pairs=9)


def test_a_class_of_one_image_is_left_out() -> None:
    images, label = noise(5), torch.tensor([0, 0, 0, 0, 1])
    with pytest.warns(UserWarning, match="5 samples are few: 1 classes have one image"):
        value = ms_ssim_diversity(images, label)
    assert value == pytest.approx(ms_ssim_diversity(images[:4], label[:4]))


@given(st.integers(0, 2**32 - 1), st.integers(2, 15), st.integers(1, 5))
@settings(max_examples=25)
def test_mean_squared_distance_is_that_of_all_pairs(seed: int, n: int, d: int) -> None:
    x = np.random.default_rng(seed).normal(5, 2, size=(n, d))
    pairs = ((x[:, None] - x[None]) ** 2).sum(2)[np.triu_indices(n, 1)]
    assert mean_squared_distance(x) == pytest.approx(pairs.mean(), rel=1e-9)


def test_mean_squared_distance_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(50, 4)
    whole = PerceptualDiversity()(Evidence(EvidenceSet(), EvidenceSet(features=x)))
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 7)
    assert whole == {"perceptual_diversity": pytest.approx(mean_squared_distance(x), rel=1e-12)}
    assert mean_squared_distance(torch.ones(5, 3)) == 0


def test_errors_name_the_fault() -> None:
    images = noise(4)
    with pytest.raises(UsageError, match="have no labels"):
        MSSSIMDiversity()(Evidence(EvidenceSet(), EvidenceSet(images=images)))
    with pytest.raises(UsageError, match="no fake images"):
        MSSSIMDiversity()(Evidence(EvidenceSet(), EvidenceSet()))
    with pytest.raises(UsageError, match="no class has two images"):
        ms_ssim_diversity(images, torch.arange(4))
    with pytest.raises(UsageError, match="1 fake images"):
        ms_ssim_diversity(images[:1])
    with pytest.raises(UsageError, match="4 fake images need as many class numbers"):
        ms_ssim_diversity(images, torch.arange(3))
    with pytest.raises(DataError, match="labels hold -1"):
        ms_ssim_diversity(images, torch.tensor([0, 0, -1, 0]))
    with pytest.raises(UsageError, match="no features"):
        PerceptualDiversity()(Evidence(EvidenceSet(), EvidenceSet()))
    with pytest.raises(UsageError, match="1 fake features"):
        mean_squared_distance(torch.ones(1, 3))
    with pytest.raises(DataError, match="NaN"):
        mean_squared_distance(torch.ones(3, 3) * torch.nan)
