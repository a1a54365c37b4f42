"""cGAN (Mirza & Osindero 2014): both players are told the label by concatenation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.nn.maxout import Maxout
from ganvas.parts import image_spec
from ganvas.training.train import train

pytestmark = pytest.mark.system("cgan")

MNIST = image_spec((1, 28, 28), 10)


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
    spec, pair = image_spec((1,), 2), parts.build("objective", {"use": "non-saturating"})
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_are_of_the_class_that_was_asked_for(seed: int, tmp_path: Path) -> None:
    """With R1: without a penalty the critic wins on 1,300 digits, and classes agree no better than by chance."""
    sizes = ("z_dim=32", "z_width=64", "label_width=64", "width=128")
    model = train(
        "tiny/digits-cgan", *(f"networks.generator.{each}" for each in sizes), "networks.discriminator.width=64",
        "networks.discriminator.conditioning.width=64", "train.steps=3000", "train.batch=64", "train.log_every=500",
        "train.checkpoint_every=3000", f"train.seed={seed}", out=tmp_path / "run", device="cpu",
    )  # fmt: skip
    label = torch.arange(1000) % 10
    images = model.sample(1000, seed=1, label=label)
    _, logits = parts.build("extractor", {"use": "digit-net"})(images)
    agreement = (logits.argmax(1) == label).float().mean().item()
    print(f"seed {seed}: {agreement:.3f} of 1000 agree")  # noqa: T201
    assert agreement >= 0.85
    assert all(images[label == k].var(0).max() > 0 for k in range(10))
