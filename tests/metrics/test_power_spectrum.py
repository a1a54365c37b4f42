"""Power spectra and fine detail: closed forms, what blur and checkerboards do, chance level, order and batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import binom

from ganvas import parts
from ganvas.errors import DataError, UsageError
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics import fine_detail, power_spectrum
from ganvas.shelves.metrics.fine_detail import HighPassDistance, PatchDistance, gaussian_blur, high_pass, patch_moments
from ganvas.shelves.metrics.frechet_distance import statistics
from ganvas.shelves.metrics.power_spectrum import (
    ROUNDING_POWER,
    SpectralDetectability,
    SpectralDistance,
    mean_spectrum,
    shape_vectors,
    spectra,
    spectral_detectability,
    spectral_distance,
)
from ganvas.types import Evidence, EvidenceSet, Extractor


def noise(n: int, side: int = 16, seed: int = 0, std: float = 20) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(128, std, size=(n, 1, side, side))
    return torch.from_numpy(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def grating(period: int, side: int = 16) -> torch.Tensor:
    """One grey image with a cosine of amplitude 100 across it."""
    wave = np.rint(128 + 100 * np.cos(2 * np.pi * np.arange(side) / period))
    return torch.from_numpy(np.broadcast_to(wave, (1, 1, side, side)).astype(np.uint8).copy())


def shapes(count: int = 200, seed: int = 0) -> torch.Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "shapes", "count": count, "seed": seed}))
    data = dataset.batch(np.arange(count), np.random.default_rng(0)).data
    return ((data + 1) * 127.5).round().byte()


def evidence(real: torch.Tensor, fake: torch.Tensor, extractor: Extractor | None = None) -> Evidence:
    return Evidence(EvidenceSet(images=real), EvidenceSet(images=fake), extractor=extractor)


# ------------------------------------------------------------------------------------------- spectra


def test_white_noise_is_flat_and_has_its_variance() -> None:
    found = mean_spectrum(noise(1000))
    expected = (20**2 + 1 / 12) / 255**2 + ROUNDING_POWER  # rounding to bytes adds 1/12
    np.testing.assert_allclose(found[1:], expected, rtol=0.03)
    assert found[0] == pytest.approx(16 * 16 * (128 / 255) ** 2, rel=0.01)


@pytest.mark.parametrize(("period", "ring"), [(16, 1), (8, 2), (4, 4), (2, 8)])
def test_a_grating_lies_in_the_ring_of_its_frequency(period: int, ring: int) -> None:
    found = spectra(grating(period))[0, 1:]
    assert found.argmax() + 1 == ring
    assert found[ring - 1] > 1000 * np.delete(found, ring - 1).max()


def test_an_empty_image_has_the_power_of_rounding_everywhere_but_in_its_brightness() -> None:
    found = spectra(torch.full((2, 3, 8, 8), 51, dtype=torch.uint8))
    np.testing.assert_allclose(found[:, 1:], ROUNDING_POWER, rtol=1e-3)
    np.testing.assert_allclose(found[:, 0], 64 * 0.2**2, rtol=1e-5)


def test_distance_in_decibel() -> None:
    spectrum = np.array([4.0, 2, 1])
    assert spectral_distance(spectrum, spectrum) == 0
    assert spectral_distance(spectrum, 10 * spectrum) == pytest.approx(10)
    assert spectral_distance(spectrum, spectrum * [1, 2, 0.5]) == pytest.approx(2 / 3 * 10 * math.log10(2))
    with pytest.raises(UsageError, match="3 and 2 rings"):
        spectral_distance(spectrum, spectrum[:2])


def test_brightness_and_contrast_leave_the_shape_alone() -> None:
    bright = noise(300, std=30)
    dark = (bright.float() / 2).round().byte()
    found = SpectralDistance()(evidence(dark, bright))
    assert found["spectral_distance"] == pytest.approx(20 * math.log10(2), abs=0.1)
    assert found["spectral_shape_distance"] < 0.1


def test_zero_insertion_copies_the_spectrum_and_is_found() -> None:
    """The spectrum of a zero-inserted image is tiled, so what a smooth image has in ring k comes back in the last."""
    smooth = torch.from_numpy(gaussian_filter(noise(200, 32, std=60).numpy(), (0, 0, 3, 3), mode="wrap"))
    inserted = torch.zeros_like(smooth)
    inserted[:, :, ::2, ::2] = smooth[:, :, ::2, ::2]
    tiled = np.fft.fft2(smooth[0, 0, ::2, ::2].double().numpy())
    np.testing.assert_allclose(np.fft.fft2(inserted[0, 0].double().numpy()), np.tile(tiled, (2, 2)), atol=1e-6)
    plain, copied = mean_spectrum(smooth), mean_spectrum(inserted)
    assert plain[-1] < 1e-3 * plain[1]
    assert copied[-1] > copied[1]  # at (0, 16) and (16, 0) lie copies of the mean brightness itself
    assert spectral_distance(plain, copied) > 10


def test_every_image_counts_and_neither_order_nor_pieces_do(monkeypatch: pytest.MonkeyPatch) -> None:
    images = shapes()
    whole = mean_spectrum(images)
    np.testing.assert_allclose(mean_spectrum(images.flip(0)), whole, rtol=1e-6)
    np.testing.assert_allclose(np.mean([mean_spectrum(images[:50]), mean_spectrum(images[50:100])], 0),
                               mean_spectrum(images[:100]), rtol=1e-6)  # fmt: skip
    monkeypatch.setattr(power_spectrum, "CHUNK_VALUES", 5000)
    np.testing.assert_allclose(mean_spectrum(images), whole, rtol=1e-6)
    np.testing.assert_allclose(mean_spectrum(images.float() / 127.5 - 1), whole, rtol=1e-6)


# ------------------------------------------------------------------------------------------- detection


def test_spectra_of_one_distribution_are_told_apart_by_chance_alone() -> None:
    for folds in (2, 5):
        accuracy = spectral_detectability(noise(400, seed=1), noise(400, seed=2), folds)
        low, high = binom.ppf([0.001, 0.999], 800, 0.5) / 800
        assert low <= accuracy <= high


def test_detection_counts_both_sides_alike() -> None:
    """With eleven times as many fakes, always saying fake would be right in 92 % of cases; it is worth 50 %."""
    assert spectral_detectability(noise(50, seed=1), noise(550, seed=2)) < 0.65


def test_the_stripes_of_an_upsampling_are_found_out() -> None:
    real = shapes()
    fake = shapes(seed=1)
    stripes = torch.from_numpy((np.indices((32, 32))[0] % 2 * 12).astype(np.uint8))
    marked = fake.clamp(0, 243) + stripes
    assert spectral_detectability(real, fake) < 0.6
    assert spectral_detectability(real, marked) > 0.99
    found = SpectralDetectability(folds=3)(evidence(real, marked))
    assert found["spectral_detectability"] == spectral_detectability(real.flip(0), marked.flip(0), 3)


def test_vectors_are_relative_to_the_brightness() -> None:
    found = shape_vectors(grating(4))[0]
    side = 16
    across = 2 * (100 / 255 / 2) ** 2 * side**2  # two frequencies of the cosine, shared by their ring
    inside = sum(4 <= math.hypot(y, x) + 1e-6 < 5 for y in range(-8, 8) for x in range(-8, 8))
    assert found[3] == pytest.approx(10 * math.log10(across / inside / (side**2 * (128 / 255) ** 2)), abs=0.05)


# ------------------------------------------------------------------------------------------- fine detail


def test_blur_raises_every_distance_of_fine_detail_monotonically() -> None:
    """And leaves the mean brightness alone within 0.1 %; at 32 pixels, the variance falls by up to a third, however."""
    extractor = parts.build("extractor", check_node("extractor", "random-net"))
    real = shapes()
    found = []
    for sigma in (0, 0.5, 1, 1.5, 2):
        blurred = real if sigma == 0 else gaussian_blur(real.float(), sigma).round().byte()
        assert blurred.float().mean().item() == pytest.approx(real.float().mean().item(), rel=1e-3)
        case = evidence(real, blurred, extractor)
        found.append({**HighPassDistance()(case), **PatchDistance()(case), **SpectralDistance()(case)})
    assert set(found[0]) == {
        "high_pass_distance", "patch_distance", "spectral_distance", "spectral_shape_distance",
    }  # fmt: skip
    for name in found[0]:
        values = [each[name] for each in found]
        assert values == sorted(values) and len(set(values)) == 5, name
        assert values[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
def test_blur_is_the_usual_one(sigma: float) -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 24, 30))
    expected = gaussian_filter(image, (0, 0, sigma, sigma), mode="mirror", radius=math.ceil(4 * sigma))
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(image), sigma), expected, atol=1e-12)


def test_flat_images_have_no_fine_detail() -> None:
    assert high_pass(torch.full((1, 3, 8, 8), 77, dtype=torch.uint8), 2.0).abs().max() < 1e-6
    lone = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    lone[0, 0, 4, 4] = 255
    assert high_pass(lone, 1.0)[0, 0, 4, 4] == pytest.approx(1 - 0.3989**2, abs=2e-3)  # 1 - (peak of the Gaussian)²


def test_patches_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    images = shapes(30)
    patches = [
        (images[:, :, y : y + 4, x : x + 4].flatten(1).double() / 255).numpy()
        for y in range(0, 29, 2)
        for x in range(0, 29, 2)
    ]
    mean, covariance = patch_moments(images, 4)
    expected = statistics(np.concatenate(patches))
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9)
    np.testing.assert_allclose(covariance, expected[1], rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(fine_detail, "CHUNK", 7)
    assert np.array_equal(patch_moments(images.flip(0), 4)[1], covariance)


def test_errors_name_the_fault() -> None:
    images = shapes(10)
    with pytest.raises(UsageError, match="5 folds of 3 images"):
        spectral_detectability(images, images[:3])
    with pytest.raises(UsageError, match="different sizes"):
        spectral_detectability(images, images[:, :, :16, :16])
    with pytest.raises(UsageError, match="patches of 33 pixels"):
        patch_moments(images, 33)
    with pytest.raises(UsageError, match="no extractor"):
        HighPassDistance()(evidence(images, images))
    with pytest.raises(UsageError, match="no fake images"):
        SpectralDistance()(Evidence(EvidenceSet(images=images), EvidenceSet()))
    with pytest.raises(DataError, match="NaN"):
        mean_spectrum(torch.full((2, 1, 4, 4), math.nan))
