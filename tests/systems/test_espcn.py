"""Super-resolution on pairs: the network that makes images of small ones, its task, and the road around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import ganvas
from ganvas import parts
from ganvas.cli.sample import named
from ganvas.errors import BadValue, DataError, MissingCapability, UsageError
from ganvas.evaluation.judge import judge_for
from ganvas.evaluation.protocol import load_protocol
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.recipe.trained import Weights
from ganvas.training.check import check
from ganvas.training.session import first_of
from ganvas.training.train import train
from ganvas.types import Batch, Condition, ConditionSpec, DataSpec, Facts, Network, Translator

RECIPE = "tiny/digits-super-resolution"
ADVERSARIAL = (
    "networks.generator={use: espcn, widths: [8], residual: true}",
    "networks.discriminator={use: pair-discriminator, width: 8}",
    "task={use: adversarial, objective: hinge, regularizers: {pixel: {weight: 10.0}}}",
)


def pair_spec(high: tuple[int, ...], low: tuple[int, ...] | None) -> DataSpec:
    spec = image_spec(high, 10)
    small = {} if low is None else {"low": ConditionSpec(low, 0, spec.modality)}
    return DataSpec(spec.shape, spec.modality, {**spec.conditions, **small})


def built(name: str, high: tuple[int, ...], low: tuple[int, ...] | None, **keys: object) -> Network:
    torch.manual_seed(0)
    return parts.build("network", check_node("network", {"use": name, **keys}), pair_spec(high, low))


def held_out() -> Batch:
    """500 digits and their 4x4 copies, which no training has seen."""
    data = parts.build("dataset", load_protocol("digits-pairs")["reference"])
    return first_of(data, len(data))


def decibels(real: Tensor, made: Tensor) -> float:
    """Mean peak signal-to-noise ratio of images (N, C, H, W) as bytes."""
    one, other = (((each.clamp(-1, 1) + 1) * 127.5).round() for each in (real, made))
    error = (one - other).square().flatten(1).mean(1).clamp_min(1 / 12)
    return float((10 * (255**2 / error).log10()).mean())


# --------------------------------------------------------------------------------------------------- the networks


@pytest.mark.parametrize(
    ("high", "low"), [((1, 8, 8), (1, 4, 4)), ((3, 24, 12), (1, 8, 4)), ((3, 16, 16), (3, 16, 16))]
)
def test_sizes_are_exact(high: tuple[int, ...], low: tuple[int, ...]) -> None:
    for name in ("espcn", "pair-discriminator"):
        net, spec = built(name, high, low), pair_spec(high, low)
        example = net.example(spec, 3, torch.Generator().manual_seed(0))
        assert net.faults(net(*example.given, **example.condition), spec, 3) == []


def test_every_pixel_is_made_of_the_small_ones_around_it() -> None:
    """The receptive field of a 5x5 and a 3x3 convolution is 7x7 small pixels: 3 on each side."""
    net = built("espcn", (1, 36, 36), (1, 18, 18), widths=[8])
    low = torch.zeros(1, 1, 18, 18)
    lit = low.clone()
    lit[0, 0, 9, 9] = 1
    reached = (net(low=low) != net(low=lit))[0, 0].nonzero()
    assert reached.min(0).values.tolist() == [2 * 6, 2 * 6]
    assert reached.max(0).values.tolist() == [2 * 12 + 1, 2 * 12 + 1]


def test_parameters_are_those_of_the_paper() -> None:
    """Shi et al. 2016, section 3.1: (5, 64), (3, 32), (3, 1 r^2) on one channel."""
    net = built("espcn", (1, 9, 9), (1, 3, 3))
    wanted = (25 * 64 + 64) + (64 * 9 * 32 + 32) + (32 * 9 * 9 + 9)
    assert sum(each.numel() for each in net.parameters()) == wanted


def test_a_residual_network_begins_as_the_bicubic_enlargement() -> None:
    net = built("espcn", (3, 16, 16), (3, 8, 8), residual=True)
    low = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(net(low=low), F.interpolate(low, scale_factor=2, mode="bicubic").clamp(-1, 1))


def test_the_critic_looks_at_both() -> None:
    net = built("pair-discriminator", (3, 16, 16), (3, 8, 8), width=8)
    data, low = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 8, 8)
    scores = net(data, low=low).logits
    assert not torch.allclose(scores, net(data.flip(0), low=low).logits)
    assert not torch.allclose(scores, net(data, low=low.flip(0)).logits)


@pytest.mark.parametrize(
    ("high", "low", "problem"),
    [
        ((1, 8, 8), (1, 3, 3), "3x3 .* cannot be enlarged to 8x8 by one whole factor"),
        ((1, 8, 8), (1, 4, 2), "4x2 .* cannot be enlarged to 8x8"),
        ((1, 8, 8), (1, 16, 16), "16x16 .* cannot be enlarged to 8x8"),
        ((1, 8, 8), None, "it enlarges a condition 'low'; the data come with label"),
        ((1, 8, 8), (16,), "it enlarges images"),
    ],
)
def test_what_cannot_be_enlarged_is_refused(high: tuple[int, ...], low: tuple[int, ...] | None, problem: str) -> None:
    for name in ("espcn", "pair-discriminator"):
        with pytest.raises(BadValue, match=problem) as refused:
            built(name, high, low)
        assert refused.value.hint


def test_nothing_is_added_to_other_channels() -> None:
    with pytest.raises(BadValue, match="nothing can be added to 1 channels to make 3"):
        built("espcn", (3, 8, 8), (1, 4, 4), residual=True)


# --------------------------------------------------------------------------------------------------- the task


class Constant(Translator):
    """Makes 0.5 of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, low: Tensor) -> Tensor:
        return self.value.expand(len(low), 1, 8, 8)


def test_distances_are_what_they_are_called() -> None:
    spec = pair_spec((1, 8, 8), (1, 4, 4))
    node = {"use": "regress", "l1": 2.0, "l2": 3.0, "charbonnier": 5.0, "epsilon": 0.5}
    task = parts.build("task", check_node("task", node), {"generator": Constant()}, Facts(spec))
    batch = Batch(torch.full((2, 1, 8, 8), -0.5), Condition(low=torch.zeros(2, 1, 4, 4)))
    (update,) = task.updates()
    losses = {name: float(loss.detach()) for name, loss in update.losses(batch, 0).items()}
    assert losses == pytest.approx({"l1": 2.0, "l2": 3.0, "charbonnier": 5 * 1.25**0.5})
    task.knobs()["l1"](0.5)
    assert float(update.losses(batch, 0)["l1"].detach()) == pytest.approx(0.5)


def test_a_task_without_a_distance_is_refused() -> None:
    with pytest.raises(BadValue, match="all weigh nothing"):
        node = check_node("task", {"use": "regress", "l2": 0.0})
        parts.build("task", node, {"generator": Constant()}, Facts(pair_spec((1, 8, 8), (1, 4, 4))))


# --------------------------------------------------------------------------------------------------- the road


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("espcn") / "run"
    steps = ("train.steps=6", "train.checkpoint_every=6", "train.sample_every=6", "eval=~", "data.data.limit=200",
             "data.given.limit=200")  # fmt: skip
    train(RECIPE, *steps, out=folder, device="cpu")
    return folder


def test_a_model_makes_one_image_of_each_small_one(run: Path) -> None:
    model = ganvas.load(run)
    low = held_out().condition["low"][:5]
    made = model.transform(low)
    assert made.shape == (5, 1, 8, 8)
    assert torch.equal(made, model.sample(5, condition={"low": low}, seed=9))  # there is no chance in it
    torch.testing.assert_close(model.sample(5, condition={"low": low}, batch=2), made, rtol=0, atol=1e-5)
    four = model.sample(4, condition={"low": low[2:3]})
    torch.testing.assert_close(four, made[2:3].expand(4, -1, -1, -1), rtol=0, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(made, model.maker(low=low).clamp(-1, 1))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (None, "makes data of a 'low' \\(1, 4, 4\\), and none is given"),
        ((3, 1, 4, 4), "3 values of condition 'low' for 4 samples"),
        ((4, 1, 3, 4), "condition 'low' is \\(4, 1, 3, 4\\), and should be \\(N, 1, 4, 4\\)"),
        ((1, 4, 4), "condition 'low' is \\(1, 4, 4\\), and should be \\(N, 1, 4, 4\\)"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(run: Path, shape: tuple[int, ...] | None, problem: str) -> None:
    model = ganvas.load(run)
    with pytest.raises(UsageError, match=problem):
        model.sample(4, condition=None if shape is None else {"low": torch.zeros(shape)})


def test_a_name_that_is_no_condition_is_told_with_those_that_there_are(run: Path, tmp_path: Path) -> None:
    model = ganvas.load(run)
    with pytest.raises(UsageError, match="does not read 'large'; it reads low") as refused:
        named("large=small/", model, ("low",), "--given")
    assert refused.value.hint == "--given low=small/"
    assert named("low=small/", model, ("low",), "--given") == ("low", "small/")
    place = tmp_path / "large=small"
    place.mkdir()
    assert named(str(place), model, ("low",), "--given") == ("low", str(place))  # a folder may be called so


def test_conditions_of_another_type_are_refused(run: Path) -> None:
    model = ganvas.load(run)
    low = torch.zeros(4, 1, 4, 4)
    with pytest.raises(UsageError, match=r"condition 'low' is torch\.uint8"):
        model.transform(low.byte())
    with pytest.raises(UsageError, match=r"a tensor \(4, 1, 4, 4\) by itself is not class labels"):
        model.sample(4, condition=low)
    assert torch.equal(model.transform(low.double()), model.transform(low))


def test_samplers_of_latents_refuse_a_translator(run: Path) -> None:
    with pytest.raises(MissingCapability, match="needs latent spaces"):
        ganvas.load(run).sample(2, condition={"low": torch.zeros(2, 1, 4, 4)}, sampler="truncated")


@pytest.mark.filterwarnings("ignore:.*smaller than the window")
def test_a_score_compares_each_image_with_its_own_original(run: Path) -> None:
    model, pairs = ganvas.load(run), held_out()
    rules = load_protocol("digits-pairs")
    rules["metrics"] = {"psnr": rules["metrics"]["psnr"]}
    judge = judge_for(rules, model.recipe["data"])
    (row,) = judge.score_model(model)
    assert row["value"] == pytest.approx(decibels(pairs.data, model.transform(pairs.condition["low"])), abs=1e-3)
    assert row["low"] < row["value"] < row["high"]
    assert (row["n_real"], row["n_fake"]) == (500, 500)


def test_a_reference_without_the_condition_is_refused(run: Path) -> None:
    model = ganvas.load(run)
    with pytest.raises(DataError, match=r"makes its data of a condition 'low' \(1, 4, 4\), which the reference"):
        judge_for(load_protocol("digits"), model.recipe["data"]).score_model(model)
    with pytest.raises(DataError, match="which the reference does not have"):
        check(Recipe.load(RECIPE, ["eval.protocol=digits"]))


def test_a_critic_of_pairs_teaches_it_beside_the_pixels() -> None:
    resolved = Recipe.load(RECIPE, ADVERSARIAL).resolve()
    spec = pair_spec((1, 8, 8), (1, 4, 4))
    nets = {role: entry.part for role, entry in parts.build_set("network", resolved["networks"], Weights, spec).items()}
    task = parts.build("task", resolved["task"], nets, Facts(spec))
    batch = first_of(parts.build("dataset", resolved["data"]), 8)
    for update in task.updates():
        losses = update.losses(batch, 0)
        wanted = {"adversarial", "pixel"} if update.nets == ("generator",) else {"adversarial"}
        assert losses.keys() == wanted
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for role in update.nets for parameter in nets[role].parameters())
    made = nets["generator"](low=batch.condition["low"])
    assert float(losses["pixel"].detach()) == pytest.approx(10 * float((made - batch.data).abs().mean().detach()))


# --------------------------------------------------------------------------------------------------- what it learns


def learned(folder: Path, *overrides: str) -> float:
    model = train(
        RECIPE, "train.steps=600", "train.batch=32", "train.checkpoint_every=600", "train.sample_every=600", "eval=~",
        *overrides, out=folder, device="cpu",
    )  # fmt: skip
    pairs = held_out()
    return decibels(pairs.data, model.transform(pairs.condition["low"]))


@pytest.mark.slow
def test_it_learns_more_than_bicubic_enlargement_knows(tmp_path: Path) -> None:
    """On held-out digits: 16.7 dB after 600 steps at widths 16 and 8, where bicubic enlargement has 13.4."""
    pairs = held_out()
    bicubic = decibels(pairs.data, F.interpolate(pairs.condition["low"], scale_factor=2, mode="bicubic"))
    assert 13.0 < bicubic < 13.8
    assert learned(tmp_path / "run") > bicubic + 2


@pytest.mark.slow
def test_pairs_that_do_not_belong_together_teach_nothing(tmp_path: Path) -> None:
    """The same network on random partners learns less than bicubic enlargement knows without learning."""
    unrelated = "data={use: unpaired, data: {use: digits}, other: {use: digits, size: 4}, name: low}"
    pairs = held_out()
    bicubic = decibels(pairs.data, F.interpolate(pairs.condition["low"], scale_factor=2, mode="bicubic"))
    assert learned(tmp_path / "run", unrelated) < bicubic - 1
    assert np.isfinite(bicubic)
