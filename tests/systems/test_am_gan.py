"""AM-GAN (Zhou et al. 2018): the generator maximises one class where LabelGAN maximises the sum of all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.conditioning.classes import activation_maximisation, label_gan
from ganvas.types import DataSpec, Latent, Scores, Turn

pytestmark = pytest.mark.system("am-gan")

K, N = 4, 6
Y = torch.tensor([0, 1, 2, 3, 1, 2])


def logits() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(N, K + 1, generator=rng, dtype=torch.float64).mul(2).requires_grad_()


def test_gradient_of_am_gan_points_to_one_class() -> None:
    """d/dl = (p − v) / N for the one-hot target v."""
    a = logits()
    (found,) = torch.autograd.grad(activation_maximisation(a, Y), a)
    expected = (a.softmax(1) - torch.eye(K + 1, dtype=torch.float64)[Y]) / N
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_gradient_of_label_gan_is_the_mixture_over_all_classes() -> None:
    """Σ_k (p_k / p_real) (p − v_k): what AM-GAN with each target k would do, overlaid in proportion to p_k."""
    a = logits()
    (found,) = torch.autograd.grad(label_gan(a), a)
    p = a.detach().softmax(1)
    share = p[:, :K] / p[:, :K].sum(1, keepdim=True)  # (N, K)
    overlaid = torch.zeros_like(p)
    for k in range(K):
        target = torch.full((N,), k)
        overlaid += share[:, k : k + 1] * torch.autograd.grad(activation_maximisation(a, target), a)[0]
    torch.testing.assert_close(found, overlaid, rtol=0, atol=1e-12)
    closed = p - torch.cat([share, torch.zeros(N, 1, dtype=torch.float64)], 1)
    torch.testing.assert_close(found, closed / N, rtol=0, atol=1e-12)


def test_dynamic_target_is_the_likeliest_real_class() -> None:
    head = parts.build("conditioning", {"use": "am-gan", "target": "likeliest"}, 3, DataSpec((1,), K), lambda x: x)
    a = logits().detach()
    scores = Scores(a[:, 0], a, {"class_scores": a})
    turn = Turn({}, 0, a, None, Latent(a), None, critic=None, generate=None)
    turn.real_scores = turn.fake_scores = scores
    objective = parts.build("objective", {"use": "by-head"})
    found = head.generator_losses(turn, objective)["adversarial"]
    torch.testing.assert_close(found, activation_maximisation(a, a[:, :K].argmax(1)))


def test_with_one_class_it_is_the_non_saturating_gan() -> None:
    spec, pair = DataSpec((1,), 1), parts.build("objective", {"use": "non-saturating"})
    a, other = logits().detach()[:, :2], logits().detach()[:, 2:4]
    head = parts.build("conditioning", {"use": "am-gan"}, 3, spec, lambda x: x)
    real, fake = (Scores(each[:, 0] - each[:, 1], each, {"class_scores": each}) for each in (a, other))
    zeros = torch.zeros(N, dtype=torch.int64)
    turn = Turn({}, 0, a, zeros, Latent(a), zeros, critic=None, generate=None)
    turn.real_scores, turn.fake_scores = real, fake
    objective = parts.build("objective", {"use": "by-head"})
    torch.testing.assert_close(
        head.critic_losses(turn, objective)["adversarial"], pair.critic(real.logits, fake.logits)
    )
    expected = pair.generator(real.logits[:0], fake.logits)
    torch.testing.assert_close(head.generator_losses(turn, objective)["adversarial"], expected)
