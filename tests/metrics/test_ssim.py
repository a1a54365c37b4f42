"""Structural similarity against other ways to compute it, its derivatives, and where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.nn.ssim import MS_SSIM_WEIGHTS, ms_ssim, scales_that_fit, ssim


def waves(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two like images (1, 3, H, W) of whole numbers in [0, 255], the same on every machine."""
    i, j = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in (height, width)), indexing="ij")
    c = torch.arange(3, dtype=torch.float64)[:, None, None]
    x = (127.5 + 100 * torch.sin(0.11 * i + 0.07 * (c + 1) * j)).round()
    y = (x + 25 * torch.cos(1.7 * i - 0.9 * j) + 10 * c).clamp(0, 255).round()
    return x[None], y[None]


def by_scipy(x: np.ndarray, y: np.ndarray, data_range: float) -> tuple[float, float]:
    """(SSIM, contrast times structure) of two (H, W): whole-image filters, cut where the window stays inside."""

    def mean(a: np.ndarray) -> np.ndarray:
        return gaussian_filter(a, 1.5, truncate=3.5)[5:-5, 5:-5]

    C1, C2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean((x - 128) ** 2) - (mx - 128) ** 2, mean((y - 128) ** 2) - (my - 128) ** 2, mean(x * y) - mx * my
    structure = (2 * cov + C2) / (vx + vy + C2)
    return float((structure * (2 * mx * my + C1) / (mx**2 + my**2 + C1)).mean()), float(structure.mean())


# Values of scikit-image 0.26 (gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255) and of
# pytorch-msssim 1.0 with its window in float64.
@pytest.mark.parametrize(
    ("height", "width", "single", "multi"),
    [(176, 180, 0.6223142233648334, 0.9593174914167454), (161, 195, 0.6218477840569457, 0.9592471739653566)],
)
def test_values_of_other_libraries(height: int, width: int, single: float, multi: float) -> None:
    x, y = waves(height, width)
    assert ssim(x, y, data_range=255).item() == pytest.approx(single, abs=1e-12)
    assert ms_ssim(x, y, data_range=255).item() == pytest.approx(multi, abs=1e-12)
    assert ssim(x.float(), y.float(), data_range=255).item() == pytest.approx(single, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 11, 11), (3, 20, 33), (4, 32, 16)])
def test_agrees_with_whole_image_filters(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, *shape)).astype(np.float64)
    y = np.clip(x + rng.normal(0, 40, x.shape), 0, 255)
    expected = [
        np.mean([by_scipy(a, b, 255)[0] for a, b in zip(*pair, strict=True)]) for pair in zip(x, y, strict=True)
    ]
    found = ssim(torch.from_numpy(x), torch.from_numpy(y), data_range=255)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_scales_are_means_of_four_pixels() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (176, 208)).astype(np.float64)
    y = np.clip(x + rng.normal(0, 40, x.shape), 0, 255)
    product, a, b = 1.0, x, y
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        whole, structure = by_scipy(a, b, 255)
        product *= (whole if scale == 4 else structure) ** weight
        a, b = (uniform_filter(each, 2, origin=-1)[::2, ::2] for each in (a, b))
    found = ms_ssim(*(torch.from_numpy(each)[None, None] for each in (x, y)), data_range=255)
    assert found.item() == pytest.approx(product, abs=1e-12)


def test_one_scale_of_ms_ssim_is_ssim() -> None:
    x, y = (each[:, :, :24, :24] for each in waves(40, 40))
    torch.testing.assert_close(ms_ssim(x, y, data_range=255, weights=(1.0,)), ssim(x, y, data_range=255))


def test_identities() -> None:
    x, y = (each.expand(3, -1, -1, -1) for each in waves(170, 165))
    for similarity in (ssim, ms_ssim):
        torch.testing.assert_close(similarity(x, x, data_range=255), torch.ones(3, dtype=torch.float64))
        torch.testing.assert_close(similarity(x, y, data_range=255), similarity(y, x, data_range=255))
        torch.testing.assert_close(
            similarity(x, y, data_range=255), similarity(x / 255, y / 255, data_range=1), rtol=1e-9, atol=0
        )
    assert (ssim(x, 255 - x, data_range=255) < 0).all()
    assert (ms_ssim(x, 255 - x, data_range=255) == 0).all()  # negative structure counts as none


def test_flat_images_differ_in_luminance_alone() -> None:
    a, b = torch.full((1, 1, 12, 12), 60.0, dtype=torch.float64), torch.full((1, 1, 12, 12), 90.0, dtype=torch.float64)
    C1 = 2.55**2
    assert ssim(a, b, data_range=255).item() == pytest.approx((2 * 60 * 90 + C1) / (60**2 + 90**2 + C1), rel=1e-9)


def test_derivatives() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(2, 1, 1, 6, 7, dtype=torch.float64)
    y = (x + 0.1 * y).requires_grad_()

    def both(of: Tensor) -> tuple[Tensor, Tensor]:
        small = {"data_range": 1.0, "window": 3}
        return ssim(x, of, **small), ms_ssim(x, of, weights=(0.4, 0.6), **small)

    assert torch.autograd.gradcheck(both, (y,))


def test_scales_that_fit() -> None:
    assert [scales_that_fit(side, 11) for side in (10, 11, 21, 22, 160, 161, 256)] == [0, 1, 2, 2, 4, 5, 5]


def test_errors_name_the_fault() -> None:
    x = torch.zeros(1, 1, 12, 12)
    with pytest.raises(UsageError, match="cannot be compared"):
        ssim(x, x[..., :11], data_range=1)
    with pytest.raises(UsageError, match="a window of 13 pixels for images of 12x12"):
        ssim(x, x, data_range=1, window=13)
    with pytest.raises(UsageError, match="a window of 4 pixels"):
        ssim(x, x, data_range=1, window=4)
    with pytest.raises(UsageError, match="5 scales of images of 12x12: a window of 11 fits into 1"):
        ms_ssim(x, x, data_range=1)
