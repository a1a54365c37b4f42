"""The contract of every network: shapes, gradients, seeds, round trips, and data that do not see each other."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.parts import Part, values
from ganvas.recipe.check import check_node
from ganvas.types import Critic, DataSpec, Encoder, Generator, LatentCritic, LatentSpec

SPECS = (DataSpec((1, 8, 8), num_classes=10), DataSpec((3, 16, 32)), DataSpec((3, 32, 32), num_classes=4))
N = 5

every_network = pytest.mark.parametrize("part", parts.every("network"), ids=lambda part: part.name)


def build(part: Part, spec: DataSpec, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return parts.build("network", check_node("network", {"use": part.name, **values.plain(part.tiny)}), spec)


def built(part: Part) -> Iterator[tuple[nn.Module, DataSpec]]:
    """The network for every data shape that it does not refuse; at least one."""
    found = False
    for spec in SPECS:
        try:
            net = build(part, spec)
        except BadValue as error:
            assert error.hint, f"{part.name} refuses {spec.shape} without saying what to do"
            continue
        found = True
        yield net, spec
    assert found, f"{part.name} builds for none of {[spec.shape for spec in SPECS]}"


def inputs(net: nn.Module, spec: DataSpec, n: int = N, seed: int = 1) -> tuple[Tensor, Tensor | None]:
    """What the network takes: (latents or data, labels)."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(spec.num_classes, (n,), generator=generator) if spec.num_classes else None
    if isinstance(net, Generator):
        shape = next(iter(net.latents.values())).shape
        return torch.randn(n, *shape, generator=generator), label
    if isinstance(net, LatentCritic):
        return torch.randn(n, *net.latent_shape, generator=generator), None
    return torch.rand(n, *spec.shape, generator=generator) * 2 - 1, label


def call(net: nn.Module, data: Tensor, label: Tensor | None) -> object:
    """What the network says; encoders and critics of latents know no labels."""
    return net(data) if isinstance(net, Encoder | LatentCritic) else net(data, label)


def answer(net: nn.Module, data: Tensor, label: Tensor | None) -> Tensor:
    """The network's answer as rows (N, ...)."""
    out = call(net, data, label)
    if isinstance(out, Tensor):
        return out.reshape(len(data), -1)
    said = [out.logits, out.features, *out.extra.values()]
    return torch.cat([each.reshape(len(data), -1) for each in said], dim=1)


def settled(net: nn.Module, spec: DataSpec) -> nn.Module:
    """The network in eval mode, after its running statistics have seen something."""
    with torch.no_grad():
        for seed in range(3):
            call(net.train(), *inputs(net, spec, seed=seed))
    return net.eval()


@every_network
def test_shapes_and_ranges(part: Part) -> None:
    for net, spec in built(part):
        data, label = inputs(net, spec)
        out = call(net, data, label)
        if isinstance(net, Generator):
            assert out.shape == (N, *spec.shape)
            assert out.abs().max() <= 1 or not getattr(net, "bounded", True)  # sampling cuts those that say so
            assert out.dtype == torch.float32
            assert all(isinstance(each, LatentSpec) for each in net.latents.values())
            assert isinstance(net.conditional, bool)
        elif isinstance(net, Critic):
            assert out.logits.shape == (N,)
            assert out.features.shape[0] == N
            assert out.features.dim() == 2
        elif isinstance(net, Encoder):
            assert out.shape == (N, *net.code_shape)
        elif isinstance(net, LatentCritic):
            assert out.shape == (N,)
        else:
            raise AssertionError(f"{part.name} is neither a generator nor a critic: this contract must learn of it")
        assert torch.isfinite(answer(net, data, label)).all()


@every_network
def test_every_parameter_gets_a_gradient(part: Part) -> None:
    for net, spec in built(part):
        out = answer(net, *inputs(net, spec))
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        assert any(parameter.grad.any() for parameter in net.parameters())


@every_network
def test_gradient_reaches_the_input(part: Part) -> None:
    for net, spec in built(part):
        data, label = inputs(net, spec)
        answer(net, data.requires_grad_(), label).sum().backward()
        assert data.grad.flatten(1).any(1).all()


@every_network
def test_a_seed_decides_the_weights(part: Part) -> None:
    for net, spec in built(part):
        same, other = build(part, spec).state_dict(), build(part, spec, seed=1).state_dict()
        assert all(torch.equal(same[name], tensor) for name, tensor in net.state_dict().items())
        assert any(not torch.equal(other[name], tensor) for name, tensor in net.state_dict().items())


@every_network
def test_state_dict_holds_all_that_counts(part: Part) -> None:
    for net, spec in built(part):
        settled(net, spec)
        other = build(part, spec, seed=1).eval()
        other.load_state_dict(copy.deepcopy(net.state_dict()))
        data, label = inputs(net, spec)
        with torch.no_grad():
            assert torch.equal(answer(net, data, label), answer(other, data, label))


@every_network
def test_a_datum_does_not_see_its_batch_mates(part: Part) -> None:
    for net, spec in built(part):
        settled(net, spec)
        data, label = inputs(net, spec)
        mates, others = inputs(net, spec, seed=9)
        mixed, labels = mates.clone(), None if others is None else others.clone()
        mixed[0] = data[0]
        if labels is not None:
            labels[0] = label[0]
        with torch.no_grad():
            one, other = answer(net, data, label)[0], answer(net, mixed, labels)[0]
            alone = answer(net, data[:1], None if label is None else label[:1])[0]
        scale = one.abs().max()
        assert (one - other).abs().max() <= 1e-6 * scale
        assert (one - alone).abs().max() <= 1e-5 * scale


@every_network
def test_forward_does_not_change_its_input(part: Part) -> None:
    for net, spec in built(part):
        data, label = inputs(net, spec)
        before = data.clone()
        call(net, data, label)
        assert torch.equal(data, before)
