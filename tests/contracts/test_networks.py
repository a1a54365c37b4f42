"""The contract of every network: shapes, gradients, seeds, round trips, and data that do not see each other."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.parts import Part, data_spec, image_spec, values
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe, shipped
from ganvas.types import Condition, DataSpec, Example, Network, Reconstruction, label_of

SPECS = (image_spec((1, 8, 8), num_classes=10), image_spec((3, 16, 32)), image_spec((3, 32, 32), num_classes=4))
OTHERS = (
    data_spec({"use": "text", "vocabulary": list("abcdefg")}, (12,), label_of(3)),
    data_spec({"use": "audio", "rate": 8000}, (1, 256), label_of(4)),
)
"""What networks are built for that refuse every image."""
N = 5

every_network = pytest.mark.parametrize("part", parts.every("network"), ids=lambda part: part.name)


def build(part: Part, spec: DataSpec, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return parts.build("network", check_node("network", {"use": part.name, **values.plain(part.tiny)}), spec)


def built(part: Part) -> Iterator[tuple[Network, DataSpec]]:
    """The network for every data shape that it does not refuse; at least one."""
    found = False
    for spec in (*SPECS, *OTHERS):
        if found and spec in OTHERS:
            return
        try:
            net = build(part, spec)
        except BadValue as error:
            assert error.hint, f"{part.name} refuses {spec.shape} without saying what to do"
            continue
        found = True
        yield net, spec
    if not found:  # it reads conditions that only the data of its own recipes have
        for spec in of_recipes(part.name):
            found = True
            yield build(part, spec), spec
    assert found, f"{part.name} builds for none of {[spec.shape for spec in (*SPECS, *OTHERS)]}, and no recipe names it"


@functools.cache
def tiny_recipes() -> list[Recipe]:
    return [Recipe.load(name) for name in shipped() if name.startswith("tiny/")]


@functools.cache
def of_recipes(name: str) -> list[DataSpec]:
    """What the data of the first tiny recipe that names a network look like."""
    for recipe in tiny_recipes():
        if f'"{name}"' in json.dumps(recipe.data["networks"]):
            node = recipe.resolve()["data"]
            if (spec := parts.preview(parts.find("dataset", node["use"]), node)) is not None:
                return [spec]
    return []


def example(net: Network, spec: DataSpec, n: int = N, seed: int = 1) -> Example:
    return net.example(spec, n, torch.Generator().manual_seed(seed))


def call(net: Network, at: Example) -> object:
    return net(*at.given, **at.condition)


def rows(at: Example, own: slice) -> Example:
    return Example(tuple(each[own] for each in at.given), at.condition.rows(own))


def answer(out: object, n: int) -> Tensor:
    """Everything in an answer that belongs to the data, as rows (N, ...): of records and dicts, each value."""
    if isinstance(out, Tensor):
        return out.reshape(n, -1).float() if out.dim() and len(out) == n else out.new_zeros(n, 0)
    if dataclasses.is_dataclass(out):
        out = {each.name: getattr(out, each.name) for each in dataclasses.fields(out)}
    if isinstance(out, Mapping):
        out = list(out.values())
    if isinstance(out, Sequence):
        return torch.cat([torch.zeros(n, 0), *(answer(each, n) for each in out)], dim=1)
    return torch.zeros(n, 0)


def awake(net: Network) -> Network:
    """The network with other values where it begins as zero, as blocks that grow from nothing do."""
    torch.manual_seed(3)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def settled(net: Network, spec: DataSpec) -> Network:
    """The network in eval mode, awake, after its running statistics have seen something."""
    awake(net)
    with torch.no_grad():
        for seed in range(3):
            call(net.train(), example(net, spec, seed=seed))
    return net.eval()


@every_network
def test_an_example_is_answered_as_its_kind_promises(part: Part) -> None:
    for net, spec in built(part):
        out = call(net, example(net, spec))
        assert net.faults(out, spec, N) == []
        assert torch.isfinite(answer(out, N)).all()


@every_network
def test_every_parameter_gets_a_gradient(part: Part) -> None:
    for net, spec in built(part):
        whole = call(net, example(net, spec))
        out = answer(whole, N)
        loss = (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum()
        if isinstance(whole, Reconstruction):  # codes learn by losses of their own
            loss = loss + sum(whole.losses.values())
        if not list(net.parameters()):
            continue  # a network that has nothing to learn
        loss.backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        assert any(parameter.grad.any() for parameter in net.parameters())


@every_network
def test_gradient_reaches_the_input(part: Part) -> None:
    for net, spec in built(part):
        awake(net)
        at = example(net, spec)
        inputs = [each for each in (*at.given, *at.condition.values()) if each.is_floating_point()]
        for each in inputs:
            each.requires_grad_()
        answer(call(net, at), N).sum().backward()
        for each in inputs:
            assert each.grad is not None
            assert each.grad.flatten(1 if each.dim() > 1 else 0).any(-1).all()


@every_network
def test_a_seed_decides_the_weights(part: Part) -> None:
    for net, spec in built(part):
        same, other = build(part, spec).state_dict(), build(part, spec, seed=1).state_dict()
        assert all(torch.equal(same[name], tensor) for name, tensor in net.state_dict().items())
        assert not same or any(not torch.equal(other[name], tensor) for name, tensor in net.state_dict().items())


@every_network
def test_state_dict_holds_all_that_counts(part: Part) -> None:
    for net, spec in built(part):
        settled(net, spec)
        other = build(part, spec, seed=1).eval()
        other.load_state_dict(copy.deepcopy(net.state_dict()))
        at = example(net, spec)
        with torch.no_grad():
            assert torch.equal(answer(call(net, at), N), answer(call(other, at), N))


@every_network
def test_a_datum_does_not_see_its_batch_mates(part: Part) -> None:
    for net, spec in built(part):
        settled(net, spec)
        at, mates = example(net, spec), example(net, spec, seed=9)

        def mixed(one: Tensor, other: Tensor) -> Tensor:
            return torch.cat([one[:1], other[1:]])

        among = Example(
            tuple(map(mixed, at.given, mates.given)),
            Condition({name: mixed(value, mates.condition[name]) for name, value in at.condition.items()}),
        )
        with torch.no_grad():
            one, other = answer(call(net, at), N)[0], answer(call(net, among), N)[0]
            alone = answer(call(net, rows(at, slice(1))), 1)[0]
        scale = one.abs().max()
        assert (one - other).abs().max() <= 1e-6 * scale
        assert (one - alone).abs().max() <= 1e-5 * scale


@every_network
def test_forward_does_not_change_its_input(part: Part) -> None:
    for net, spec in built(part):
        at = example(net, spec)
        before = [each.clone() for each in at.given]
        call(net, at)
        assert all(map(torch.equal, at.given, before))


@every_network
def test_half_precision_changes_little(part: Part) -> None:
    """bf16 passes run and stay finite, whatever is inside."""
    for net, spec in built(part):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(answer(call(net, example(net, spec)), N)).all()
