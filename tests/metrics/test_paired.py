"""Scores of images and their originals: closed forms, who may be compared, small images."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas.errors import DataError, UsageError
from ganvas.nn.ssim import ssim
from ganvas.shelves.metrics import paired
from ganvas.shelves.metrics.paired import MSSSIM, PSNR, SSIM, PerceptualDistance, perceptual_distance, squared_errors
from ganvas.types import Evidence, EvidenceSet

PARTS = (PSNR, SSIM, MSSSIM)


def pictures(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(20, 236, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def evidence(real: Tensor, fake: Tensor) -> Evidence:
    return Evidence(EvidenceSet(images=real), EvidenceSet(images=fake))


def test_psnr_of_a_known_error() -> None:
    real = pictures(4, 3, 12, 12)
    fake = real + torch.tensor([1, 2, 4, 8], dtype=torch.uint8)[:, None, None, None]
    assert squared_errors(real, fake).tolist() == [1, 4, 16, 64]
    expected = np.mean([20 * math.log10(255 / off) for off in (1, 2, 4, 8)])
    assert PSNR()(evidence(real, fake)) == {"psnr": pytest.approx(expected, rel=1e-12)}


def test_what_is_equal_is_best() -> None:
    real = pictures(3, 1, 170, 170)
    assert PSNR()(evidence(real, real)) == {"psnr": pytest.approx(10 * math.log10(255**2 * 12))}
    assert SSIM()(evidence(real, real)) == {"ssim": pytest.approx(1, abs=1e-12)}
    assert MSSSIM()(evidence(real, real)) == {"ms_ssim": pytest.approx(1, abs=1e-12)}


@pytest.mark.parametrize("part", PARTS)
def test_more_noise_scores_lower(part: type) -> None:
    real, noise = pictures(4, 3, 170, 161), torch.randn(4, 3, 170, 161)
    values = []
    for scale in (2, 6, 18, 54):
        fake = (real + scale * noise).round().clamp(0, 255).byte()
        (value,) = part()(evidence(real, fake)).values()
        values.append(value)
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


@pytest.mark.filterwarnings("ignore:images of")
@pytest.mark.parametrize("part", PARTS)
def test_bytes_and_floats_blocks_and_order_agree(part: type, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = pictures(6, 3, 24, 30), pictures(6, 3, 24, 30, seed=1)
    fake = (real.float() * 0.8 + fake.float() * 0.2).round().byte()
    (value,) = part()(evidence(real, fake)).values()
    (floats,) = part()(evidence(real.float() / 127.5 - 1, fake.double() / 127.5 - 1)).values()
    assert floats == value
    order = torch.randperm(6)
    monkeypatch.setattr(paired, "_BLOCK_VALUES", 1)
    (other,) = part()(evidence(real[order], fake[order])).values()
    assert other == pytest.approx(value, rel=1e-12)


def test_small_images_get_a_smaller_window_and_fewer_scales() -> None:
    real, fake = pictures(3, 1, 8, 9), pictures(3, 1, 8, 9, seed=1)
    with pytest.warns(UserWarning, match="1x8x9 are smaller than the window of 11 pixels, which is cut to 7"):
        value = SSIM()(evidence(real, fake))["ssim"]
    assert value == pytest.approx(ssim(real.double(), fake.double(), data_range=255, window=7).mean().item())
    with pytest.warns(UserWarning, match="1x64x64 hold an 11 pixel window at 3 scales, not 5"):
        MSSSIM()(evidence(pictures(2, 1, 64, 64), pictures(2, 1, 64, 64, seed=1)))
    for side in (1, 2, 3, 10, 11):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = pictures(2, 1, side, side)
            assert MSSSIM()(evidence(one, one)) == {"ms_ssim": pytest.approx(1)}


def test_perceptual_distance_is_the_mean_squared_distance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(70, 5)), rng.normal(size=(70, 5))
    assert perceptual_distance(x, y) == pytest.approx(((x - y) ** 2).sum(1).mean(), rel=1e-12)
    real, fake = (EvidenceSet(features=torch.from_numpy(each)) for each in (x, y))
    assert PerceptualDistance()(Evidence(real, fake)) == {"perceptual_distance": perceptual_distance(x, y)}
    assert PerceptualDistance()(Evidence(real, real)) == {"perceptual_distance": 0}


def test_errors_name_the_fault() -> None:
    real = pictures(4, 3, 12, 12)
    for part in PARTS:
        with pytest.raises(UsageError, match="no real images"):
            part()(Evidence(EvidenceSet(), EvidenceSet(images=real)))
        with pytest.raises(UsageError, match="4 real and 3 generated images are no pairs"):
            part()(evidence(real, real[:3]))
        with pytest.raises(UsageError, match="real images are 3x12x12 and generated ones 1x12x12"):
            part()(evidence(real, real[:, :1]))
        with pytest.raises(UsageError, match="0 real images"):
            part()(evidence(real[:0], real[:0]))
        with pytest.raises(UsageError, match=r"must be \(N, C, H, W\)"):
            part()(evidence(real[0], real[0]))
        with pytest.raises(DataError, match="NaN or values outside"):
            part()(evidence(real, real.float()))
        with pytest.raises(DataError, match="NaN or values outside"):
            part()(evidence(real, real * torch.nan))
    x = torch.ones(4, 3)
    with pytest.raises(UsageError, match="no features"):
        PerceptualDistance()(Evidence(EvidenceSet(), EvidenceSet(features=x)))
    with pytest.raises(UsageError, match="4 real and 2 generated"):
        perceptual_distance(x, x[:2])
    with pytest.raises(UsageError, match="3 dimensions and fake ones 2"):
        perceptual_distance(x, x[:, :2])
    with pytest.raises(DataError, match="NaN"):
        perceptual_distance(x, x * torch.nan)
