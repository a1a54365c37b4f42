"""Samplers of denoisers along every path, on data whose best denoiser is known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import ganvas
from ganvas import parts
from ganvas.errors import MissingCapability, UsageError
from ganvas.nn.diffusion import Chain
from ganvas.nn.guidance import path_of
from ganvas.parts import data_spec, image_spec
from ganvas.recipe.check import check_node
from ganvas.types import ConditionSpec, Denoiser, Latent, LatentSpec, Path, label_of

MEAN, STD = 0.4, 0.3
PLANE = data_spec("plane", (2,))
DIFFUSION = {"use": "linear-ddpm", "predicts": "data"}
FLOW = {"use": "rectified-flow"}


class Exact(Denoiser):
    """What data of N(MEAN, STD^2) are expected to be, given x_t, said in the path's own terms."""

    calls = 0

    def __init__(self, path: Path, *, says: str) -> None:
        super().__init__()
        self.path, self.says = path, says

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        self.calls += 1
        alpha, sigma = self.path.scales(level, x)
        clean = MEAN + alpha * STD**2 * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        return clean if self.says == "data" else (x - clean) / sigma


def model_of(path: Mapping[str, Any], net: Denoiser | None = None, spec: Any = PLANE) -> ganvas.Model:
    node = check_node("path", dict(path))
    net = net or Exact(parts.build("path", node), says="data" if path["use"] == "linear-ddpm" else "velocity")
    recipe = {"task": {"use": "denoise", "path": node}, "sampler": check_node("sampler", "ddim")}
    return ganvas.Model(recipe, spec, {"denoiser": net})


def end(model: ganvas.Model, start: Tensor, **node: Any) -> Tensor:
    """Where a sampler leads points to, all in one pass and without cutting them."""
    sampler = parts.build("sampler", {"clip": False, **node})
    made: Tensor = sampler(model, Latent(start), ganvas.types.NO_CONDITION, torch.Generator().manual_seed(1))
    return made


PATHS = pytest.mark.parametrize("path", [DIFFUSION, FLOW], ids=["ddpm", "flow"])


@PATHS
@pytest.mark.parametrize(
    "sampler",
    [{"use": "ddpm"}, {"use": "ddpm", "variance": "small"}, {"use": "ddim"}, {"use": "ddim", "eta": 1.0},
     {"use": "euler"}, {"use": "heun", "steps": 50}],
    ids=lambda node: "-".join(map(str, node.values())),
)  # fmt: skip
def test_samples_are_spread_as_the_data_are(path: Mapping[str, Any], sampler: Mapping[str, Any]) -> None:
    points = end(model_of(path), torch.randn(4096, 2, generator=torch.Generator().manual_seed(3)),
                 **{"steps": 200, **sampler})  # fmt: skip
    assert abs(points.mean().item() - MEAN) < 0.01
    assert abs(points.std().item() - STD) < 0.02  # the least variance is that of data without any, so 0.283 here


@PATHS
def test_euler_is_of_first_order_and_heun_of_second(path: Mapping[str, Any]) -> None:
    model = model_of(path)
    start = model.noise(LatentSpec((2,)), 64, seed=0).double()

    # The transport of a Gaussian is known: numbers keep their place in units of the spread.
    alpha, sigma = (each[0].item() for each in path_of(model).at(path_of(model).levels(1)))
    spread = (alpha**2 * STD**2 + sigma**2) ** 0.5
    truth = MEAN + STD * (sigma * start - alpha * MEAN) / spread
    errors = {
        use: [(end(model, start, use=use, steps=steps) - truth).abs().mean().item() for steps in (16, 32)]
        for use in ("euler", "heun")
    }
    assert 1.6 < errors["euler"][0] / errors["euler"][1] < 2.5
    assert errors["heun"][0] / errors["heun"][1] > 2.8
    assert errors["heun"][0] < errors["euler"][0]


def test_euler_is_ddim_without_new_noise_and_heun_calls_twice_but_for_the_last_step() -> None:
    for path in (DIFFUSION, FLOW):
        model = model_of(path)
        euler, ddim = (model.sample(8, sampler={"use": use, "steps": 7, "clip": False}) for use in ("euler", "ddim"))
        torch.testing.assert_close(euler, ddim, rtol=1e-4, atol=1e-5)
    net = model.nets["denoiser"]
    net.calls = 0
    model.sample(8, sampler={"use": "heun", "steps": 7})
    assert net.calls == 13


def test_eta_of_one_is_ancestral_sampling_with_the_least_variance() -> None:
    path = parts.build("path", check_node("path", "linear-ddpm"))
    chain = Chain(*path.at(path.levels(20)))
    torch.manual_seed(0)
    x, x_t, noise = torch.randn(3, 5, 2, dtype=torch.float64)
    for k in range(19):
        one = chain.ancestral(k, x, x_t, chain.log_least[k].item(), noise)
        torch.testing.assert_close(one, chain.implicit(k, x, x_t, 1.0, noise))
    assert torch.allclose(chain.ancestral(19, x, x_t, 0.0, noise), x)


@PATHS
@pytest.mark.parametrize("sampler", [{"use": "ddpm"}, {"use": "ddim"}, {"use": "ddim", "eta": 0.5}, {"use": "heun"}])
def test_a_sample_depends_neither_on_how_many_there_are_nor_on_the_batch(
    path: Mapping[str, Any], sampler: Mapping[str, Any]
) -> None:
    model = model_of(path)
    node = {**sampler, "steps": 4}
    many = model.sample(130, seed=5, sampler=node)
    for n, batch in ((3, 64), (130, 7), (70, 200)):
        torch.testing.assert_close(model.sample(n, seed=5, sampler=node, batch=batch), many[:n], rtol=0, atol=1e-6)
    assert not torch.allclose(model.sample(3, seed=6, sampler=node), many[:3])


def test_levels_may_be_given_and_must_lie_on_the_path() -> None:
    model = model_of(DIFFUSION)
    even = model.sample(4, sampler={"use": "ddim", "steps": 4})
    assert torch.equal(model.sample(4, sampler={"use": "ddim", "levels": [999, 666, 333, 0]}), even)
    with pytest.raises(UsageError, match="do not fall"):
        model.sample(1, sampler={"use": "ddim", "levels": [5, 5]})
    with pytest.raises(UsageError, match="level 1000 does not lie"):
        model.sample(1, sampler={"use": "ddim", "levels": [1000, 5]})
    with pytest.raises(ganvas.errors.BadValue, match="2000 steps"):
        model.sample(1, sampler={"use": "ddim", "steps": 2000})


# ------------------------------------------------------------------------------------------- guidance


class Asked(Denoiser):
    """Predicts the class's number in every channel, and without a class -1 (a null class) or 0 (no class at all)."""

    conditional = True

    def __init__(self, null: bool) -> None:
        super().__init__()
        self.null = null

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        said = torch.zeros(len(x)) if label is None else torch.where(label == 9, -1.0, label.float())
        return said.view(-1, 1, 1, 1).expand_as(x).to(x)

    def without(self, condition: ganvas.types.Condition) -> ganvas.types.Condition:
        if not self.null:
            return super().without(condition)
        return ganvas.types.Condition(label=torch.full_like(condition["label"], 9))


@pytest.mark.parametrize(("null", "nothing"), [(True, -1.0), (False, 0.0)])
def test_guidance_moves_away_from_what_is_predicted_of_nothing(null: bool, nothing: float) -> None:
    model = model_of(DIFFUSION, Asked(null), image_spec((4, 2, 2), num_classes=9))

    def made(**keys: object) -> Tensor:
        sampler = parts.build("sampler", check_node("sampler", {"use": "ddim", "steps": 2, "clip": False, **keys}))
        start = Latent(torch.randn(3, 4, 2, 2))
        return sampler(model, start, model.conditions(3, seed=0, label=[1, 2, 3]), torch.Generator())[:, :, 0, 0]

    label = torch.tensor([[1.0], [2.0], [3.0]])
    torch.testing.assert_close(made(), label.expand(3, 4), rtol=1e-4, atol=1e-4)
    moved = nothing + 3 * (label - nothing)
    torch.testing.assert_close(made(guidance=3.0), moved.expand(3, 4), rtol=1e-4, atol=1e-4)
    some = torch.cat([moved.expand(3, 3), label], dim=1)
    torch.testing.assert_close(made(guidance=3.0, guided_channels=3), some, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("part", parts.every("path"), ids=lambda part: part.name)
def test_a_path_leads_from_noise_to_data_and_its_target_leads_back(part: parts.Part) -> None:
    path: Path = parts.build("path", check_node("path", part.name))
    levels = path.levels(10)
    alpha, sigma = path.at(levels)
    assert levels.dtype == alpha.dtype == sigma.dtype == torch.float64
    assert (alpha[-1], sigma[-1]) == (1, 0)
    ratio = sigma / alpha.clamp(min=1e-12)
    assert all(high > low for high, low in itertools.pairwise(ratio.tolist()))
    assert ratio[0] > 100
    torch.manual_seed(0)
    x, noise = torch.randn(64, 2), torch.randn(64, 2)
    level = path.draw_level(64, x)
    assert level.shape == (64,)
    x_t = path.noisy(x, noise, level)
    prediction = path.target(x, noise, level)
    back = path.denoised(prediction, x_t, level)
    assert ((back - x).abs() * path.scales(level, x)[0] <= 1e-5).all()
    assert path.losses(prediction, x, noise, x_t, level)["mse"] == 0


@pytest.mark.parametrize("use", ["linear-ddpm", "cosine-ddpm"])
@pytest.mark.parametrize("predicts", ["noise", "data", "velocity"])
def test_min_snr_weights_the_error_in_the_data_alike_whatever_is_predicted(use: str, predicts: str) -> None:
    path = parts.build("path", {"use": use, "predicts": predicts, "min_snr": 5.0})
    torch.manual_seed(0)
    x, noise = torch.randn(2, 1, 4, dtype=torch.float64)
    for t in (20.0, 400.0, 800.0):
        level = torch.tensor([t], dtype=torch.float64)
        x_t = path.noisy(x, noise, level)
        prediction = path.target(x, noise, level) + 0.1
        error = (path.denoised(prediction, x_t, level) - x).square().mean()
        alpha, sigma = path.at(level)
        weight = (alpha / sigma).square().clamp(max=5.0)
        torch.testing.assert_close(path.losses(prediction, x, noise, x_t, level)["mse"], (weight * error).squeeze())


def test_logit_normal_times_are_more_often_in_the_middle() -> None:
    torch.manual_seed(0)
    times = parts.build("path", {"use": "rectified-flow", "times": "logit-normal"}).draw_level(4000, torch.empty(0))
    assert ((times - 0.5).abs() < 0.25).float().mean() > 0.68


# ------------------------------------------------------------------------------------------- what is refused


class Latented(Asked):
    """A denoiser that says it has latents, which tempted version 0.1 to feed it the label as a time."""

    latents = {"z": LatentSpec((4, 2, 2))}  # noqa: RUF012


def test_no_latent_sampler_takes_a_denoiser_for_a_generator() -> None:
    spec = image_spec((4, 2, 2), num_classes=9)
    for net, words in ((Asked(null=True), "needs latent spaces"), (Latented(null=True), "level by level")):
        model = model_of(DIFFUSION, net, spec)
        for sampler in ("plain", "truncated"):
            with pytest.raises(MissingCapability, match=words):
                model.sample(2, sampler=sampler)


def test_a_generator_has_no_path_to_go_along() -> None:
    resolved = ganvas.Recipe.load("tiny/digits").resolve()
    spec = image_spec((1, 8, 8), num_classes=10)
    net = parts.build("network", {key: each for key, each in resolved["networks"]["generator"].items()
                                  if key not in ("from", "freeze", "net")}, spec)  # fmt: skip
    with pytest.raises(MissingCapability, match="needs a denoiser"):
        ganvas.Model(resolved, spec, {"generator": net}).sample(2, sampler="ddim")


def test_conditions_of_any_kind_can_be_dropped_and_needed_ones_stay() -> None:
    class Given(Asked):
        def forward(self, x: Tensor, level: Tensor, low: Tensor, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return x

    low, label = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    assert list(Given(null=False).without(ganvas.types.Condition(low=low, label=label))) == ["low"]
    spec = data_spec("plane", (2,), {"low": ConditionSpec((1,)), **label_of(9)})
    task = {"use": "denoise", "path": DIFFUSION, "condition_dropout": 0.1}
    with pytest.raises(ganvas.errors.BadValue, match="lack of 'label'"):
        parts.build("task", task, {"denoiser": Given(null=False)}, ganvas.types.Facts(spec))
