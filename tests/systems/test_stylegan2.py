"""What the catalogue says of StyleGAN2. Its layers are in tests/networks/test_style_layers.py, equality with the
released networks in tests/parity and tests/networks/test_interop_stylegan2.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.files.files import read_rows
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.networks.style.stylegan2 import StyleGAN2Generator
from ganvas.training.train import train
from ganvas.types import (
    Condition,
    DataSpec,
    Evidence,
    EvidenceSet,
    Generator,
    Latent,
    Movable,
    Scores,
    SpacedGenerator,
    Turn,
)

pytestmark = pytest.mark.system("stylegan2")

SPEC = image_spec((3, 16, 16), 4)
TINY = {"z_dim": 6, "w_dim": 5, "channel_base": 64, "channel_max": 8, "mapping": {"layers": 2}}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def network(name: str, spec: DataSpec = SPEC, **keys: Any) -> Any:
    return parts.build("network", check_node("network", {"use": f"stylegan2-{name}", **keys}), spec)


def generator(spec: DataSpec = SPEC, **keys: Any) -> StyleGAN2Generator:
    return network("generator", spec, **{**TINY, **keys})  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("side", "generator_keys", "critic_keys", "counts"),
    [
        (1024, {}, {}, (30_370_060, 29_012_513)),  # config F, as its code prints
        (256, {"channel_base": 16384}, {"channel_base": 16384}, (24_767_458, 24_001_089)),  # `paper256`
        (32, {"mapping": {"layers": 2}}, {"architecture": "orig"}, (19_947_539, 20_720_641)),  # `cifar`
    ],
)
def test_parameter_counts_are_the_published_ones(
    side: int, generator_keys: dict[str, Any], critic_keys: dict[str, Any], counts: tuple[int, int]
) -> None:
    spec = image_spec((3, side, side))
    with torch.device("meta"):
        nets = (network("generator", spec, **generator_keys), network("discriminator", spec, **critic_keys))
    assert tuple(sum(each.numel() for each in net.parameters()) for net in nets) == counts


@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 12, 12), (5, 64, 8)])
def test_any_side_that_can_be_halved_to_four_to_seven_pixels(shape: tuple[int, int, int]) -> None:
    spec = image_spec(shape)
    image = generator(spec)(torch.randn(2, 6))
    assert image.shape == (2, *shape)
    assert network("discriminator", spec, channel_base=64)(image).logits.shape == (2,)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 18, 16), (2,)])
def test_other_sides_are_refused(shape: tuple[int, ...]) -> None:
    for name in ("generator", "discriminator"):
        with pytest.raises(BadValue) as caught:
            network(name, image_spec(shape))
        assert caught.value.hint


# ------------------------------------------------------------------------------------------- spaces and styles


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_every_space_leads_to_the_same_image(architecture: str) -> None:
    net = generator(conditioning="mapping", architecture=architecture).eval()
    assert isinstance(net, SpacedGenerator)
    z, label = Latent(torch.randn(3, 6)), torch.tensor([0, 1, 3])
    image = net(z.values, label)
    for space, spec in net.latents.items():
        there = net.to_space(z, space, label)
        assert there.values.shape == (3, *spec.shape)
        torch.testing.assert_close(net.from_space(there, label), image)
        torch.testing.assert_close(net.to_space(there, "s", label).values, net.to_space(z, "s", label).values)
    with pytest.raises(UsageError, match="no way from latent space 's' to 'w'"):
        net.to_space(there, "w")
    with pytest.raises(UsageError, match="no way"):
        net.from_space(Latent(z.values, "noise"))


def test_noise_is_random_in_training_and_a_constant_in_use() -> None:
    net = generator(mixing=0.0)
    for block in net.synthesis.blocks:
        block.conv1.noise_strength.data.fill_(0.5)
    z = torch.randn(2, 6)
    assert not torch.equal(net(z), net(z))
    net.eval()
    assert torch.equal(net(z), net(z))
    assert not torch.equal(net(z), net(z, noise="none"))
    assert not torch.equal(net(z, noise="random"), net(z, noise="random"))


def test_mixing_takes_another_w_from_a_layer_on() -> None:
    net = generator(mixing=0.9)
    z = torch.randn(3, 6)
    ws = net.broadcast(net.map(z))
    L = ws.shape[1]
    crossovers = []
    for _ in range(300):
        same = (net.mix(ws, z, None) == ws).all(2)  # (N, L)
        assert (same == same[0]).all()  # one crossover a batch
        first = int(same[0].sum())
        assert same[0, :first].all()  # what was kept comes first
        crossovers.append(first)
    mixed = [each for each in crossovers if each < L]
    assert set(mixed) == set(range(1, L))  # never all of it, and every place else
    assert abs(len(mixed) / 300 - 0.9) < 0.06
    assert torch.equal(generator(mixing=0.0).mix(ws, z, None)[:, 0], ws[:, 0])


def test_the_mean_of_w_follows_training_and_psi_0_is_one_image() -> None:
    net = generator(average_decay=0.9)
    z = torch.randn(8, 6)
    w = net.map(z).detach()
    net(z)
    torch.testing.assert_close(net.mapping.w_avg, 0.1 * w.mean(0))
    net.eval()(z)
    torch.testing.assert_close(net.mapping.w_avg, 0.1 * w.mean(0))
    same = net.from_space(Latent(net.mapping.truncate(w, 0.0), "w"))
    torch.testing.assert_close(same, same[:1].expand_as(same))


# ------------------------------------------------------------------------------------------- regularisation


def turn_of(net: Generator, z: Tensor, label: Tensor | None = None) -> Turn:
    condition = Condition.labelled(label)
    return Turn(
        nets={"generator": net}, step=0, real=torch.zeros(len(z), 3, 16, 16), condition=condition, latent=Latent(z),
        fake_condition=condition, critic=lambda data, condition: Scores(data.sum((1, 2, 3)), data.flatten(1)),
        generate=net.make,
    )  # fmt: skip


@pytest.mark.parametrize("space", ["w", "w+"])
def test_path_length_is_the_norm_of_a_finite_difference_jacobian(space: str) -> None:
    net = generator(conditioning="mapping", noise=False).double().eval()
    z, label = torch.randn(1, 6, dtype=torch.float64), torch.tensor([2])
    term = parts.build("regularizer", {"use": "path-length", "space": space, "decay": 1e-15})
    torch.manual_seed(5)
    length = term(turn_of(net, z, label)).sqrt().item()  # its mean is 0 still
    torch.manual_seed(5)
    y = torch.randn(1, 3, 16, 16, dtype=torch.float64) / 16  # √(16 · 16)
    start, step, slopes = net.to_space(Latent(z), space, label).values.detach(), 1e-5, []
    for i in range(start.numel()):
        sides = []
        for sign in (1, -1):
            moved = start.clone().flatten()
            moved[i] += sign * step
            sides.append((net.from_space(Latent(moved.view_as(start), space)) * y).sum())
        slopes.append((sides[0] - sides[1]) / (2 * step))
    squares = torch.stack(slopes).square().view(-1, start.shape[-1]).sum(1)  # one w, or L of them
    assert abs(length / squares.mean().sqrt().item() - 1) < 1e-3


def test_path_length_teaches_every_layer_before_the_image() -> None:
    net = generator(mixing=0.0)
    for block in net.synthesis.blocks:
        block.conv1.noise_strength.data.fill_(0.1)
    parts.build("regularizer", {"use": "path-length", "batch_shrink": 2})(turn_of(net, torch.randn(4, 6))).backward()
    for name, parameter in net.named_parameters():
        if "to_image.bias" not in name:
            assert parameter.grad is not None, name
    assert net.mapping.layers[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("k", [4, 16])
def test_lazy_regularisation_corrects_adam(k: int) -> None:
    """c = k / (k + 1): λ c, β^c (StyleGAN2, appendix B); k + 1 steps then go as far as k did."""
    node = {"use": "adam", "lr": 0.002, "betas": (0.0, 0.99), "lazy_every": k}
    group = parts.build("optimizer", node)([nn.Parameter(torch.zeros(2))]).param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * k / (k + 1))
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (k / (k + 1))))
    assert group["lr"] * (k + 1) == pytest.approx(0.002 * k)
    assert group["betas"][1] ** (k + 1) == pytest.approx(0.99**k)


def test_the_gradient_penalty_reaches_all_of_the_critic() -> None:
    critic = network("discriminator", channel_base=64, channel_max=8, minibatch_channels=0).double()
    data = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(critic(data).logits.sum(), data, create_graph=True)[0]
    penalty = slope.square().sum()
    weight = critic.blocks[0].conv1.weight
    found = torch.autograd.grad(penalty, weight, retain_graph=True)[0]
    direction, step = torch.randn_like(weight), 1e-6

    def penalty_at(offset: float) -> Tensor:
        with torch.no_grad():
            weight.add_(direction, alpha=offset)
        slope = torch.autograd.grad(critic(data).logits.sum(), data)[0]
        with torch.no_grad():
            weight.sub_(direction, alpha=offset)
        return slope.square().sum()

    expected = (penalty_at(step) - penalty_at(-step)) / (2 * step)
    assert (found * direction).sum().item() == pytest.approx(expected.item(), rel=1e-4)


# ------------------------------------------------------------------------------------------- the critic's head


@pytest.mark.parametrize("head", ["mapped-projection", "projection", "auxiliary-classifier", "san", "2c"])
def test_the_critic_takes_any_head(head: str) -> None:
    critic = network("discriminator", channel_base=64, channel_max=8, conditioning=head)
    data, label = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    scores = critic(data, label)
    assert scores.logits.shape == (4,)
    assert scores.features.shape == (4, 8)
    other = critic(data, (label + 1) % 4).logits
    assert torch.equal(other, scores.logits) == (head in ("san", "auxiliary-classifier", "2c"))


def test_variation_over_the_batch_can_be_left_out() -> None:
    images = torch.randn(8, 3, 16, 16)
    with_it, without = (
        network("discriminator", channel_base=64, channel_max=8, minibatch_channels=n).eval() for n in (1, 0)
    )
    assert not torch.allclose(with_it(images).logits[:4], with_it(images[:4]).logits)
    torch.testing.assert_close(without(images).logits[:4], without(images[:4]).logits)


# ------------------------------------------------------------------------------------------- training


def project(net: StyleGAN2Generator, image: Tensor, steps: int, rate: float) -> Tensor:
    """w whose image is nearest: from the mean of many, by Adam with a rate that falls to 0."""
    w = net.map(torch.randn(10_000, net.latents["z"].shape[0])).mean(0, keepdim=True).detach().requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        (net.from_space(Latent(w, "w")) - image).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return w.detach()


def test_a_projector_finds_the_w_of_a_generated_image() -> None:
    net = generator(w_dim=16, z_dim=16, mapping={"layers": 8}).eval().requires_grad_(False)
    start = net.from_space(Latent(net.map(torch.randn(10_000, 16)).mean(0, keepdim=True), "w"))
    for number in range(2):
        w = net.map(torch.randn(1, 16))
        image = net.from_space(Latent(w, "w"))
        found = project(net, image, 300, 0.3)
        assert (start - image).square().mean() > 0.02, number  # there is something to find
        assert (net.from_space(Latent(found, "w")) - image).square().mean() < 1e-2, number
        assert (found - w).square().mean() < 1e-2, number


TOY = {
    "data": {"use": "digits", "size": 8},
    "networks": {
        "generator": {"use": "stylegan2-generator", **TINY, "z_dim": 32, "w_dim": 32, "channel_base": 256,
                      "channel_max": 32},
        "discriminator": {"use": "stylegan2-discriminator", "channel_base": 256, "channel_max": 32},
    },
    "task": {
        "use": "adversarial",
        "objective": "non-saturating",
        "regularizers": {
            "r1": {"weight": 1, "every": 16}, "path-length": {"weight": 2, "every": 4, "batch_shrink": 2}
        },
    },
    "optim": {
        "use": "adam", "lr": 0.0025, "betas": [0.0, 0.99],
        "roles": {"generator": {"lazy_every": 4}, "discriminator": {"lazy_every": 16}},
    },
    "ema": {"decay": 0.99},
    "train": {"steps": 1200, "batch": 32, "checkpoint_every": 1200},
    "eval": {"protocol": "digits"},
}  # fmt: skip


def frechet_distance(folder: Path, *overrides: str) -> float:
    train(Recipe(TOY), *overrides, out=folder, device="cpu")
    rows = read_rows(folder / "scores.jsonl")
    return float(next(row["value"] for row in rows if row["metric"] == "frechet_distance"))


@pytest.mark.slow
def test_toy_training_is_better_than_none_and_than_without_r1_and_path_length(tmp_path: Path) -> None:
    """Digits at 8 pixels, 1,200 steps of 32, three seeds."""
    for seed in range(3):
        overrides = {"untrained": ["train.steps=1"], "without": ["task.regularizers={}"], "with": []}
        found = {
            name: frechet_distance(tmp_path / f"{name}{seed}", f"train.seed={seed}", *own)
            for name, own in overrides.items()
        }
        print(found)  # noqa: T201
        assert found["with"] < found["untrained"], seed
        assert found["with"] < found["without"], seed


# ------------------------------------------------------------------------------------------- moved at its source


def with_constant(net: StyleGAN2Generator, constant: Tensor, point: Latent) -> Tensor:
    own = net.synthesis.blocks[0].const
    before, own.data = own.data, constant
    try:
        return net.from_space(point)
    finally:
        own.data = before


def test_moving_is_that_of_the_constant_as_a_period_of_an_endless_picture() -> None:
    net = generator(image_spec((3, 16, 32)), noise=False).eval()
    constant = net.synthesis.blocks[0].const.data  # (C, 4, 8)
    assert isinstance(net, Movable)
    for space in net.latents:
        point = net.to_space(Latent(torch.randn(2, 6)), space)
        still = torch.eye(3)
        torch.testing.assert_close(net.moved(point, still), net.from_space(point), rtol=1e-4, atol=1e-5)
        shifted = torch.tensor([[1, 0, 3 / 4], [0, 1, -1 / 4], [0, 0, 1]])  # 3 right and 1 up, of 4 in the shorter side
        expected = with_constant(net, constant.roll((-1, 3), (1, 2)), point)
        torch.testing.assert_close(net.moved(point, shifted), expected, rtol=1e-4, atol=1e-5)


def test_a_quarter_turn_is_that_of_the_constant() -> None:
    net, point = generator(image_spec((1, 16, 16)), noise=False).eval(), Latent(torch.randn(2, 6))
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # right goes down
    expected = with_constant(net, net.synthesis.blocks[0].const.data.rot90(-1, (1, 2)), point)
    torch.testing.assert_close(net.moved(point, quarter), expected, rtol=1e-4, atol=1e-5)


def test_equivariance_is_measured(tmp_path: Path) -> None:
    """As `ganvas eval --metric translation-equivariance` does it; a padded convolution is far from exact."""
    model = train("tiny/digits-stylegan2", "train.steps=1", "eval=~", out=tmp_path / "run", device="cpu")
    metric = parts.build("metric", {"use": "translation-equivariance", "samples": 16})
    found = metric(Evidence(real=EvidenceSet(), fake=EvidenceSet(), model=model))
    assert 5 < found["eq_t"] < 60
    assert 5 < found["eq_t_frac"] < 60
