"""Perceptual path length of generators whose path length is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import ganvas
from ganvas.errors import BadValue, DataError, MissingCapability, UsageError
from ganvas.parts import build, image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.perceptual_path_length import (
    PerceptualPathLength,
    lerp,
    path_distances,
    slerp,
    trimmed_mean,
)
from ganvas.types import NO_CONDITION, Condition, Evidence, EvidenceSet, Extractor, Latent, LatentSpec

D = 6


class Linear:
    """G(z) = A z, as a 1 x 1 x D image in float64, for unbounded precision; draws as a model does."""

    spec = image_spec((1, 1, D))
    num_classes = 0

    def __init__(self, prior: str = "normal", scale: float = 1.0) -> None:
        rng = torch.Generator().manual_seed(7)
        self.A = scale * torch.randn(D, D, generator=rng, dtype=torch.float64)
        self.latents = {"z": LatentSpec((D,), prior), "w": LatentSpec((D,), "none")}
        self.asked: list[Tensor] = []

    def draw(self, n: int, *, seed: int, space: str | None = None, label: Tensor | None = None) -> Latent:
        if space == "w":
            raise MissingCapability("w cannot be drawn")
        rng = torch.Generator().manual_seed(seed)
        values = torch.randn(n, D, generator=rng, dtype=torch.float64)
        return Latent(values if self.latents["z"].prior == "normal" else values.erf(), "z")

    def labels(self, n: int, *, seed: int, label: object = None) -> Tensor | None:
        return None

    def synthesize(self, latent: Latent, condition: Condition = NO_CONDITION) -> Tensor:
        self.asked.append(latent.values)
        return (latent.values @ self.A.T).view(-1, 1, 1, D)


class Identity(Extractor):
    """Pixels as features, in the images' own precision."""

    name, classes = "identity", 0
    provenance: ClassVar[dict[str, str]] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        return images.flatten(1), None


def ends(model: Linear, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    a, b = model.draw(2 * n, seed=seed).values.split(n)
    return a, b


def test_straight_paths_through_a_linear_generator() -> None:
    """|A (b - a)|^2 whatever the step and the place: a uniform prior's paths are straight."""
    model = Linear("uniform")
    a, b = ends(model, 150)
    expected = ((b - a) @ model.A.T).square().sum(1)
    for epsilon in (1e-4, 0.1):
        model.asked.clear()
        found = path_distances(model, Identity(), samples=150, epsilon=epsilon)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert torch.cat(model.asked).abs().max() <= 1 + 2 * epsilon  # the last step may begin at the end of the path


def test_round_paths_through_a_linear_generator() -> None:
    """With A = I: the squared speed is (|b| - |a|)^2 along the radius and r^2 angle^2 across it."""
    model = Linear()
    model.A = torch.eye(D, dtype=torch.float64)
    a, b = ends(model, 200)
    angle = torch.nn.functional.cosine_similarity(a, b).acos()
    long_a, long_b = a.norm(dim=1), b.norm(dim=1)
    at_start = (long_b - long_a).square() + (long_a * angle).square()
    found = path_distances(model, Identity(), samples=200, full=False)
    np.testing.assert_allclose(found, at_start, rtol=1e-3)
    anywhere = path_distances(model, Identity(), samples=200)
    low = (long_b - long_a).square() + (torch.minimum(long_a, long_b) * angle).square()
    high = (long_b - long_a).square() + (torch.maximum(long_a, long_b) * angle).square()
    assert (anywhere >= low.numpy() * (1 - 1e-3)).all()
    assert (anywhere <= high.numpy() * (1 + 1e-3)).all()


def test_value_grows_with_the_square_of_the_scale_and_not_with_the_step() -> None:
    def value(**keys: object) -> float:
        scale = keys.pop("scale", 1.0)
        metric = PerceptualPathLength(samples=1000, **keys)
        evidence = Evidence(EvidenceSet(), EvidenceSet(), model=Linear(scale=scale), extractor=Identity())
        return metric(evidence)["perceptual_path_length"]

    base = value()
    assert value(scale=3.0) == pytest.approx(9 * base, rel=1e-6)
    assert value(epsilon=1e-3) == pytest.approx(base, rel=1e-2)
    # |A (b - a)|^2 has the mean 2 |A|_F^2 for normal latents; around circles it is the same within the quarter turn.
    expected = 2 * Linear().A.square().sum().item()
    assert value(sampling="end") == pytest.approx(expected * (math.pi / 2) ** 2 / 2, rel=0.15)


def test_a_rougher_generator_is_worse() -> None:
    class Rough(Linear):
        def synthesize(self, latent: Latent, condition: Condition = NO_CONDITION) -> Tensor:
            return super().synthesize(latent).mul(20).sin() / 2

    values = [trimmed_mean(path_distances(each, Identity(), samples=300)) for each in (Linear(scale=0.5), Rough())]
    assert values[1] > 5 * values[0]


def test_great_circles() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 30, 2, 3, dtype=torch.float64)
    zero, one, half = (torch.full((30,), t, dtype=torch.float64) for t in (0.0, 1.0, 0.5))
    torch.testing.assert_close(slerp(a, b, zero), a)
    torch.testing.assert_close(slerp(a, b, one), b)
    torch.testing.assert_close(slerp(a, b, half), slerp(b, a, half))
    middle = slerp(a, b, half).flatten(1)
    torch.testing.assert_close(middle.norm(dim=1), (a.flatten(1).norm(dim=1) + b.flatten(1).norm(dim=1)) / 2)
    to_a, to_b = (torch.nn.functional.cosine_similarity(middle, each.flatten(1)) for each in (a, b))
    torch.testing.assert_close(to_a, to_b)
    right = slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([1 / 3]))
    torch.testing.assert_close(right, 2 * torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]))
    torch.testing.assert_close(slerp(a, 2 * a, half), 1.5 * a)  # no angle between them
    torch.testing.assert_close(lerp(a, b, half), (a + b) / 2)


def test_a_hundredth_at_each_end_is_left_out() -> None:
    distances = np.arange(1001.0)
    distances[[0, -1]] = [-1e9, 1e9]
    assert trimmed_mean(np.random.default_rng(0).permutation(distances)) == 500
    assert trimmed_mean(np.array([3.0, 4.0])) == 3.5


def test_pairs_share_their_class_and_the_evidences_seed_draws_them() -> None:
    class Labelled(Linear):
        num_classes = 3

        def labels(self, n: int, *, seed: int, label: object = None) -> Tensor:
            return torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))

        def synthesize(self, latent: Latent, condition: Condition = NO_CONDITION) -> Tensor:
            return super().synthesize(latent) + 1e6 * condition.label.view(-1, 1, 1, 1)

    plain, labelled = (path_distances(each, Identity(), samples=80) for each in (Linear(), Labelled()))
    np.testing.assert_allclose(labelled, plain, rtol=1e-2)

    def value(seed: int) -> float:
        evidence = Evidence(EvidenceSet(), EvidenceSet(), model=Linear(), extractor=Identity(), seed=seed)
        return PerceptualPathLength(samples=1000)(evidence)["perceptual_path_length"]

    assert value(1) == value(1) != value(2)


def test_warns_of_few_pairs() -> None:
    evidence = Evidence(EvidenceSet(), EvidenceSet(), model=Linear(), extractor=Identity())
    with pytest.warns(UserWarning, match="50 samples are few"):
        PerceptualPathLength(samples=50)(evidence)


@pytest.mark.filterwarnings("ignore:.*samples are few")
def test_errors_name_the_fault() -> None:
    nothing, model = EvidenceSet(), Linear()
    with pytest.raises(UsageError, match="needs a model and an extractor"):
        PerceptualPathLength()(Evidence(nothing, nothing, extractor=Identity()))
    with pytest.raises(UsageError, match="no latent space 'v'"):
        path_distances(model, Identity(), samples=5, space="v")
    with pytest.raises(MissingCapability, match="cannot be drawn"):
        path_distances(model, Identity(), samples=5, space="w")
    model.latents = {}
    with pytest.raises(UsageError, match="has no latent spaces"):
        path_distances(model, Identity(), samples=5)
    with pytest.raises(DataError, match="NaN"):
        path_distances(Linear(scale=math.nan), Identity(), samples=5)
    with pytest.raises(BadValue, match="epsilon"):
        build("metric", check_node("metric", {"use": "perceptual-path-length", "epsilon": 0.0}))


@pytest.mark.filterwarnings("ignore:.*samples are few")
def test_a_trained_model_is_a_subject(trained_run: Path) -> None:
    """A conditional model from a run folder, its images as features: the same value again, another for other seeds."""
    model = ganvas.load(trained_run)

    def value(seed: int) -> float:
        evidence = Evidence(EvidenceSet(), EvidenceSet(), model=model, extractor=Identity(), seed=seed)
        return PerceptualPathLength(samples=100)(evidence)["perceptual_path_length"]

    assert value(0) == value(0)
    assert value(1) == pytest.approx(value(0), rel=0.5)
    latent, label = model.draw(200, seed=0).values, model.labels(100, seed=0)
    spread = (model.synthesize(Latent(latent[:100]), label) - model.synthesize(Latent(latent[100:]), label)).flatten(1)
    # The length of a path, squared on average, is at least the squared distance of its ends.
    assert value(0) > 0.5 * spread.square().sum(1).median().item()
