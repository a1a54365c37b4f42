"""Are GANs created equal? (Lucic et al. 2018): losses by hand, the budget curve, exact precision and recall, the study.

The known manifold is our `shapes` instead of their triangles: its factors are read off an image exactly, where
theirs are searched for by gradient descent.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ganvas import parts
from ganvas.experiments import study
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics.shapes_exact import shapes_precision_recall
from ganvas.toys import shapes
from ganvas.types import NO_CONDITION, Critic, Latent, Scores, Turn

pytestmark = pytest.mark.system("gans-created-equal")

# ------------------------------------------------------------------------------------------- the losses


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# name: (critic's loss, its gradients at the real and the fake logit, generator's loss, its gradient), of single logits.
BY_HAND: dict[str, tuple[Callable[[float, float], float], ...]] = {
    "saturating": (
        lambda r, f: -math.log(sigma(r)) - math.log(1 - sigma(f)), lambda r, f: sigma(r) - 1, lambda r, f: sigma(f),
        lambda r, f: math.log(1 - sigma(f)), lambda r, f: -sigma(f),
    ),
    "non-saturating": (
        lambda r, f: -math.log(sigma(r)) - math.log(1 - sigma(f)), lambda r, f: sigma(r) - 1, lambda r, f: sigma(f),
        lambda r, f: -math.log(sigma(f)), lambda r, f: sigma(f) - 1,
    ),
    # Half of what Lucic et al. write, as in Mao et al. 2017; with Adam the scale of a loss changes nothing.
    "least-squares": (
        lambda r, f: ((r - 1) ** 2 + f**2) / 2, lambda r, f: r - 1, lambda r, f: f,
        lambda r, f: (f - 1) ** 2 / 2, lambda r, f: f - 1,
    ),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -1.0, lambda r, f: 1.0, lambda r, f: -f, lambda r, f: -1.0),
    "hinge": (
        lambda r, f: max(0, 1 - r) + max(0, 1 + f), lambda r, f: -float(r < 1), lambda r, f: float(f > -1),
        lambda r, f: -f, lambda r, f: -1.0,
    ),
}  # fmt: skip


def test_began_balances_its_two_errors_by_hand() -> None:
    """l(x) = 0.8 and l(G) = 0.2, as logits −0.8 and −0.2; k is moved, clipped and saved."""
    began = parts.build("objective", {"use": "began", "gamma": 0.5, "rate": 0.1})
    real, fake = torch.tensor([-0.6, -1.0], requires_grad=True), torch.tensor([-0.1, -0.3], requires_grad=True)
    turn = Turn({}, 0, real, NO_CONDITION, Latent(real), NO_CONDITION, critic=None, generate=None)  # type: ignore[arg-type]
    turn.real_scores, turn.fake_scores = Scores(real, real[:, None]), Scores(fake, fake[:, None])
    assert began.critic(real, fake).item() == pytest.approx(0.8)  # k = 0: real images alone
    began.observe(turn)
    assert began.k == pytest.approx(0.1 * (0.5 * 0.8 - 0.2))
    began.k = 0.3
    loss = began.critic(real, fake)
    assert loss.item() == pytest.approx(0.8 - 0.3 * 0.2)
    to_real, to_fake = torch.autograd.grad(loss, [real, fake])
    assert to_real.tolist() == pytest.approx([-0.5, -0.5]) and to_fake.tolist() == pytest.approx([0.15, 0.15])
    assert began.generator(real, fake).item() == pytest.approx(0.2)
    turn.fake_scores = Scores(torch.tensor([-90.0]), fake[:, None])
    began.observe(turn)
    assert began.k == 0.0  # generated images are rebuilt far worse: the critic leaves them alone
    turn.real_scores = Scores(torch.tensor([-9000.0]), real[:, None])
    began.observe(turn)
    assert began.k == 1.0
    again = parts.build("objective", {"use": "began"})
    again.load_state_dict(began.state_dict())
    assert again.k == 1.0


def test_began_judges_by_how_well_it_rebuilds() -> None:
    torch.manual_seed(0)
    critic = parts.build("network", {"use": "began-discriminator", "width": 4, "hidden": 8}, image_spec((1, 8, 8)))
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    scores = critic(images)
    rebuilt = critic.decoder(scores.features)
    torch.testing.assert_close(scores.logits, -(images - rebuilt).abs().mean((1, 2, 3)))


@pytest.mark.parametrize("name", BY_HAND)
@given(r=st.floats(-6, 6), f=st.floats(-6, 6))
def test_values_and_gradients_of_single_logits_by_hand(name: str, r: float, f: float) -> None:
    if name == "hinge" and (r == 1 or f == -1):
        return  # at the kink there is no gradient
    critic, at_real, at_fake, generator, at_generated = BY_HAND[name]
    loss = parts.build("objective", {"use": name})
    real, fake = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (r, f))
    value = loss.critic(real, fake)
    value.backward()
    assert value.item() == pytest.approx(critic(r, f), abs=1e-6)
    assert real.grad.item() == pytest.approx(at_real(r, f), abs=1e-6)
    assert fake.grad.item() == pytest.approx(at_fake(r, f), abs=1e-6)
    fake.grad = None
    value = loss.generator(real.detach(), fake)
    value.backward()
    assert value.item() == pytest.approx(generator(r, f), abs=1e-6)
    assert fake.grad.item() == pytest.approx(at_generated(r, f), abs=1e-6)


class Linear(Critic):
    """D(x) = w · x: its slope is w everywhere."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        return Scores(data.flatten(1) @ self.w, data.flatten(1))


def penalty(name: str, critic: Linear, real: Tensor, fake: Tensor) -> Tensor:
    turn = Turn(
        nets={}, step=0, real=real, condition=NO_CONDITION,
        latent=Latent(torch.zeros(len(real), 1)), fake_condition=NO_CONDITION,
        critic=lambda data, condition: critic(data), generate=lambda latent, condition: fake,
    )  # fmt: skip
    found: Tensor = parts.build("regularizer", {"use": name})(turn)
    return found


@pytest.mark.parametrize("name", ["dragan", "gradient-penalty"])
def test_penalties_of_a_linear_critic_vanish_at_unit_slope_alone(name: str) -> None:
    w, real, fake = torch.randn(12), torch.randn(6, 3, 2, 2), torch.randn(6, 3, 2, 2)
    for slope in (1.0, 0.3, 2.5):
        found = penalty(name, Linear(slope * w / w.norm()), real, fake)
        assert found.item() == pytest.approx((slope - 1) ** 2, abs=1e-6)


def test_clipped_weights_stay_within_their_limit() -> None:
    critic = Linear(torch.tensor([-3.0, -0.05, 0.02, 0.4]))
    parts.build("regularizer", {"use": "weight-clipping", "limit": 0.05}).apply(critic)
    assert critic.w.tolist() == pytest.approx([-0.05, -0.05, 0.02, 0.05])


# ------------------------------------------------------------------------------------------- the budget curve


@given(st.lists(st.floats(0, 100), min_size=1, max_size=4), st.integers(1, 4))
def test_the_expected_best_is_the_mean_of_the_least_of_all_draws(scores: list[float], budget: int) -> None:
    draws = [min(draw) for draw in itertools.product(scores, repeat=budget)]
    assert study.expected_best(scores, budget) == pytest.approx(np.mean(draws), rel=1e-9, abs=1e-9)


def test_the_expected_best_falls_to_the_least_and_is_what_a_bootstrap_tends_to() -> None:
    rng = np.random.default_rng(0)
    scores = list(rng.lognormal(size=30))
    curve = [study.expected_best(scores, budget) for budget in range(1, 200)]
    assert (np.diff(curve) < 0).all()
    assert curve[0] == pytest.approx(np.mean(scores)) and curve[-1] == pytest.approx(min(scores), rel=1e-2)
    drawn = rng.choice(scores, size=(40_000, 5)).min(1)
    assert curve[4] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 200)


# ------------------------------------------------------------------------------------------- the known manifold


def test_a_perfect_sampler_has_both_and_a_constant_one_no_recall() -> None:
    real = shapes.draw(shapes.random_factors(4000, 0), 16)
    perfect = shapes.draw(shapes.random_factors(8000, 1), 16)
    assert shapes_precision_recall(real, perfect) == (1.0, 1.0)
    precision, recall = shapes_precision_recall(real, real[:1].repeat(8000, 0))
    assert precision == 1.0 and recall == pytest.approx(1 / shapes.num_cells)
    noise = np.random.default_rng(0).integers(0, 256, real.shape, dtype=np.uint8)
    assert shapes_precision_recall(real, noise) == (0.0, 0.0)


# ------------------------------------------------------------------------------------------- the study


def test_every_gan_of_the_study_has_the_same_networks_settings_and_seeds() -> None:
    plan = study.load("gans-created-equal")
    assert len(plan.grid["gan"]) == 7 and len(plan.seeds) == 5 and set(plan.grid["data"]) == {"shapes", "digits"}
    # Tuning seeds do not count, and no cell has more of them than another.
    assert not set(plan.tune_seeds) & set(plan.seeds)
    resolved = [recipe.resolve() for recipe in study.cells_of(plan).values()]
    for key in ("networks", "optim", "train", "ema"):
        assert all(each[key] == resolved[0][key] for each in resolved)
    assert study.columns(plan, "shapes").keys() > study.columns(plan, "digits").keys()


@pytest.mark.slow
def test_four_gans_by_three_seeds_end_in_one_table(tmp_path: Path) -> None:
    """End to end on 16x16 shapes, at a fiftieth of the steps."""
    whole = study.load("gans-created-equal")
    gans = ("non-saturating", "least-squares", "wasserstein with penalty", "DRAGAN")
    short = ("train.steps=20", "train.checkpoint_every=20", "train.sample_every=20")
    grid = {"data": {"shapes": whole.grid["data"]["shapes"]}, "gan": {name: whole.grid["gan"][name] for name in gans}}
    plan = dataclasses.replace(whole, overrides=whole.overrides + short, grid=grid, tune={}, seeds=(0, 1, 2))
    failed = study.execute(plan, tmp_path, jobs=1, threads=1, tell=lambda *_: None)
    found = study.lines(plan, tmp_path, failed)
    assert {line.labels[1] for line in found} == set(gans)
    assert all(len(line.values["shapes_recall"].values) == 3 for line in found)
    text = study.table(plan, found)
    print(text)  # noqa: T201
    assert text.startswith("## shapes") and "shapes_precision ↑" in text and text.count("\n| ") == 1 + 4


def test_the_part_that_measures_it_reads_images_alone() -> None:
    assert parts.build("metric", check_node("metric", "shapes-exact")).needs == {"images"}
