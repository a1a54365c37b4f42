"""ADA: what its catalogue row asks of the augmentation and its controller. The style network is another system."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import ganvas
from ganvas import parts
from ganvas.engine.ema import Averages
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.schema import Ema
from ganvas.shelves.augment import ada
from ganvas.shelves.augment.ada import Ada
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.training.train import train
from ganvas.types import NO_CONDITION, Batch, Facts, Latent, Scores, Turn

pytestmark = pytest.mark.system("stylegan2-ada")
GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "ada_augment" / "a.safetensors"


def bgc_at(q: float, n: int) -> dict[str, Tensor]:
    """What the official pipeline draws for "bgc" with `debug_percentile=q`; its normal quantile lacks the √2."""
    normal = torch.erfinv(torch.tensor(2 * q - 1)).item()
    angle = math.pi * (2 * q - 1)
    values = {
        "xflip": math.floor(2 * q), "rotate90": math.floor(4 * q), "scale": 2 ** (0.2 * normal), "rotate": angle,
        "aniso": 2 ** (0.2 * normal), "brightness": 0.2 * normal, "contrast": 2 ** (0.5 * normal),
        "lumaflip": math.floor(2 * q), "hue": angle, "saturation": 2**normal,
    }  # fmt: skip
    draws = {name: torch.full((n,), float(value)) for name, value in values.items()}
    return draws | {"xint": torch.full((n, 2), 0.125 * (2 * q - 1)), "xfrac": torch.full((n, 2), 0.125 * normal)}


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}")
@pytest.mark.parametrize("percentile", [0.1, 0.35, 0.7, 0.9])
def test_geometry_and_colour_are_the_official_pipelines(percentile: float) -> None:
    case = load_file(GOLDEN)
    images = case["in.img"]
    ours = ada.apply(images, bgc_at(percentile, len(images)))
    assert (ours - case[f"out.bgc@{percentile}"]).abs().max() < 1e-3


def test_p_0_is_the_identity() -> None:
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(Ada(pipe="bgcfnc")(images), images)


@pytest.mark.parametrize("p", [0.3, 0.6, 0.9])
def test_rotations_can_be_told_apart_below_p_1(p: float) -> None:
    """The operator on the four orientations is (1 - p) I + p/4 11ᵀ; its smallest eigenvalue is 1 - p."""
    torch.manual_seed(0)
    n = 40000
    turns = Ada(pipe=("rotate90",), p=p, adapt=False).draw(torch.zeros(n, 1, 1, 1))["rotate90"].long()
    frequency = torch.bincount(turns, minlength=4) / n
    operator = np.array([[frequency[(i - j) % 4] for j in range(4)] for i in range(4)])
    assert np.allclose(operator, (1 - p) * np.eye(4) + p / 4, atol=0.01)
    assert np.linalg.svd(operator)[1].min() == pytest.approx(1 - p, abs=0.02)


def test_overfitting_raises_p_linearly_and_its_absence_lowers_it() -> None:
    part, batch = Ada(), 32
    logits = torch.ones(batch)

    def turn(sign: float) -> Turn:
        images = torch.zeros(batch, 1, 1, 1)
        return Turn(
            nets={}, step=0, real=images, condition=NO_CONDITION,
            latent=Latent(torch.zeros(batch, 1)), fake_condition=NO_CONDITION,
            critic=lambda data, condition: Scores(sign * logits, logits[:, None]),
            generate=lambda latent, condition: images,
        )  # fmt: skip

    for call in range(40):
        assert part.p == pytest.approx((call // 4) * 4 * batch / 500_000)
        part.observe(turn(1.0))
    for _ in range(80):
        part.observe(turn(-1.0))
    assert part.p == 0


# ------------------------------------------------------------------------------------------- a toy


def orientations(images: np.ndarray) -> np.ndarray:
    """(N, 8, 8) turned by 0, 1, 2 and 3 quarters, one set after the other, as (4N, 64)."""
    return np.concatenate([np.rot90(images, k, (1, 2)).reshape(len(images), -1) for k in range(4)])


@pytest.mark.slow
def test_generator_does_not_learn_the_rotations_unless_all_are_rotated(tmp_path: Path) -> None:
    """Sevens, fours and threes, whose orientation can be seen: upright at p = 0.6, anyhow at p = 1."""
    digits = load_digits()
    classes = (3, 4, 7)
    upright: dict[float, float] = {}
    for p in (0.6, 1.0):
        folder = tmp_path / f"p{p}"
        augment = f"task.augment={{use: ada, pipe: [rotate90], p: {p}, adapt: false}}"
        train("digits", augment, "eval=", "train.steps=1500", "train.sample_every=1500", out=folder, device="cpu")
        model = ganvas.load(folder)
        right = []
        for label in classes:
            real = digits.images[digits.target == label] / 8 - 1
            told = np.repeat(np.arange(4), len(real))
            nearest = KNeighborsClassifier(5).fit(orientations(real), told)
            drawn = model.sample(100, seed=0, label=label).numpy().reshape(100, -1)
            right.append((nearest.predict(drawn) == 0).mean())
        upright[p] = float(np.mean(right))
    print(f"upright: {upright}")  # noqa: T201
    assert upright[0.6] >= 0.9
    assert upright[1.0] < 0.6


def digits(split: str, limit: int | None = None) -> Tensor:
    keys = {} if limit is None else {"limit": limit}
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": split, **keys}))
    return dataset.batch(np.arange(len(dataset)), np.random.default_rng(0)).data  # type: ignore[no-any-return]


def on_200_digits(seed: int, augment: dict[str, object] | None, steps: int = 1000) -> tuple[float, float]:
    """(Fréchet distance to held-out digits, r_t of the 200 as the critic sees them, over the last quarter)."""
    few, spec = digits("train", 200), image_spec((1, 8, 8))
    torch.manual_seed(seed)
    nodes = {
        "generator": {"use": "sngan-generator", "width": 24, "z_dim": 16},
        "discriminator": {"use": "sngan-discriminator", "width": 24, "norm": "none"},
    }
    nets = {role: parts.build("network", check_node("network", node), spec) for role, node in nodes.items()}
    node = {"use": "adversarial", "objective": "non-saturating", "augment": augment}
    task = parts.build("task", check_node("task", node), nets, Facts(spec))
    optim = {role: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.99)) for role, net in nets.items()}
    averages, signs = Averages(nets, ("generator",), Ema(decay=0.99)), []
    for step in range(steps):
        batch = Batch(few[torch.randint(len(few), (32,))])
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            torch.stack(list(update.losses(batch, step).values())).sum().backward()
            optim[role].step()
        averages.update(nets, 32 * (step + 1), 32)
        if step >= 0.75 * steps and step % 20 == 0:
            with torch.no_grad():
                signs.append(task.critic(few, None).logits.sign().mean().item())
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))
    with torch.no_grad():
        made = averages.nets["generator"](torch.randn(1500, 16))
    distance = frechet_distance_of_features(extractor(digits("test"))[0], extractor(made)[0])
    return distance, float(np.mean(signs))


@pytest.mark.slow
def test_200_digits_are_learnt_better_and_the_critic_is_held_near_its_target() -> None:
    """Geometry without flips and turns, and p quick enough for 32,000 images."""
    augment = {"use": "ada", "interval": 4, "speed_kimg": 8, "pipe": ["xint", "scale", "rotate", "aniso", "xfrac"]}
    adaptive, plain = ([on_200_digits(seed, each) for seed in range(3)] for each in (augment, None))
    print(f"(distance, r_t) {np.round(adaptive, 2).tolist()}, without {np.round(plain, 2).tolist()}")  # noqa: T201
    assert sum(one[0] < other[0] for one, other in zip(adaptive, plain, strict=True)) >= 2
    assert all(abs(r_t - 0.6) <= 0.15 for _, r_t in adaptive)


def test_the_part_is_named_after_its_system() -> None:
    assert parts.find("augment", "ada").system == "stylegan2-ada"
