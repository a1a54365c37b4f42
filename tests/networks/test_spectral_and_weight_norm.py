"""Weight normalisations: spectral norm's options and its value in the log, and weight norm that starts from data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import BadValue, GanvasError
from ganvas.files.files import read_rows
from ganvas.nn.init import layer_init, normal, orthogonal
from ganvas.nn.spectral import PowerIteration, SpectralNorm, learnt_weight, spectral, spectral_values
from ganvas.nn.weight_norm import WeightNorm, weight_norm
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.training.check import check
from ganvas.training.session import Watcher
from ganvas.training.train import train

SPEC = image_spec((1, 16, 16), 5)
LAYERS = {
    "linear": lambda: nn.Linear(7, 5),
    "conv": lambda: nn.Conv2d(3, 6, 3, padding=1),
    "transposed": lambda: nn.ConvTranspose2d(3, 6, 4, stride=2, padding=1),
    "embedding": lambda: nn.Embedding(5, 8),
}


def build(name: str, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    node = check_node("network", {"use": name, **parts.find("network", name).tiny, **keys})
    net: nn.Module = parts.build("network", node, SPEC)
    return net


def matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    return (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)


# ------------------------------------------------------------------------------------------- spectral norm

SPECTRAL = [
    ("sngan-generator", {"spectral_norm": True}),
    ("sngan-discriminator", {"norm": "spectral"}),
    ("dcgan-discriminator", {"norm": "spectral"}),
    ("dcgan-deep-generator", {"spectral_norm": True}),
    ("dcgan-deep-discriminator", {"norm": "spectral"}),
    ("biggan-generator", {"spectral_norm": True}),
    ("biggan-discriminator", {"norm": "spectral"}),
    ("biggan-deep-generator", {"spectral_norm": True}),
    ("biggan-deep-discriminator", {"norm": "spectral"}),
    ("mlp-discriminator", {"norm": "spectral"}),
]


@pytest.mark.parametrize(("name", "keys"), SPECTRAL, ids=[name for name, _ in SPECTRAL])
def test_power_iteration_reaches_every_layer_from_a_recipe(name: str, keys: dict[str, Any]) -> None:
    net = build(name, **keys, power_iteration={"iterations": 3, "eps": 1e-10})
    norms = [module for module in net.modules() if isinstance(module, SpectralNorm)]
    assert norms
    assert {(norm.iterations, norm.eps) for norm in norms} == {(3, 1e-10)}
    plain = [module for module in build(name, **keys).modules() if isinstance(module, SpectralNorm)]
    assert {(norm.iterations, norm.eps) for norm in plain} == {(1, 1e-6)}


@pytest.mark.parametrize(("name", "keys"), SPECTRAL, ids=[name for name, _ in SPECTRAL])
def test_power_iteration_without_spectral_norm_is_refused(name: str, keys: dict[str, Any]) -> None:
    (key,) = keys
    with pytest.raises(BadValue, match="this network has none"):
        build(name, **{key: "none" if key == "norm" else False}, power_iteration={"iterations": 2})


def test_so_many_iterations_are_as_many_forwards_of_one() -> None:
    torch.manual_seed(0)
    one = spectral(nn.Linear(30, 20))
    three = copy.deepcopy(one)
    norm = three.parametrizations["weight"][0]
    norm.iterations = 3
    with torch.no_grad():
        for layer in (one, three):
            learnt_weight(layer).normal_(generator=torch.Generator().manual_seed(1))
        for _ in range(3):
            found = one.weight
        torch.testing.assert_close(three.weight, found, rtol=0, atol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_value_is_the_largest_singular_value_of_the_learnt_weight_and_the_layer_s_own_is_1(kind: str) -> None:
    torch.manual_seed(0)
    layer = spectral(LAYERS[kind](), PowerIteration(iterations=200))
    ((_, value),) = spectral_values(layer, iterations=200)
    exact = torch.linalg.svdvals(matrix(layer, learnt_weight(layer)))[0].item()
    assert value == pytest.approx(exact, rel=1e-3)
    assert torch.linalg.svdvals(matrix(layer, layer.weight))[0].item() == pytest.approx(1, abs=1e-3)
    bare = LAYERS[kind]()
    ((_, value),) = spectral_values(bare, iterations=500)  # without spectral norm there is no vector to start from
    assert value == pytest.approx(torch.linalg.svdvals(matrix(bare, bare.weight))[0].item(), rel=1e-3)


def test_looking_changes_nothing() -> None:
    net = build("sngan-discriminator")
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(3)
    dict(spectral_values(net, 5))
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(3)))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


TINY = (
    "train.steps=4", "train.batch=8", "train.log_every=4", "train.checkpoint_every=2", "data.limit=40", "eval=~",
)  # fmt: skip
GAUGE = "task.regularizers={spectral-values: {iterations: 2000, of: layers}}"


class PullPlug(Watcher):
    def tick(self, step: int, values: object) -> None:
        if step == 3:
            raise KeyboardInterrupt


def test_log_has_the_singular_values_of_the_run_s_weights_interrupted_or_not(tmp_path: Path) -> None:
    model = train("tiny/digits", *TINY, GAUGE, out=tmp_path / "run", device="cpu")
    rows = read_rows(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows] == [4]
    exact = {
        name: torch.linalg.svdvals(matrix(layer, learnt_weight(layer)))[0].item()
        for name, layer in model.nets["discriminator"].named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Embedding))
    }
    start = "discriminator.spectral-values."
    found = {key.removeprefix(start): value for key, value in rows[-1].items() if key.startswith(start)}
    overall = {"max": max(exact.values()), "mean": sum(exact.values()) / len(exact)}
    assert found == pytest.approx({**exact, **overall}, rel=1e-3)
    with pytest.raises(KeyboardInterrupt):
        train("tiny/digits", *TINY, GAUGE, out=tmp_path / "broken", device="cpu", watcher=PullPlug())
    train("tiny/digits", *TINY, GAUGE, out=tmp_path / "broken", device="cpu", resume=True)
    assert read_rows(tmp_path / "broken" / "log.jsonl") == rows


def test_a_gauge_has_no_weight_and_no_every() -> None:
    for key in ("weight", "every"):
        override = f"task.regularizers={{spectral-values: {{{key}: 2}}}}"
        with pytest.raises(GanvasError, match="is only read; it has no weight and no every"):
            check(Recipe.load("tiny/digits").override(override))


# ------------------------------------------------------------------------------------------- weight norm


@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_first_batch_comes_out_with_mean_0_and_variance_1_and_only_the_first_counts(kind: str) -> None:
    torch.manual_seed(0)
    layer = weight_norm(LAYERS[kind]()).train()
    shape = (64, 7) if kind == "linear" else (16, 3, 8, 8)
    x, others = 3 * torch.randn(shape) + 1, torch.randn(shape)
    out = layer(x).transpose(0, 1).flatten(1)  # (C, N · ...)
    torch.testing.assert_close(out.mean(1), torch.zeros(len(out)), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(1, correction=0), torch.ones(len(out)), rtol=1e-4, atol=0)
    before = copy.deepcopy(layer.state_dict())
    layer(others)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_without_a_bias_the_variance_is_1_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    layer = weight_norm(nn.Linear(7, 5, bias=False)).train()
    out = layer(torch.randn(64, 7) + 2)
    torch.testing.assert_close(out.var(0, correction=0), torch.ones(5), rtol=1e-4, atol=0)
    assert out.mean(0).abs().min() > 0.01


def test_evaluation_does_not_count_as_the_first_batch() -> None:
    torch.manual_seed(0)
    layer = weight_norm(nn.Linear(7, 5)).eval()
    plain = layer.parametrizations["weight"].original
    torch.testing.assert_close(layer.weight, plain)  # lengths start as those of the weight
    layer(torch.randn(4, 7))
    assert layer.parametrizations["weight"][0].pending


# Salimans & Kingma 2016, eq. 3: ∇_g L = ∇_w L · v / ‖v‖, ∇_v L = g / ‖v‖ ∇_w L − g ∇_g L / ‖v‖² v
def test_gradients_are_the_paper_s_and_orthogonal_to_the_direction() -> None:
    torch.manual_seed(0)
    layer = weight_norm(nn.Linear(7, 5)).double()
    layer(torch.randn(32, 7, dtype=torch.float64))
    norm, v = layer.parametrizations["weight"][0], layer.parametrizations["weight"].original
    of_w = torch.randn(5, 7, dtype=torch.float64)
    (layer.weight * of_w).sum().backward()
    lengths = v.norm(dim=1, keepdim=True)
    of_g = (of_w * v / lengths).sum(1)
    torch.testing.assert_close(norm.gain.grad, of_g)
    g = norm.gain[:, None]
    torch.testing.assert_close(v.grad, g / lengths * of_w - g * of_g[:, None] / lengths**2 * v)
    assert (v.grad * v).sum(1).abs().max() < 1e-12


def test_embeddings_are_let_be_and_dead_inputs_stay_finite() -> None:
    assert not hasattr(weight_norm(nn.Embedding(5, 8)), "parametrizations")
    layer = weight_norm(nn.Linear(7, 5))
    layer(torch.zeros(4, 7))
    assert all(torch.isfinite(value).all() for value in layer.state_dict().values())
    assert torch.equal(layer.parametrizations["weight"][0].gain, torch.ones(5))


def test_at_most_one_treatment_follows_the_start() -> None:
    torch.manual_seed(0)
    layer = layer_init(normal, weight_norm=True)(nn.Linear(7, 5))
    assert isinstance(layer.parametrizations["weight"][0], WeightNorm)
    layer = layer_init(orthogonal)(nn.Linear(7, 5))
    assert not hasattr(layer, "parametrizations")


def test_whole_dcgan_pair_is_settled_by_one_step_and_goes_on_exactly(tmp_path: Path) -> None:
    keys = (
        "networks.generator={use: dcgan-generator, width: 8, z_dim: 8, norm: weight}",
        "networks.discriminator={use: dcgan-discriminator, width: 8, norm: weight}",
        "ema={decay: 0.5}",
    )
    model = train("tiny/digits", *TINY, *keys, out=tmp_path / "whole", device="cpu")
    norms = [module for net in model.nets.values() for module in net.modules() if isinstance(module, WeightNorm)]
    assert len(norms) == 2 + 2  # 8 pixels: the first map and one doubling; one halving and the head's layer
    assert all(bool(norm.settled) and not norm.pending for norm in norms)  # a loaded model is not settled anew
    with pytest.raises(KeyboardInterrupt):
        train("tiny/digits", *TINY, *keys, out=tmp_path / "broken", device="cpu", watcher=PullPlug())
    train("tiny/digits", *TINY, *keys, out=tmp_path / "broken", device="cpu", resume=True)
    for file in ("log.jsonl", "model.safetensors"):
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


@pytest.mark.parametrize("keys", [{"conditioning": "batch-norm"}, {"codes": {"into": "norms"}}])
@pytest.mark.parametrize("norm", ["weight", "virtual"])
def test_norms_that_are_told_something_are_batch_norms(norm: str, keys: dict[str, Any]) -> None:
    with pytest.raises(BadValue, match="brings batch norms of its own"):
        build("dcgan-generator", norm=norm, **keys)
