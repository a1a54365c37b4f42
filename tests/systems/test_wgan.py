"""WGAN (Arjovsky et al. 2017): the distance that its critic estimates, and what the clipped critic makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from plane_toys import RING, modes_of, network, pair, points, samples, train_pair
from scipy.optimize import linear_sum_assignment
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from ganvas import parts
from ganvas.parts import data_spec
from ganvas.recipe.check import check_node
from ganvas.types import Batch, Facts

pytestmark = pytest.mark.system("wgan")

WASSERSTEIN = parts.build("objective", {"use": "wasserstein"})


def exact_w1(x: Tensor, y: Tensor) -> float:
    """Between two equally large sets of points (N, D), by the best assignment."""
    cost = torch.cdist(x, y).numpy()
    return float(cost[linear_sum_assignment(cost)].mean())


# ------------------------------------------------------------------------------------------- exact


def test_weights_lie_within_the_limit_after_every_critic_step() -> None:
    nets, limit = pair(), 0.03
    node = {
        "use": "adversarial", "objective": "wasserstein", "critic_steps": 3,
        "regularizers": {"weight-clipping": {"limit": limit}},
    }  # fmt: skip
    task = parts.build("task", check_node("task", node), nets, Facts(data_spec("plane", (2,))))
    critic, generator = task.updates()
    assert critic.nets == ("discriminator",)
    assert critic.repeat == 3
    assert generator.after is None  # the generator's weights are free
    optim = torch.optim.RMSprop(nets["discriminator"].parameters(), lr=0.01)
    for step in range(10):
        optim.zero_grad()
        batch = Batch(points(64))
        torch.stack(list(critic.losses(batch, step).values())).sum().backward()
        optim.step()
        moved = max(parameter.abs().max().item() for parameter in nets["discriminator"].parameters())
        assert moved > limit  # it has left the box, and is brought back
        critic.after(batch)
        assert all((parameter.abs() <= limit).all() for parameter in nets["discriminator"].parameters())


@pytest.mark.parametrize("constant", [-7.0, 0.25, 300.0])
def test_critic_loss_does_not_see_a_constant(constant: float) -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 50, dtype=torch.float64)
    shifted = WASSERSTEIN.critic(real + constant, fake + constant)
    torch.testing.assert_close(shifted, WASSERSTEIN.critic(real, fake), rtol=0, atol=1e-12)


@pytest.mark.parametrize("theta", [-1.0, -0.25, 0.01, 0.5, 3.0])
def test_parallel_lines_are_theta_apart_for_w_and_log_2_for_js(theta: float) -> None:
    """Example 1: p is (0, u), q is (θ, u), u ~ U(0, 1). The supports are disjoint, so that densities never overlap."""
    u = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = (torch.stack([torch.full_like(u, x), u], 1) for x in (0.0, theta))
    assert exact_w1(p, q) == pytest.approx(abs(theta), rel=1e-12)
    # f(x) = sign(θ) x₁ is 1-Lipschitz and reaches the distance: the dual that the objective states is the primal.
    f = math.copysign(1, theta)
    assert -WASSERSTEIN.critic(f * q[:, 0], f * p[:, 0]).item() == pytest.approx(abs(theta), rel=1e-12)
    # On the histogram over both lines, JS = ½ KL(p ‖ m) + ½ KL(q ‖ m) is log 2 whatever θ is.
    line = np.full(100, 1 / 100)
    left, right = np.concatenate([line, 0 * line]), np.concatenate([0 * line, line])
    middle = (left + right) / 2

    def kl(a: np.ndarray) -> float:
        return float((a[a > 0] * np.log(a[a > 0] / middle[a > 0])).sum())

    js = 0.5 * kl(left) + 0.5 * kl(right)
    assert js == pytest.approx(math.log(2), abs=1e-12)
    # A perfect critic of the logistic pair reaches that bound, 2 JS − 2 log 2 = 0, and gives no slope towards θ.
    pair_ = parts.build("objective", {"use": "saturating"})
    sure = torch.full((8,), 60.0, requires_grad=True)
    loss = pair_.generator(sure.new_empty(0), -sure)
    assert loss.item() == pytest.approx(2 * js - 2 * math.log(2), abs=1e-9)
    (slope,) = torch.autograd.grad(loss, sure)
    assert slope.abs().max() < 1e-20


# ------------------------------------------------------------------------------------------- toys


def clipped_estimate(shift: float, seed: int) -> float:
    """−L_D of a clipped critic trained between N(0, 1) and N(shift, 1), whose W₁ is |shift|."""
    torch.manual_seed(seed)
    critic = network("mlp-discriminator", data_spec("plane", (1,)), width=32, depth=2)
    clip, optim = parts.build("regularizer", {"use": "weight-clipping", "limit": 0.1}), None
    optim = torch.optim.RMSprop(critic.parameters(), lr=2e-3)
    last = []
    for step in range(300):
        loss = WASSERSTEIN.critic(critic(torch.randn(256, 1)).logits, critic(torch.randn(256, 1) + shift).logits)
        optim.zero_grad()
        loss.backward()
        optim.step()
        clip.apply(critic)
        if step >= 250:
            last.append(-loss.item())
    return sum(last) / len(last)


@pytest.mark.slow
def test_clipped_estimate_is_monotone_in_the_distance_of_shifted_gaussians() -> None:
    shifts = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    for seed in range(3):
        found = [clipped_estimate(shift, seed) for shift in shifts]
        assert spearmanr(shifts, found).statistic >= 0.95, found


class Curve:
    """Exact W₁ between 256 samples and 256 data, every 25 steps of a run."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.exact: list[float] = []
        self.real = points(256)

    def __call__(self, step: int, nets: Mapping[str, nn.Module]) -> None:
        if step % 25 == 24:
            with torch.random.fork_rng():
                self.steps.append(step)
                self.exact.append(exact_w1(samples(nets["generator"], 256), self.real))


def smooth_estimates(losses: list[float], steps: list[int]) -> list[float]:
    """−L_D at these steps, each a mean of the 25 up to it."""
    smooth = np.convolve(-np.array(losses), np.ones(25) / 25, mode="valid")
    return [smooth[step - 24] for step in steps]


# The correlation is that of ranks, as above: 0.95, 0.90, 0.89 a seed with 10 critic steps, 0.90, 0.70, 0.88 with 5.
# Pearson's was 0.70, 0.85, 0.70 in this run: the Lipschitz constant, which scales the estimate, still grows while the
# weights move to their bounds, and the generator is quicker than the critic. See the test after this one.
@pytest.mark.slow
def test_eight_gaussians_are_covered_where_the_saturating_pair_collapses_and_the_loss_follows_the_distance() -> None:
    modes: dict[str, list[int]] = {"wasserstein": [], "saturating": []}
    correlations = []
    for seed in range(3):
        curve = Curve()
        nets, losses = train_pair(
            "wasserstein", {"weight-clipping": {"limit": 0.1}}, seed=seed, steps=800, critic_steps=10, lr=5e-4,
            betas=None, warm_up=(25, 100), watch=curve,
        )  # fmt: skip
        modes["wasserstein"].append(modes_of(nets["generator"])[0])
        correlations.append(spearmanr(smooth_estimates(losses, curve.steps), curve.exact).statistic)
        nets, _ = train_pair("saturating", {}, seed=seed, steps=2000)
        modes["saturating"].append(modes_of(nets["generator"])[0])
    print(f"modes {modes}, rank correlations {np.round(correlations, 3).tolist()}")  # noqa: T201
    assert min(modes["wasserstein"]) >= 6, modes
    assert min(modes["saturating"]) <= len(RING) / 2, modes
    assert min(correlations) >= 0.8, correlations


@pytest.mark.slow
def test_loss_is_in_proportion_to_the_distance_where_the_critic_is_kept_near_its_optimum() -> None:
    """Algorithm 1 trains the critic till it is optimal: 800 steps ahead, then at fifty times the generator's rate."""
    correlations, falls = [], []
    for seed in range(3):
        curve = Curve()
        _, losses = train_pair(
            "wasserstein", {"weight-clipping": {"limit": 0.2}}, seed=seed, steps=1500, critic_steps=5, lr=1e-3,
            generator_lr=2e-5, betas=None, warm_up=(1, 800), watch=curve,
        )  # fmt: skip
        correlations.append(float(pearsonr(smooth_estimates(losses, curve.steps), curve.exact).statistic))
        falls.append((curve.exact[0], curve.exact[-1]))
    print(f"Pearson {np.round(correlations, 3).tolist()}, distance from and to {np.round(falls, 2).tolist()}")  # noqa: T201
    assert min(correlations) >= 0.8, correlations
    assert all(last < 0.6 * first for first, last in falls)  # there is something to follow
