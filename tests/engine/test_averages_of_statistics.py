"""Averages of weights carry the statistics that were gathered with them, and critic updates leave those alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ganvas.engine.ema import Averages, average_decay
from ganvas.nn.spectral import spectral
from ganvas.nn.statistics import statistics_of, untracked
from ganvas.parts import build, image_spec
from ganvas.recipe.check import check_node
from ganvas.recipe.schema import Ema
from ganvas.types import Batch, Facts


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = spectral(nn.Conv2d(3, 4, 3))
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("mean_of_w", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x))


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_statistics_are_averaged_with_the_weights_and_other_buffers_copied(buffers: str) -> None:
    net = Net()
    averages = Averages({"g": net}, ("g",), Ema(decay=0.75, buffers=buffers))
    before = copy.deepcopy(net)
    for _ in range(3):
        net(torch.randn(8, 3, 6, 6) + 2)
    net.mean_of_w += 1
    averages.update({"g": net}, seen=8, batch=8)
    average = averages.nets["g"]
    assert torch.equal(average.mean_of_w, net.mean_of_w)  # an average already
    assert torch.equal(average.norm.num_batches_tracked, net.norm.num_batches_tracked)  # a count
    for now, was, own in zip(statistics_of(net), statistics_of(before), statistics_of(average), strict=True):
        expected = was.lerp(now, 0.25) if buffers == "average" else now
        assert torch.allclose(own, expected, atol=1e-6)
    assert len(statistics_of(net)) == 4  # mean, variance, and two singular vectors


def test_averaging_starts_after_as_many_images_as_it_says() -> None:
    ema = Ema(decay=0.9, start_images=64)
    assert [average_decay(ema, seen, 32) for seen in (0, 32, 64)] == [0.0, 0.0, 0.9]


def test_untracked_norms_normalise_by_the_batch_and_keep_their_statistics() -> None:
    net = Net().train()
    x = torch.randn(8, 3, 6, 6) + 5
    kept = [each.clone() for each in (net.norm.running_mean, net.norm.running_var, net.norm.num_batches_tracked)]
    with untracked(net):
        out = net(x)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
    now = (net.norm.running_mean, net.norm.running_var, net.norm.num_batches_tracked)
    assert all(map(torch.equal, kept, now))
    net(x)
    assert not torch.equal(net.norm.running_mean, kept[0])


def test_critic_updates_leave_the_generators_statistics_alone() -> None:
    spec = image_spec((1, 8, 8))
    nets = {
        role: build("network", check_node("network", {"use": f"sngan-{role}", "width": 4}), spec)
        for role in ("generator", "discriminator")
    }
    task = build("task", check_node("task", "adversarial"), nets, Facts(spec))
    critic, maker = task.updates()
    batch = Batch(torch.rand(4, 1, 8, 8) * 2 - 1)
    before = [each.clone() for each in statistics_of(nets["generator"])]
    critic.losses(batch, 0)
    norms = [module for module in nets["generator"].modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(int(norm.num_batches_tracked) == 0 for norm in norms)
    assert all(map(torch.equal, before, statistics_of(nets["generator"])))
    maker.losses(batch, 0)
    assert all(int(norm.num_batches_tracked) == 1 for norm in norms)
