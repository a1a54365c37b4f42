"""Moving averages against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ganvas.engine.ema import Averages, average_decay
from ganvas.recipe.schema import Ema


def test_decay_is_zero_before_the_start_and_the_setting_after() -> None:
    ema = Ema(decay=0.9, start_images=100)
    assert [average_decay(ema, seen, 10) for seen in (0, 99, 100, 101, 10_000)] == [0.0, 0.0, 0.9, 0.9, 0.9]


def test_a_start_in_steps_is_the_same_step_whatever_the_batch() -> None:
    ema = Ema(decay=0.9, start_steps=3)
    for batch in (1, 64):
        assert [average_decay(ema, step * batch, batch) for step in range(5)] == [0.0, 0.0, 0.0, 0.9, 0.9]


def test_the_first_step_of_a_ramp_remembers_nothing() -> None:
    assert average_decay(Ema(decay=0.9, rampup_ratio=0.05), 0, 64) == 0.0


def test_ramp_up_bounds_the_half_life_by_a_share_of_the_images_seen() -> None:
    ema, batch = Ema(decay=0.999, rampup_ratio=0.05), 64
    for images in (64, 640, 6_400):
        half_life = batch * math.log(0.5) / math.log(average_decay(ema, images, batch))
        assert half_life == pytest.approx(0.05 * images)
    # decay 0.999 a step of 64 has a half-life of 44,331 images, 0.05 of 886,620
    assert average_decay(ema, 880_000, batch) < 0.999
    assert average_decay(ema, 890_000, batch) == 0.999


def test_average_is_the_geometric_sum_of_the_weights_since_the_start() -> None:
    net = nn.Linear(1, 1, bias=False)
    averages = Averages({"net": net}, ("net",), Ema(decay=0.75, start_images=4))
    weights = [3.0, -1.0, 4.0, 1.5]
    for step, weight in enumerate(weights):
        nn.init.constant_(net.weight, weight)
        averages.update({"net": net}, seen=4 * step, batch=4)
    # The first step is before the start: a copy. From then on W = 0.75 W + 0.25 w.
    expected = 0.75**3 * 3.0 + 0.25 * (0.75**2 * -1.0 + 0.75 * 4.0 + 1.5)
    assert averages.nets["net"].weight.item() == pytest.approx(expected, rel=1e-6)


def test_the_average_neither_learns_nor_trains() -> None:
    net = nn.BatchNorm1d(3)
    averages = Averages({"net": net}, ("net",), Ema(decay=0.9))
    net(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)) + 5)
    averages.update({"net": net}, seen=16, batch=16)
    own = averages.nets["net"]
    assert torch.equal(own.num_batches_tracked, net.num_batches_tracked)
    assert not own.training
    assert not any(parameter.requires_grad for parameter in own.parameters())


def test_state_round_trip_is_exact() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    one, other = (Averages({"net": nn.Linear(4, 4)}, ("net",), Ema(decay=0.9)) for _ in range(2))
    one.update({"net": net}, 8, 8)
    other.load_state_dict(one.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(one.nets["net"].parameters(), other.nets["net"].parameters(), strict=True)
    )
