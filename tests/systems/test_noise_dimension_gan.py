"""Noise dimension of GANs (Zhu et al. 2024): the bits of a latent, of an image, and what too few of them cost."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import UsageError
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics import noise_budget
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.shelves.metrics.noise_budget import (
    NoiseBudget,
    codec_bits,
    dimensions_needed,
    divergence_at_entropy,
    entropy_bits,
    float32_normal_entropy_bits,
    float32_uniform_entropy_bits,
    latent_bits,
)
from ganvas.types import Batch, Evidence, EvidenceSet, Facts, LatentSpec

pytestmark = pytest.mark.system("noise-dimension-gan")

SPEC = image_spec((1, 8, 8), 10)


def network(name: str, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": name, "width": 128, "depth": 2, **keys}), SPEC)


def digits(split: str) -> Tensor:
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": split}))
    data: Tensor = dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).data
    return data


def in_bytes(images: Tensor) -> Tensor:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


# ------------------------------------------------------------------------------------------- bits of noise


def test_a_normal_value_holds_26_46_bits_near_the_papers_26_55() -> None:
    found = float32_normal_entropy_bits()
    binades = range(-60, 5)
    mass = [2 * (norm.cdf(2.0 ** (e + 1)) - norm.cdf(2.0**e)) for e in binades]
    exponent = sum(e * p for e, p in zip(binades, mass, strict=True))
    assert found == pytest.approx(norm.entropy() / math.log(2) + 23 - exponent, abs=1e-9)
    assert found == pytest.approx(26.46, abs=0.02)
    assert found == pytest.approx(26.55, abs=0.1)


def test_entropy_of_coarser_floats_is_what_counting_gives() -> None:
    """With 4 bits of mantissa all values can be counted; each further bit adds one, so 23 add 19."""
    edges = np.concatenate([2.0**e * (1 + np.arange(16) / 16) for e in range(-40, 5)])
    mass = norm.cdf(np.append(edges[1:], 2.0**5)) - norm.cdf(edges)
    assert entropy_bits(np.concatenate([mass, mass])) + 19 == pytest.approx(float32_normal_entropy_bits(), abs=0.01)
    mass = np.diff(np.append(edges[edges <= 1], 1)) / 2  # of a uniform value in [-1, 1]
    assert entropy_bits(np.concatenate([mass, mass])) + 19 == pytest.approx(float32_uniform_entropy_bits(), abs=0.01)
    assert float32_uniform_entropy_bits() == pytest.approx(26, abs=1e-9)


def test_bits_of_latents_and_the_dimensions_that_hold_them() -> None:
    b = float32_normal_entropy_bits()
    assert latent_bits(LatentSpec((4, 2))) == 8 * b
    assert latent_bits(LatentSpec((3,), "uniform")) == pytest.approx(78)
    assert latent_bits(LatentSpec((512,), "none")) == 0
    assert [dimensions_needed(bits) for bits in (0, 1, b, b + 1e-6, 1000)] == [0, 1, 1, 2, 38]
    with pytest.raises(UsageError, match="no amount of information"):
        dimensions_needed(math.inf)


# ------------------------------------------------------------------------------------------- bits of images


def test_code_length_bounds_the_entropy_from_above_and_tightly() -> None:
    rng = np.random.default_rng(0)
    for p in (0.5, 0.1, 0.02):
        coins = (rng.random((500, 1, 16, 16)) < p).astype(np.uint8) * 255
        entropy = 256 * entropy_bits([p, 1 - p])
        assert entropy * 0.98 <= codec_bits(torch.from_numpy(coins)) <= entropy * 1.25
    noise = torch.from_numpy(rng.integers(0, 256, size=(20, 3, 16, 16), dtype=np.uint8))
    assert codec_bits(noise) == pytest.approx(8 * 768, rel=0.001)  # never more than the pixels themselves
    steps = torch.from_numpy(rng.integers(0, 3, size=(200, 1, 8, 32)).cumsum(-1).astype(np.uint8))
    assert codec_bits(steps) < 1.2 * 256 * math.log2(3)  # differences of neighbours are what is random


def test_code_length_is_a_function_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    images = in_bytes(digits("test"))
    whole = codec_bits(images)
    assert codec_bits(images.flip(0)) == whole
    monkeypatch.setattr(noise_budget, "CODED_BYTES", 200 * 64)
    assert codec_bits(images) == pytest.approx(whole, rel=0.15)
    assert codec_bits(images.flip(0)) == codec_bits(images)


def test_the_metric_divides_one_by_the_other() -> None:
    images = in_bytes(digits("test"))
    bits = codec_bits(images)
    for z_dim in (2, 16):
        model = Model({"sampler": {"use": "plain"}}, SPEC, {"generator": network("mlp-generator", z_dim=z_dim)})
        found = NoiseBudget()(Evidence(EvidenceSet(images=images), EvidenceSet(), model=model))
        assert found == {"noise_budget": pytest.approx(z_dim * float32_normal_entropy_bits() / bits)}
    with pytest.raises(UsageError, match="no model"):
        NoiseBudget()(Evidence(EvidenceSet(images=images), EvidenceSet()))


# ------------------------------------------------------------------------------------------- D(R)


@pytest.fixture(scope="module")
def grid() -> tuple[np.ndarray, np.ndarray]:
    """All distributions over four symbols in steps of 1/80, and their entropies."""
    n = 80
    points = np.array(
        [(a, b, c, n - a - b - c) for a, b, c in itertools.product(range(1, n), repeat=3) if a + b + c < n]
    )
    q = points / n
    return q, -(q * np.log2(q)).sum(1)


@pytest.mark.parametrize("p", [(0.4, 0.3, 0.2, 0.1), (0.25, 0.25, 0.25, 0.25), (0.7, 0.1, 0.1, 0.1)], ids=str)
def test_divergence_agrees_with_brute_force(p: tuple[float, ...], grid: tuple[np.ndarray, np.ndarray]) -> None:
    q, entropy = grid
    divergence = (np.array(p) * np.log2(np.array(p) / q)).sum(1)
    for R in np.linspace(0.9, 1, 6) * entropy_bits(p):
        found, best = divergence_at_entropy(p, R)
        brute = divergence[entropy <= R].min()
        assert best.sum() == pytest.approx(1) and entropy_bits(best) <= R + 1e-9
        assert found == pytest.approx((np.array(p) * np.log2(np.array(p) / best)).sum(), abs=1e-9)
        assert brute - 1e-2 <= found <= brute + 1e-9  # the grid is coarser, so it is never better
    for R in np.linspace(0.3, 0.85, 6) * entropy_bits(p):  # near a corner the grid has hardly a point
        assert divergence_at_entropy(p, R)[0] <= divergence[entropy <= R].min(initial=np.inf) + 1e-9


def test_divergence_falls_to_zero_at_the_entropy_of_the_source() -> None:
    p = np.array([0.4, 0.3, 0.2, 0.1])
    curve = [divergence_at_entropy(p, R)[0] for R in np.linspace(0.05, 2, 14)]
    assert all(a >= b for a, b in itertools.pairwise(curve))
    for R in (entropy_bits(p), 1.9, 100):
        value, q = divergence_at_entropy(p, R)
        assert value == 0 and q.tolist() == p.tolist()
    assert divergence_at_entropy(p, entropy_bits(p) - 1e-3)[0] > 0


def test_divergence_of_two_symbols_in_closed_form() -> None:
    """H(q) = R has one solution with q1 > 1/2, which is the best one for p1 > 1/2."""
    from scipy.optimize import brentq

    p = np.array([0.65, 0.35])
    for R in (0.2, 0.5, 0.9):
        q1 = brentq(lambda x, R=R: entropy_bits([x, 1 - x]) - R, 0.5, 1 - 1e-12)
        expected = 0.65 * math.log2(0.65 / q1) + 0.35 * math.log2(0.35 / (1 - q1))
        assert divergence_at_entropy(p, R)[0] == pytest.approx(expected, abs=1e-6)


def test_divergence_at_the_edges() -> None:
    assert divergence_at_entropy([1.0, 0, 0], 0) == (0, pytest.approx([1, 0, 0]))
    value, q = divergence_at_entropy([0.6, 0.4], 0)
    assert value == math.inf and q.tolist() == [1, 0]
    with_empty, q = divergence_at_entropy([0.65, 0, 0.35], 0.5)
    assert with_empty == pytest.approx(divergence_at_entropy([0.65, 0.35], 0.5)[0]) and q[1] == 0
    for wrong in ([0.5, 0.6], [[1.0]], [-0.5, 1.5], []):
        with pytest.raises(UsageError, match="distribution"):
            divergence_at_entropy(wrong, 1)


# ------------------------------------------------------------------------------------------- toy sweep


def gan(images: Tensor, z_dim: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    nets = {"generator": network("mlp-generator", z_dim=z_dim), "discriminator": network("mlp-discriminator")}
    node = {"use": "adversarial", "regularizers": {"r1": {"weight": 1.0}}}
    task = parts.build("task", check_node("task", node), nets, Facts(SPEC))
    optim = {role: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.99)) for role, net in nets.items()}
    for step in range(1500):
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            batch = Batch(images[torch.randint(len(images), (64,))])
            torch.stack(list(update.losses(batch, step).values())).sum().backward()
            optim[role].step()
    return nets["generator"]


@pytest.mark.slow
def test_fewer_noise_dimensions_cost_frechet_distance() -> None:
    images, reference = digits("train"), digits("test")
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))
    real, bits = extractor(reference)[0], codec_bits(in_bytes(images))
    print(f"a digit takes {bits:.0f} bits: {dimensions_needed(bits)} dimensions")  # noqa: T201
    for seed in range(3):
        distances = []
        for z_dim in (1, 2, 4, 16):
            generator = gan(images, z_dim, seed)
            with torch.no_grad():
                fake = generator(torch.randn(1000, z_dim, generator=torch.Generator().manual_seed(seed)))
            distances.append(frechet_distance_of_features(real, extractor(fake.clamp(-1, 1))[0]))
        print(f"Fréchet distance at 1, 2, 4, 16 dimensions: {np.round(distances, 1).tolist()}")  # noqa: T201
        # From 4 dimensions on, one training differs from the next more than 4 dimensions from 16: 11.9 and 14.0 once.
        assert distances[0] > distances[1] > max(distances[2:])
        assert distances[0] > 2 * distances[-1]
