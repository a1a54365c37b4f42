"""Drawn shapes and the way back: what is drawn is recovered, what is no shape is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ganvas.errors import UsageError
from ganvas.parts import image_spec
from ganvas.shelves.data.sets.shapes import Shapes
from ganvas.toys.shapes import CENTRE, COLOURS, GROUND, KINDS, SIZE, cell, draw, num_cells, random_factors, recover

FACTORS = random_factors(2000, 7)
CLEAN = draw(FACTORS, 32)
RANDOM = np.random.default_rng(0)


def each(change: object, images: np.ndarray = CLEAN[:400]) -> np.ndarray:
    return np.stack([np.array(change(Image.fromarray(image.transpose(1, 2, 0)))) for image in images]).transpose(  # type: ignore[operator]
        0, 3, 1, 2
    )


@pytest.mark.parametrize("side", [16, 32, 64])
def test_clean_renders_are_recovered(side: int) -> None:
    found, valid = recover(draw(FACTORS, side))
    assert valid.all()
    assert np.array_equal(found["kind"], FACTORS["kind"])
    assert np.array_equal(found["colour"], FACTORS["colour"])
    for key in ("x", "y", "size"):
        assert np.abs(found[key] - FACTORS[key]).max() * side < 0.1, f"{key} within a tenth of a pixel"
    assert (cell(found) == cell(FACTORS)).mean() > 0.997


def test_floats_and_tensors_are_read_alike() -> None:
    import torch

    floats = CLEAN[:50].astype(np.float32) / 127.5 - 1
    expected = recover(CLEAN[:50])[0]
    for images in (floats, torch.from_numpy(floats)):
        found, valid = recover(images)
        assert valid.all()
        assert np.allclose(found["x"], expected["x"], atol=1e-5)


def test_some_noise_is_forgiven_and_does_not_change_the_factors() -> None:
    noisy = np.clip(CLEAN + RANDOM.normal(0, 10, CLEAN.shape), 0, 255).astype(np.uint8)
    found, valid = recover(noisy)
    assert valid.mean() > 0.97
    assert np.array_equal(found["kind"][valid], FACTORS["kind"][valid])
    assert max(np.abs(found[key] - FACTORS[key])[valid].max() * 32 for key in ("x", "y", "size")) < 0.3


def test_what_is_no_shape_is_refused() -> None:
    def share(images: np.ndarray) -> float:
        return float(recover(images)[1].mean())

    blank = np.full((20, 3, 32, 32), int(GROUND), np.uint8)
    assert share(blank) == 0
    assert share(np.full_like(blank, 255)) == 0
    assert share(np.zeros_like(blank)) == 0
    assert share(RANDOM.integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)) == 0
    assert share(np.full((3, 3, 32, 32), np.nan, np.float32)) == 0
    assert share(np.full((3, 3, 32, 32), 1e30, np.float32)) == 0

    half = CLEAN.copy()
    for image, x in zip(half, FACTORS["x"], strict=True):
        image[:, :, round(x * 32) :] = int(GROUND)
    assert share(half) == 0

    apart = np.hypot(*(FACTORS[key][:1000] - FACTORS[key][1000:] for key in "xy")) * 32 > 6
    assert share(np.maximum(CLEAN[:1000], CLEAN[1000:])[apart]) < 0.01, "two shapes"
    assert share(((CLEAN[:1000].astype(int) + CLEAN[1000:]) // 2)[apart].astype(np.uint8)) == 0, "a blend of two"
    assert share(each(lambda image: image.filter(ImageFilter.GaussianBlur(3)))) == 0
    assert share(np.repeat(CLEAN.mean(1, keepdims=True), 3, axis=1).astype(np.uint8)) == 0, "a colour of no palette"
    assert share((CLEAN * 0.6).astype(np.uint8)) == 0, "too dim"
    upside_down = CLEAN[FACTORS["kind"] == KINDS.index("triangle")][:, :, ::-1]
    assert share(upside_down) == 0
    angular = CLEAN[:400][FACTORS["kind"][:400] != KINDS.index("circle")]
    ground = (int(GROUND),) * 3
    turned = each(lambda image: image.rotate(45, Image.Resampling.BICUBIC, fillcolor=ground), angular)
    assert share(turned) < 0.03
    outside = draw({**FACTORS, "x": np.full(2000, 0.85)}, 32)
    assert share(outside) == 0


def test_no_images_and_wrong_images() -> None:
    found, valid = recover(np.zeros((0, 3, 32, 32), np.uint8))
    assert len(valid) == len(found["kind"]) == 0
    for shape in ((2, 1, 32, 32), (2, 3, 32, 16), (2, 3, 8, 8), (3, 32, 32)):
        with pytest.raises(UsageError):
            recover(np.zeros(shape, np.uint8))


def test_cells_number_the_grid() -> None:
    assert num_cells == 432
    cells = cell(random_factors(5000, 0))
    assert len(np.unique(cells)) == num_cells, "5,000 images occupy every cell"
    assert (cells.min(), cells.max()) == (0, num_cells - 1)
    corner = {"kind": [3], "colour": [5], "x": [CENTRE[1] + 0.01], "y": [1.0], "size": [SIZE[1]]}
    assert cell({key: np.array(value) for key, value in corner.items()}).tolist() == [num_cells - 1]


def test_the_data_set() -> None:
    data = Shapes(count=200)
    assert data.spec == image_spec((3, 32, 32), 4) == Shapes.preview()
    assert data.class_names == KINDS
    assert len(COLOURS) == 6
    batch = data.batch(np.arange(200), np.random.default_rng(0))
    assert batch.label is not None
    assert np.array_equal(batch.label, data.factors["kind"])
    found, valid = recover(batch.data)
    assert valid.all()
    assert np.array_equal(found["colour"], data.factors["colour"])
    prints = {Shapes(count=200, **keys).fingerprint for keys in ({}, {"seed": 1}, {"split": "test"}, {"size": 16})}  # type: ignore[arg-type]
    assert len(prints) == 4
    assert Shapes(count=200).fingerprint == data.fingerprint
