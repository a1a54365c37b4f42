"""Guidance by a classifier: its formula, where its gradient goes, what it teaches, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.recipe.check import check_node
from ganvas.shelves.features.frozen import Intake


def guidance(**keys: Any) -> Any:
    return parts.build("regularizer", check_node("regularizer", {"use": "classifier-guidance", **keys}))


def turn(fake: Tensor, label: Tensor | None, *, conditional: bool = True) -> Any:
    return SimpleNamespace(fake=fake, fake_label=label, nets={"generator": SimpleNamespace(conditional=conditional)})


def digits(n: int) -> tuple[Tensor, Tensor]:
    dataset = parts.build("dataset", {"use": "digits", "split": "test"})
    batch = dataset.batch(np.arange(n), np.random.default_rng(0))
    return batch.data, batch.label


def test_it_is_the_cross_entropy_with_the_classes_asked_for() -> None:
    images, label = digits(40)
    net = parts.build("extractor", {"use": "digit-net"})
    expected = F.cross_entropy(net(images)[1].clone(), label)
    term = guidance()(turn(images, label))
    torch.testing.assert_close(term, expected)
    assert guidance()(turn(images, (label + 1) % 10)) > term + 5


def test_the_gradient_goes_to_the_images_alone() -> None:
    images, label = digits(8)
    part = guidance()
    part(turn(images.requires_grad_(), label)).backward()
    assert images.grad.flatten(1).any(1).all()
    assert not any(parameter.requires_grad for parameter in part.extractor._net.parameters())


@pytest.mark.parametrize("resizer", ["clean", "legacy", "antialias"])
def test_unrounded_input_is_the_usual_one_of_images_of_8_bits(resizer: str) -> None:
    intake = Intake((12, 9), resizer, (120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
    images = torch.randint(256, (3, 1, 7, 8)).float() / 127.5 - 1
    torch.testing.assert_close(intake.unrounded(images), intake(images), rtol=1e-4, atol=1e-4)
    images = images.requires_grad_()
    intake.unrounded(images + 1e-3).sum().backward()
    assert images.grad.abs().sum() > 0


def test_images_that_follow_it_are_what_the_classifier_asks_for() -> None:
    table, label, part = nn.Embedding(10, 64), torch.arange(10), guidance()
    optimizer = torch.optim.Adam(table.parameters(), 0.05)
    net = parts.build("extractor", {"use": "digit-net"})

    def accuracy() -> float:
        images = table(label).detach().tanh().view(10, 1, 8, 8)
        return float((net(images)[1].argmax(1) == label).float().mean())

    before = accuracy()
    for _ in range(60):
        optimizer.zero_grad()
        part(turn(table(label).tanh().view(10, 1, 8, 8), label)).backward()
        optimizer.step()
    assert before < 0.5
    assert accuracy() == 1.0


def test_what_cannot_guide_is_refused() -> None:
    images, label = digits(4)
    with pytest.raises(BadValue, match="'random-net' is no classifier"):
        guidance(extractor={"use": "random-net"})
    with pytest.raises(BadValue, match="told the class"):
        guidance()(turn(images, None))
    with pytest.raises(BadValue, match="told the class"):
        guidance()(turn(images, label, conditional=False))
    with pytest.raises(BadValue, match="knows 10 classes; the data have one of number 11"):
        guidance()(turn(images, label * 0 + 11))
