"""Classification accuracy score: how well a classifier that learnt from generated images does on real ones, and back.

A small residual network is trained from scratch for each score. The data that it is tested on decide nothing: the epoch
is chosen on a part of the training side that was held out.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Annotated

import numpy.typing as npt
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from ganvas.errors import UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.images import Images, images_of, label_of, stack, stack_labels
from ganvas.types import Evidence, EvidenceSet, Metric

_BATCH = 64
_RATE, _DECAY = 5e-3, 0.05
_HELD_OUT = 10  # every tenth image of the training side chooses the epoch
_STEPS = 8  # of an epoch at least; a small set is learnt in smaller batches
_FEW = 20  # images of a class


@metric("classification-accuracy-score", paper="Ravuri and Vinyals 2019", tiny={"epochs": 10, "width": 8})
class ClassificationAccuracyScore(Metric):
    """Accuracy on real images of a classifier trained on generated ones and the classes they were asked for.

    In [0, 1], higher is better; its ceiling is the accuracy of the same classifier trained on real images. It misses
    neither poor images nor missing ones: what a model leaves out of a class, its classifier does not learn. The
    classifier is a small residual network, not the paper's ResNet-50, so values are comparable only among themselves.

    Parameters
    ----------
    epochs : passes over the generated images; the best one on a tenth of them that is held out counts.
    width : channels of the first layer.
    seed : decides first weights, the order of images and which are held out.
    """

    needs = frozenset({"fake:images", "fake:label", "real:images", "real:label"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"classification_accuracy_score": False}
    limits: Mapping[str, tuple[float, float]] = {"classification_accuracy_score": (0, 1)}

    def __init__(
        self,
        *,
        epochs: Annotated[int, Gt(0)] = 20,
        width: Annotated[int, Gt(0)] = 32,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.learn = Learning(epochs, width, seed)

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real = evidence.real
        net = self.learn(evidence.fake, "fake")
        score = accuracy(net, images_of(real, "real"), label_of(real, "real"))
        return {"classification_accuracy_score": score}


@metric("gan-test", paper="Shmelkov et al. 2018", tiny={"epochs": 10, "width": 8})
class GANTest(Metric):
    """Accuracy on generated images of a classifier trained on the model's training data: the score the other way round.

    In [0, 1], higher is better; it says whether images look like their class, not whether the class is covered. Above
    the classifier's accuracy on real images, the model makes only easy ones, or has learnt its data by heart.

    Parameters
    ----------
    epochs : passes over the training data; the best one on a tenth of them that is held out counts.
    width : channels of the first layer.
    seed : decides first weights, the order of images and which are held out.
    """

    needs = frozenset({"training:images", "training:label", "fake:images", "fake:label"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"gan_test": False}
    limits: Mapping[str, tuple[float, float]] = {"gan_test": (0, 1)}

    def __init__(
        self,
        *,
        epochs: Annotated[int, Gt(0)] = 20,
        width: Annotated[int, Gt(0)] = 32,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.learn = Learning(epochs, width, seed)

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        fake = evidence.fake
        net = self.learn(evidence.training, "training")
        return {"gan_test": accuracy(net, images_of(fake, "fake"), label_of(fake, "fake"))}


class Learning:
    """The classifier of one set of images, kept until another set comes: other images to test it on need no new one."""

    def __init__(self, epochs: int, width: int, seed: int) -> None:
        self.epochs = epochs
        self.width = width
        self.seed = seed
        self._trained: tuple[Tensor, Tensor, SmallResNet] | None = None

    def __call__(self, side: EvidenceSet | None, name: str) -> SmallResNet:
        images, label = images_of(side, name), label_of(side, name)
        if self._trained is None or self._trained[0] is not images or self._trained[1] is not label:
            net = train_classifier(images, label, epochs=self.epochs, width=self.width, seed=self.seed)
            self._trained = images, label, net
        return self._trained[2]


# --------------------------------------------------------------------------------------------------- the network


class Block(nn.Module):
    """Two convolutions around which the input goes straight on (He et al. 2016, pre-activation); halves the image."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W), or H/2, W/2 rounded up."""
        h = F.relu(self.norm1(x))
        if self.halve:
            x, h = (F.avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False) for maps in (x, h))
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        out: Tensor = self.skip(x) + h
        return out


class SmallResNet(nn.Module):
    """A residual classifier for images of any size and channel count: one block at full size, then one a halving.

    Halvings go on until the shorter side is below 8; the width doubles with each of the first two.
    """

    def __init__(self, channels: int, side: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks, now = [Block(width, width, halve=False)], width
        while side >= 8:
            wider = min(2 * now, 4 * width)
            blocks.append(Block(now, wider, halve=True))
            now, side = wider, -(-side // 2)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(now)
        self.classify = nn.Linear(now, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) bytes -> logits (N, classes)."""
        h = self.blocks(self.stem(images.float() / 127.5 - 1))
        logits: Tensor = self.classify(F.relu(self.norm(h)).mean((2, 3)))
        return logits


# --------------------------------------------------------------------------------------------------- training


def train_classifier(
    images: Images,
    label: npt.ArrayLike | Tensor,
    *,
    epochs: int = 20,
    width: int = 32,
    seed: int = 0,
) -> SmallResNet:
    """A classifier of images (N, C, H, W) with labels (N,), in eval mode.

    A random tenth is held out. The weights are those after the epoch with the highest accuracy on it, the lower loss
    deciding between equals. AdamW with a cosine from 0.005 to 0; on the images' device.

    Raises
    ------
    UsageError : fewer than 10 images, not one label an image, or all of one class.
    """
    x = stack(images, "training", at_least=_HELD_OUT)
    y = stack_labels(label, len(x), "training")
    counts = torch.bincount(y)
    if int((counts > 0).sum()) < 2:
        raise UsageError("all training images are of one class", hint="a classifier needs at least two")
    if counts[counts > 0].min() < _FEW:
        warnings.warn(f"{len(x)} samples are few to train a classifier: one class has {int(counts[counts > 0].min())}")
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=rng)
    held, used = order[: len(x) // _HELD_OUT].to(x.device), order[len(x) // _HELD_OUT :].to(x.device)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.default_generator.manual_seed(seed)
        net = SmallResNet(x.shape[1], min(x.shape[2:]), len(counts), width).to(x.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY)
    size = max(2, min(_BATCH, len(used) // _STEPS))
    steps = len(used) // size  # a last batch that is not full waits for another epoch's order
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    best, weights = (-1.0, 0.0), net.state_dict()
    for _ in range(epochs):
        net.train()
        shuffled = used[torch.randperm(len(used), generator=rng).to(x.device)]
        for batch in torch.split(shuffled[: steps * size], size):
            optimizer.zero_grad(set_to_none=True)
            batch_loss(net, x[batch], y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        net.eval()
        logits = predict(net, x[held])
        quality = (
            float((logits.argmax(1) == y[held]).double().mean()),
            -float(F.cross_entropy(logits.double(), y[held])),
        )
        if quality > best:
            best, weights = quality, copy.deepcopy(net.state_dict())
    net.load_state_dict(weights)
    return net.requires_grad_(False)


def batch_loss(net: nn.Module, images: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of one batch."""
    return F.cross_entropy(net(images), label)


def predict(net: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W), a batch at a time, without gradients."""
    with torch.inference_mode():
        return torch.cat([net(batch) for batch in torch.split(images, 4 * _BATCH)])


def accuracy(net: SmallResNet, images: Images, label: npt.ArrayLike | Tensor) -> float:
    """Share of images (N, C, H, W) whose label (N,) the classifier finds, in [0, 1]; a class it never saw is missed.

    Raises
    ------
    UsageError : no images, other channels than it was trained on, or not one label an image.
    """
    x = stack(images, "test")
    y = stack_labels(label, len(x), "test")
    if x.shape[1] != net.stem.in_channels:
        raise UsageError(
            f"a classifier of images with {net.stem.in_channels} channels cannot judge ones with {x.shape[1]}",
            hint="score images of the same form",
        )
    return float((predict(net, x).argmax(1) == y).double().mean())
