"""Resizers: equal to the programs whose scores are published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.shelves.features.resample import matrix, resample

SIZES = [
    ((32, 32), (299, 299)),
    ((40, 17), (224, 224)),
    ((300, 200), (64, 48)),
    ((299, 31), (299, 31)),
    ((1, 1), (8, 8)),
]


def bytes_of(size: tuple[int, int], n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, *size), generator=generator).float()


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize(("resizer", "filter_"), [("clean", Image.BICUBIC), ("antialias", Image.BILINEAR)])
def test_equals_pillow_channel_by_channel_in_floats(
    resizer: str, filter_: Image.Resampling, before: tuple[int, int], after: tuple[int, int]
) -> None:
    images = bytes_of(before)
    ours = resample(images, after, resizer)
    for image, found in zip(images, ours, strict=True):
        for channel, own in zip(image, found, strict=True):
            pillow = Image.fromarray(channel.numpy(), mode="F").resize(after[::-1], resample=filter_)
            expected = np.asarray(pillow).clip(0, 255)  # clean-fid cuts what the filter overshoots
            np.testing.assert_allclose(own.numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_legacy_is_tensorflows_definition(before: tuple[int, int], after: tuple[int, int]) -> None:
    images = bytes_of(before)
    ours = resample(images, after, "legacy")

    def corners(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = np.arange(new) * old / new
        left = np.floor(place).astype(int)
        return left, np.minimum(left + 1, old - 1), place - left

    top, bottom, down = corners(before[0], after[0])
    left, right, along = corners(before[1], after[1])
    x = images.numpy().astype(np.float64)

    def row(number: np.ndarray) -> np.ndarray:
        return x[:, :, number][..., left] * (1 - along) + x[:, :, number][..., right] * along

    expected = row(top) * (1 - down)[:, None] + row(bottom) * down[:, None]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("resizer", ["clean", "legacy", "antialias"])
def test_constant_images_stay_as_they_are_and_nothing_leaves_the_range(resizer: str) -> None:
    flat = torch.full((1, 3, 20, 30), 77.0)
    torch.testing.assert_close(resample(flat, (47, 11), resizer), torch.full((1, 3, 47, 11), 77.0), rtol=0, atol=1e-4)
    checks = (torch.arange(16)[:, None] + torch.arange(16)[None]).remainder(2).float().mul(255)[None, None]
    found = resample(checks, (50, 50), resizer)
    assert found.min() >= 0
    assert found.max() <= 255
    rows = matrix(resizer, 33, 7)
    assert rows.shape == (7, 33)
    torch.testing.assert_close(rows.sum(1), torch.ones(7, dtype=torch.float64))


def test_legacy_aliases_where_clean_does_not() -> None:
    """Parmar et al. 2022, figure 1: stripes of two pixels' period at a third of the size."""
    stripes = (torch.arange(300) % 2 * 255.0).expand(1, 1, 300, 300)
    assert resample(stripes, (100, 100), "legacy").std() > 100
    assert resample(stripes, (100, 100), "clean").std() < 20
