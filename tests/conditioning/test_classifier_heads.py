"""Heads with classes against their equations: values, gradients, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.parts import image_spec
from ganvas.shelves.conditioning.classes import activation_maximisation, crammer_singer, label_gan
from ganvas.shelves.conditioning.classifier import class_hinge
from ganvas.shelves.conditioning.contrastive import conditional_contrastive, data_to_data_cross_entropy
from ganvas.types import Condition, DataSpec, Latent, Scores, Turn

K, D, N = 4, 6, 8
SPEC = image_spec((1, 8, 8), num_classes=K)
Y = torch.tensor([0, 1, 2, 3, 0, 1, 1, 2])
LABELLED = [
    "auxiliary-classifier", "twin-auxiliary-classifier", "adc", "2c", "d2d-ce", "multi-hinge", "am-gan",
    "multi-discriminator", "concatenation", "projection",
]  # fmt: skip
HINGE = parts.build("objective", {"use": "hinge"})


def build(name: str, spec: DataSpec = SPEC, **keys: object) -> nn.Module:
    torch.manual_seed(0)
    small = {"embedding_dim": 5} if name in ("2c", "d2d-ce") else {}
    return parts.build("conditioning", {"use": name, **small, **keys}, D, spec, lambda layer: layer).double()


def features(seed: int) -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn_of(real: Scores, fake: Scores, y: Tensor | None = Y, fake_y: Tensor | None = Y) -> Turn:
    asked, given = Condition.labelled(fake_y), Condition.labelled(y)
    turn = Turn({}, 0, real.features, given, Latent(real.features), asked, critic=None, generate=None)
    turn.real_scores, turn.fake_scores = real, fake
    return turn


def played(head: nn.Module, fake_y: Tensor = Y) -> Turn:
    return turn_of(head(features(1), Y), head(features(2), fake_y), fake_y=fake_y)


def log_softmax(logits: Tensor, y: Tensor) -> Tensor:
    return (logits - logits.exp().sum(1, keepdim=True).log()).gather(1, y[:, None]).mean()


@pytest.mark.parametrize("name", LABELLED)
def test_labels_must_be_there(name: str) -> None:
    with pytest.raises(BadValue, match=f"conditioning {name!r} needs labelled data"):
        build(name, image_spec((1, 8, 8)))
    head = build(name)
    with pytest.raises(UsageError, match="no labels"):
        scores = head(features(1), None)
        head.critic_losses(turn_of(scores, scores, None, None), HINGE)


def test_auxiliary_classifier() -> None:
    for classify in ("real", "both"):
        head = build("auxiliary-classifier", weight=0.5, generator_weight=0.1, classify=classify)
        fake_y = (Y + 1) % K
        turn = played(head, fake_y)
        real, fake = (scores.extra["class_logits"] for scores in (turn.real_scores, turn.fake_scores))
        expected = -log_softmax(real, Y) - (log_softmax(fake, fake_y) if classify == "both" else 0)
        torch.testing.assert_close(head.critic_losses(turn, HINGE), {"classification": 0.5 * expected})
        terms = head.generator_losses(turn, HINGE)
        torch.testing.assert_close(terms, {"classification": -0.1 * log_softmax(fake, fake_y)})


def test_twin_classifier_of_fakes_is_what_the_generator_works_against() -> None:
    head = build("twin-auxiliary-classifier", weight=2.0)
    turn = played(head)
    real, fake = turn.real_scores.extra, turn.fake_scores.extra
    expected = {
        "classification": -2 * log_softmax(real["class_logits"], Y),
        "twin": -2 * log_softmax(fake["twin_logits"], Y),
    }
    torch.testing.assert_close(head.critic_losses(turn, HINGE), expected)
    expected = {
        "classification": -2 * log_softmax(fake["class_logits"], Y),
        "twin": 2 * log_softmax(fake["twin_logits"], Y),
    }
    torch.testing.assert_close(head.generator_losses(turn, HINGE), expected)


@pytest.mark.parametrize("name", ["auxiliary-classifier", "twin-auxiliary-classifier", "adc"])
def test_normalising_a_classifier_reaches_its_weights(name: str) -> None:
    """The reference library normalises a copy of the weights that it then throws away."""
    for normalize, changes in (("both", False), ("features", True), (None, True)):
        head = build(name, normalize=normalize)
        before = head(features(1), Y).extra["class_logits"]
        with torch.no_grad():
            head.classifier.linear.weight.mul_(torch.arange(2.0, 2 + len(head.classifier.linear.weight))[:, None])
        after = head(features(1), Y).extra["class_logits"]
        assert torch.allclose(before, after) is not changes
        longer = head(3 * features(1), Y).extra["class_logits"]
        assert torch.allclose(longer, after) is (normalize is not None)
        if normalize == "both":
            W = F.normalize(head.classifier.linear.weight, dim=1)
            torch.testing.assert_close(after, F.normalize(features(1), dim=1) @ W.T)
            assert after.abs().max() <= 1


# ---------------------------------------------------------------------------------------- contrastive


# ADC-GAN's code: each pair of a datum and a wrong class is one term
@pytest.mark.parametrize("margin", [True, False])
def test_class_hinge_is_the_mean_over_wrong_classes_of_the_margin_missed(margin: bool) -> None:
    logits = features(3)[:, :K]
    terms = []
    for n, y in enumerate(Y.tolist()):
        gaps = [logits[n, k] - logits[n, y] for k in range(K) if k != y]
        terms += [max(torch.zeros(()), 1 + gap) if margin else gap for gap in gaps]
    torch.testing.assert_close(class_hinge(logits, Y, margin), torch.stack(terms).mean())


def test_class_hinge_of_a_sure_critic_is_0_and_has_no_slope() -> None:
    logits = (5 * F.one_hot(Y, K)).double().requires_grad_()
    loss = class_hinge(logits, Y, margin=True)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0
    assert torch.autograd.gradcheck(lambda x: class_hinge(x, Y, margin=False), features(3)[:, :K].requires_grad_())


@pytest.mark.parametrize("name", ["auxiliary-classifier", "twin-auxiliary-classifier", "adc"])
def test_hinge_takes_the_place_of_cross_entropy(name: str) -> None:
    turn = played(build(name, loss="hinge", weight=0.7, generator_weight=0.3))
    head = build(name, loss="hinge", weight=0.7, generator_weight=0.3)
    real, fake = turn.real_scores.extra["class_logits"], turn.fake_scores.extra["class_logits"]
    critic, generator = head.critic_losses(turn, HINGE), head.generator_losses(turn, HINGE)
    if name == "adc":
        expected = class_hinge(real, 2 * Y, True) + class_hinge(fake, 2 * Y + 1, True)
        torch.testing.assert_close(critic["classification"], 0.7 * expected)
        # The wrong classes of both terms are all but one, so that only the two logits of the label are left.
        own = fake.gather(1, 2 * Y[:, None]) - fake.gather(1, 2 * Y[:, None] + 1)
        torch.testing.assert_close(generator["classification"], -0.3 * own.mean() * (1 + 1 / (2 * K - 1)))
        return
    torch.testing.assert_close(critic["classification"], 0.7 * class_hinge(real, Y, True))
    torch.testing.assert_close(generator["classification"], 0.3 * class_hinge(fake, Y, False))
    if name == "twin-auxiliary-classifier":
        twin = turn.fake_scores.extra["twin_logits"]
        torch.testing.assert_close(critic["twin"], 0.7 * class_hinge(twin, Y, True))
        torch.testing.assert_close(generator["twin"], -0.3 * class_hinge(twin, Y, False))


def brute_2c(embedding: Tensor, proxy: Tensor, y: Tensor, t: float) -> Tensor:
    f, v, losses = F.normalize(embedding, dim=1), F.normalize(proxy, dim=1), []
    for i in range(len(y)):
        own = torch.exp(f[i] @ v[i] / t)
        pulls = [torch.exp(f[i] @ f[k] / t) for k in range(len(y)) if k != i and y[k] == y[i]]
        pushes = [torch.exp(f[i] @ f[k] / t) for k in range(len(y)) if k != i]
        losses.append(-torch.log((own + sum(pulls)) / (own + sum(pushes))))
    return torch.stack(losses).mean()


def brute_d2d(embedding: Tensor, proxy: Tensor, y: Tensor, t: float, m_p: float) -> Tensor:
    f, v, losses = F.normalize(embedding, dim=1), F.normalize(proxy, dim=1), []
    for i in range(len(y)):
        own = torch.exp(torch.clamp(f[i] @ v[i] - m_p, max=0) / t)
        pushes = [torch.exp(torch.clamp(f[i] @ f[j] - (1 - m_p), min=0) / t) for j in range(len(y)) if y[j] != y[i]]
        losses.append(-torch.log(own / (own + sum(pushes))))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_contrastive_losses_are_their_equations(temperature: float) -> None:
    x, proxy = features(1).requires_grad_(), features(2).requires_grad_()
    torch.testing.assert_close(
        conditional_contrastive(x, proxy, Y, temperature), brute_2c(x, proxy, Y, temperature), rtol=1e-10, atol=0
    )
    for margin in (0.5, 0.98):
        found = data_to_data_cross_entropy(x, proxy, Y, temperature, margin)
        torch.testing.assert_close(found, brute_d2d(x, proxy, Y, temperature, margin), rtol=1e-10, atol=0)
    assert torch.autograd.gradcheck(lambda a, b: conditional_contrastive(a, b, Y, temperature), (x, proxy))
    assert torch.autograd.gradcheck(lambda a, b: data_to_data_cross_entropy(a, b, Y, temperature, 0.5), (x, proxy))
    # where the shift is held fixed, as it is in the authors' code, its gradient is no finite difference
    shifted = data_to_data_cross_entropy(x, proxy, Y, temperature, 0.5, shifted=True)
    assert shifted < data_to_data_cross_entropy(x, proxy, Y, temperature, 0.5) or temperature == 1.0


def test_contrastive_losses_have_nothing_to_do_within_one_class() -> None:
    one = torch.zeros(N, dtype=torch.int64)
    assert conditional_contrastive(features(1), features(2), one, 0.5).abs() < 1e-12
    assert data_to_data_cross_entropy(features(1), features(2), one, 0.5, 0.9).abs() < 1e-12
    lonely = conditional_contrastive(features(1)[:1], features(2)[:1], one[:1], 0.5)
    assert lonely == 0


def test_easy_pairs_do_not_pull() -> None:
    """Nearer to the proxy than m_p, farther from others than 1 − m_p: no gradient."""
    x = torch.eye(K, dtype=torch.float64).requires_grad_()  # cosines 0 between classes
    proxy = (torch.eye(K, dtype=torch.float64) + 0.01).requires_grad_()
    loss = data_to_data_cross_entropy(x, proxy, torch.arange(K), 0.5, 0.9)
    loss.backward()
    assert x.grad.abs().max() == proxy.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["2c", "d2d-ce"])
def test_contrastive_heads_and_their_auxiliaries(name: str) -> None:
    def contrast(embedding: Tensor, proxy: Tensor, y: Tensor) -> Tensor:
        if name == "2c":
            return conditional_contrastive(embedding, proxy, y, 0.4)
        return data_to_data_cross_entropy(embedding, proxy, y, 0.4, 0.9, shifted=False)

    keys = {"temperature": 0.4} | ({"margin": 0.9, "shifted": False} if name == "d2d-ce" else {})
    fake_y = (Y + 1) % K
    for auxiliary in (None, "twin", "adc"):
        head = build(name, weight=0.5, generator_weight=0.3, auxiliary=auxiliary, **keys)
        turn = played(head, fake_y)
        real, fake = turn.real_scores.extra, turn.fake_scores.extra
        table = head.proxies.weight
        rows = 2 if auxiliary == "adc" else 1
        torch.testing.assert_close(real["proxy"], table[rows * Y])
        critic = {"contrastive": 0.5 * contrast(real["embedding"], table[rows * Y], Y)}
        generator = {"contrastive": 0.3 * contrast(fake["embedding"], table[rows * fake_y], fake_y)}
        if auxiliary == "twin":
            twin = contrast(head.twin_embed(features(2)), head.twin_proxies.weight[fake_y], fake_y)
            critic["twin"], generator["twin"] = 0.5 * twin, -0.3 * twin
        if auxiliary == "adc":
            as_fake = contrast(fake["embedding"], table[2 * fake_y + 1], fake_y)
            critic["contrastive_fake"], generator["contrastive_fake"] = 0.5 * as_fake, -0.3 * as_fake
        torch.testing.assert_close(head.critic_losses(turn, HINGE), critic)
        torch.testing.assert_close(head.generator_losses(turn, HINGE), generator)


# ---------------------------------------------------------------------------------------- a row per class


def test_multi_hinge_is_the_margin_of_crammer_and_singer() -> None:
    logits = features(3).requires_grad_()
    expected = [
        max(0.0, 1 + max(row[k] for k in range(D) if k != y) - row[y])
        for row, y in zip(logits.tolist(), Y.tolist(), strict=True)
    ]
    torch.testing.assert_close(crammer_singer(logits, Y).item(), sum(expected) / N)
    assert torch.autograd.gradcheck(lambda x: crammer_singer(x, Y), logits)


def test_multi_hinge_head_has_one_class_more() -> None:
    head = build("multi-hinge")
    turn = played(head)
    real, fake = turn.real_scores.extra["class_scores"], turn.fake_scores.extra["class_scores"]
    assert real.shape == (N, K + 1)
    rows = torch.arange(N)
    torch.testing.assert_close(turn.real_scores.logits, real[rows, Y] - real[:, K])
    expected = crammer_singer(real, Y) + crammer_singer(fake, torch.full((N,), K))
    torch.testing.assert_close(head.critic_losses(turn, HINGE), {"adversarial": expected})
    torch.testing.assert_close(head.generator_losses(turn, HINGE), {"adversarial": crammer_singer(fake, Y)})


@pytest.mark.parametrize("target", ["label", "likeliest", "any"])
def test_am_gan_head(target: str) -> None:
    head = build("am-gan", target=target)
    turn = played(head)
    real, fake = turn.real_scores.extra["class_scores"], turn.fake_scores.extra["class_scores"]
    p = fake.softmax(1)
    expected = -log_softmax(real, Y) - p[:, K].log().mean()
    torch.testing.assert_close(head.critic_losses(turn, HINGE), {"adversarial": expected})
    torch.testing.assert_close(torch.sigmoid(turn.fake_scores.logits), 1 - p[:, K])
    chosen = {"label": p.gather(1, Y[:, None])[:, 0], "likeliest": p[:, :K].amax(1), "any": p[:, :K].sum(1)}[target]
    torch.testing.assert_close(head.generator_losses(turn, HINGE), {"adversarial": -chosen.log().mean()})
    assert label_gan(fake) <= activation_maximisation(fake, Y)


def test_each_class_has_a_discriminator_of_its_own() -> None:
    head = build("multi-discriminator")
    scores = head(features(1), Y)
    rows = head.linear.weight[Y]
    torch.testing.assert_close(scores.logits, (features(1) * rows).sum(1) + head.linear.bias[Y])


@pytest.mark.parametrize("network", ["sngan-discriminator", "dcgan-discriminator", "dcgan-deep-discriminator"])
@pytest.mark.parametrize("name", [*LABELLED, "info", "mmd", "san"])
def test_every_head_goes_on_every_body_and_learns(network: str, name: str) -> None:
    tiny = parts.find("network", network).tiny
    spec = image_spec((3, 16, 16), K)
    torch.manual_seed(0)
    critic = parts.build("network", {"use": network, **tiny, "conditioning": {"use": name}}, spec)
    generator = parts.build("network", {"use": "sngan-generator", "width": 8, "z_dim": 8}, spec)
    x, z = torch.rand(N, 3, 16, 16), torch.randn(N, 8)
    nets = {"generator": generator, "discriminator": critic}
    given = Condition(label=Y)
    turn = Turn(
        nets, 0, x, given, Latent(z), given, critic=lambda data, of: critic(data, of.label), generate=generator.make
    )
    head = critic.head
    objective = parts.build("objective", {"use": "by-head" if head.pairing == "own" else "hinge"})
    head.check(objective)
    losses = head.critic_losses(turn, objective)
    loss = sum(losses.values()) + objective.critic(turn.real_scores.logits, turn.fake_scores.logits)
    loss.backward()
    assert loss.isfinite()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in head.parameters())
    assert any(each.grad is not None and each.grad.any() for each in generator.parameters())
    for term in head.generator_losses(turn, objective).values():
        assert term.isfinite()


def test_heads_and_objectives_that_do_not_go_together() -> None:
    nothing = parts.build("objective", {"use": "by-head"})
    for name in ("multi-hinge", "am-gan", "mmd"):
        with pytest.raises(BadValue, match="brings the whole loss") as caught:
            build(name).check(HINGE)
        assert caught.value.hint == "task.objective=by-head"
        build(name).check(nothing)
    for name in ("plain", "projection", "multi-discriminator", "concatenation", "san"):
        with pytest.raises(BadValue, match="without a loss"):
            build(name).check(nothing)
        build(name).check(HINGE)
    for name in ("auxiliary-classifier", "adc", "2c", "info"):
        build(name).check(HINGE)
        build(name).check(nothing)
