"""Classification accuracy score, both ways: what it sees, what it may not see, and that it is a pure function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.errors import DataError, UsageError
from ganvas.recipe.check import check_node
from ganvas.shelves.metrics import classification_accuracy
from ganvas.shelves.metrics.classification_accuracy import (
    ClassificationAccuracyScore,
    GANTest,
    SmallResNet,
    accuracy,
    train_classifier,
)
from ganvas.types import Evidence, EvidenceSet

pytestmark = pytest.mark.filterwarnings("ignore:.*samples are few")

QUICK = {"epochs": 12, "width": 8}


@pytest.fixture(scope="module")
def digits() -> dict[str, EvidenceSet]:
    sides = {}
    for split, n in (("train", 500), ("test", 300)):
        dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": split}))
        batch = dataset.batch(np.arange(n), np.random.default_rng(0))
        sides[split] = EvidenceSet(images=((batch.data + 1) * 127.5).round().byte(), label=batch.label)
    return sides


def with_label(side: EvidenceSet, label: Tensor) -> EvidenceSet:
    return EvidenceSet(images=side.images, label=label)


def test_real_images_as_samples_reach_the_classifiers_own_accuracy(digits: dict[str, EvidenceSet]) -> None:
    score = ClassificationAccuracyScore(**QUICK)(Evidence(digits["test"], digits["train"]))
    back = GANTest(**QUICK)(Evidence(EvidenceSet(), digits["test"], training=digits["train"]))
    assert score["classification_accuracy_score"] > 0.9
    assert back == {"gan_test": score["classification_accuracy_score"]}  # the same training set, the same test set


def test_a_model_that_ignores_the_class_is_at_chance_both_ways(digits: dict[str, EvidenceSet]) -> None:
    asked = torch.randint(10, (500,), generator=torch.Generator().manual_seed(1))
    blind = with_label(digits["train"], asked)
    score = ClassificationAccuracyScore(**QUICK)(Evidence(digits["test"], blind))["classification_accuracy_score"]
    back = GANTest(**QUICK)(Evidence(EvidenceSet(), blind, training=digits["train"]))["gan_test"]
    assert score < 0.3
    assert back < 0.2


def test_a_class_that_is_left_out_costs_its_share_one_way_only(digits: dict[str, EvidenceSet]) -> None:
    train, test = digits["train"], digits["test"]
    kept = train.label != 3
    dropped = EvidenceSet(images=train.images[kept], label=train.label[kept])
    score = ClassificationAccuracyScore(**QUICK)(Evidence(test, dropped))["classification_accuracy_score"]
    whole = ClassificationAccuracyScore(**QUICK)(Evidence(test, train))["classification_accuracy_score"]
    share = (test.label == 3).float().mean().item()
    assert score <= 1 - share
    assert score == pytest.approx(whole - share, abs=0.05)
    back = [GANTest(**QUICK)(Evidence(EvidenceSet(), each, training=test))["gan_test"] for each in (train, dropped)]
    assert back[1] == pytest.approx(back[0], abs=0.05)


def test_a_seed_decides_everything_and_nothing_outside_is_touched(digits: dict[str, EvidenceSet]) -> None:
    x, y = digits["train"].images[:100], digits["train"].label[:100]

    def weights(seed: int) -> Tensor:
        net = train_classifier(x, y, epochs=2, width=4, seed=seed)
        return torch.cat([each.flatten() for each in net.state_dict().values()])

    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = weights(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(weights(0), one)
    assert not torch.equal(weights(1), one)
    net = train_classifier(x.float() / 127.5 - 1, y.numpy(), epochs=2, width=4)  # floats of the same images
    assert torch.equal(torch.cat([each.flatten() for each in net.state_dict().values()]), one)
    assert not net.training


def test_a_training_set_is_learnt_once(digits: dict[str, EvidenceSet], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many test sets follow, as halves of it do for an interval; another training set is learnt anew."""
    learnt: list[int] = []

    def counted(images: Tensor, label: Tensor, **keys: int) -> SmallResNet:
        learnt.append(len(images))
        return train_classifier(images, label, **keys)

    monkeypatch.setattr(classification_accuracy, "train_classifier", counted)
    train, test = digits["train"], digits["test"]
    half = EvidenceSet(images=test.images[:150], label=test.label[:150])
    score, back = (part(epochs=1, width=2) for part in (ClassificationAccuracyScore, GANTest))
    values = [score(Evidence(real, train)) for real in (test, half, test)]
    assert values[0] == values[2] != values[1]
    for fake in (test, half):
        back(Evidence(EvidenceSet(), fake, training=train))
    assert learnt == [500, 500]
    score(Evidence(train, half))
    score(Evidence(train, with_label(half, half.label.clone())))
    assert learnt == [500, 500, 150, 150]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 8, 20), (4, 33, 17), (1, 64, 64)])
def test_images_of_any_form(shape: tuple[int, int, int]) -> None:
    images = torch.randint(256, (20, *shape), dtype=torch.uint8)
    images[10:] //= 2
    net = train_classifier(images, torch.arange(2).repeat_interleave(10), epochs=1, width=2)
    assert 0 <= accuracy(net, images, torch.zeros(20, dtype=torch.int64)) <= 1


def test_depth_follows_the_size() -> None:
    for side, halvings in ((4, 0), (7, 0), (8, 1), (16, 2), (32, 3), (33, 3)):
        assert len(SmallResNet(3, side, 10, 8).blocks) == 1 + halvings


def test_labels_that_were_never_learnt_are_missed() -> None:
    images = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    net = train_classifier(images, torch.arange(2).repeat(20), epochs=1, width=2)
    assert accuracy(net, images, torch.full((40,), 7)) == 0


def test_warns_of_few_images_of_a_class() -> None:
    images = torch.randint(256, (30, 1, 4, 4), dtype=torch.uint8)
    with pytest.warns(UserWarning, match="30 samples are few to train a classifier: one class has 5"):
        train_classifier(images, torch.tensor([0] * 25 + [1] * 5), epochs=1, width=2)


def test_errors_name_the_fault(digits: dict[str, EvidenceSet]) -> None:
    side, nothing = digits["train"], EvidenceSet()
    with pytest.raises(UsageError, match="no fake images"):
        ClassificationAccuracyScore()(Evidence(side, nothing))
    with pytest.raises(UsageError, match="fake images have no labels"):
        ClassificationAccuracyScore()(Evidence(side, EvidenceSet(images=side.images)))
    with pytest.raises(UsageError, match="no training images"):
        GANTest()(Evidence(side, side))
    with pytest.raises(UsageError, match="9 training images, and at least 10"):
        train_classifier(side.images[:9], side.label[:9])
    with pytest.raises(UsageError, match="all training images are of one class"):
        train_classifier(side.images, torch.zeros(500, dtype=torch.int64))
    with pytest.raises(UsageError, match="500 training images need as many class numbers"):
        train_classifier(side.images, side.label[:9])
    with pytest.raises(UsageError, match="class numbers, not"):
        train_classifier(side.images, side.label.float())
    with pytest.raises(DataError, match="labels hold -1"):
        train_classifier(side.images, side.label - 1)
    net = train_classifier(side.images[:40], side.label[:40], epochs=1, width=2)
    with pytest.raises(UsageError, match="images with 1 channels cannot judge ones with 3"):
        accuracy(net, side.images.expand(-1, 3, -1, -1), side.label)
