"""Batik by Diffusion-StyleGAN2-ADA: two adaptive augmentations at once, and the motifs that stand in for batik."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.engine.checkpoint import pack, unpack
from ganvas.errors import BadValue
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.augment.chain import Chain
from ganvas.shelves.data.sets.motifs import KINDS, Motifs, draw, random_factors
from ganvas.shelves.metrics.frechet_distance import frechet_distance_of_features
from ganvas.training.train import train
from ganvas.types import NO_CONDITION, Batch, Facts, Latent, Scores, Turn

pytestmark = pytest.mark.system("batik-diffusion-stylegan2-ada")
RECIPES = ("tiny/motifs-diffusion-stylegan2-ada", "diffusion-stylegan2-ada-motifs256")


def chain(**augments: Any) -> Chain:
    node = check_node(
        "augment", {"use": "chain", "augments": {name.replace("_", "-"): a for name, a in augments.items()}}
    )
    return parts.build("augment", node)  # type: ignore[no-any-return]


def turn(logits: Tensor) -> Turn:
    """A critic update in which the real images are given these scores."""
    images = torch.zeros(len(logits), 1, 1, 1)
    return Turn(
        nets={}, step=0, real=images, condition=NO_CONDITION,
        latent=Latent(torch.zeros(len(logits), 1)), fake_condition=NO_CONDITION,
        critic=lambda data, condition: Scores(logits, logits[:, None]), generate=lambda latent, condition: images,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- the recipe


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_three_parts_that_other_systems_brought(name: str) -> None:
    resolved = Recipe.load(name).resolve()
    assert resolved["system"] == "batik-diffusion-stylegan2-ada"
    own = [("network", node["use"]) for node in resolved["networks"].values()]
    own += [("augment", augment) for augment in resolved["task"]["augment"]["augments"]]
    systems = {parts.find(*each).system for each in own}
    assert systems == {"stylegan2", "stylegan2-ada", "diffusion-gan"}


# ------------------------------------------------------------------------------------------- the chain


def test_a_chain_is_its_links_one_after_the_other() -> None:
    both = chain(diffaug={}, instance_noise={"std": 0.3})
    images = torch.rand(4, 3, 16, 16)
    torch.manual_seed(3)
    expected = both.augments["instance-noise"](both.augments["diffaug"](images))
    torch.manual_seed(3)
    assert torch.equal(both(images), expected)


def test_the_level_is_that_of_the_link_that_noises() -> None:
    both = chain(ada={"p": 0.5}, diffusion_noise={"p": 1.0})
    images = torch.rand(32, 3, 8, 8)
    torch.manual_seed(3)
    noised, level = both.with_level(images)  # type: ignore[attr-defined]
    torch.manual_seed(3)
    expected, t = both.augments["diffusion-noise"].with_level(both.augments["ada"](images))
    assert torch.equal(noised, expected)
    assert torch.equal(level, t)
    assert level.any()


def test_a_critic_is_told_a_level_only_where_a_link_has_one() -> None:
    assert chain(ada={}, diffusion_noise={}).tells_level
    plain = chain(ada={}, apa={"p": 1.0, "adapt": False})
    assert not plain.tells_level
    real = torch.zeros(4, 1, 2, 2)
    assert torch.equal(plain.mix_real(real, lambda: real + 1), real + 1)
    assert plain.part_name == chain(ada={}, diffusion_noise={}).part_name == "chain"  # type: ignore[attr-defined]


def test_a_critic_that_cannot_be_told_is_refused_with_the_chains_name() -> None:
    spec = image_spec((1, 8, 8))
    nets = {
        "generator": parts.build("network", {"use": "sngan-generator", "width": 8, "z_dim": 8}, spec),
        "discriminator": parts.build(
            "network", check_node("network", {"use": "sngan-discriminator", "width": 8}), spec
        ),
    }
    with pytest.raises(BadValue, match="augment 'chain' tells the critic"):
        parts.build("task", check_node("task", {"use": "adversarial", "augment": "chain"}), nets, Facts(spec))


def test_nothing_and_two_levels_are_refused() -> None:
    with pytest.raises(BadValue, match="no augmentation"):
        chain()
    noise = parts.build("augment", check_node("augment", "diffusion-noise"))
    with pytest.raises(BadValue, match="both tell"):
        Chain(augments={"a": noise, "b": noise})


# ------------------------------------------------------------------------------------------- the controllers


def mixed(share: float, n: int = 20) -> Tensor:
    """(n,) scores of which a share is above 0: E sign = 2 share - 1."""
    return torch.where(torch.arange(n) < round(share * n), 1.0, -1.0)


def test_p_and_T_move_by_themselves_and_in_their_own_direction() -> None:  # noqa: N802
    both = chain(
        ada={"target": 0.6, "p": 0.5, "speed_kimg": 1.0, "interval": 4},
        diffusion_noise={"target": 0.0, "p": 0.5, "t_min": 5, "t_max": 505, "speed_kimg": 0.4, "interval": 2},
    )
    ada, noise = both.augments["ada"], both.augments["diffusion-noise"]
    assert noise.T == 255
    for _ in range(2):
        both.observe(turn(mixed(0.65)))  # r = 0.3: above the one target, below the other
    assert (ada.p, noise.p) == (0.5, pytest.approx(0.6))  # T's interval is over, p's is not
    for _ in range(2):
        both.observe(turn(mixed(0.65)))
    assert ada.p == pytest.approx(0.5 - 4 * 20 / 1000)
    assert noise.p == pytest.approx(0.7)
    assert noise.T == 355
    for _ in range(4):
        both.observe(turn(mixed(1.0)))  # overfitting: both up
    assert (ada.p, noise.T) == (pytest.approx(0.5), 455)
    for _ in range(8):
        both.observe(turn(mixed(0.0)))  # ignorance: both down
    assert (ada.p, noise.T) == (pytest.approx(0.34), 255)


def test_resume_in_the_middle_of_an_interval_is_exact() -> None:
    def make() -> Chain:
        return chain(ada={"speed_kimg": 0.3}, instance_noise={"steps": 50}, diffusion_noise={"speed_kimg": 0.2})

    one, other = make(), make()
    for _ in range(6):
        one.observe(turn(mixed(1.0)))
    tensors, skeleton = pack(one.state_dict())
    other.load_state_dict(unpack(tensors, json.loads(json.dumps(skeleton))))
    images = torch.rand(4, 3, 8, 8)
    for step in range(6):
        found = []
        for part in (one, other):
            torch.manual_seed(step)
            part.observe(turn(mixed(1.0)))
            found.append(part(images))
        assert torch.equal(*found)
    assert one.augments["ada"].p == other.augments["ada"].p > 0


def test_both_controllers_are_driven_by_a_step_of_the_task() -> None:
    resolved = Recipe.load(RECIPES[0]).resolve()
    spec = image_spec((3, 16, 16), 4)
    nets = {role: parts.build("network", {k: v for k, v in node.items() if k not in ("from", "net", "freeze")}, spec)
            for role, node in resolved["networks"].items()}  # fmt: skip
    task = parts.build("task", resolved["task"], nets, Facts(spec))
    batch = Batch.labelled(torch.rand(8, 3, 16, 16) * 2 - 1, torch.arange(8) % 4)
    sum(task.updates()[0].losses(batch, 0).values()).backward()
    controllers = [link.controller for link in task.augment.augments.values()]
    assert [each.images for each in controllers] == [8, 8]
    psi = nets["discriminator"].head.psi
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in psi.parameters())


# ------------------------------------------------------------------------------------------- the noise


@pytest.mark.parametrize("noise_std", [1.0, 0.05])
def test_variance_of_noised_images_is_as_the_process_says(noise_std: float) -> None:
    """Var[y | t] = ᾱ_t Var[x] + (1 - ᾱ_t) σ²; the catalogue's statement is that of σ = 1, released is 0.05."""
    part = parts.build("augment", check_node("augment", {"use": "diffusion-noise", "p": 1.0, "noise_std": noise_std}))
    data = Motifs(count=100, size=32)
    x = data.batch(np.arange(100), np.random.default_rng(0)).data
    for t in (0, 50, 200, 500, part.T):
        y = part.apply(x, torch.full((100,), t), torch.randn_like(x))
        alpha_bar = part.alpha_bar[t].item()
        expected = alpha_bar * x.var().item() + (1 - alpha_bar) * noise_std**2
        assert y.var().item() == pytest.approx(expected, rel=0.02)


# ------------------------------------------------------------------------------------------- the motifs


def test_a_motif_depends_on_seed_and_index_alone() -> None:
    few, many = Motifs(count=10), Motifs(count=300)
    at = np.arange(10)
    assert torch.equal(few.batch(at, np.random.default_rng(0)).data, many.batch(at, np.random.default_rng(1)).data)
    assert Motifs(count=10).fingerprint == few.fingerprint
    prints = {Motifs(count=10, **keys).fingerprint for keys in ({}, {"seed": 1}, {"split": "test"}, {"size": 48})}  # type: ignore[arg-type]
    assert len(prints) == 4
    assert Motifs(count=10, size=40).spec == image_spec((3, 40, 40), len(KINDS)) == Motifs.preview(size=40)


def test_motifs_repeat_over_the_picture_and_beyond_its_edges() -> None:
    factors = random_factors(60, 1)
    pictures = draw(factors, 48).astype(int)  # 2, 3 and 4 repeats are whole numbers of pixels
    moved = draw({**factors, "x": factors["x"] + factors["repeats"] * 5 / 48}, 48).astype(int)
    assert np.abs(np.roll(pictures, 5, axis=3) - moved).max() <= 1
    for repeats in (2, 3, 4):
        own = pictures[factors["repeats"] == repeats]
        assert len(own)
        for axis in (2, 3):
            assert np.abs(np.roll(own, 48 // repeats, axis) - own).max() <= 1


def test_a_picture_is_the_same_motif_at_every_size() -> None:
    """What differs is the smoothing of edges, which is a pixel wide: half as much at twice the size."""
    factors = random_factors(60, 2)

    def difference(side: int) -> np.ndarray:
        """(60,): of a picture to one of twice the size that is halved, relative to its contrast."""
        large = draw(factors, 2 * side).astype(float)
        halved = large.reshape(60, 3, side, 2, side, 2).mean((3, 5))
        return np.abs(halved - draw(factors, side)).mean((1, 2, 3)) / large.std((2, 3)).max(1)

    at_64, at_128 = difference(64), difference(128)
    assert at_128.max() < 0.06
    assert 1.6 < at_64.mean() / at_128.mean() < 2.4


def test_every_family_shows_two_colours_and_is_unlike_the_others() -> None:
    factors = random_factors(400, 0)
    pictures = draw(factors, 32)
    assert set(factors["kind"]) == set(range(len(KINDS)))
    assert (factors["ground"] != factors["ink"]).all()
    assert pictures.std((2, 3)).max(1).min() > 5
    spectra = np.abs(np.fft.fft2(pictures.mean(1) - pictures.mean((1, 2, 3))[:, None, None]))
    spectra /= np.linalg.norm(spectra, axis=(1, 2), keepdims=True)
    means = {}
    for kind in range(len(KINDS)):
        means[kind] = spectra[(factors["kind"] == kind) & (factors["repeats"] == 3)].mean(0)
    for a in means:
        for b in range(a):
            cosine = (means[a] * means[b]).sum() / np.linalg.norm(means[a]) / np.linalg.norm(means[b])
            assert cosine < 0.95, (KINDS[a], KINDS[b])


# ------------------------------------------------------------------------------------------- a toy


@pytest.mark.slow
def test_noise_beside_ada_keeps_quality_and_narrows_the_critics_gap(tmp_path: Path) -> None:
    """Distances to held-out motifs in random features; the gap is between mean scores of training and drawn images."""
    extractor = parts.build("extractor", {"use": "random-net"})
    count = np.arange(500)
    training, held_out = (
        Motifs(count=500, split=split).batch(count, np.random.default_rng(0)).data for split in ("train", "test")
    )
    real = extractor(held_out)[0].numpy()
    size = [
        f"networks.{role}.channel_{key}" for role in ("generator", "discriminator") for key in ("base=512", "max=32")
    ]
    common = [
        "data.count=500", "data.size=32", *size, "networks.generator.z_dim=32", "networks.generator.w_dim=32",
        "task.regularizers.r1.every=16", "task.regularizers.r1.weight=1", "task.regularizers.path-length=",
        "optim.roles=", "eval=", "train.steps=300", "train.sample_every=300", "train.checkpoint_every=300",
        "train.log_every=100",
    ]  # fmt: skip
    kinds = {
        "both": ["task.augment.augments.ada.speed_kimg=5", "task.augment.augments.diffusion-noise.speed_kimg=5"],
        "ada": ["task.augment={use: ada, pipe: bgc, speed_kimg: 5}", "networks.discriminator.conditioning=plain"],
    }
    found = []
    for seed in range(3):
        row = {}
        for name, own in kinds.items():
            folder = tmp_path / f"{name}{seed}"
            model = train(RECIPES[0], *common, *own, f"train.seed={seed}", out=folder, device="cpu")
            drawn = model.sample(500, seed=0)
            distance = frechet_distance_of_features(real, extractor(drawn)[0].numpy())
            with torch.no_grad():
                gap = model.critic(training).logits.mean() - model.critic(drawn).logits.mean()
            row[name] = (round(distance, 3), round(gap.item(), 3))
        found.append(row)
    print(f"(Frechet distance, gap) a seed: {found}")  # noqa: T201
    assert all(row["both"][0] <= 1.05 * row["ada"][0] for row in found)
    assert all(row["both"][1] < row["ada"][1] for row in found)
