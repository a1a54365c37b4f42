"""TTUR and FID (Heusel et al. 2017): two time scales converge where one does not; the distance and what it reacts to.

More of the distance, with its properties under hypothesis, is in tests/metrics/test_frechet_distance.py, and official
numbers of two implementations in tests/metrics/test_golden_metrics.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from ganvas import parts
from ganvas.engine.optim import Optim
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.metrics.frechet_distance import frechet_distance, frechet_distance_of_features, statistics

pytestmark = pytest.mark.system("ttur-fid")
GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "metrics" / "a.safetensors"


# ------------------------------------------------------------------------------------------- FID


def test_known_gaussians_from_exact_moments() -> None:
    """Commuting covariances: ‖m₁ − m₂‖² + Σ (s₁ − s₂)², whatever the common basis is."""
    rng = np.random.default_rng(0)
    for d in (1, 3, 20):
        m1, m2 = rng.normal(size=(2, d))
        s1, s2 = rng.uniform(0.1, 2, size=(2, d))
        expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
        assert frechet_distance(m1, np.diag(s1**2), m2, np.diag(s2**2)) == pytest.approx(expected, abs=1e-6)
        basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
        turned = [basis @ np.diag(s**2) @ basis.T for s in (s1, s2)]
        assert frechet_distance(m1, turned[0], m2, turned[1]) == pytest.approx(expected, abs=1e-6)


def test_matrix_root_and_singular_values_agree() -> None:
    rng = np.random.default_rng(1)
    for d in (2, 16, 64):
        a, b = (rng.normal(size=(3 * d, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d) for _ in range(2))
        (m1, S1), (m2, S2) = statistics(a), statistics(b)
        root = np.real(scipy.linalg.sqrtm(S1 @ S2))
        expected = ((m1 - m2) ** 2).sum() + np.trace(S1 + S2 - 2 * root)
        assert frechet_distance(m1, S1, m2, S2) == pytest.approx(expected, rel=1e-9)
        assert frechet_distance_of_features(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}")
def test_torch_fidelity_gives_the_same_on_the_same_features() -> None:
    case = load_file(GOLDEN)
    found = frechet_distance_of_features(case["in.real"].numpy(), case["in.fake"].numpy())
    assert found == pytest.approx(case["out.tf_fid"].item(), abs=1e-3)


# ------------------------------------------------------------------------------------------- disturbances


def noisy(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(images + 0.25 * level * rng.standard_normal(images.shape), -1, 1)


def blurred(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return gaussian_filter(images, (0, 0, 0.4 * level, 0.4 * level)) if level else images


def covered(images: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Two black rectangles in each image, each of `level` by `level` pixels at a place of its own."""
    images = images.copy()
    for image in images:
        for _ in range(2):
            y, x = rng.integers(0, 8 - level + 1, size=2)
            image[:, y : y + level, x : x + level] = -1
    return images


@pytest.mark.parametrize("disturb", [noisy, blurred, covered])
def test_distance_rises_with_each_level_of_disturbance(disturb: object) -> None:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": "all"}))
    images = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).data.numpy()
    order = np.random.default_rng(0).permutation(len(images))
    real, other = images[order[:898]], images[order[898:]]
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))

    def features(of: np.ndarray) -> Tensor:
        return extractor(torch.from_numpy(of).float())[0]

    found = [
        frechet_distance_of_features(features(real), features(disturb(other, level, np.random.default_rng(1))))
        for level in range(5)
    ]
    assert (np.diff(found) > 0).all(), found
    assert spearmanr(range(5), found).statistic == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------- two time scales


class Player(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start, dtype=torch.float64))


MU = 0.1


def plain_steps(a: float, b: float, steps: int) -> np.ndarray:
    """(steps + 1, 2): the way of (x, y) under simultaneous gradient steps on min_x max_y xy − ½ μ y²."""
    way = np.empty((steps + 1, 2))
    way[0] = 1, 1
    for t, (x, y) in enumerate(way[:-1]):
        way[t + 1] = x - a * y, y + b * (x - MU * y)
    return way


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.05, 0.5), (0.1, 0.5), (0.02, 0.1), (0.3, 0.2)])
def test_spectral_radius_is_the_closed_form(a: float, b: float) -> None:
    """The step is [[1, −a], [b, 1 − bμ]], of determinant 1 − bμ + ab: the radius² of its complex pair."""
    step = np.array([[1, -a], [b, 1 - b * MU]])
    values = np.linalg.eigvals(step)
    assert np.iscomplex(values).all()
    radius_square = 1 - b * MU + a * b
    assert np.abs(values).max() ** 2 == pytest.approx(radius_square, rel=1e-12)
    assert (radius_square < 1) == (a < MU)
    # Such a way shrinks or grows by the radius a step: the same from its two ends, in the norm that turns with it.
    basis = np.linalg.inv(np.linalg.eig(step)[1])
    ends = [np.linalg.norm(basis @ point) for point in plain_steps(a, b, 50)[[0, 50]]]
    assert (ends[1] / ends[0]) ** (2 / 50) == pytest.approx(radius_square, rel=1e-9)


def engine_steps(a: float, b: float, steps: int, *, alternating: bool) -> np.ndarray:
    """The way of (x, y) as the engine's optimizers take it, with a rate for each role."""
    nets = {"generator": Player(1.0), "discriminator": Player(1.0)}
    roles = {"generator": {"lr": a}, "discriminator": {"lr": b}}
    node = {**check_node("optimizer", "sgd"), "schedule": {"use": "constant"}, "clip_norm": None, "roles": roles}
    optim = Optim(nets, node, frozen={}, steps=steps, scaler=torch.amp.GradScaler("cpu", enabled=False))
    x, y = (nets[role].requires_grad_(True).at for role in roles)
    way = [(x.item(), y.item())]
    for step in range(steps):
        optim.begin(step)
        # The players' losses: xy for x, and −xy + ½ μ y² for y.
        optim.backward(-(x.detach() * y - MU / 2 * y.square()))
        if alternating:
            optim.step(("discriminator",))
        optim.backward(x * y.detach())
        optim.step(("generator", "discriminator") if not alternating else ("generator",))
        way.append((x.item(), y.item()))
    return np.array(way)


def test_engine_takes_these_steps_and_converges_on_two_time_scales_alone() -> None:
    one, two = (engine_steps(a, 0.5, 800, alternating=False) for a in (0.5, 0.05))
    np.testing.assert_allclose(one, plain_steps(0.5, 0.5, 800), rtol=1e-9)
    np.testing.assert_allclose(two, plain_steps(0.05, 0.5, 800), rtol=1e-9, atol=1e-15)
    assert np.linalg.norm(one[-1]) > 1e3
    assert np.linalg.norm(two[-1]) < 1e-2


def test_alternating_steps_converge_on_either() -> None:
    """The closed form is that of simultaneous steps. The critic first, as our task goes, makes the radius² 1 − bμ."""
    for a, b in ((0.5, 0.5), (0.05, 0.5)):
        way = engine_steps(a, b, 800, alternating=True)
        step = np.array([[1 - a * b, -a * (1 - b * MU)], [b, 1 - b * MU]])
        np.testing.assert_allclose(way[1:], way[:-1] @ step.T, rtol=1e-9, atol=1e-15)
        assert np.abs(np.linalg.eigvals(step)).max() ** 2 == pytest.approx(1 - b * MU, rel=1e-9)
        assert np.linalg.norm(way[-1]) < 1e-2


def test_recipes_give_each_role_a_rate() -> None:
    for name in ("digits", "tiny/shapes-sagan"):
        rates = Recipe.load(name).resolve()["optim"]
        assert rates["roles"]["discriminator"]["lr"] > rates["lr"]
