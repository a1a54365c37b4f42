"""Sheets of samples: cells apart, small images enlarged by whole factors, transparency kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganvas.files import pictures


@pytest.mark.parametrize(
    ("shape", "mode", "cell", "gap"),
    [
        ((1, 8, 8), "L", (64, 64), 4),
        ((3, 32, 32), "RGB", (64, 64), 4),
        ((4, 64, 64), "RGBA", (64, 64), 4),
        ((3, 12, 24), "RGB", (36, 72), 4),
        ((1, 100, 50), "L", (100, 50), 6),
        ((3, 512, 512), "RGB", (512, 512), 16),
        ((2, 8, 8), "L", (64, 64), 4),
        ((5, 8, 8), "RGB", (64, 64), 4),
    ],
)
def test_cells_hold_their_images_and_stand_apart(
    shape: tuple[int, int, int], mode: str, cell: tuple[int, int], gap: int
) -> None:
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sheet = pictures.grid(images, 3)
    assert sheet.mode == mode
    height, width = cell
    assert sheet.size == (3 * width + 2 * gap, 2 * height + gap)
    pixels = np.asarray(sheet).reshape(sheet.height, sheet.width, -1)
    expected = pictures.to_uint8(images)[..., : pixels.shape[2]]
    factor = height // shape[1]
    for i in range(5):
        top, left = i // 3 * (height + gap), i % 3 * (width + gap)
        here = pixels[top : top + height, left : left + width]
        np.testing.assert_array_equal(here[::factor, ::factor], expected[i])
        np.testing.assert_array_equal(here[factor - 1 :: factor, factor - 1 :: factor], expected[i])
    empty = 0 if mode == "RGBA" else 128
    assert (pixels[height : height + gap] == empty).all()
    assert (pixels[:, width : width + gap] == empty).all()
    assert (pixels[height + gap :, 2 * (width + gap) :] == empty).all()  # the sixth cell


def test_about_square_without_columns() -> None:
    assert pictures.grid(torch.zeros(9, 1, 64, 64)).size == (200, 200)
    wide = pictures.grid(torch.zeros(8, 3, 32, 64))
    assert wide.size == (2 * 64 + 4, 4 * 32 + 3 * 4)


def test_one_image() -> None:
    assert pictures.grid(torch.zeros(1, 3, 64, 64)).size == (64, 64)
