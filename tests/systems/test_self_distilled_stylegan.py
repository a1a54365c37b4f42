"""Self-Distilled StyleGAN: truncation towards many centres, and training images ranked by how they are rebuilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import ganvas
from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.shelves.analysis.self_filter import best_rebuilt, reconstruction_distances
from ganvas.shelves.samplers.multimodal import MultimodalTruncated, modes_of
from ganvas.training.train import train
from ganvas.types import NO_CONDITION, Extractor, Generator, Latent, LatentSpec, SpacedGenerator

pytestmark = pytest.mark.system("self-distilled-stylegan")
L, W = 3, 4


class Styled(SpacedGenerator):
    """w = 2 z + 1, one w a layer; the image is w+ itself, scaled well into [-1, 1]. Its centre is told from outside."""

    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.ones(W)
        self.latents = {
            "z": LatentSpec((W,), "normal"), "w": LatentSpec((W,), "none"), "w+": LatentSpec((L, W), "none"),
        }  # fmt: skip

    @property
    def centre(self) -> Latent:
        return Latent(self.mean[None], "w")

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        values = 2 * latent.values + 1 if latent.space == "z" else latent.values
        if space == "w+" and latent.space != "w+":
            values = values[:, None].expand(-1, L, -1)
        return Latent(values, space)

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        return self.to_space(latent, "w+").values[:, None] / 16  # (N, 1, L, W)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.from_space(Latent(latent))


class Pixels(Extractor):
    """An extractor whose features are the image."""

    name, provenance, classes = "pixels", {}, 0

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        return images.flatten(1), None


def model_of(net: nn.Module, shape: tuple[int, ...] = (1, L, W)) -> Model:
    return Model({"sampler": {"use": "plain"}}, image_spec(shape), {"generator": net})


def truncated(model: Model, part: Any, n: int = 40) -> tuple[Tensor, Tensor]:
    """(w before, w after) of n images."""
    latent = model.draw(n, seed=0)
    with torch.no_grad():
        images = part(model, latent, NO_CONDITION, torch.Generator())
    return model.draw(n, seed=0, space="w").values, 16 * images[:, 0, 0]


# ------------------------------------------------------------------------------------------- truncation


def test_psi_1_leaves_w_as_it_is() -> None:
    model = model_of(Styled())
    part = MultimodalTruncated(psi=1.0, clusters=4, samples=100, extractor=Pixels())
    assert torch.equal(
        model.sample(40, sampler="plain"), part(model, model.draw(40, seed=0), NO_CONDITION, torch.Generator())
    )


def test_psi_0_gives_exactly_the_centre_of_the_images_kind_and_others_lie_on_the_way() -> None:
    model = model_of(Styled())
    part = MultimodalTruncated(psi=0.0, clusters=4, samples=200, extractor=Pixels())
    before, after = truncated(model, part)
    modes = part.modes
    assert modes is not None
    nearest = torch.cdist(before, modes.centres).argmin(1)  # looks are w itself here, up to scale
    assert len(nearest.unique()) == 4
    centres = modes.centres[nearest]
    assert torch.equal(after, 16 * (centres / 16))
    half = MultimodalTruncated(psi=0.5, clusters=4, samples=200, extractor=Pixels())
    torch.testing.assert_close(truncated(model, half)[1], centres + 0.5 * (before - centres))


def test_one_cluster_is_classic_truncation_towards_the_mean_of_the_same_latents() -> None:
    net = Styled()
    model = model_of(net)
    part = MultimodalTruncated(psi=0.3, clusters=1, samples=200, extractor=Pixels())
    _, after = truncated(model, part)
    assert part.modes is not None
    net.mean = part.modes.centres[0]
    _, classic = truncated(model, parts.build("sampler", {"use": "style", "psi": 0.3}))
    torch.testing.assert_close(after, classic, atol=1e-6, rtol=0)


def test_kinds_are_told_by_features_and_centres_are_means_of_latents() -> None:
    kind = torch.arange(60) % 3
    features = torch.eye(3)[kind] * 5 + 0.01 * torch.randn(60, 3)
    points = torch.randn(60, 2, 4)  # of any shape, and knowing nothing of the kind
    modes = modes_of(points, features, 3)
    expected = torch.stack([points[kind == k].mean(0) for k in range(3)])
    order = torch.cdist(torch.eye(3) * 5, modes.looks).argmin(1)
    torch.testing.assert_close(modes.centres[order], expected)
    assert torch.equal(modes.nearest(features), modes.centres[order][kind])


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_fewer_kinds_of_images_than_clusters_leave_no_empty_one() -> None:
    modes = modes_of(torch.randn(20, 4), torch.ones(20, 3), 5)
    assert torch.isfinite(modes.centres).all()
    assert len(modes.centres) == 1


def test_a_generator_without_w_is_truncated_where_it_is_drawn() -> None:
    spec = image_spec((1, 8, 8))
    model = model_of(parts.build("network", {"use": "sngan-generator", "width": 8, "z_dim": 8}, spec), spec.shape)
    part = MultimodalTruncated(
        psi=0.0, clusters=3, samples=60, extractor=parts.build("extractor", {"use": "digit-net"})
    )
    latent = model.draw(20, seed=0)
    with torch.no_grad():
        images = part(model, latent, NO_CONDITION, torch.Generator())
        assert part.modes is not None
        possible = model.synthesize(Latent(part.modes.centres, "z"))
    assert torch.cdist(images.flatten(1), possible.flatten(1)).min(1).values.max() < 1e-4
    assert part.modes.centres.shape == (3, 8)
    with pytest.raises(UsageError, match="cannot be driven from 'w'"):
        MultimodalTruncated(space="w", clusters=2, samples=4, extractor=Pixels())(
            model, latent, NO_CONDITION, torch.Generator()
        )


def test_fewer_samples_than_clusters_are_refused() -> None:
    with pytest.raises(BadValue, match="10 samples make no 16 clusters"):
        MultimodalTruncated(samples=10, extractor=Pixels())


# ------------------------------------------------------------------------------------------- the filter


class Linear(Generator):
    """Images of a plane in pixel space."""

    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((4,), "normal")}
        self.register_buffer("basis", torch.linalg.qr(torch.randn(64, 4)).Q)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return (latent @ self.basis.T).view(-1, 1, 8, 8)


def test_distance_is_that_to_the_nearest_image_the_model_makes() -> None:
    net = Linear()
    model = model_of(net, (1, 8, 8))
    inside, outside = net(torch.randn(5, 4)) / 4, torch.randn(5, 1, 8, 8) / 4
    images = torch.cat([inside, outside])
    rest = images.flatten(1) - images.flatten(1) @ net.basis @ net.basis.T
    found = reconstruction_distances(model, images, iterations=30)
    np.testing.assert_allclose(found, rest.square().mean(1).numpy(), atol=1e-5)
    by_features = reconstruction_distances(model, images, extractor=Pixels(), iterations=30)
    np.testing.assert_allclose(by_features[:5], 0, atol=1e-3)
    assert (by_features[5:] > 10 * by_features[:5].max()).all()
    assert best_rebuilt(found, 0.5).tolist() == [0, 1, 2, 3, 4]


def test_what_is_kept_is_a_share_in_the_order_of_the_data() -> None:
    distances = np.array([0.3, 0.1, 0.2, 0.1])
    assert best_rebuilt(distances, 0.5).tolist() == [1, 3]
    assert best_rebuilt(distances, 0.51).tolist() == [1, 2, 3]
    assert best_rebuilt(distances, 1.0).tolist() == [0, 1, 2, 3]
    for keep in (0.0, 1.5):
        with pytest.raises(UsageError, match="no share"):
            best_rebuilt(distances, keep)


# ------------------------------------------------------------------------------------------- toys


def outliers(count: int, random: np.random.Generator) -> np.ndarray:
    """(count, 8, 8) from 0 to 1: random textures, and crops of digits with black and white exchanged."""
    textures = random.uniform(size=(count // 2, 8, 8))
    digits = load_digits().images[random.integers(0, 1797, count - len(textures))] / 16
    crops = np.kron(1 - digits[:, 2:6, 2:6], np.ones((2, 2)))
    return np.concatenate([textures, crops])


@pytest.mark.slow
def test_planted_outliers_are_rebuilt_worst(tmp_path: Path) -> None:
    """10 % of the training images are none; the model has seen them all."""
    found = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        images = np.concatenate([load_digits().images[:1080] / 16, outliers(120, random)])
        odd = np.arange(1200) >= 1080
        np.savez(tmp_path / "mixed.npz", images=images)
        folder = tmp_path / f"seed{seed}"
        train(
            "digits", f"data={{use: arrays, path: {tmp_path / 'mixed.npz'}}}", "eval=", "train.steps=500",
            "train.sample_every=500", f"train.seed={seed}",
            "networks.generator={use: sngan-generator, width: 32, z_dim: 16}",
            "networks.discriminator={use: sngan-discriminator, width: 32}", out=folder, device="cpu",
        )  # fmt: skip
        looked_at = np.concatenate([np.arange(0, 1080, 5), np.arange(1080, 1200, 5)])  # 216 digits, 24 others
        chosen = torch.from_numpy(images[looked_at] * 2 - 1).float()[:, None]
        distances = reconstruction_distances(ganvas.load(folder), chosen, iterations=30)
        found.append(float(roc_auc_score(odd[looked_at], distances)))
    print(f"area under the ROC curve a seed: {found}")  # noqa: T201
    assert min(found) > 0.9


TOY = {
    "summary": "toy StyleGAN2 on digits",
    "data": {"use": "digits"},
    "networks": {
        "generator": {
            "use": "stylegan2-generator", "z_dim": 32, "w_dim": 32, "channel_base": 256, "channel_max": 32,
            "mapping": {"layers": 2},
        },
        "discriminator": {"use": "stylegan2-discriminator", "channel_base": 256, "channel_max": 32},
    },
    "task": {"use": "adversarial", "objective": "non-saturating", "regularizers": {"r1": {"weight": 1, "every": 16}}},
    "optim": {"use": "adam", "lr": 0.0025, "betas": [0.0, 0.99], "roles": {"discriminator": {"lazy_every": 16}}},
    "ema": {"decay": 0.99},
}  # fmt: skip


@pytest.mark.slow
def test_many_centres_keep_the_classes_that_one_centre_loses(tmp_path: Path) -> None:
    """At ψ = 0.3, counting classes with at least 3 % of 500 images by the bundled classifier."""
    judge = parts.build("extractor", {"use": "digit-net"})
    found = []
    for seed in range(3):
        settings = {"steps": 1000, "batch": 32, "seed": seed, "sample_every": 1000, "checkpoint_every": 1000}
        model = train({**TOY, "train": settings}, out=tmp_path / f"seed{seed}", device="cpu")
        row = {}
        many = {"use": "multimodal-truncated", "clusters": 16, "samples": 1024, "extractor": {"use": "digit-net"}}
        for name, sampler in (("one", {"use": "style", "psi": 0.3}), ("many", {**many, "psi": 0.3})):
            logits = judge(model.sample(500, seed=7, sampler=sampler))[1]
            count = torch.bincount(logits.argmax(1), minlength=10)
            row[name] = (int((count >= 15).sum()), round(logits.softmax(1).max(1).values.mean().item(), 3))
        found.append(row)
    print(f"(classes, confidence) a seed: {found}")  # noqa: T201
    assert all(row["many"][0] > row["one"][0] for row in found)
    # No less sure on average; with one seed of three the two are equal to 0.001.
    assert sum(row["many"][1] for row in found) >= sum(row["one"][1] for row in found)
