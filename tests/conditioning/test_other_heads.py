"""Concatenation, InfoGAN's Q, kernel critics and SAN against their equations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.nn.codes import codes_of
from ganvas.nn.maxout import Maxout
from ganvas.nn.san import SANConv, SANEmbedding, SANLinear
from ganvas.parts import image_spec
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.conditioning.info import normal_negative_log_likelihood
from ganvas.shelves.conditioning.kernel import ALPHAS, BANDWIDTHS, mmd2
from ganvas.training.check import check
from ganvas.types import Condition, Facts, Generator, Latent, LatentSpec, Scores, Turn

K, D, N = 4, 6, 8
SPEC = image_spec((1, 8, 8), num_classes=K)
Y = torch.tensor([0, 1, 2, 3, 0, 1, 1, 2])
HINGE = parts.build("objective", {"use": "hinge"})


class Drawn(Generator):
    """As much of a generator as a head looks at."""

    def __init__(self, prior: str = "normal") -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((9,), prior)}

    def forward(self, latent: Tensor) -> Tensor:
        return latent


def build(name: str, **keys: object) -> nn.Module:
    torch.manual_seed(0)
    return parts.build("conditioning", {"use": name, **keys}, D, SPEC, lambda layer: layer).double()


def features(seed: int, n: int = N) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turn_of(real: Scores, fake: Scores, latent: Tensor | None = None, prior: str = "normal") -> Turn:
    z = Latent(features(9) if latent is None else latent)
    given = Condition(label=Y)
    turn = Turn({"generator": Drawn(prior)}, 0, real.features, given, z, given, critic=None, generate=None)
    turn.real_scores, turn.fake_scores = real, fake
    return turn


# ---------------------------------------------------------------------------------------- concatenation


def test_maxout_is_the_maximum_over_pieces() -> None:
    layer = Maxout(D, 3, 5, lambda each: each).double()
    x = features(1)
    pieces = torch.stack([x @ layer.linear.weight[j::5].T + layer.linear.bias[j::5] for j in range(5)])
    torch.testing.assert_close(layer(x), pieces.max(0).values)


def test_concatenation_joins_the_label_before_the_last_hidden_layer() -> None:
    head = build("concatenation", width=7, label_width=3)
    x = features(1)
    joined = torch.cat([x, head.of_label(F.one_hot(Y, K).double())], 1)
    torch.testing.assert_close(head(x, Y).logits, head.linear(head.joint(joined)).squeeze(1))
    assert not torch.allclose(head(x, Y).logits, head(x, (Y + 1) % K).logits)


# ---------------------------------------------------------------------------------------- InfoGAN


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_codes_have_the_distribution_that_they_should(prior: str) -> None:
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, 5, generator=rng)
    if prior == "uniform":
        z = z.uniform_(-1, 1, generator=rng)
    categories, values = codes_of(z, (10, 3), 2, prior)
    for column, size in zip(categories.unbind(1), (10, 3), strict=True):
        share = column.bincount(minlength=size) / len(z)
        assert (share - 1 / size).abs().max() < 0.015
    assert values.abs().max() <= 1
    assert values.mean(0).abs().max() < 0.02
    assert (values.var(0) - 1 / 3).abs().max() < 0.01
    assert codes_of(torch.full((1, 2), 9.0), (10,), 1)[0].item() == 9  # the last category, also at u = 1


def test_codes_do_not_fit_a_short_latent() -> None:
    with pytest.raises(UsageError, match="length 2 cannot hold 3"):
        codes_of(torch.zeros(1, 2), (10,), 2)


def test_likelihood_of_continuous_codes() -> None:
    c, mean, variance = features(1), features(2).requires_grad_(), (0.1 + features(3).square()).requires_grad_()
    density = torch.distributions.Normal(mean, variance.sqrt()).log_prob(c)
    torch.testing.assert_close(normal_negative_log_likelihood(c, mean, variance), -density.sum(1).mean())
    assert torch.autograd.gradcheck(lambda m, v: normal_negative_log_likelihood(c, m, v), (mean, variance))


@pytest.mark.parametrize(("discrete", "continuous"), [((4, 3), 0), ((), 2), ((5,), 3)])
def test_info_head_asks_for_the_codes_of_the_latent(discrete: tuple[int, ...], continuous: int) -> None:
    head = build("info", discrete=list(discrete), continuous=continuous, weight=0.7, continuous_weight=0.2)
    z = torch.randn(N, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turn = turn_of(head(features(1)), head(features(2)), z)
    categories, values = codes_of(z, discrete, continuous)
    expected = {}
    if discrete:
        logits = head.categories(features(2)).split(discrete, 1)
        loss = sum(F.cross_entropy(each, c) for each, c in zip(logits, categories.unbind(1), strict=True))
        expected["discrete_codes"] = 0.7 * loss
    if continuous:
        variance = head.log_variance(features(2)).exp()
        expected["continuous_codes"] = 0.2 * normal_negative_log_likelihood(values, head.mean(features(2)), variance)
    torch.testing.assert_close(head.critic_losses(turn, HINGE), expected)
    torch.testing.assert_close(head.generator_losses(turn, HINGE), expected)


def test_info_without_codes_is_refused() -> None:
    with pytest.raises(BadValue, match="without codes"):
        build("info", discrete=[], continuous=0)


# ---------------------------------------------------------------------------------------- kernels


def k(x: Tensor, y: Tensor, name: str) -> float:
    square = ((x - y) ** 2).sum().item()
    if name == "energy":
        return -math.sqrt(square)
    if name == "gaussian":
        return sum(math.exp(-square / (2 * sigma**2)) for sigma in BANDWIDTHS)
    return sum((1 + square / (2 * alpha)) ** -alpha for alpha in ALPHAS)


@pytest.mark.parametrize("name", ["gaussian", "rational-quadratic", "energy"])
def test_mmd_is_its_double_sum(name: str) -> None:
    x, y = features(1, 5), features(2, 4) + 0.5
    within = [
        sum(k(a, b, name) for a, b in itertools.permutations(side, 2)) / (len(side) * (len(side) - 1))
        for side in (x, y)
    ]
    between = sum(k(a, b, name) for a, b in itertools.product(x, y)) / 20
    torch.testing.assert_close(mmd2(x, y, name).item(), sum(within) - 2 * between)
    assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, name), (x.requires_grad_(), y.requires_grad_()))
    same = x.detach().clone().requires_grad_()
    mmd2(same, x.detach(), name).backward()
    assert same.grad.isfinite().all()
    with pytest.raises(UsageError, match="two or more"):
        mmd2(x[:1], y, name)


def test_mmd_is_unbiased_and_tells_a_shift() -> None:
    rng = torch.Generator().manual_seed(0)
    draws = torch.randn(300, 2, 16, 2, generator=rng)
    for name in ("gaussian", "rational-quadratic", "energy"):
        equal = torch.stack([mmd2(x, y, name) for x, y in draws])
        moved = torch.stack([mmd2(x, y + 1, name) for x, y in draws])
        assert equal.mean().abs() < 4 * equal.std() / math.sqrt(300)
        assert moved.mean() > 10 * moved.std() / math.sqrt(300)


def test_mmd_players_fight_over_the_distance() -> None:
    head = build("mmd", dim=3)
    turn = turn_of(head(features(1)), head(features(2) + 1))
    distance = mmd2(head.linear(features(1)), head.linear(features(2) + 1), "rational-quadratic")
    torch.testing.assert_close(head.critic_losses(turn, HINGE), {"adversarial": -distance})
    torch.testing.assert_close(head.generator_losses(turn, HINGE), {"adversarial": distance})


# ---------------------------------------------------------------------------------------- SAN


def layers() -> dict[str, tuple[nn.Module, nn.Module, Tensor]]:
    torch.manual_seed(0)
    linear, conv = nn.Linear(D, 3).double(), nn.Conv2d(2, 3, 3, padding=1).double()
    table = nn.Embedding(K, D).double()
    return {
        "linear": (linear, SANLinear(linear), features(1)),
        "conv": (conv, SANConv(conv), torch.randn(2, 2, 5, 5, dtype=torch.float64)),
        "embedding": (table, SANEmbedding(table), Y),
    }


@pytest.mark.parametrize("name", ["linear", "conv", "embedding"])
def test_san_layers_start_as_the_layer_they_replace_and_route_gradients(name: str) -> None:
    plain, san, x = layers()[name]
    bias = getattr(plain, "bias", None)
    shape = (-1, 1, 1) if name == "conv" else (-1,)
    expected = plain(x) - (0 if bias is None else bias.view(shape))
    torch.testing.assert_close(san(x), expected)  # the bias on the input starts at 0
    torch.testing.assert_close(san.direction(x), expected)
    if name != "embedding":
        x = x.clone().requires_grad_()
    kick = torch.randn_like(expected)
    (san(x) * kick).sum().backward()
    assert san.weight.grad is None or not san.weight.grad.any()
    assert san.scale.grad.any()
    scale_gradient = san.scale.grad.clone()
    if name != "embedding":
        assert x.grad.any()
        x.grad = None
    (san.direction(x) * kick).sum().backward()
    torch.testing.assert_close(san.scale.grad, scale_gradient)  # nothing came on top
    if name != "embedding":
        assert not (x.grad is not None and x.grad.any())
    rows = (san.weight.grad.flatten(1) * san.weight.flatten(1)).sum(1)
    assert rows.abs().max() < 1e-12  # at right angles to the direction


def test_normalising_keeps_the_function() -> None:
    _, san, x = layers()["linear"]
    with torch.no_grad():
        san.weight.mul_(torch.tensor([[2.0], [0.1], [7.0]]))
    before = san(x)
    san.normalize()
    torch.testing.assert_close(san(x), before)
    torch.testing.assert_close(san.weight.norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("inner", ["plain", "auxiliary-classifier", "multi-discriminator", "concatenation", "info"])
def test_san_over_other_heads(inner: str) -> None:
    head, own = build("san", head={"use": inner}), build(inner)
    for module in (head, own):
        for each in module.modules():
            if isinstance(each, nn.Linear) and each.bias is not None:
                nn.init.zeros_(each.bias)
    scores, turn = head(features(1), Y), turn_of(head(features(1), Y), head(features(2), Y))
    torch.testing.assert_close(scores.logits, own(features(1), Y).logits)
    torch.testing.assert_close(scores.extra["direction"], scores.logits)
    terms = head.critic_losses(turn, HINGE)
    expected = turn.fake_scores.logits.mean() - turn.real_scores.logits.mean()  # Wasserstein, for hinge
    torch.testing.assert_close(terms.pop("direction"), expected)
    theirs = own.critic_losses(turn_of(own(features(1), Y), own(features(2), Y)), HINGE)
    torch.testing.assert_close(terms, theirs)
    assert head.generator_losses(turn, HINGE).keys() == theirs.keys()
    assert all("direction" not in name for name, _ in head.named_buffers())


def test_direction_of_a_non_saturating_san_is_weighted_by_the_generators_slope() -> None:
    head, softplus = build("san"), parts.build("objective", {"use": "non-saturating"})
    turn = turn_of(head(features(1)), head(features(2)))
    (found,) = torch.autograd.grad(head.critic_losses(turn, softplus)["direction"], [head.last.weight])

    def pull(x: Tensor, t: Tensor) -> Tensor:
        """d/dω of E R_3(s ω·h) at a unit ω, with R_3'(t) = −σ(−t), less its part along ω."""
        ambient = (-torch.sigmoid(-t)[:, None] * head.last.scale * x).mean(0)
        omega = head.last.weight[0]
        return ambient - (ambient @ omega) * omega

    t_real, t_fake = turn.real_scores.logits, turn.fake_scores.logits
    torch.testing.assert_close(found[0], pull(features(1), t_real) - pull(features(2), t_fake))


@pytest.mark.parametrize("of", ["hinge", "non-saturating"])
def test_leaving_generated_data_out_of_the_generators_loss_is_nothing_to_the_direction(of: str) -> None:
    """Top-k's critic sees the whole batch (Sinha et al. 2020, algorithm 1); the direction learns with it."""
    head = build("san")
    top_k = parts.build("objective", {"use": "top-k", "of": {"use": of}, "floor": 0.25, "decay": 0.25, "every": 1})
    plain = parts.build("objective", {"use": of})
    turn = turn_of(head(features(1)), head(features(2)))
    turn.step = 1
    top_k.observe(turn)
    assert top_k.k(N) == 2
    head.check(top_k)
    for objective in (top_k, plain):
        found = head.critic_losses(turn, objective)["direction"]
        torch.testing.assert_close(found, head.critic_losses(turn, plain)["direction"], rtol=0, atol=0)
    with pytest.raises(BadValue, match="compares pairs"):
        head.check(parts.build("objective", {"use": "top-k", "of": {"use": "relativistic-average"}}))


COMPARING = [
    "{use: mmd, dim: 4}", "{use: level, head: mmd}", "{use: minibatch-std, head: mmd}", "{use: 2c, embedding_dim: 4}",
    "{use: d2d-ce, embedding_dim: 4}",
]  # fmt: skip


@pytest.mark.parametrize("head", COMPARING)
def test_passes_of_one_datum_are_refused_at_check_where_data_are_compared(head: str) -> None:
    objective = "by-head" if "mmd" in head else "hinge"
    keys = (f"networks.discriminator.conditioning={head}", f"task.objective={objective}", "train.batch=8", "eval=~")
    recipe = Recipe.load("tiny/digits").override(*keys)
    check(recipe)
    with pytest.raises(BadValue, match="compares 2 or more data of one pass") as refused:
        check(recipe.override("train.accumulate=5"))  # pieces of 2 and of 1
    assert "train.accumulate" in refused.value.where
    assert refused.value.hint == "train.accumulate=4"
    check(recipe.override("train.accumulate=4"))
    with pytest.raises(BadValue, match="compares 2 or more"):
        check(recipe.override("train.batch=1"))


def test_what_san_cannot_normalise_is_refused() -> None:
    for inner in ("projection", "multi-hinge", "mmd", "san"):
        with pytest.raises(BadValue, match=f"{inner!r} is not one row"):
            build("san", head={"use": inner})
    with pytest.raises(BadValue, match="compares pairs"):
        build("san").check(parts.build("objective", {"use": "relativistic-paired"}))


def test_san_layer_is_outside_weight_normalisation_and_unit_after_each_step() -> None:
    spec = image_spec((1, 8, 8), K)
    torch.manual_seed(0)
    critic = {"use": "sngan-discriminator", "width": 8, "conditioning": {"use": "san"}}
    nets = {
        "generator": parts.build("network", {"use": "sngan-generator", "width": 8, "z_dim": 4}, spec),
        "discriminator": parts.build("network", critic, spec),
    }
    task = parts.build("task", {"use": "adversarial", "objective": {"use": "hinge"}}, nets, Facts(spec))
    last = nets["discriminator"].head.last
    assert {name for name, _ in last.named_parameters()} == {"weight", "scale", "bias"}
    with torch.no_grad():
        last.weight.mul_(3)
    task.updates()[0].after(spec.stand_in(4))
    torch.testing.assert_close(last.weight.norm(), torch.tensor(1.0))
