"""FastGAN (Liu et al. 2021): excitation, judging by places, and a critic that rebuilds real images only.

Parity with the authors' networks is in tests/parity (`fastgan_*`).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.shelves.networks.gan.fastgan import MULTIPLES, Excitation, Noise, quarter
from ganvas.types import Batch, DataSpec, Facts

pytestmark = pytest.mark.system("fastgan")

SPEC = image_spec((3, 64, 64))


def build(name: str, spec: DataSpec = SPEC, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": name, **keys}), spec)


def pair(spec: DataSpec = SPEC, **keys: object) -> dict[str, nn.Module]:
    return {
        "generator": build("fastgan-generator", spec, width=4, z_dim=8),
        "discriminator": build("fastgan-discriminator", spec, **{"width": 4, "decoder_width": 4, **keys}),
    }


def task_of(nets: dict[str, nn.Module], spec: DataSpec = SPEC, **keys: object) -> object:
    return parts.build(
        "task", check_node("task", {"use": "adversarial", "objective": "hinge", **keys}), nets, Facts(spec)
    )


# ------------------------------------------------------------------------------------------- the generator


def test_excitation_is_the_large_map_times_a_gate_per_channel() -> None:
    block = Excitation(6, 4, lambda layer: layer)
    low, high = torch.randn(3, 6, 8, 8), torch.randn(3, 4, 64, 64)
    gate = block.gate(low)
    assert gate.shape == (3, 4, 1, 1)
    assert ((gate > 0) & (gate < 1)).all()
    assert torch.equal(block(low, high), high * gate)


@pytest.mark.parametrize(("size", "gated"), [(32, []), (64, [4]), (256, [4, 5, 6]), (1024, [4, 5, 6, 7])])
def test_four_doublings_lie_between_a_map_and_the_one_that_it_gates(size: int, gated: list[int]) -> None:
    with torch.device("meta"):
        net = build("fastgan-generator", image_spec((3, size, size)), width=16)
    assert [int(name) for name in net.gates] == gated
    for name, block in net.gates.items():
        assert block.conv1.in_channels == 16 * MULTIPLES[int(name) - 4]
        assert block.conv1.out_channels == 16 * MULTIPLES[int(name)]


def test_noise_is_fresh_while_training_and_fixed_afterwards() -> None:
    layer = Noise((6, 6))
    x = torch.zeros(2, 3, 6, 6)
    assert torch.equal(layer(x), x)  # its weight starts at 0
    with torch.no_grad():
        layer.weight.fill_(1)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(layer(x)[0], layer(x)[1])
    assert torch.equal(layer(x), Noise((6, 6)).eval().fixed.expand_as(x))  # nothing to save


# ------------------------------------------------------------------------------------------- the critic


def test_losses_are_means_over_all_places() -> None:
    critic = pair()["discriminator"]
    scores = critic(torch.rand(3, 3, 64, 64) * 2 - 1)
    assert scores.pieces.shape == (3, 50)  # 5 x 5 on each of two scales
    torch.testing.assert_close(scores.logits, scores.pieces.mean(1))
    assert torch.equal(scores.judged, scores.pieces.flatten())


def test_margins_are_drawn_between_08_and_1() -> None:
    objective = parts.build("objective", {"use": "hinge", "jitter": 0.2})
    logits = torch.zeros(20_000)
    assert 0.8 <= objective.margin(logits).min() < 0.81
    assert 0.99 < objective.margin(logits).max() <= 1
    assert objective.critic(logits, logits).item() == pytest.approx(1.8, abs=0.01)


def test_quarters_make_up_the_image() -> None:
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    upper, lower = (torch.cat([quarter(x, i), quarter(x, i + 1)], 3) for i in (0, 2))
    assert torch.equal(torch.cat([upper, lower], 2), x)


def test_what_is_rebuilt_has_the_shape_of_its_target() -> None:
    critic, data = pair()["discriminator"], torch.rand(2, 3, 64, 64)
    extra = critic(data).extra
    for made, target in critic.head.TARGETS.items():
        assert extra[made].shape == extra[target].shape == (2, 3, 32, 32)
    assert torch.equal(extra["whole"], F.interpolate(data, 32))
    assert any(torch.equal(extra["quarter"], quarter(data, number)) for number in range(4))


def test_generated_images_are_never_rebuilt() -> None:
    nets = pair()
    task = task_of(nets)
    turn = task.turn(Batch(torch.rand(2, 3, 64, 64)), 0, for_generator=True)
    terms = nets["discriminator"].head.critic_losses(turn, task.objective)
    assert set(terms) == {"reconstruction"}
    wanted = list(nets["generator"].parameters())
    assert not any(g is not None for g in torch.autograd.grad(terms["reconstruction"], wanted, allow_unused=True))
    assert turn.fake_scores.extra.computed == {}
    assert nets["discriminator"].head.generator_losses(turn, task.objective) == {}


def test_the_decoders_learn_with_the_critic_and_can_be_left_out() -> None:
    nets = pair()
    losses = task_of(nets).critic_losses(Batch(torch.rand(2, 3, 64, 64)), 0)
    losses["reconstruction"].backward()
    for decoder in nets["discriminator"].head.decoders.values():
        assert all(parameter.grad is not None for parameter in decoder.parameters())
    assert nets["discriminator"].stem[0].parametrizations.weight.original.grad.any()
    without = pair(reconstruction=0)
    assert set(task_of(without).critic_losses(Batch(torch.rand(2, 3, 64, 64)), 0)) == {"adversarial"}
    assert len(without["discriminator"].head.decoders) == 0


def test_small_images_are_refused() -> None:
    with pytest.raises(BadValue, match="32 to 2047"):
        build("fastgan-discriminator", image_spec((3, 16, 16)))
    with pytest.raises(BadValue, match="below 128 pixels"):
        build("fastgan-generator", SPEC, small_image=True)


def test_an_imported_small_image_goes_with_the_large_one() -> None:
    net = build("fastgan-generator", image_spec((3, 128, 128)), width=2, z_dim=4, small_image=True).eval()
    z = torch.randn(2, 4)
    image, small = net.pair(z)
    assert image.shape == small.shape == (2, 3, 128, 128)
    assert torch.equal(image, net(z))
