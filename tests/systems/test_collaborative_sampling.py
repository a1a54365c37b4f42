"""Collaborative sampling (Liu et al. 2020): the critic refines samples, and is shaped for it.

That `steps: 0` is plain sampling to the last bit for every sampler that takes steps is also in
tests/samplers/test_guided_samplers.py.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from plane_toys import RING, STD, Z_DIM, pair, points
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import BadValue, MissingCapability, UsageError
from ganvas.model import Model
from ganvas.parts import data_spec, image_spec
from ganvas.recipe.check import check_node
from ganvas.types import NO_CONDITION, Batch, Critic, DataSpec, Facts, Generator, Latent, LatentSpec, Scores

pytestmark = pytest.mark.system("collaborative-sampling")

PLANE = data_spec("plane", (2,))


def model_of(nets: dict[str, nn.Module], spec: DataSpec = PLANE) -> Model:
    return Model({"sampler": {"use": "plain"}}, spec, nets)


def collaborative(**keys: object) -> dict[str, object]:
    return {"use": "collaborative", **keys}


def frozen_pair(seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    nets = pair()
    with torch.no_grad():
        for parameter in nets["generator"].parameters():
            parameter.mul_(0.7)  # samples within [-1, 1]
    return nets


def test_no_steps_are_plain_sampling_to_the_last_bit() -> None:
    model = model_of(frozen_pair())
    assert torch.equal(model.sample(100, seed=3, sampler=collaborative(steps=0)), model.sample(100, seed=3))
    assert not torch.equal(model.sample(100, seed=3, sampler=collaborative(steps=1)), model.sample(100, seed=3))


def test_scores_rise_with_the_steps_and_the_generator_stays() -> None:
    model = model_of(frozen_pair())
    before = copy.deepcopy(model.nets["generator"].state_dict())
    scores = [
        model.critic(model.sample(400, seed=0, sampler=collaborative(steps=steps, rate=0.02))).logits
        for steps in (0, 1, 2, 5, 10, 20, 50)
    ]
    rising = torch.stack([later >= earlier for earlier, later in itertools.pairwise(scores)])
    assert rising.all(0).float().mean() >= 0.95
    means = [each.mean().item() for each in scores]
    assert means == sorted(means)
    after = model.nets["generator"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Line(Generator):
    """G(z) = z / 8."""

    latents = {"z": LatentSpec((1,))}  # noqa: RUF012
    conditional = False

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent / 8


class Ratio(Critic):
    """d(x) = log N(x; 1, 1) − log N(x; 0, 1) = x − ½."""

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        return Scores(data[:, 0] - 0.5, data)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_steps_between_two_known_gaussians_are_the_closed_form(rate: float) -> None:
    """−∇ softplus(−d) = σ(½ − x) towards the real mean: x ← x + rate · σ(½ − x)."""
    model = model_of({"generator": Line(), "discriminator": Ratio()}, data_spec("plane", (1,)))
    x = model.sample(50, seed=0).double()
    for steps in (1, 2, 3):
        x = x + rate * torch.sigmoid(0.5 - x)
        found = model.sample(50, seed=0, sampler=collaborative(steps=steps, rate=rate)).double()
        inside = x.abs() < 1  # samples are kept in the range of data
        assert inside.float().mean() > 0.5
        torch.testing.assert_close(found[inside], x[inside], rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------- in the generator


def image_pair(name: str) -> tuple[dict[str, nn.Module], DataSpec]:
    spec = image_spec((1, 16, 16))
    torch.manual_seed(0)
    nodes = {
        "generator": {"use": name, **parts.find("network", name).tiny},
        "discriminator": {"use": "sngan-discriminator", "width": 16},
    }
    nets = {role: parts.build("network", check_node("network", node), spec) for role, node in nodes.items()}
    return nets, spec


STAGED = [
    "sngan-generator", "biggan-generator", "biggan-deep-generator", "dcgan-generator", "dcgan-deep-generator",
]  # fmt: skip


@pytest.mark.parametrize("name", STAGED)
def test_a_map_half_way_is_refined_as_images_are(name: str) -> None:
    """h ← h − rate · ∇_h softplus(−D(G_{>1}(h))), by hand on the generator's own layers."""
    model = model_of(*image_pair(name))
    plain = model.sample(8, seed=1)
    assert torch.equal(model.sample(8, seed=1, sampler=collaborative(steps=0, stage=1)), plain)
    net, latent = model.nets["generator"], model.draw(8, seed=1)
    half = net.to_stage(latent.values, None, stages=1)
    h = half.features
    for _ in range(3):
        h = h.detach().requires_grad_()
        logits = model.critic(net.from_stage(dataclasses.replace(half, features=h))).logits
        (slope,) = torch.autograd.grad(nn.functional.softplus(-logits).sum(), h)
        h = h.detach() - 0.5 * slope
    expected = net.from_stage(dataclasses.replace(half, features=h))
    found = model.sample(8, seed=1, sampler=collaborative(steps=3, rate=0.5, stage=1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - plain).abs().max() > 1e-5


def test_scores_rise_with_the_steps_half_way_too() -> None:
    model = model_of(*image_pair("sngan-generator"))
    for stage in range(model.nets["generator"].stages + 1):
        scores = [
            model.critic(model.sample(64, seed=0, sampler=collaborative(steps=steps, rate=0.2, stage=stage))).logits
            for steps in (0, 5, 20)
        ]
        rising = torch.stack([later >= earlier for earlier, later in itertools.pairwise(scores)])
        assert rising.all(0).float().mean() >= 0.95, stage


def test_a_generator_without_stages_or_with_fewer_is_told_of() -> None:
    with pytest.raises(MissingCapability, match="made of stages"):
        model_of(frozen_pair()).sample(4, sampler=collaborative(stage=1))
    with pytest.raises(UsageError, match="no map after 9"):
        model_of(*image_pair("sngan-generator")).sample(4, sampler=collaborative(stage=9))
    with pytest.raises(BadValue, match="no stages"):
        shaping(frozen_pair(), stage=1)


# ------------------------------------------------------------------------------------------- shaping


def shaping(nets: dict[str, nn.Module], **keys: object) -> object:
    return parts.build("task", check_node("task", {"use": "shape-critic", **keys}), nets, Facts(PLANE))


def test_shaping_teaches_the_critic_alone_on_samples_along_the_way() -> None:
    nets = frozen_pair()
    task = shaping(nets, steps=10, rate=0.02)
    (update,) = task.updates()
    assert update.nets == ("discriminator",)
    latent = Latent(torch.randn(200, Z_DIM))
    with torch.no_grad():
        made = nets["generator"](latent.values)
        refined = task.generate(latent, NO_CONDITION)
    way = [made]
    for _ in range(9):  # what the sampler does
        at = way[-1].detach().requires_grad_(True)
        loss = nn.functional.softplus(-nets["discriminator"](at).logits).sum()
        way.append(at.detach() - 0.02 * torch.autograd.grad(loss, at)[0])
    way[1:] = [point.clamp(-1, 1) for point in way[1:]]
    distance = torch.stack([(refined - point).norm(dim=1) for point in way])  # (10, N)
    assert distance.min(0).values.max() < 1e-5
    assert len(distance.argmin(0).unique()) == 10  # every number of steps occurs, none among them
    nets["discriminator"].zero_grad()
    update.losses(Batch(points(64)), 0)["adversarial"].backward()
    assert all(parameter.grad is None for parameter in nets["generator"].parameters())
    assert all(parameter.grad is not None for parameter in nets["discriminator"].parameters())


def test_shaping_half_way_is_along_the_sampler_s_way() -> None:
    nets, spec = image_pair("sngan-generator")
    model = model_of(copy.deepcopy(nets), spec)
    node = {"use": "shape-critic", "steps": 4, "rate": 0.5, "stage": 1}
    for net in nets.values():
        net.eval()
    task = parts.build("task", check_node("task", node), nets, Facts(spec))
    latent = model.draw(40, seed=2)
    refined = task.generate(latent, NO_CONDITION)
    assert not refined.requires_grad
    way = torch.stack([model.sample(40, seed=2, sampler=collaborative(steps=k, rate=0.5, stage=1)) for k in range(4)])
    distance = (refined - way).flatten(2).abs().amax(2)  # (4, N)
    assert distance.min(0).values.max() < 1e-5
    assert len(distance.argmin(0).unique()) == 4


def test_shaping_along_no_way_is_the_critic_s_plain_loss() -> None:
    nets = frozen_pair()
    losses = []
    for task in (shaping(nets, steps=1), parts.build("task", check_node("task", "adversarial"), nets, Facts(PLANE))):
        torch.manual_seed(1)
        batch = Batch(points(64))
        losses.append(task.updates()[0].losses(batch, 0)["adversarial"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# ------------------------------------------------------------------------------------------- a toy

# Six of eight modes share 10 % of the data, two of them 90 %.
SHARES = torch.tensor([0.45, 1 / 60, 1 / 60, 1 / 60, 0.45, 1 / 60, 1 / 60, 1 / 60])


def imbalanced(n: int) -> Tensor:
    return RING[torch.multinomial(SHARES, n, replacement=True)] + STD * torch.randn(n, 2)


def train_steps(nets: dict[str, nn.Module], task: object, steps: int, lr: float) -> None:
    optim = {role: torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.9)) for role, net in nets.items()}
    for step in range(steps):
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            torch.stack(list(update.losses(Batch(imbalanced(256)), step).values())).sum().backward()
            optim[role].step()


STEPS, RATE = 30, 0.03


def quality(seed: int) -> list[tuple[set[int], float]]:
    """(modes, share of high quality) of an under-trained generator: plain, refined, refined after shaping.

    A mode is there where it has a fifth of the high-quality samples that it should have.
    """
    torch.manual_seed(seed)
    nets, where = pair(width=128, depth=3), RING.numpy().astype(np.float64)
    train_steps(nets, parts.build("task", check_node("task", "adversarial"), nets, Facts(PLANE)), 200, 1e-3)
    found: list[tuple[set[int], float]] = []

    def look(sampler: object = None) -> None:
        drawn = model_of(copy.deepcopy(nets)).sample(4000, seed=seed, sampler=sampler).numpy()
        distance = np.linalg.norm(drawn[:, None] - where, axis=2)  # (4000, modes)
        good = distance.min(1) <= 3 * STD
        counts = np.bincount(distance.argmin(1)[good], minlength=len(where))
        modes = set(np.flatnonzero(counts >= 0.2 * len(drawn) * SHARES.numpy()).tolist())
        found.append((modes, float(good.mean())))

    refine = collaborative(steps=STEPS, rate=RATE)
    look()
    look(refine)
    train_steps(nets, shaping(nets, steps=STEPS, rate=RATE), 150, 1e-3)
    look(refine)
    return found


@pytest.mark.slow
def test_refining_with_a_shaped_critic_adds_ten_points_of_quality_and_loses_no_mode() -> None:
    found = [quality(seed) for seed in range(3)]
    print(f"(modes, share of high quality), plain, refined, shaped and refined: {found}")  # noqa: T201
    assert all(plain[0] <= shaped[0] for plain, _, shaped in found), found  # each mode is still there
    assert np.mean([shaped[1] - plain[1] for plain, _, shaped in found]) >= 0.1, found
