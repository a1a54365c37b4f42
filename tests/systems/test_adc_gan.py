"""ADC-GAN (Hou et al. 2022): its generator term is a divergence of the joints, AC-GAN's is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.parts import image_spec
from ganvas.types import Condition, Latent, Scores, Turn

pytestmark = pytest.mark.system("adc-gan")

X, K = 5, 3
HINGE = parts.build("objective", {"use": "hinge"})


def head_of(name: str, features: int = 1, classes: int = K) -> nn.Module:
    spec = image_spec((1, 8, 8), classes)
    return parts.build("conditioning", {"use": name}, features, spec, lambda layer: layer)


def turn_of(real: Scores, fake: Scores, y: Tensor, fake_y: Tensor) -> Turn:
    asked, given = Condition.labelled(fake_y), Condition.labelled(y)
    turn = Turn({}, 0, real.features, given, Latent(real.features), asked, critic=None, generate=None)
    turn.real_scores, turn.fake_scores = real, fake
    return turn


def scores_of(class_logits: Tensor) -> Scores:
    return Scores(class_logits[:, 0], class_logits, {"class_logits": class_logits})


def joint(seed: int) -> Tensor:
    """A distribution of (x, y) over X times K outcomes."""
    return torch.randn(X * K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(0).view(X, K)


def generator_term(name: str, class_logits: Tensor, q: Tensor) -> Tensor:
    """E_q of the head's generator term, whose value at each outcome (x, y) is that of a batch of one."""
    head, total = head_of(name), torch.zeros((), dtype=torch.float64)
    for x in range(X):
        for y in range(K):
            scores = scores_of(class_logits[x : x + 1])
            (term,) = head.generator_losses(
                turn_of(scores, scores, torch.tensor([y]), torch.tensor([y])), HINGE
            ).values()
            total = total + q[x, y] * term
    return total


def best_adc(p: Tensor, q: Tensor) -> Tensor:
    """Log odds of the optimal classifier: C(y⁺ | x) is in proportion to p(x, y), C(y⁻ | x) to q(x, y)."""
    return torch.stack([p, q], 2).flatten(1).log()  # (X, 2K), real of y at 2y


def gradient(name: str, class_logits: Tensor, theta: Tensor) -> Tensor:
    """Of the generator term in the parameters of q = softmax θ, the classifier held."""
    theta = theta.clone().requires_grad_()
    loss = generator_term(name, class_logits, theta.softmax(0).view(X, K))
    return torch.autograd.grad(loss, theta)[0]


def test_generator_term_is_reverse_kl_of_the_joints() -> None:
    for seed in range(3):
        p, q = joint(seed), joint(seed + 10)
        found = generator_term("adc", best_adc(p, q), q)
        torch.testing.assert_close(found, (q * (q / p).log()).sum(), rtol=0, atol=1e-12)


def test_its_gradient_vanishes_where_the_joints_agree_and_only_there_and_acgan_s_does_not() -> None:
    p = joint(0)
    at_p = p.log().flatten()
    assert gradient("adc", best_adc(p, p), at_p).abs().max() < 1e-12
    classifier = (p / p.sum(1, keepdim=True)).log()  # AC-GAN's best classifier of real data
    assert gradient("auxiliary-classifier", classifier, at_p).abs().max() > 1e-2
    for seed in range(1, 4):
        q = joint(seed)
        assert gradient("adc", best_adc(p, q), q.log().flatten()).abs().max() > 1e-2


def test_classifier_that_the_critic_learns_is_the_best_one() -> None:
    """Its loss, weighted by p and q, has no slope at the optimum."""
    p, q, head = joint(0), joint(1), head_of("adc")
    logits = best_adc(p, q).requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for y in range(K):
        for x in range(X):
            one, label = scores_of(logits[x : x + 1]), torch.tensor([y])
            both = head.critic_losses(turn_of(one, one, label, label), HINGE)["classification"]
            as_real = F.cross_entropy(logits[x : x + 1], 2 * label)
            loss = loss + p[x, y] * as_real + q[x, y] * (both - as_real)
    loss.backward()
    assert logits.grad.abs().max() < 1e-12


def test_values_are_those_of_the_released_encoding() -> None:
    """Real of class y is 2y, fake of it 2y + 1: cross entropies as the authors' training functions take them."""
    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(16, 2 * K, generator=rng) for _ in range(2))
    y, fake_y = (torch.randint(K, (16,), generator=rng) for _ in range(2))
    head, turn = head_of("adc"), turn_of(scores_of(real), scores_of(fake), y, fake_y)
    critic = F.cross_entropy(real, 2 * y) + F.cross_entropy(fake, 2 * fake_y + 1)
    generator = F.cross_entropy(fake, 2 * fake_y) - F.cross_entropy(fake, 2 * fake_y + 1)
    torch.testing.assert_close(head.critic_losses(turn, HINGE)["classification"], critic, rtol=0, atol=1e-6)
    torch.testing.assert_close(head.generator_losses(turn, HINGE)["classification"], generator, rtol=0, atol=1e-6)


MEANS, STD = torch.tensor([-1.5, 0.0, 1.5]), 1.0


def fit(name: str, seed: int, steps: int = 2000, n: int = 256) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (K,) of a generator μ_y + σ_y z that learns from the classifier alone."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    head, nothing = head_of(name, features=64), parts.build("objective", {"use": "by-head"})
    mu, log_sigma = nn.Parameter(torch.randn(K)), nn.Parameter(torch.full((K,), -0.5))
    rates = (2e-3, 4e-3)
    optimizers = [
        torch.optim.Adam(each, lr=rate, betas=(0.5, 0.99))
        for rate, each in zip(rates, ([*body.parameters(), *head.parameters()], [mu, log_sigma]), strict=True)
    ]
    found = []
    for step in range(steps):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * (1 - 0.95 * step / steps)
        y, fake_y = torch.randint(K, (2, n))
        real = MEANS[y] + STD * torch.randn(n)
        for optimizer, losses in zip(optimizers, (head.critic_losses, head.generator_losses), strict=True):
            fake = mu[fake_y] + log_sigma.exp()[fake_y] * torch.randn(n)
            scores = head(body(real[:, None]), y), head(body(fake[:, None]), fake_y)
            loss = sum(losses(turn_of(*scores, y, fake_y), nothing).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step > 0.75 * steps:
            found.append(torch.stack([mu, log_sigma.exp()]).detach())
    mean, std = torch.stack(found).mean(0)
    return mean, std


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_overlapping_gaussians_are_recovered_where_acgan_s_shrink(seed: int) -> None:
    """The GAN loss switched off: ADC within a tenth of the class's spread, AC-GAN's spread a quarter smaller."""
    mean, std = fit("adc", seed)
    assert (mean - MEANS).abs().max() < 0.1 * STD
    assert (std.square() / STD**2 - 1).abs().max() < 0.1
    _, std = fit("auxiliary-classifier", seed)
    assert std.max() < 0.75 * STD
