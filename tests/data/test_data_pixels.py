"""Decoding: every format and mode gives the pixels that were written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ganvas.shelves.data.reading.pixels import Corrupt, decode, quantise, recolour, refit

RANDOM = np.random.default_rng(1)
RGB = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
RGBA = RANDOM.integers(0, 256, (6, 9, 4), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "pixels", "options"),
    [
        ("PNG", RGB, {}),
        ("PNG", RGBA, {}),
        ("PNG", GREY, {}),
        ("BMP", RGB, {}),
        ("BMP", GREY, {}),
        ("TIFF", RGB, {"compression": "tiff_lzw"}),
        ("TIFF", RGBA, {}),
        ("WEBP", RGB, {"lossless": True}),
    ],
)
def test_lossless_formats_keep_every_pixel(form: str, pixels: np.ndarray, options: dict[str, object]) -> None:
    assert np.array_equal(decode(saved(Image.fromarray(pixels), form, **options)).squeeze(), pixels)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(form: str) -> None:
    smooth = np.dstack([np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))] * 3)
    found = decode(saved(Image.fromarray(smooth), form, quality=95))
    assert found.shape == (20, 30, 3)
    assert np.abs(found.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_scales_to_all_of_eight(form: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535], [128, 129, 65000, 300]], dtype=np.uint16)
    found = decode(saved(Image.fromarray(values), form))
    assert found.dtype == np.float32
    assert np.array_equal(quantise(found)[..., 0], [[0, 1, 128, 255], [0, 1, 253, 1]])


def test_sixteen_bit_is_averaged_before_it_is_rounded() -> None:
    # 0.4 of a byte everywhere but one bright column: rounding first would lose the 0.4.
    values = np.full((8, 8), 1.4, dtype=np.float32)[..., None]
    checker = values.copy()
    checker[::2, ::2], checker[1::2, 1::2] = 1.9, 1.9
    assert quantise(refit(checker, (2, 2), "crop")).max() == 2  # the mean is 1.65
    assert refit(checker, (2, 2), "crop").mean() == pytest.approx(1.65, abs=0.02)


def test_float_tiff() -> None:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(quantise(decode(saved(Image.fromarray(values), "TIFF")))[..., 0], np.rint(values * 255))
    with pytest.raises(Corrupt, match=r"must lie in 0\.\.1"):
        decode(saved(Image.fromarray(values * 300), "TIFF"))


def test_palette_with_and_without_transparency() -> None:
    image = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(decode(saved(image, "PNG")), np.array(image.convert("RGB")))
    found = decode(saved(image, "PNG", transparency=0))
    assert found.shape == (6, 9, 4)
    assert np.array_equal(found[..., 3] == 0, np.array(image) == 0)


def test_a_grey_palette_is_grey() -> None:
    image = Image.fromarray(GREY).convert("P")
    assert np.array_equal(decode(saved(image, "PNG"))[..., 0], GREY)


def test_grey_with_alpha_one_bit_and_cmyk() -> None:
    found = decode(saved(Image.fromarray(RGBA).convert("LA"), "PNG"))
    assert found.shape == (6, 9, 4)
    assert np.array_equal(found[..., 3], RGBA[..., 3])
    bits = Image.fromarray(GREY).convert("1")
    assert set(np.unique(decode(saved(bits, "PNG")))) == {0, 255}
    red = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert np.abs(decode(saved(red, "JPEG", quality=100)).astype(int) - (255, 0, 0)).max() < 6


def test_exif_turns_the_image_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    found = decode(saved(Image.fromarray(RGB), "PNG", exif=exif))
    assert np.array_equal(found, np.rot90(RGB, -1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not a PNG"),
        (saved(Image.fromarray(RGB), "PNG")[:60], "."),
        (saved(Image.fromarray(np.tile(RGB, (20, 20, 1))), "JPEG")[:900], "truncated"),
        (saved(Image.fromarray(RGB), "GIF"), "not a PNG"),
    ],
)
def test_broken_bytes_have_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Corrupt, match=reason):
        decode(data)


def test_a_pixel_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = saved(Image.new("1", (12_000, 12_000)), "PNG")
    with pytest.raises(Corrupt, match="limit"), pytest.warns(Image.DecompressionBombWarning):
        decode(bomb)
    huge = saved(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(Corrupt, match="limit"):
        decode(huge)


def test_channels() -> None:
    assert np.array_equal(recolour(GREY[..., None], 3), np.dstack([GREY] * 3))
    assert np.array_equal(recolour(RGB, 4)[..., :3], RGB)
    assert (recolour(RGB, 4)[..., 3] == 255).all()
    clear = np.zeros((2, 2, 4), np.uint8)
    assert (recolour(clear, 3) == 255).all(), "transparent becomes white"
    half = np.full((1, 1, 4), (100, 0, 200, 128), np.uint8)
    assert np.array_equal(recolour(half, 3)[0, 0], np.rint(np.array([100, 0, 200]) * 128 / 255 + 255 * 127 / 255))
    pillow = np.array(Image.fromarray(RGB).convert("L")).astype(int)
    assert np.abs(recolour(RGB, 1)[..., 0] - pillow).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(4, 4), (16, 8), (5, 13), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_every_fit_gives_the_size_asked_for(fit: str, size: tuple[int, int], channels: int) -> None:
    image = RANDOM.integers(0, 256, (6, 9, channels), dtype=np.uint8)
    assert refit(image, size, fit).shape == (*size, channels)  # type: ignore[arg-type]
    assert refit(image.astype(np.float32), size, fit).dtype == np.float32  # type: ignore[arg-type]


def test_crop_keeps_the_centre_and_pad_repeats_the_border() -> None:
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, :4], image[:, 4:8], image[:, 8:] = 10, 120, 240
    assert np.abs(refit(image, (4, 4), "crop").astype(int) - 120).max() == 0
    padded = refit(image, (12, 12), "pad")
    assert np.array_equal(padded[4:8], image)
    assert np.array_equal(padded[0], image[0])
    assert np.array_equal(padded[11], image[3])


def test_downsampling_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    small = refit(stripes, (16, 16), "crop")
    assert np.abs(small[:, 2:-2].astype(int) - 128).max() <= 3, "stripes finer than a pixel become grey"


def test_hidden_colour_does_not_bleed() -> None:
    image = np.zeros((8, 8, 4), np.uint8)
    image[..., 0] = 255  # red, invisible
    image[:, 4:] = (0, 0, 255, 255)
    small = refit(image, (4, 4), "crop")
    seen = small[small[..., 3] > 0]
    assert seen[:, 0].max() <= 2
