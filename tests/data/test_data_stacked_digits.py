"""Stacked digits: what is in the channels, the split, equal modes, the fingerprint."""

import numpy as np
import pytest
from scipy.stats import chisquare

from ganvas import parts
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.data.sets.digits import Digits
from ganvas.shelves.data.sets.stacked_digits import StackedDigits
from ganvas.types import Dataset


def content(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    batch = data.batch(np.arange(len(data)), np.random.default_rng(0))
    return ((batch.data.numpy() + 1) * 127.5).round().astype(np.uint8), batch.label.numpy()


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_channel_is_a_digit_of_the_split_and_the_label_reads_them(split: str) -> None:
    pixels, labels = content(Digits(split=split))
    known = {image.tobytes(): label for image, label in zip(pixels[:, 0], labels, strict=True)}
    stacked, modes = content(StackedDigits(count=500, split=split))
    assert stacked.shape == (500, 3, 8, 8)
    for image, mode in zip(stacked, modes, strict=True):
        assert "".join(str(known[plane.tobytes()]) for plane in image) == f"{mode:03d}"


def test_modes_are_equally_likely_and_all_there() -> None:
    data = StackedDigits(count=50_000)
    _, modes = content(data)
    counts = np.bincount(modes, minlength=1000)
    assert counts.min() > 0
    assert chisquare(counts).pvalue > 0.01
    assert data.class_names[7] == "007" and len(data.class_names) == 1000
    for place in (1, 10, 100):
        assert chisquare(np.bincount(modes // place % 10)).pvalue > 0.001


def test_more_pictures_and_other_seeds_and_sizes() -> None:
    data = StackedDigits(count=30, size=16)
    assert data.spec == image_spec((3, 16, 16), 1000) == StackedDigits.preview(size=16)
    prints = {
        parts.build("dataset", check_node("dataset", {"use": "stacked-digits", "count": 30, **change})).fingerprint
        for change in ({}, {"size": 16}, {"seed": 1}, {"split": "test"}, {"count": 31})
    }
    assert len(prints) == 5
    assert StackedDigits(count=30).fingerprint in prints
