"""Every regularizer against its equation, worked out for networks where the answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.recipe.check import check_node
from ganvas.types import NO_CONDITION, Condition, Critic, Generator, Latent, Scores, Turn

N, C, H, W = 6, 2, 4, 4


class Linear(Critic):
    """D(x) = w·x, features = x: every slope is w."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, C * H * W))

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        flat = data.flatten(1)
        return Scores(flat @ self.w, flat)


class Scale(Generator):
    """G(z) = a·z, reshaped to an image."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.a * latent.view(-1, C, H, W)


def turn(
    *, critic: Callable[..., Scores] | None = None, generator: Generator | None = None, step: int = 0, seed: int = 0
) -> Turn:
    """An update with this critic, a network or a function of data and label."""
    random = torch.Generator().manual_seed(seed)
    critic = critic or Linear()
    generator = generator or Scale(0.5)
    latent = Latent(torch.randn(N, C * H * W, generator=random), "z")
    nets = {"generator": generator, "discriminator": critic if isinstance(critic, Critic) else Linear()}
    real = torch.randn(N, C, H, W, generator=random)

    def score(data: Tensor, condition: Condition) -> Scores:
        return critic(data, condition.label)

    return Turn(nets, step, real, NO_CONDITION, latent, NO_CONDITION, score, generator.make)


def regularizer(name: str, **keys: object) -> Callable[[Turn], Tensor]:
    return parts.build("regularizer", check_node("regularizer", {"use": name, **keys}))


def slope() -> Tensor:
    return Linear().w.detach()


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("r1", {}, lambda w: 0.5 * w.square().sum()),
        ("r2", {}, lambda w: 0.5 * w.square().sum()),
        ("gradient-penalty", {}, lambda w: (w.norm() - 1).square()),
        ("gradient-penalty", {"target": 0.0}, lambda w: w.square().sum()),
        ("gradient-penalty", {"target": 100.0, "sides": "one"}, lambda w: 0 * w.sum()),
        ("dragan", {}, lambda w: (w.norm() - 1).square()),
        ("max-gradient-penalty", {}, lambda w: w.square().sum()),
    ],
)
def test_penalties_of_a_linear_critic_are_functions_of_its_weight(
    name: str, keys: dict[str, object], expected: Callable[[Tensor], Tensor]
) -> None:
    assert regularizer(name, **keys)(turn()).item() == pytest.approx(expected(slope()).item(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", ["r1", "r2", "gradient-penalty", "dragan", "max-gradient-penalty"])
def test_the_gradient_of_a_penalty_reaches_the_critic(name: str) -> None:
    critic = Linear()
    regularizer(name)(turn(critic=critic)).backward()
    w = critic.w.detach()
    # d ½‖w‖² = w; d (‖w‖ − 1)² = 2 (‖w‖ − 1) w/‖w‖; d ‖w‖² = 2w
    expected = {"r1": w, "r2": w, "max-gradient-penalty": 2 * w}.get(name, 2 * (w.norm() - 1) * w / w.norm())
    torch.testing.assert_close(critic.w.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_steepest_slope_alone_counts_for_the_max_penalty() -> None:
    """D(x) = ½‖x‖² has slope x, so the penalty is the largest ‖x̂‖² that was drawn, and above the mean of all."""

    def critic(data: Tensor, label: Tensor | None) -> Scores:
        return Scores(0.5 * data.flatten(1).square().sum(1), data.flatten(1))

    torch.manual_seed(0)
    most = regularizer("max-gradient-penalty")(turn(critic=critic)).item()
    torch.manual_seed(0)
    mean = regularizer("gradient-penalty", target=0.0)(turn(critic=critic)).item()
    assert most > mean > 0


def test_consistency_is_zero_for_a_critic_that_does_not_look_at_place_and_positive_for_one_that_does() -> None:
    def blind(data: Tensor, label: Tensor | None) -> Scores:
        return Scores(0 * data.sum((1, 2, 3)), data.flatten(1))

    for name in ("consistency", "balanced-consistency"):
        assert regularizer(name)(turn(critic=blind)).item() == 0
        assert regularizer(name)(turn()).item() > 0


def test_balanced_consistency_sees_generated_data_too() -> None:
    """A critic that reacts to generated data alone is caught by bCR and not by CR."""
    made = turn(generator=Scale(5.0))
    loud = made.fake.abs().max()

    def critic(data: Tensor, label: Tensor | None) -> Scores:
        flat = data.flatten(1)
        return Scores((flat * slope()).sum(1) * (data.abs().amax((1, 2, 3)) > loud / 4), flat)

    made.critic = lambda data, condition: critic(data, condition.label)
    assert regularizer("consistency")(made).item() == 0
    assert regularizer("balanced-consistency")(made).item() > 0


def test_latent_terms_of_linear_maps_have_their_expected_size() -> None:
    """G(z) = a z: E (G(z) − G(z + δ))² = a² std²; D(G) = w·a z: E (…)² = a² std² ‖w‖²."""
    torch.manual_seed(0)
    std, a = 0.1, 0.5
    diversity = torch.stack([regularizer("latent-diversity", std=std)(turn(seed=i)) for i in range(200)]).mean()
    assert diversity.item() == pytest.approx(-((a * std) ** 2), rel=0.05)
    consistency = torch.stack([regularizer("latent-consistency", std=std)(turn(seed=i)) for i in range(400)]).mean()
    assert consistency.item() == pytest.approx((a * std) ** 2 * slope().square().sum().item(), rel=0.1)


def test_mode_seeking_of_a_linear_generator_is_one_over_its_scale_and_large_for_a_collapsed_one() -> None:
    torch.manual_seed(1)  # the turn's own latents are drawn from seed 0
    assert regularizer("mode-seeking")(turn(generator=Scale(2.0))).item() == pytest.approx(0.5, rel=1e-4)
    assert regularizer("mode-seeking")(turn(generator=Scale(0.0))).item() == pytest.approx(1e5, rel=1e-3)


def test_feature_matching_is_the_squared_distance_of_means() -> None:
    made = turn()
    expected = (made.real.flatten(1).mean(0) - made.fake.flatten(1).mean(0)).square().sum()
    assert regularizer("feature-matching")(made).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 0.0), (0.05, 2 * 0.0025)])
def test_adaptivemix_of_linear_features_is_the_noise_alone(noise: float, expected: float) -> None:
    torch.manual_seed(0)
    term = torch.stack([regularizer("adaptivemix", noise=noise)(turn(seed=i)) for i in range(100)]).mean()
    assert term.item() == pytest.approx(expected, rel=0.05, abs=1e-10)


def test_adaptivemix_sends_no_gradient_through_its_target() -> None:
    """Features f·x: with a target that carried gradient, d/df of (f x_m − (λ f x_a + …))² would be zero."""

    class Features(Critic):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Parameter(torch.tensor(2.0))

        def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
            flat = self.f * data.flatten(1)
            return Scores(flat.sum(1), flat)

    critic = Features()
    torch.manual_seed(0)
    regularizer("adaptivemix", noise=0.5)(turn(critic=critic)).backward()
    assert critic.f.grad is not None and critic.f.grad.abs() > 1e-4


@pytest.mark.parametrize("clip", [True, False])
def test_lecam_pulls_each_side_to_the_average_of_the_other_and_resumes(clip: bool) -> None:
    term = regularizer("lecam", decay=0.5, clip=clip)
    first, second = turn(seed=1, step=1), turn(seed=2, step=2)
    real, fake = first.real_scores.logits, first.fake_scores.logits
    above, below = real - fake.mean(), real.mean() - fake
    if clip:
        above, below = above.relu(), below.relu()
    expected = above.square().mean() + below.square().mean()
    assert term(first).item() == pytest.approx(expected.item(), rel=1e-5)
    resumed = regularizer("lecam", decay=0.5, clip=clip)
    resumed.load_state_dict(term.state_dict())  # type: ignore[attr-defined]
    assert resumed(second).item() == term(second).item()
    assert term.real_average == pytest.approx(  # type: ignore[attr-defined]
        0.5 * real.mean().item() + 0.5 * second.real_scores.logits.mean().item(), rel=1e-5
    )


def test_lecam_waits_for_its_start_with_the_means_of_the_last_batch() -> None:
    term = regularizer("lecam", start=10, decay=0.9, clip=False)
    assert term(turn(step=8, seed=1)).item() == 0
    last = turn(step=9, seed=2)
    assert term(last).item() == 0
    assert term.real_average == pytest.approx(last.real_scores.logits.mean().item(), rel=1e-5)  # type: ignore[attr-defined]
    at_start = turn(step=10, seed=3)
    assert term(at_start).item() == 0
    moved = 0.9 * last.real_scores.logits.mean().item() + 0.1 * at_start.real_scores.logits.mean().item()
    assert term.real_average == pytest.approx(moved, rel=1e-4)  # type: ignore[attr-defined]
    assert term(turn(step=11, seed=4)).item() > 0


def test_path_length_of_a_linear_generator_is_its_scale() -> None:
    """J = a I: ‖Jᵀ y‖ = a ‖y‖ with ‖y‖² ~ χ²(C·H·W)/(H·W), so E length² = a² C; the mean is kept for resume."""
    torch.manual_seed(0)
    term = regularizer("path-length", decay=1e-12)
    mean_square = torch.stack([term(turn(generator=Scale(3.0), seed=i)) for i in range(100)]).mean()
    assert mean_square.item() == pytest.approx(9 * C, rel=0.05)
    moving = regularizer("path-length", decay=0.5)
    moving(turn(generator=Scale(3.0)))
    resumed = regularizer("path-length", decay=0.5)
    resumed.load_state_dict(moving.state_dict())  # type: ignore[attr-defined]
    assert resumed.state_dict() == moving.state_dict() != {"mean": 0.0}  # type: ignore[attr-defined]


def test_path_length_learns_through_the_mean_by_its_share() -> None:
    """loss = E (l − m)² with m = (1 − d) m₀ + d E l; for equal lengths l the slope in l is 2 (1 − d)² l from m₀ = 0."""
    generator = Scale(3.0)
    term = regularizer("path-length", decay=0.25)
    loss = term(turn(generator=generator, seed=0))
    (slope,) = torch.autograd.grad(loss, generator.a)
    torch.manual_seed(0)
    # l = a ‖y‖ for every datum: loss = a² E (‖y‖ − d E ‖y‖)², whose slope in a is 2 loss / a
    assert slope.item() == pytest.approx(2 * loss.item() / 3.0, rel=1e-4)


def test_dragan_looks_at_all_distances_from_the_data() -> None:
    """With every draw 1 the point is x + scale · std · 1, with the share of a datum 0 it is x itself."""
    from ganvas.nn import draws

    term, made = regularizer("dragan", scale=0.5), turn(seed=1)
    points: list[torch.Tensor] = []
    critic = made.critic
    made.critic = lambda data, condition: points.append(data.detach()) or critic(data, condition)  # type: ignore[func-returns-value]
    for share in (0.0, 1.0):
        with draws.fed(lambda name, shape, share=share: torch.full(shape, share if name == "interpolation" else 1.0)):
            term(made)
    torch.testing.assert_close(points[0], made.real)
    torch.testing.assert_close(points[1], made.real + 0.5 * made.real.std())


def test_orthogonal_is_zero_for_orthogonal_filters_and_the_squared_overlap_otherwise() -> None:
    layer = nn.Linear(3, 2, bias=False)
    made = turn(generator=_generator(layer))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0]]))
    assert regularizer("orthogonal")(made).item() == 0
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0]]))
    assert regularizer("orthogonal")(made).item() == pytest.approx(2 * 6.0**2)  # both off-diagonal entries are 2·3


def test_historical_averaging_is_the_distance_to_the_mean_of_all_past_weights_and_resumes() -> None:
    critic = Linear()
    made = turn(critic=critic)
    term = regularizer("historical-averaging")
    seen = []
    for number in range(4):
        with torch.no_grad():
            critic.w.fill_(float(number))
        seen.append(float(number))
        value = term(made)
        mean = sum(seen) / len(seen)
        assert value.item() == pytest.approx(C * H * W * (number - mean) ** 2, rel=1e-5)
    resumed = regularizer("historical-averaging")
    resumed.load_state_dict(term.state_dict())  # type: ignore[attr-defined]
    assert resumed(made).item() == term(made).item()


def test_radial_spectrum_equals_a_loop_over_rings_and_the_term_is_smallest_where_spectra_agree() -> None:
    from ganvas.shelves.regularizers.spectrum import ring_weights

    weights = ring_weights(8, 8)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(5))
    constant = torch.fft.rfft2(torch.ones(8, 8), norm="ortho").abs().square()
    assert (weights[0] * constant).sum().item() == pytest.approx(64.0)  # all its power is at radius 0
    assert (weights[2:] * constant).sum().item() == pytest.approx(0, abs=1e-6)

    def term_for(fake: Tensor) -> float:
        made = turn()
        made.real, made.generate = smooth, lambda point, label: fake
        return regularizer("spectral-distribution")(made).item()

    torch.manual_seed(0)
    smooth = nn.functional.avg_pool2d(torch.randn(32, 1, 18, 18), 3, stride=1)
    alike = nn.functional.avg_pool2d(torch.randn(32, 1, 18, 18), 3, stride=1)
    assert term_for(alike) < term_for(torch.randn(32, 1, 16, 16))


def test_the_spectral_term_reaches_the_generator() -> None:
    generator = nn.Sequential(nn.Unflatten(1, (C, H, W)), nn.Conv2d(C, C, 3, padding=1))
    regularizer("spectral-distribution")(turn(generator=_generator(generator))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in generator.parameters() if parameter.dim() > 1)


def _generator(net: nn.Module) -> Generator:
    class Wrapped(Generator):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
            return self.net(latent)

    return Wrapped()
