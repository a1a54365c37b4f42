"""Linear separability of latents whose entropy is known."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas.errors import DataError, UsageError
from ganvas.parts import image_spec
from ganvas.shelves.metrics.linear_separability import LinearSeparability, conditional_entropy, linear_separability
from ganvas.types import NO_CONDITION, Condition, Evidence, EvidenceSet, Extractor, Latent, LatentSpec


def latents(n: int, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def two_classes(second: np.ndarray, sureness: np.ndarray | float = 5.0) -> np.ndarray:
    """Logits (N, 2) of a classifier that finds the second class where it is told to."""
    logits = np.zeros((len(second), 2))
    logits[np.arange(len(second)), second.astype(int)] = sureness
    return logits


def entropy(p: float) -> float:
    return float(-p * np.log(p) - (1 - p) * np.log(1 - p))


def test_a_plane_parts_the_classes() -> None:
    z = latents(2000)
    margin = z @ [1.0, -2.0, 0.5]
    assert linear_separability(z, two_classes(margin > 0, np.abs(margin))) == pytest.approx(1, abs=0.01)
    three = np.stack([z[:, 0], z[:, 1], -z[:, 0] - z[:, 1]], 1)
    assert linear_separability(z, 3 * three) < 1.1


def test_what_no_plane_parts_costs_its_whole_entropy() -> None:
    z = latents(8000, 2)
    rng = np.random.default_rng(1)
    for share in (0.5, 0.3):
        logits = two_classes(rng.random(8000) < share)  # classes that the latent knows nothing of
        assert linear_separability(z, logits) == pytest.approx(np.exp(entropy(share)), abs=0.02)
    quadrants = two_classes(z[:, 0] * z[:, 1] > 0)  # a plane off the middle can cut one of them off, no more
    assert 1.8 < linear_separability(z, quadrants) <= 2


def test_known_share_of_exceptions() -> None:
    """A plane with one in ten on the wrong side, chosen by chance."""
    z = latents(20_000)
    wrong = np.random.default_rng(1).random(len(z)) < 0.1
    logits = two_classes((z[:, 0] > 0) ^ wrong)
    assert linear_separability(z, logits) == pytest.approx(np.exp(entropy(0.1)), abs=0.03)


def test_only_the_surer_half_counts() -> None:
    """The unsure half is assigned by chance; without it a plane parts the classes."""
    z = latents(4000)
    unsure = np.arange(4000) % 2 == 0
    second = np.where(unsure, np.random.default_rng(2).random(4000) < 0.5, z[:, 0] > 0)
    assert linear_separability(z, two_classes(second, np.where(unsure, 0.1, 5.0))) == pytest.approx(1, abs=0.05)
    assert linear_separability(z, two_classes(second, np.where(unsure, 5.0, 0.1))) > 1.9


def test_conditional_entropy() -> None:
    x, y = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 2, 2, 2, 2])
    assert conditional_entropy(x, y) == pytest.approx(entropy(0.25) / 2)
    assert conditional_entropy(y, y) == 0
    assert conditional_entropy(np.zeros(8, dtype=int), np.arange(8)) == pytest.approx(np.log(8))
    with pytest.raises(DataError, match="numbered from 0"):
        conditional_entropy(x - 1, y)


class Twisted:
    """Images are latents, turned back to the plane's own coordinates in one model and twisted in the other."""

    spec = image_spec((1, 1, 2))
    num_classes = 0
    latents: ClassVar[dict[str, LatentSpec]] = {"z": LatentSpec((2,), "normal")}

    def __init__(self, turns: float) -> None:
        self.turns = turns

    def draw(self, n: int, *, seed: int, space: str | None = None, label: Tensor | None = None) -> Latent:
        return Latent(torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)), "z")

    def labels(self, n: int, *, seed: int, label: object = None) -> Tensor | None:
        return None

    def synthesize(self, latent: Latent, condition: Condition = NO_CONDITION) -> Tensor:
        x, y = latent.values.unbind(1)
        angle = self.turns * torch.hypot(x, y)
        return torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], 1).view(-1, 1, 1, 2)


class Sign(Extractor):
    """A classifier of the sign of the first pixel, surer the further it is from 0."""

    name, classes = "sign", 2
    provenance: ClassVar[dict[str, str]] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = images.flatten(1)[:, 0]
        return images.flatten(1), torch.stack([first, -first], 1)


def test_a_twisted_latent_space_is_less_separable() -> None:
    def value(turns: float, seed: int = 0) -> float:
        evidence = Evidence(EvidenceSet(), EvidenceSet(), model=Twisted(turns), extractor=Sign(), seed=seed)
        return LinearSeparability(samples=2000)(evidence)["linear_separability"]

    assert value(0.0) == pytest.approx(1, abs=0.01)
    assert 1.05 < value(0.7) < value(5.0) <= 2
    assert value(5.0) == value(5.0) != value(5.0, seed=1)


def test_warns_where_the_number_is_worth_nothing() -> None:
    with pytest.warns(UserWarning, match="20 kept samples are few for planes in 3 dimensions"):
        linear_separability(latents(40), two_classes(latents(40)[:, 0] > 0))
    with pytest.warns(UserWarning, match="all 100 kept samples are of one class"):
        assert linear_separability(latents(200), two_classes(np.zeros(200))) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear_separability(latents(80), two_classes(latents(80)[:, 0] > 0))


def test_errors_name_the_fault() -> None:
    nothing = EvidenceSet()
    with pytest.raises(UsageError, match="needs a model, and an extractor with logits"):
        LinearSeparability()(Evidence(nothing, nothing, extractor=Sign()))
    with pytest.raises(UsageError, match="3 latents"):
        linear_separability(latents(3), np.zeros((3, 2)))
    with pytest.raises(UsageError, match="9 latents and 8 rows of logits"):
        linear_separability(latents(9), np.zeros((8, 2)))
    with pytest.raises(DataError, match="logits hold NaN"):
        linear_separability(latents(9), np.zeros((9, 2)) * np.nan)
