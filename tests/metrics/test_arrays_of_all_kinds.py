"""Features as people have them: of half precision, on a tape, ragged, text, complex, in any layout of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ganvas.errors import UsageError
from ganvas.nn.ssim import ms_ssim, ssim
from ganvas.shelves.metrics.authenticity import authpct
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.shelves.metrics.nearest_neighbours import nearest_neighbours
from ganvas.shelves.metrics.vendi_score import vendi_score
from ganvas.stats.moments import moments_of, rows


def drawn(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int32, torch.bool])
def test_every_real_type_has_the_value_of_its_numbers(kind: torch.dtype) -> None:
    given = (drawn(20, 3) * 4).to(kind)
    assert np.array_equal(rows(given, "features"), given.double().numpy())
    assert np.array_equal(rows(list(given), "features"), given.double().numpy())


def test_features_that_ask_for_gradients_are_read() -> None:
    real, fake = drawn(30, 4), drawn(30, 4, 1)
    asking = fake.clone().requires_grad_(True)
    assert frechet_distance_of_features(real, asking) == frechet_distance_of_features(real, fake)


@pytest.mark.parametrize(
    ("features", "fault"),
    [
        ([[1.0, 2.0], [3.0]], "unlike lengths"),
        ([torch.ones(2), torch.ones(3)], "unlike lengths"),
        ([["a", "b"]], "text values"),
        (np.array([[b"a"]]), "text values"),
        (np.ones((2, 2)) * 1j, "complex values"),
        (torch.ones(2, 2, dtype=torch.complex64), "complex values"),
        (np.array([[None, 1]], dtype=object), "object values"),
        (np.ma.masked_array(np.ones((2, 2)), mask=np.eye(2)), "masked"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), "datetime64"),
    ],
)
def test_what_is_no_real_number_is_refused_with_a_sentence(features: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        rows(features, "features")
    with pytest.raises(UsageError, match=fault):
        moments_of(features)


def test_the_layout_of_memory_decides_no_tie() -> None:
    """On a grid nearly all distances are tied; rows, columns and strided views of it score alike."""
    rng = np.random.default_rng(0)
    training, fake = (rng.integers(0, 3, size=(n, 6)) / 3 + 0.1 for n in (200, 150))
    wide = np.zeros((150, 12))
    wide[:, ::2] = fake
    values = {
        authpct(one, other)
        for one in (training, np.asfortranarray(training))
        for other in (fake, np.asfortranarray(fake), wide[:, ::2])
    }
    assert len(values) == 1
    # By hand, in whole numbers: the first nearest training point, and how far its own neighbour is.
    whole_training, whole_fake = (np.rint((points - 0.1) * 3).astype(int) for points in (training, fake))
    to = ((whole_fake[:, None] - whole_training[None]) ** 2).sum(2)
    among = ((whole_training[:, None] - whole_training[None]) ** 2).sum(2)
    np.fill_diagonal(among, 10**6)
    nearest = to.argmin(1)
    assert np.array_equal(nearest_neighbours(fake, training)[0][:, 0], nearest)
    assert values == {100 * float(np.mean(to.min(1) > among.min(1)[nearest]))}


@pytest.mark.parametrize("order", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_eigenvalues_of_rounding_are_no_rare_samples(order: float, kind: torch.dtype) -> None:
    """400 samples in 10 dimensions of 512 are worth at most 10, whatever the order."""
    basis = torch.linalg.qr(drawn(512, 10).double())[0]
    features = (drawn(400, 10, 1).double() @ basis.T).to(kind)
    assert 8 < vendi_score(features, order=order) <= 10


def test_copies_under_a_gaussian_kernel_count_once_at_any_order() -> None:
    apart = torch.eye(10, 64) * 100
    assert vendi_score(apart.repeat(40, 1), bandwidth=1.0, order=0.1) == pytest.approx(10, abs=1e-6)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
@pytest.mark.parametrize("sigma", [0.0, -1.5, float("nan"), float("inf")])
def test_a_window_has_a_width(measure: Any, sigma: float) -> None:
    x = torch.rand(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match="sigma"):
        measure(x, x, data_range=1.0, sigma=sigma)


def test_images_of_unlike_types_or_no_range_are_refused() -> None:
    x = torch.zeros(1, 1, 16, 16)
    with pytest.raises(UsageError, match="data_range"):
        ssim(x, x, data_range=0.0)
    with pytest.raises(UsageError, match="floats of one type"):
        ssim(x.byte(), x.byte(), data_range=255.0)
