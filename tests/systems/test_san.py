"""SAN (Takida et al. 2024): the direction of the last layer is taught apart. Parity is in tests/parity (`san_*`)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.nn.san import SANLinear
from ganvas.parts import image_spec
from ganvas.types import NO_CONDITION, Latent, Turn

pytestmark = pytest.mark.system("san")

D = 12
HINGE = parts.build("objective", {"use": "hinge"})


def head_of(name: str, features: int = D) -> nn.Module:
    return parts.build("conditioning", {"use": name}, features, image_spec((2,)), lambda layer: layer)


def turn_of(head: nn.Module, real: Tensor, fake: Tensor) -> Turn:
    turn = Turn({}, 0, real, NO_CONDITION, Latent(real), NO_CONDITION, critic=None, generate=None)
    turn.real_scores, turn.fake_scores = head(real), head(fake)
    return turn


def test_function_does_not_teach_the_direction_nor_the_direction_the_features() -> None:
    torch.manual_seed(0)
    layer = SANLinear(nn.Linear(D, 1)).double()
    h = torch.randn(20, D, dtype=torch.float64, requires_grad=True)
    (to_weight,) = torch.autograd.grad(layer(h).sum(), [layer.weight], allow_unused=True, retain_graph=True)
    assert to_weight is None
    (to_h,) = torch.autograd.grad(layer.direction(h).square().sum(), [h], allow_unused=True)
    assert to_h is None
    (to_weight,) = torch.autograd.grad(layer.direction(h).square().sum(), [layer.weight])
    assert (to_weight @ layer.weight.T).abs().item() < 1e-6 * to_weight.norm().item()


def test_direction_aligns_with_the_difference_of_the_means() -> None:
    """Features held, the hinge's direction loss is linear in ω: its optimum is E_real h − E_fake h."""
    torch.manual_seed(0)
    head = head_of("san")
    real, fake = torch.randn(256, D) + torch.randn(D), torch.randn(256, D)
    optimizer = torch.optim.SGD([head.last.weight], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        head.critic_losses(turn_of(head, real, fake), HINGE)["direction"].backward()
        optimizer.step()
        head.after_step()
    assert F.cosine_similarity(head.last.weight[0], real.mean(0) - fake.mean(0), dim=0) > 0.999


def ring(n: int) -> Tensor:
    """Eight Gaussians of width 0.05 on a circle of radius 2."""
    angle = 2 * math.pi * torch.randint(8, (n,)) / 8
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2)


def covered(name: str, seed: int, steps: int = 1500, n: int = 128) -> int:
    """How many of the eight modes a hinge GAN with this head reaches with 20 or more of 2,000 samples."""
    torch.manual_seed(seed)

    def mlp(inputs: int, outputs: int | None = None) -> nn.Sequential:
        last = [] if outputs is None else [nn.Linear(64, outputs)]
        return nn.Sequential(nn.Linear(inputs, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), *last)

    generator, body, head = mlp(8, 2), mlp(2), head_of(name, 64)
    critic = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3, betas=(0.0, 0.99))
    player = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.99))
    for _ in range(steps):
        turn = turn_of(head, body(ring(n)), body(generator(torch.randn(n, 8)).detach()))
        loss = HINGE.critic(turn.real_scores.logits, turn.fake_scores.logits)
        loss = loss + sum(head.critic_losses(turn, HINGE).values())
        critic.zero_grad()
        loss.backward()
        critic.step()
        head.after_step()
        logits = head(body(generator(torch.randn(n, 8)))).logits
        player.zero_grad()
        HINGE.generator(logits[:0], logits).backward()
        player.step()
    with torch.no_grad():
        samples = generator(torch.randn(2000, 8))
    angle = 2 * math.pi * torch.arange(8) / 8
    near = torch.cdist(samples, 2 * torch.stack([angle.cos(), angle.sin()], 1)) < 0.3
    return int((near.sum(0) >= 20).sum())


@pytest.mark.slow
def test_ring_of_gaussians_is_covered_no_worse_than_without() -> None:
    modes = {name: [covered(name, seed) for seed in range(3)] for name in ("san", "plain")}
    assert sum(modes["san"]) >= sum(modes["plain"]), modes
