"""cGAN (Mirza & Osindero 2014): both players are told the label by concatenation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.nn.maxout import Maxout
from ganvas.types import DataSpec

pytestmark = pytest.mark.system("cgan")

MNIST = DataSpec((1, 28, 28), 10)


def test_generator_of_the_paper_has_the_sizes_that_it_says() -> None:
    generator = parts.build("network", {"use": "cgan-generator"}, MNIST)
    sizes = [100 * 200 + 200, 10 * 1000 + 1000, 1200 * 1200 + 1200, 1200 * 784 + 784]
    assert sum(each.numel() for each in generator.parameters()) == sum(sizes)
    assert generator.latents["z"].prior == "uniform"
    assert generator(torch.rand(3, 100), torch.tensor([0, 5, 9])).shape == (3, 1, 28, 28)


def test_critic_of_the_paper_joins_240_and_50_maxout_units_in_240() -> None:
    critic = parts.build(
        "network", {"use": "cgan-discriminator", "conditioning": {"use": "concatenation"}}, MNIST
    )  # fmt: skip
    assert critic.body.linear.weight.shape == (240 * 5, 784)
    assert critic.head.of_label.linear.weight.shape == (50 * 5, 10)
    assert critic.head.joint.linear.weight.shape == (240 * 4, 240 + 50)


def test_maxout_is_the_largest_piece() -> None:
    layer = Maxout(5, 3, 4, lambda each: each)
    x = torch.randn(7, 5)
    W, b = layer.linear.weight.view(3, 4, 5), layer.linear.bias.view(3, 4)
    brute = torch.stack([torch.stack([(W[i] @ row + b[i]).max() for i in range(3)]) for row in x])
    torch.testing.assert_close(layer(x), brute)


def test_the_label_reaches_the_score() -> None:
    torch.manual_seed(0)
    critic = parts.build("network", {"use": "cgan-discriminator", "conditioning": {"use": "concatenation"}}, MNIST)
    x = torch.rand(1, 1, 28, 28).repeat(10, 1, 1, 1)
    scores = critic(x, torch.arange(10)).logits
    assert len(scores.unique()) == 10
    scores.sum().backward()
    assert critic.head.of_label.linear.weight.grad.any()


def test_trained_critic_is_the_conditional_optimum() -> None:
    """D*(x | y) = p(x | y) / (p(x | y) + q(x | y)), on two classes of one dimension, within 0.05."""
    torch.manual_seed(0)
    spec, pair = DataSpec((1,), 2), parts.build("objective", {"use": "non-saturating"})
    node = {"use": "cgan-discriminator", "width": 32, "conditioning": {"use": "concatenation", "width": 32}}
    critic = parts.build("network", node, spec)
    real_mean, fake_mean = torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 0.5])
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    steps, n = 500, 1024
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        y = torch.randint(2, (n,))
        real, fake = (mean[y] + torch.randn(n) for mean in (real_mean, fake_mean))
        loss = pair.critic(critic(real[:, None], y).logits, critic(fake[:, None], y).logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.linspace(-2, 2, 41)

    def density(mean: Tensor) -> Tensor:
        return torch.exp(-0.5 * (x - mean).square())

    for y in (0, 1):
        best = density(real_mean[y]) / (density(real_mean[y]) + density(fake_mean[y]))
        found = torch.sigmoid(critic(x[:, None], torch.full((41,), y)).logits)
        assert (found - best).abs().max() < 0.05
