"""Saturating, smoothed, relativistic and f-GAN pairs against closed forms: values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ganvas import parts
from ganvas.errors import UsageError

REAL = torch.tensor([2.0, 0.5, -1.0, 0.3], dtype=torch.float64)
FAKE = torch.tensor([-2.0, 0.4, 1.5, -0.2], dtype=torch.float64)
RELATIVISTIC = ["relativistic-paired", "relativistic-average", "relativistic-average-hinge"]
DIVERGENCES = ["kl", "reverse-kl", "pearson", "js", "squared-hellinger"]


def build(name: str, **keys: object):
    return parts.build("objective", {"use": name, **keys})


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    x = at.clone().requires_grad_()
    return torch.autograd.grad(loss(x), x)[0]


# ---------------------------------------------------------------------------------------- saturating, smoothed


def test_saturating_generator_minimises_log_one_minus_d() -> None:
    pair = build("saturating")
    D = torch.sigmoid(FAKE)
    torch.testing.assert_close(pair.generator(FAKE[:0], FAKE), torch.log(1 - D).mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(lambda f: pair.generator(f[:0], f), FAKE), -D / 4, rtol=1e-12, atol=0)
    torch.testing.assert_close(pair.critic(REAL, FAKE), build("non-saturating").critic(REAL, FAKE), rtol=0, atol=0)


def test_both_generators_push_the_same_way_and_differ_where_they_saturate() -> None:
    """Their gradients are −D and −(1 − D): equal at D = ½, and far from there one of them is nearly 0."""
    logits = torch.linspace(-20, 20, 41, dtype=torch.float64)

    def slope(name: str) -> Tensor:
        pair = build(name)
        return gradient(lambda f: len(f) * pair.generator(f[:0], f), logits)

    flat, steep = slope("saturating"), slope("non-saturating")
    assert (flat < 0).all()
    assert (steep < 0).all()
    torch.testing.assert_close(flat[20], steep[20])
    torch.testing.assert_close(flat + steep, -torch.ones_like(flat))
    assert flat[0].abs() < 1e-8 < 0.99 < steep[0].abs()


@pytest.mark.parametrize("name", ["saturating", "non-saturating"])
@pytest.mark.parametrize("target", [0.9, 0.7, 1.0])
def test_one_sided_smoothing_is_cross_entropy_with_its_optimum_at_the_target(name: str, target: float) -> None:
    pair, plain = build(name, real_target=target), build(name)
    D = torch.sigmoid(REAL)
    smoothed = -(target * D.log() + (1 - target) * (1 - D).log()).mean()
    unsmoothed = -D.log().mean()
    expected = plain.critic(REAL, FAKE) - unsmoothed + smoothed
    torch.testing.assert_close(pair.critic(REAL, FAKE), expected, rtol=1e-12, atol=0)
    found = gradient(lambda r: pair.critic(r, FAKE), REAL)
    torch.testing.assert_close(found, (D - target) / 4, rtol=1e-12, atol=1e-16)
    torch.testing.assert_close(pair.generator(FAKE[:0], FAKE), plain.generator(FAKE[:0], FAKE), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------- relativistic


def test_relativistic_values() -> None:
    soft = torch.nn.functional.softplus
    to_real, to_fake = REAL - FAKE.mean(), FAKE - REAL.mean()
    expected = {
        "relativistic-paired": soft(FAKE - REAL).mean(),
        "relativistic-average": soft(-to_real).mean() + soft(to_fake).mean(),
        "relativistic-average-hinge": (1 - to_real).clamp(min=0).mean() + (1 + to_fake).clamp(min=0).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(build(name).critic(REAL, FAKE), value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", RELATIVISTIC)
def test_relativistic_gradients_by_finite_differences(name: str) -> None:
    pair = build(name)
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    assert torch.autograd.gradcheck(pair.critic, (real, fake))
    assert torch.autograd.gradcheck(pair.generator, (real, fake))


@pytest.mark.parametrize("name", RELATIVISTIC)
@given(shift=st.floats(-100, 100))
def test_relativistic_losses_swap_sides_and_do_not_see_a_constant(name: str, shift: float) -> None:
    pair = build(name)
    assert pair.reads_real
    torch.testing.assert_close(pair.generator(REAL, FAKE), pair.critic(FAKE, REAL), rtol=1e-12, atol=0)
    torch.testing.assert_close(pair.critic(REAL + shift, FAKE + shift), pair.critic(REAL, FAKE), rtol=1e-9, atol=1e-9)
    whole = gradient(lambda both: pair.critic(both[:4], both[4:]), torch.cat([REAL, FAKE]))
    assert whole.sum().abs() < 1e-12


def test_unequal_batches_cannot_be_paired() -> None:
    with pytest.raises(UsageError, match="4 real and 3 fake"):
        build("relativistic-paired").critic(REAL, FAKE[:3])


# ---------------------------------------------------------------------------------------- f-GAN

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

# name -> (D_f(P || Q), the critic's best output v with g_f(v) = f'(p / q))
BEST: dict[str, tuple[Tensor, Tensor]] = {
    "kl": ((P * (P / Q).log()).sum(), 1 + (P / Q).log()),
    "reverse-kl": ((Q * (Q / P).log()).sum(), (P / Q).log()),
    "pearson": (((P - Q) ** 2 / Q).sum(), 2 * (P / Q - 1)),
    "js": ((P * (2 * P / (P + Q)).log() + Q * (2 * Q / (P + Q)).log()).sum(), (P / Q).log()),
    "squared-hellinger": (((P.sqrt() - Q.sqrt()) ** 2).sum(), (P / Q).log() / 2),
}
CONJUGATES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {  # g_f, f*
    "kl": (lambda v: v, lambda t: (t - 1).exp()),
    "reverse-kl": (lambda v: -(-v).exp(), lambda t: -1 - (-t).log()),
    "pearson": (lambda v: v, lambda t: t**2 / 4 + t),
    "js": (lambda v: math.log(2) - torch.log(1 + (-v).exp()), lambda t: -torch.log(2 - t.exp())),
    "squared-hellinger": (lambda v: 1 - (-v).exp(), lambda t: t / (1 - t)),
}


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_f_gan_follows_the_table(divergence: str) -> None:
    g, conjugate = CONJUGATES[divergence]
    pair, boosted = (build("f-gan", divergence=divergence, generator=each) for each in ("minimax", "non-saturating"))
    critic = -g(REAL).mean() + conjugate(g(FAKE)).mean()
    torch.testing.assert_close(pair.critic(REAL, FAKE), critic, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(pair.generator(FAKE[:0], FAKE), -conjugate(g(FAKE)).mean(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(boosted.generator(FAKE[:0], FAKE), -g(FAKE).mean(), rtol=1e-12, atol=1e-14)
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    assert torch.autograd.gradcheck(pair.critic, (real, fake))
    assert torch.autograd.gradcheck(lambda f: pair.generator(f[:0], f), (fake,))
    assert torch.autograd.gradcheck(lambda f: boosted.generator(f[:0], f), (fake,))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_f_gan_is_the_divergence_at_its_best_critic(divergence: str) -> None:
    """The loss is linear in the two distributions: 20 P and 20 Q are whole numbers, and make two batches."""
    pair, (true, v) = build("f-gan", divergence=divergence), BEST[divergence]
    counts_p, counts_q = (20 * P).round().long(), (20 * Q).round().long()

    def loss(outputs: Tensor) -> Tensor:
        return pair.critic(outputs.repeat_interleave(counts_p), outputs.repeat_interleave(counts_q))

    torch.testing.assert_close(-loss(v), true, rtol=1e-12, atol=0)
    assert gradient(loss, v).abs().max() < 1e-12  # a stationary point,
    for seed in range(5):  # and none around it is better
        near = v + 0.3 * torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert loss(near) > loss(v)


def test_f_gan_with_js_is_the_saturating_gan_but_for_a_constant() -> None:
    js, gan = build("f-gan", divergence="js"), build("saturating")
    torch.testing.assert_close(js.critic(REAL, FAKE) + 2 * math.log(2), gan.critic(REAL, FAKE))
    torch.testing.assert_close(js.generator(REAL, FAKE) - math.log(2), gan.generator(REAL, FAKE))


def test_by_head_leaves_everything_to_the_head() -> None:
    nothing = build("by-head")
    assert nothing.critic(REAL, FAKE) == nothing.generator(REAL, FAKE) == 0
