"""The contracts of objectives, regularizers, augmentations, heads and tasks."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.engine.checkpoint import pack, unpack
from ganvas.errors import BadValue
from ganvas.nn.equalized import EqualizedLinear
from ganvas.nn.san import NormalizedRows
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import (
    Batch,
    Condition,
    Constraint,
    Facts,
    Gauge,
    Hook,
    Latent,
    Nets,
    Network,
    Regularizer,
    Turn,
)

SPEC = image_spec((1, 8, 8), num_classes=10)


def names(kind: str) -> list[str]:
    return [part.name for part in parts.every(kind)]


def nets(conditioning: str = "plain") -> Nets:
    torch.manual_seed(0)
    critic = {"use": "sngan-discriminator", "width": 8, "norm": "none", "conditioning": {"use": conditioning}}
    return {
        "generator": parts.build(
            "network", {"use": "sngan-generator", "width": 8, "z_dim": 8, "conditioning": "batch-norm"}, SPEC
        ),
        "discriminator": parts.build("network", critic, SPEC),
    }


# --------------------------------------------------------------------------------------------------- objectives


# All but those that leave the whole loss to the critic's head.
ACTING = [name for name in names("objective") if not parts.find("objective", name).load().by_head]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", names("objective"))
@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_objective_gives_finite_scalars(name: str, scale: float) -> None:
    objective = parts.build("objective", check_node("objective", name))
    real, fake = (scale * torch.randn(6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for loss in (objective.critic(real, fake), objective.generator(real, fake)):
        assert loss.shape == ()
        assert torch.isfinite(loss)


@pytest.mark.parametrize("name", ACTING)
def test_objective_pushes_the_right_way(name: str) -> None:
    """Where the critic cannot tell, it learns to score real above fake, and the generator to be scored higher."""
    objective = parts.build("objective", check_node("objective", name))
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    to_real, to_fake = torch.autograd.grad(objective.critic(real, fake), (real, fake))
    assert to_fake.sum() > to_real.sum()
    (to_fake,) = torch.autograd.grad(objective.generator(real, fake), fake)
    assert to_fake.sum() < 0


@pytest.mark.parametrize("name", names("objective"))
def test_objective_that_does_not_read_the_real_side_works_without_it(name: str) -> None:
    objective = parts.build("objective", check_node("objective", name))
    fake = torch.linspace(-1, 1, 4)
    if not objective.reads_real:
        assert torch.equal(objective.generator(fake.new_empty(0), fake), objective.generator(torch.ones(4), fake))
    else:
        assert not torch.equal(objective.generator(torch.zeros(4), fake), objective.generator(torch.ones(4), fake))


# --------------------------------------------------------------------------------------------------- regularizers


def turn_of(own: Nets, n: int = 4) -> Turn:
    generator = torch.Generator().manual_seed(1)
    given, critic = Condition(label=torch.arange(n)), own["discriminator"]
    return Turn(
        nets=own, step=1, real=torch.rand(n, *SPEC.shape, generator=generator) * 2 - 1, condition=given,
        latent=Latent(torch.randn(n, 8, generator=generator)), fake_condition=given,
        critic=lambda data, condition: critic(data, **condition.of(critic)), generate=own["generator"].make,
    )  # fmt: skip


def term_of(regularizer: Regularizer, own: Nets) -> Tensor:
    """The regularizer's term, after it has moved the latents if it does."""
    turn = turn_of(own)
    score = lambda latent: turn.critic(turn.generate(latent, turn.condition), turn.condition).logits  # noqa: E731
    turn.latent = regularizer.move_latent(turn.latent, score, differentiable=True)
    return regularizer(turn)


@pytest.mark.parametrize("name", names("regularizer"))
def test_regularizer_teaches_its_side_or_constrains_it(name: str) -> None:
    regularizer, own = parts.build("regularizer", check_node("regularizer", name)), nets()
    assert regularizer.side in own
    if isinstance(regularizer, Constraint):
        net = own[regularizer.side]
        regularizer.apply(net)
        once = [parameter.clone() for parameter in net.parameters()]
        regularizer.apply(net)
        assert all(torch.equal(a, b) for a, b in zip(once, net.parameters(), strict=True))  # it is a projection
        return
    if isinstance(regularizer, Gauge):
        net = own[regularizer.side]
        before = {key: value.clone() for key, value in net.state_dict().items()}
        readings = regularizer.readings(net)
        assert readings and readings == regularizer.readings(net)
        assert all(math.isfinite(value) for value in readings.values())
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())  # it only looks
        return
    term_of(regularizer, own)  # some compare with what they saw before
    taught = []
    for _ in range(5):  # a term that is clipped may have nothing to say of one critic
        moved = {role: copy.deepcopy(net) for role, net in own.items()}
        with torch.no_grad():
            for parameter in (parameter for net in moved.values() for parameter in net.parameters()):
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        term = term_of(regularizer, moved)
        assert term.shape == ()
        assert torch.isfinite(term)
        assert term.dtype == torch.float32
        term.backward()
        learners = moved[regularizer.side].parameters()
        taught.append(any(learner.grad is not None and bool(learner.grad.any()) for learner in learners))
    assert any(taught)


@pytest.mark.parametrize("name", names("regularizer"))
def test_regularizer_goes_on_exactly_from_its_state(name: str) -> None:
    one, other = (parts.build("regularizer", check_node("regularizer", name)) for _ in range(2))
    if isinstance(one, (Constraint, Gauge)):
        return
    own = nets()
    torch.manual_seed(1)
    term_of(one, own)
    other.load_state_dict(as_saved(one.state_dict()))
    found = []
    for regularizer in (one, other):
        torch.manual_seed(2)
        found.append(term_of(regularizer, copy.deepcopy(own)))
    assert torch.equal(found[0], found[1])


# --------------------------------------------------------------------------------------------------- hooks


HOOKS = [(kind, name) for kind in ("objective", "regularizer", "augment") for name in names(kind)]


def as_saved(state: dict[str, object]) -> dict[str, object]:
    """A state as it comes back from a checkpoint."""
    tensors, skeleton = pack(state)
    return unpack(tensors, json.loads(json.dumps(skeleton)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "name"), HOOKS)
def test_hooks_look_without_touching_and_remember(kind: str, name: str) -> None:
    """Learning from an update changes nothing of it, and what was learnt is in the state, whole."""
    one, other = (parts.build(kind, check_node(kind, name)) for _ in range(2))
    assert isinstance(one, Hook)
    assert one.least_batch >= 1
    assert all(role.kinds for role in one.roles.values())
    own = nets()
    turn = turn_of(own)
    assert len(turn.real_scores.logits) == len(turn.fake_scores.logits)  # the passes were made for the losses
    before = {role: copy.deepcopy(net.state_dict()) for role, net in own.items()}
    real, latent = turn.real.clone(), turn.latent.values.clone()
    for _ in range(5):
        one.observe(turn)
    assert torch.equal(turn.real, real) and torch.equal(turn.latent.values, latent)
    for role, net in own.items():
        assert all(torch.equal(before[role][key], value) for key, value in net.state_dict().items())
    saved = as_saved(one.state_dict())
    other.load_state_dict(saved)
    assert repr(other.state_dict()) == repr(one.state_dict())
    mixed = one.mix_real(turn.real, lambda: turn.fake)
    assert mixed.shape == real.shape and torch.equal(turn.real, real)


# --------------------------------------------------------------------------------------------------- augmentations


@pytest.mark.parametrize("name", names("augment"))
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_differentiable_and_keeps_the_shape(name: str, channels: int) -> None:
    augment = parts.build("augment", check_node("augment", name))
    torch.manual_seed(0)
    images = (torch.rand(4, channels, 16, 16) * 2 - 1).requires_grad_()
    changed = augment(images)
    assert changed.shape == images.shape
    assert torch.isfinite(changed).all()
    changed.square().sum().backward()
    assert images.grad.flatten(1).any(1).all()


# --------------------------------------------------------------------------------------------------- heads


HEADS = names("conditioning")


def objective_for(own: Nets) -> str:
    """An objective that the critic's head goes with."""
    try:
        own["discriminator"].head.check(parts.build("objective", {"use": "hinge"}))
    except BadValue as error:
        return error.hint.removeprefix("task.objective=")
    return "hinge"


@pytest.mark.parametrize("name", HEADS)
def test_head_scores_and_brings_finite_terms(name: str) -> None:
    torch.manual_seed(0)
    wrapped: list[nn.Module] = []

    def wrap(layer: nn.Module) -> nn.Module:
        wrapped.append(layer)
        return layer

    head = parts.build("conditioning", check_node("conditioning", name), 12, SPEC, wrap)
    features, label = torch.randn(6, 12), torch.arange(6)
    real, fake = head(features, label), head(features + 1, label)
    assert real.logits.shape == (6,)
    assert torch.equal(real.features, features)
    turn, objective = turn_of(nets(), 6), parts.build("objective", {"use": "hinge"})
    turn.real_scores, turn.fake_scores = real, fake
    for terms in (head.critic_losses(turn, objective), head.generator_losses(turn, objective)):
        assert all(term.shape == () and torch.isfinite(term) for term in terms.values())
    layers = {id(module) for module in wrapped}
    owners = [module for module in head.modules() if list(module.parameters(recurse=False))]
    # but for those that have one of their own
    owners = [module for module in owners if not isinstance(module, (NormalizedRows, EqualizedLinear))]
    assert all(id(module) in layers for module in owners)  # the critic's weight normalisation reaches all of it


# --------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("name", names("task"))
def test_task_names_networks_and_a_sampler_that_there_are(name: str) -> None:
    task = parts.find("task", name).load()
    assert task.roles
    for role in task.roles.values():
        assert role.kinds and all(issubclass(kind, Network) for kind in role.kinds)
    assert set(task.averaged) <= set(task.roles)
    parts.find("sampler", task.sampler)


@pytest.mark.parametrize(
    ("objective", "conditioning"),
    [(name, "plain") for name in ACTING] + [(None, name) for name in HEADS],
)
def test_adversarial_task_runs_with_every_objective_and_head(objective: str | None, conditioning: str) -> None:
    own = nets(conditioning)
    node = check_node("task", {"use": "adversarial", "objective": objective or objective_for(own)})
    task = parts.build("task", node, own, Facts(SPEC))
    batch = Batch.labelled(torch.rand(4, *SPEC.shape) * 2 - 1, torch.arange(4))
    for update in task.updates():
        losses = update.losses(batch, 0)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        for role in update.nets:
            assert any(parameter.grad is not None for parameter in own[role].parameters())
    task.load_state_dict(task.state_dict())


def test_critic_update_does_not_build_the_generators_graph() -> None:
    own = nets()
    task = parts.build("task", check_node("task", "adversarial"), own, Facts(SPEC))
    batch = Batch.labelled(torch.rand(4, *SPEC.shape) * 2 - 1, torch.arange(4))
    sum(task.updates()[0].losses(batch, 0).values()).backward()
    assert all(parameter.grad is None for parameter in own["generator"].parameters())
