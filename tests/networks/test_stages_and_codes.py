"""Generators that are entered half-way, and InfoGAN's codes as what generators are told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.nn.codes import CodeReader, Codes, codes_of
from ganvas.nn.init import orthogonal
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import Batch, Facts, StagedGenerator

SPEC = image_spec((1, 16, 16), 5)
LABEL = torch.tensor([0, 3, 4, 1])
GENERATORS = [
    ("sngan-generator", {"attention": 8}),
    ("sngan-generator", {"conditioning": "batch-norm"}),
    ("biggan-generator", {"conditioning": "shared", "attention": 8}),
    ("biggan-generator", {"conditioning": "batch-norm", "hierarchical": False}),
    ("biggan-deep-generator", {"conditioning": "shared"}),
    ("dcgan-deep-generator", {"conditioning": "batch-norm", "attention": "block1"}),
    ("dcgan-generator", {"conditioning": "concat"}),
    ("dcgan-generator", {"conditioning": "batch-norm"}),
    ("dcgan-generator", {"norm": "virtual", "reference": 6}),
    ("dcgan-generator", {"norm": "weight"}),
]
NAMES = ["sngan-generator", "biggan-generator", "biggan-deep-generator", "dcgan-deep-generator", "dcgan-generator"]


def build(kind: str, name: str, *given: Any, **keys: Any) -> Any:
    torch.manual_seed(0)
    tiny = parts.find(kind, name).tiny
    return parts.build(kind, check_node(kind, {"use": name, **tiny, **keys}), *given)


def noise(net: nn.Module, n: int = 4) -> Tensor:
    return torch.randn(n, *net.latents["z"].shape, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize(("name", "keys"), GENERATORS, ids=[f"{name}-{'-'.join(keys)}" for name, keys in GENERATORS])
def test_front_and_back_are_the_generator_wherever_it_is_cut(name: str, keys: dict[str, Any]) -> None:
    net = build("network", name, SPEC, **keys).eval()
    assert isinstance(net, StagedGenerator)
    z = noise(net)
    with torch.no_grad():
        whole = net(z, LABEL)
        for stages in range(net.stages + 1):
            half = net.to_stage(z, LABEL, stages=stages)
            assert len(half.features) == len(z)
            kept = half.features.clone()
            assert torch.equal(net.from_stage(half), whole)
            assert torch.equal(half.features, kept)  # nothing works in place on what belongs to the caller
    for wrong in (-1, net.stages + 1):
        with pytest.raises(UsageError, match="no map after"):
            net.to_stage(z, LABEL, stages=wrong)


@pytest.mark.parametrize("stages", [0, 1])
def test_the_way_back_is_differentiable_in_the_map(stages: int) -> None:
    net = build("network", "sngan-generator", SPEC).double().eval()
    with torch.no_grad():
        half = net.to_stage(noise(net, 1).double(), stages=stages)
    at, way = half.features.requires_grad_(), torch.randn_like(half.features)
    image = lambda h: net.from_stage(dataclasses.replace(half, features=h))  # noqa: E731
    weight = torch.randn_like(image(at))
    (slope,) = torch.autograd.grad((image(at) * weight).sum(), at)
    with torch.no_grad():
        rise = (image(at + 1e-6 * way) - image(at - 1e-6 * way)) / 2e-6
    assert (slope * way).sum().item() == pytest.approx((rise * weight).sum().item(), rel=1e-5)


# ------------------------------------------------------------------------------------------- codes

KINDS = [((3,), 0), ((), 2), ((3, 4), 1)]


@pytest.mark.parametrize(("discrete", "continuous"), KINDS)
def test_reader_gives_one_hot_categories_and_values(discrete: tuple[int, ...], continuous: int) -> None:
    reader = CodeReader(Codes(discrete, continuous, "norms"), 6, orthogonal)
    latent = torch.randn(50, reader.latent_dim)
    assert reader.latent_dim == 6 + len(discrete) + continuous
    z, (condition,) = reader(latent)
    assert torch.equal(z, latent[:, :6])  # noise first, codes after it
    c, values = codes_of(latent, discrete, continuous)
    pieces = condition.split([*discrete, continuous], 1)
    for hot, category in zip(pieces[:-1], c.unbind(1), strict=True):
        assert torch.equal(hot, F.one_hot(category, hot.shape[1]).float())
    assert torch.equal(pieces[-1], values)


def test_codes_into_the_latent_are_one_linear_map_of_noise_and_codes() -> None:
    """PyTorch-StudioGAN's "concat": z ← W [z; c] + b, as long as the noise."""
    reader = CodeReader(Codes((3,), 2, "latent"), 6, orthogonal)
    latent = torch.randn(50, 9)
    z, condition = reader(latent)
    assert condition == ()
    c, values = codes_of(latent, (3,), 2)
    joined = torch.cat([latent[:, :6], F.one_hot(c[:, 0], 3), values], 1)
    torch.testing.assert_close(z, F.linear(joined, reader.mix.weight, reader.mix.bias))


@pytest.mark.parametrize("into", ["latent", "norms"])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_generator_sees_its_codes_and_of_a_discrete_one_the_category_alone(
    name: str, labelled: bool, into: str
) -> None:
    codes = {"discrete": [3], "continuous": 1, "into": into}
    own = "shared" if name.startswith("biggan") else "batch-norm"
    net = build("network", name, SPEC, codes=codes, conditioning=own if labelled else None)
    plain = build("network", name, SPEC, conditioning=own if labelled else None)
    assert (tuple(net.codes.discrete), net.codes.continuous) == ((3,), 1)
    assert plain.codes is None
    assert net.latents["z"].shape[0] == plain.latents["z"].shape[0] + 2
    z = noise(net)
    z[:, -2:] = 0.1  # u = 0.54: the middle category of three
    net(z, LABEL).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.eval()
    with torch.no_grad():
        for (
            module
        ) in net.modules():  # class-conditional gains start at 1 whatever they are told, where treat is not used
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0.01)
        same, other, value = (z.clone() for _ in range(3))
        same[:, -2], other[:, -2], value[:, -1] = -0.1, 2.0, 1.0  # u = 0.46, 0.98
        images = net(z, LABEL)
        assert torch.equal(net(same, LABEL), images)
        assert (net(other, LABEL) - images).abs().max() > 1e-4
        assert (net(value, LABEL) - images).abs().max() > 1e-4


def test_codes_of_no_kind_are_refused() -> None:
    with pytest.raises(BadValue, match="codes without"):
        build("network", "sngan-generator", SPEC, codes={"discrete": [], "continuous": 0})


def task_of(generator: dict[str, Any], head: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """InfoGAN without an adversarial loss, on 8x8 images."""
    spec = image_spec((1, 8, 8))
    head = {"use": "info", **head}
    nets = {
        "generator": build("network", "sngan-generator", spec, **generator),
        "discriminator": build("network", "sngan-discriminator", spec, width=16, norm="none", conditioning=head),
    }
    node = check_node("task", {"use": "adversarial", "objective": "by-head"})
    return parts.build("task", node, nets, Facts(spec)), nets


def test_critic_that_asks_for_other_codes_is_refused() -> None:
    batch = Batch(torch.randn(4, 1, 8, 8))
    task, _ = task_of({"codes": {"discrete": [4], "continuous": 1}}, {"discrete": [3], "continuous": 1})
    with pytest.raises(BadValue, match=r"the generator reads codes \[4\]"):
        task.updates()[0].losses(batch, 0)
    task, _ = task_of({"codes": {"discrete": [3], "continuous": 1}}, {"discrete": [3], "continuous": 1})
    assert set(task.updates()[0].losses(batch, 0)) == {"discrete_codes", "continuous_codes"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("into", ["latent", "norms"])
def test_q_recovers_the_codes_of_a_generator_that_is_taught_to_show_them(into: str, seed: int) -> None:
    """A code of four categories and a continuous one, told to the generator in either form."""
    codes = {"discrete": [4], "continuous": 1}
    task, nets = task_of({"codes": {**codes, "into": into}}, {**codes, "continuous_weight": 0.3})
    optim = {role: torch.optim.Adam(net.parameters(), lr=1e-3) for role, net in nets.items()}
    batch = Batch(torch.zeros(64, 1, 8, 8))
    torch.manual_seed(seed)
    for step in range(200):
        for update in task.updates():
            (role,) = update.nets
            optim[role].zero_grad()
            torch.stack(list(update.losses(batch, step).values())).sum().backward()
            optim[role].step()
    with torch.no_grad():
        z = noise(nets["generator"], 500)
        c, values = codes_of(z, (4,), 1)
        extra = nets["discriminator"](nets["generator"].eval()(z)).extra
    assert (extra["code_logits"].argmax(1) == c[:, 0]).float().mean() > 0.95
    assert torch.corrcoef(torch.stack([extra["code_mean"][:, 0], values[:, 0]]))[0, 1] > 0.85
