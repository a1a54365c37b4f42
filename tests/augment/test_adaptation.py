"""Strength that follows the critic: direction, speed, bounds, exact resume, and the task around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.engine.checkpoint import pack, unpack
from ganvas.errors import BadValue
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import NO_CONDITION, Batch, Facts, Latent, Network, Scores, Turn

SPEC = image_spec((1, 8, 8), num_classes=10)
ADAPTIVE = ("ada", "apa", "diffusion-noise")


def turn(scores: Tensor | float, n: int = 10, step: int = 0) -> Turn:
    """A critic update in which the real images are given these scores."""
    logits = torch.as_tensor(scores).expand(n)
    images = torch.zeros(n, 1, 1, 1)
    return Turn(
        nets={}, step=step, real=images, condition=NO_CONDITION, latent=Latent(torch.zeros(n, 1)),
        fake_condition=NO_CONDITION, critic=lambda data, condition: Scores(logits, logits[:, None]),
        generate=lambda latent, condition: images,
    )  # fmt: skip


@pytest.mark.parametrize("name", ADAPTIVE)
def test_p_moves_by_the_images_shown_once_every_interval(name: str) -> None:
    part = parts.build("augment", {"use": name, "speed_kimg": 0.4, "p": 0.5})  # 400 images from 0 to 1
    for _ in range(3):
        part.observe(turn(1.0))
        assert part.p == 0.5
    part.observe(turn(1.0))
    assert part.p == pytest.approx(0.6)  # 4 updates of 10 images
    for _ in range(8):
        part.observe(turn(-1.0))
    assert part.p == pytest.approx(0.4)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_p_stays_within_0_and_1(name: str) -> None:
    part = parts.build("augment", {"use": name, "speed_kimg": 0.1, "interval": 1})
    seen = []
    for scores in [-1.0] * 3 + [1.0] * 15 + [-1.0] * 15:
        part.observe(turn(scores))
        seen.append(part.p)
    assert seen[2] == 0
    assert max(seen) == 1
    assert seen[-1] == 0


def test_p_rests_on_the_target_and_where_it_does_not_adapt() -> None:
    at_target = torch.tensor([1.0] * 8 + [-1.0] * 2)  # E sign = 0.6
    part = parts.build("augment", {"use": "ada", "p": 0.3, "interval": 1, "speed_kimg": 0.1})
    part.observe(turn(at_target))
    assert part.p == 0.3
    fixed = parts.build("augment", {"use": "ada", "p": 0.3, "adapt": False, "interval": 1})
    fixed.observe(turn(1.0))
    assert fixed.p == 0.3


def test_signs_are_averaged_over_the_whole_interval() -> None:
    """Two updates far below the target and two above: the mean decides, not the last."""
    part = parts.build("augment", {"use": "ada", "p": 0.5, "interval": 4, "speed_kimg": 1.0})
    for scores in (-5.0, -5.0, 9.0, 9.0):
        part.observe(turn(scores))
    assert part.p < 0.5


@pytest.mark.parametrize("name", [*ADAPTIVE, "instance-noise"])
def test_resume_is_exact(name: str) -> None:
    def make() -> Any:
        return parts.build("augment", {"use": name, **({"speed_kimg": 0.3} if name in ADAPTIVE else {"steps": 50})})

    torch.manual_seed(0)
    one, other = make(), make()
    for step in range(6):  # in the middle of an interval
        one.observe(turn(1.0, step=step))
    tensors, skeleton = pack(one.state_dict())
    other.load_state_dict(unpack(tensors, json.loads(json.dumps(skeleton))))
    images = torch.rand(4, 3, 8, 8)
    for step in range(6, 12):
        results = []
        for part in (one, other):
            torch.manual_seed(step)
            part.observe(turn(1.0, step=step))
            real = part.mix_real(images, lambda: -images) if name == "apa" else images
            results.append(part(real))
        assert torch.equal(*results)
    assert pack(one.state_dict())[1] == pack(other.state_dict())[1]


def test_instance_noise_fades_away() -> None:
    part = parts.build("augment", {"use": "instance-noise", "std": 0.2, "steps": 10})
    images = torch.zeros(1, 1, 100, 100)
    torch.manual_seed(0)
    seen = []
    for step in range(12):
        seen.append(part(images).std().item())
        part.observe(turn(0.0, step=step))
    assert seen == pytest.approx([0.2 * max(1 - step / 10, 0) for step in range(12)], rel=0.05)
    assert part(images) is images


# ------------------------------------------------------------------------------------------- in the task


def task_with(augment: dict[str, Any], conditioning: Any = "plain") -> Any:
    torch.manual_seed(0)
    critic = check_node(
        "network", {"use": "sngan-discriminator", "width": 8, "norm": "none", "conditioning": conditioning}
    )
    nets: dict[str, Network] = {
        "generator": parts.build("network", {"use": "sngan-generator", "width": 8, "z_dim": 8}, SPEC),
        "discriminator": parts.build("network", critic, SPEC),
    }
    node = check_node(
        "task", {"use": "adversarial", "augment": augment, "regularizers": {"r1": {"weight": 1.0, "every": 2}}}
    )
    return parts.build("task", node, nets, Facts(SPEC))


BATCH = Batch.labelled(torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1, torch.arange(6))


def test_only_critic_updates_are_observed_and_once_each() -> None:
    task = task_with({"use": "ada", "p": 0.5})
    for update in task.updates():
        update.losses(BATCH, 0)
    assert task.augment.controller.updates == 1
    assert task.augment.controller.images == 6
    assert task.state_dict()["augment"]["updates"] == 1


def test_apa_deceives_the_critic_alone() -> None:
    task = task_with({"use": "apa", "p": 1.0})
    assert not torch.equal(task.turn(BATCH, 0, for_generator=False).real, BATCH.data)
    assert torch.equal(task.turn(BATCH, 0, for_generator=True).real, BATCH.data)
    turn = task.turn(BATCH, 0, for_generator=False)
    assert not torch.equal(turn.real, turn.fake)  # generated anew
    assert not turn.real.requires_grad


def test_a_critic_that_cannot_be_told_the_level_is_refused() -> None:
    with pytest.raises(BadValue, match="cannot be told"):
        task_with({"use": "diffusion-noise"})
    task_with({"use": "diffusion-noise"}, {"use": "level", "head": "plain"})


@pytest.mark.parametrize("head", ["plain", "projection"])
def test_level_head_learns_levels_and_is_the_other_head_on_clean_data(head: str) -> None:
    task = task_with({"use": "diffusion-noise", "p": 0.5}, {"use": "level", "head": head})
    critic = task.discriminator
    scores = critic(BATCH.data, BATCH.label)
    clean = critic.head.at_level(scores, torch.zeros(6, dtype=torch.int64))
    assert torch.equal(clean.logits, critic.head.inner(scores.features, BATCH.label).logits)
    noisy = critic.head.at_level(scores, torch.tensor([0, 1, 5, 20, 100, 500]))
    assert noisy.logits[0] == scores.logits[0]
    assert (noisy.logits[1:] != scores.logits[1:]).all()
    task.augment.t_list = torch.full((64,), 300)
    for update in task.updates():
        critic.zero_grad()
        sum(update.losses(BATCH, 0).values()).backward()
        assert all(each.grad is not None and each.grad.any() for each in critic.head.psi.parameters())
