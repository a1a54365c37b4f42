"""StudioGAN (Kang et al. 2023): every name of its taxonomy is a part here, and takes a training step on 32×32 noise.

That weights of its networks and values of its losses are the same is shown in tests/parity and tests/networks
(test_interop.py), on golden cases; metrics in tests/metrics/test_golden_metrics.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganvas import parts
from ganvas.files.files import read_rows
from ganvas.recipe.recipe import Recipe
from ganvas.training.train import train

pytestmark = pytest.mark.system("studiogan")

STYLE = {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "conditioning": "mapping"}
STYLE_CRITIC = {
    "use": "stylegan2-discriminator", "channel_base": 128, "channel_max": 8,
    "conditioning": {"use": "mapped-projection", "mapping": {"layers": 2}},
}  # fmt: skip
ATTENTION = {"width": 8, "attention": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "DCGAN": {
        "generator": {"use": "dcgan-deep-generator", "widths": [16, 8, 8, 8], "z_dim": 8, "conditioning": "batch-norm"},
        "discriminator": {"use": "dcgan-deep-discriminator", "widths": [8, 8, 8, 16], "conditioning": "projection"},
    },
    "ResNet-GAN": {},  # the base below
    "SAGAN": {
        "generator": {"use": "sngan-generator", **ATTENTION, "z_dim": 8, "spectral_norm": True},
        "discriminator": {"use": "sngan-discriminator", **ATTENTION},
    },
    "BigGAN": {
        "generator": {"use": "biggan-generator", **ATTENTION, "z_dim": 16, "conditioning": "shared", "shared_dim": 8},
        "discriminator": {"use": "biggan-discriminator", **ATTENTION, "conditioning": "projection"},
    },
    "BigGAN-deep": {
        "generator": {
            "use": "biggan-deep-generator", **ATTENTION, "width": 16, "z_dim": 8, "conditioning": "shared",
            "shared_dim": 8,
        },
        "discriminator": {
            "use": "biggan-deep-discriminator", **ATTENTION, "width": 16, "conditioning": "projection",
        },
    },
    "StyleGAN2": {"generator": {"use": "stylegan2-generator", **STYLE}, "discriminator": STYLE_CRITIC},
    "StyleGAN3": {
        "generator": {"use": "stylegan3-generator", **STYLE, "layers": 5, "margin": 4}, "discriminator": STYLE_CRITIC,
    },
}  # fmt: skip
# The generator's, cBN and style (cAdaIN), are those of the architectures above.
HEADS: dict[str, Any] = {
    "AC": "auxiliary-classifier", "PD": "projection", "MH": "multi-hinge", "MD": "multi-discriminator",
    "2C": {"use": "2c", "embedding_dim": 8}, "D2D-CE": {"use": "d2d-ce", "embedding_dim": 8},
    "TAC": "twin-auxiliary-classifier", "ADC": "adc",
}  # fmt: skip
LOSSES = {
    "vanilla": "saturating", "non-saturating": "non-saturating", "LSGAN": "least-squares", "hinge": "hinge",
    "Wasserstein": "wasserstein", "top-k": {"use": "top-k", "of": "hinge"},
}  # fmt: skip
REGULARIZERS: dict[str, Any] = {
    "feature matching": {"feature-matching": {}}, "R1": {"r1": {}}, "weight clipping": {"weight-clipping": {}},
    "GP": {"gradient-penalty": {}}, "DRAGAN": {"dragan": {}}, "maxGP": {"max-gradient-penalty": {}},
    "CR": {"consistency": {}}, "bCR": {"balanced-consistency": {}},
    "ICR": {"balanced-consistency": {}, "latent-consistency": {}, "latent-diversity": {}},
    "LeCam": {"lecam": {"start": 0}}, "LOGAN": {"latent-optimisation": {}},
}  # fmt: skip
AUGMENTATIONS = {"DiffAug": "diffaug", "ADA": "ada", "APA": "apa"}
METRICS = {
    "IS": "inception-score", "FID": "frechet-distance", "iFID": "intra-class-frechet-distance",
    "precision/recall": "precision-recall", "density/coverage": "density-coverage",
    "CAS": "classification-accuracy-score",
}  # fmt: skip
BACKBONES = {"InceptionV3": "inception", "ResNet-50": "resnet50", "SwAV": "swav", "DINO": "dino", "Swin-T": "swin"}

BASE = {
    "networks": {
        "generator": {"use": "sngan-generator", "width": 8, "z_dim": 8, "conditioning": "batch-norm"},
        "discriminator": {"use": "sngan-discriminator", "width": 8, "conditioning": "projection"},
    },
    "task": {"use": "adversarial", "objective": "hinge"},
    "optim": {"use": "adam", "lr": 0.0002},
    "train": {"steps": 1, "batch": 4, "log_every": 1, "checkpoint_every": 1},
}


def taxonomy() -> Iterator[Any]:
    """Every item with what it changes in the base recipe."""
    for name, networks in ARCHITECTURES.items():
        yield pytest.param({"networks": networks or BASE["networks"]}, id=name)
    for name, head in HEADS.items():
        task = {"use": "adversarial", "objective": "by-head" if name == "MH" else "hinge"}
        critic = {"use": "sngan-discriminator", "width": 8, "conditioning": head}
        networks = {"generator": BASE["networks"]["generator"], "discriminator": critic}
        yield pytest.param({"networks": networks, "task": task}, id=name)
    for name, loss in LOSSES.items():
        yield pytest.param({"task": {"use": "adversarial", "objective": loss}}, id=name)
    for name, terms in REGULARIZERS.items():
        yield pytest.param({"task": {"use": "adversarial", "objective": "hinge", "regularizers": terms}}, id=name)
    yield pytest.param({"networks": ARCHITECTURES["StyleGAN2"], "task": {
        "use": "adversarial", "regularizers": {"path-length": {"batch_shrink": 2}}}}, id="path length")  # fmt: skip
    spectral = {"use": "sngan-discriminator", "width": 8, "norm": "spectral", "conditioning": "projection"}
    yield pytest.param({"networks": {"generator": BASE["networks"]["generator"], "discriminator": spectral}}, id="SN")
    for name, augment in AUGMENTATIONS.items():
        yield pytest.param({"task": {"use": "adversarial", "augment": augment}}, id=name)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("noise") / "noise.npz"
    rng = np.random.default_rng(0)
    np.savez(file, images=rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), labels=np.arange(8) % 2)
    return file


@pytest.fixture(scope="module")
def spent() -> Iterator[None]:
    start = time.process_time()
    yield
    print(f"the taxonomy took {time.process_time() - start:.0f} CPU-seconds")  # noqa: T201


@pytest.mark.parametrize("changes", list(taxonomy()))
@pytest.mark.usefixtures("spent")
def test_it_takes_a_training_step_on_noise(changes: dict[str, Any], noise: Path, tmp_path: Path) -> None:
    recipe = Recipe({**BASE, "data": {"use": "arrays", "path": str(noise)}, **changes}, "taxonomy")
    model = train(recipe, out=tmp_path / "run", device="cpu")
    assert model.step == 1 and model.spec.shape == (3, 32, 32)
    (row,) = read_rows(tmp_path / "run" / "log.jsonl")
    losses = {key: value for key, value in row.items() if key.startswith(("generator.", "discriminator."))}
    assert losses and all(math.isfinite(value) for value in losses.values())
    for kind in ("generator", "discriminator"):
        assert any(key.startswith(f"{kind}.") for key in losses)


def test_the_whole_taxonomy_is_there() -> None:
    """As many as the paper counts: 7 architectures, 8 critic heads and 2 ways into the generator, and so on."""
    assert (len(ARCHITECTURES), len(HEADS), len(AUGMENTATIONS), len(BACKBONES)) == (7, 8, 3, 5)


@pytest.mark.parametrize(("kind", "names"), [("metric", METRICS), ("extractor", BACKBONES)])
def test_metrics_and_backbones_are_parts(kind: str, names: dict[str, str]) -> None:
    for name in names.values():
        assert parts.find(kind, name).name == name


def test_its_protocol_ships() -> None:
    from ganvas.evaluation.protocol import load_protocol

    protocol = load_protocol("studiogan")
    assert protocol["extractor"]["resizer"] == "clean" and protocol["metrics"]["density-coverage"]["k"] == 5
    assert {"inception-score", "frechet-distance", "precision-recall"} <= set(protocol["metrics"])
