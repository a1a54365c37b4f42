"""Critics that also classify: AC-GAN, TAC-GAN and ADC-GAN, a classifier on the features of an unconditional critic.

p is the distribution of real (x, y), q that of generated ones. AC-GAN's generator maximises log P(y | x) besides
matching p(x), which rewards samples that are easy to classify: within-class diversity shrinks. TAC-GAN takes the
excess away with a twin classifier of generated data, ADC-GAN by telling the real of a class from the fake of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.parts import Flat, conditioning
from ganvas.shelves.conditioning.head import LinearHead, classes_of, given
from ganvas.types import DataSpec, Objective, Scores, Turn

Normalize = Literal["both", "features"]


class Classifier(nn.Module):
    """A linear classifier of features, perhaps by cosine.

    Parameters
    ----------
    features, classes : D and the number of outputs.
    wrap : start and weight normalisation of the linear layer, which has no bias.
    normalize : "both" divides features and each class's weights by their length, so that outputs are cosines;
        "features" only the features, which is what PyTorch-StudioGAN computes when it is asked for both.
    """

    def __init__(
        self, features: int, classes: int, wrap: Callable[[nn.Module], nn.Module], normalize: Normalize | None
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.linear = wrap(nn.Linear(features, classes, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> class logits (N, classes)."""
        if self.normalize is None:
            logits: Tensor = self.linear(features)
            return logits
        features = F.normalize(features, dim=1)
        if self.normalize == "features":
            return self.linear(features)  # type: ignore[no-any-return]
        weight = self.linear.weight
        assert isinstance(weight, Tensor)
        return F.linear(features, F.normalize(weight, dim=1))


# Odena et al. 2017, eq. 3: L_C, here as the loss -L_C
def classification(logits: Tensor, y: Tensor) -> Tensor:
    """E −log C(y | x) of class logits (N, K) and labels (N,)."""
    return F.cross_entropy(logits, y)


# ADC-GAN, authors' code: the mean over k ≠ y of max(0, 1 − l_y + l_k), after Weston & Watkins 1999
def class_hinge(logits: Tensor, y: Tensor, margin: bool) -> Tensor:
    """Each wrong class of logits (N, K) must lose to label (N,) by 1; without `margin`, by as much as it can."""
    gaps = logits - logits.gather(1, y[:, None])  # (N, K), 0 at y
    wrong = torch.ones_like(gaps).scatter(1, y[:, None], 0.0)
    losses = F.relu(1 + gaps) if margin else gaps
    return (losses * wrong).sum() / wrong.sum()


def real_of(y: Tensor) -> Tensor:
    """y⁺, "real and of class y", among 2K classes; numbered as in the authors' code."""
    return 2 * y


def fake_of(y: Tensor) -> Tensor:
    """y⁻, "fake and of class y", among 2K classes."""
    return 2 * y + 1


@dataclass(frozen=True)
class Classification:
    """Keys that all three heads have.

    Parameters
    ----------
    weight : of classification in the critic's update.
    generator_weight : of that in the generator's update; None means as `weight`.
    normalize : "both" compares features and class weights by cosine; "features" normalises the features alone, as
        PyTorch-StudioGAN does under the name of both.
    loss : "hinge" asks for a margin of 1 over each other class, as an option of ADC-GAN's code; the generator's has no
        margin.
    """

    weight: Annotated[float, Ge(0)] = 1.0
    generator_weight: Annotated[float, Ge(0)] | None = None
    normalize: Normalize | None = None
    loss: Literal["cross-entropy", "hinge"] = "cross-entropy"


Options = Annotated[Classification, Flat()]
_DEFAULTS = Classification()


class ClassifierHead(LinearHead, ABC):
    """What the heads with a classifier share: an unconditional logit, and class logits of a layer without bias.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    options : see `Classification`.

    Raises
    ------
    BadValue : the data have no labels.
    """

    pairing = "optional"
    name: ClassVar[str]
    per_class: ClassVar[int] = 1  # classes of the classifier for one of the data

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        options: Options = _DEFAULTS,
    ) -> None:
        K = classes_of(spec, self.name)
        super().__init__(features, spec, wrap, bias)
        self.weight = options.weight
        self.generator_weight = options.weight if options.generator_weight is None else options.generator_weight
        self.hinge = options.loss == "hinge"
        self.classifier = Classifier(features, self.per_class * K, wrap, options.normalize)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,), extra "class_logits" (N, per_class * K)."""
        return Scores(self.logit(features, label), features, {"class_logits": self.classifier(features)})

    def real(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """(class logits, labels (N,)) of real data."""
        return turn.real_scores.extra["class_logits"], given(turn.label, self.name)

    def fake(self, turn: Turn, logits: str = "class_logits") -> tuple[Tensor, Tensor]:
        """(class logits, labels (N,)) of generated data."""
        return turn.fake_scores.extra[logits], given(turn.fake_label, self.name)

    def learnt(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of who learns to classify."""
        return class_hinge(logits, y, margin=True) if self.hinge else classification(logits, y)

    def obeyed(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of who is to be classified so."""
        return class_hinge(logits, y, margin=False) if self.hinge else classification(logits, y)

    @abstractmethod
    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]: ...

    @abstractmethod
    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]: ...


@conditioning("auxiliary-classifier", paper="Odena et al. 2017, eq. 2-3")
class AuxiliaryClassifierHead(ClassifierHead):
    """AC-GAN: an unconditional logit, and a classifier that the generator's samples must satisfy.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    classify : what the critic learns to classify. "real" is what later work does; the paper's critic classifies fakes
        by their labels too ("both").
    weight : of classification in the critic's update.
    generator_weight : of that in the generator's update; None means as `weight`.
    normalize : "both" compares features and class weights by cosine; "features" normalises the features alone, as
        PyTorch-StudioGAN does under the name of both.
    loss : "hinge" asks for a margin of 1 over each other class, as an option of ADC-GAN's code; the generator's has no
        margin.

    Raises
    ------
    BadValue : the data have no labels.
    """

    name = "auxiliary-classifier"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        classify: Literal["real", "both"] = "real",
        options: Options = _DEFAULTS,
    ) -> None:
        super().__init__(features, spec, wrap, bias, options=options)
        self.classify = classify

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of real data, or of both sides."""
        loss = self.learnt(*self.real(turn))
        if self.classify == "both":
            loss = loss + self.learnt(*self.fake(turn))
        return {"classification": self.weight * loss}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of generated data."""
        return {"classification": self.generator_weight * self.obeyed(*self.fake(turn))}


@conditioning("twin-auxiliary-classifier", paper="Gong et al. 2019")
class TwinAuxiliaryClassifierHead(ClassifierHead):
    """TAC-GAN: an auxiliary classifier of real data, and a twin that learns from fakes and that the generator fools.

    Weights, `normalize` and `loss` are for both classifiers; see `auxiliary-classifier`.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    twin_reads : which class logits the twin's losses are of. "twin" is the paper's. In PyTorch-StudioGAN they are the
        "classifier"'s: its twin never learns, and both terms of its generator cancel out.

    Raises
    ------
    BadValue : the data have no labels.
    """

    name = "twin-auxiliary-classifier"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        twin_reads: Literal["twin", "classifier"] = "twin",
        options: Options = _DEFAULTS,
    ) -> None:
        super().__init__(features, spec, wrap, bias, options=options)
        self.twin_logits = "twin_logits" if twin_reads == "twin" else "class_logits"
        self.twin = Classifier(features, spec.num_classes, wrap, options.normalize)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,), extra "class_logits" and "twin_logits", both (N, K)."""
        extra = {"class_logits": self.classifier(features), "twin_logits": self.twin(features)}
        return Scores(self.logit(features, label), features, extra)

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of real data and "twin" of generated ones."""
        real, twin = self.learnt(*self.real(turn)), self.learnt(*self.fake(turn, self.twin_logits))
        return {"classification": self.weight * real, "twin": self.weight * twin}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of generated data, minus that of the "twin"."""
        obeying, twin = self.obeyed(*self.fake(turn)), self.obeyed(*self.fake(turn, self.twin_logits))
        return {"classification": self.generator_weight * obeying, "twin": -self.generator_weight * twin}


@conditioning("adc", paper="Hou et al. 2022", system="adc-gan")
class ADCHead(ClassifierHead):
    """ADC-GAN: one classifier of 2K classes, "real of class y" and "fake of class y", beside the logit.

    With the best classifier its generator term alone is KL(q(x, y) || p(x, y)), so that the joint distribution is
    matched even without a logit (`objective: by-head`). Real of class y is at 2y of the class logits (N, 2K), fake of
    it at 2y + 1. For `weight`, the paper's λ, and the other keys see `auxiliary-classifier`.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    two_passes : the generator's update scores its data anew for the fake classes, as PyTorch-StudioGAN does. The loss
        is the same, but batch norms and power iterations of the critic move once more.

    Raises
    ------
    BadValue : the data have no labels.
    """

    name = "adc"
    per_class = 2

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        two_passes: bool = False,
        options: Options = _DEFAULTS,
    ) -> None:
        super().__init__(features, spec, wrap, bias, options=options)
        self.two_passes = two_passes

    # Hou et al. 2022: λ (E_p −log C(y⁺ | x) + E_q −log C(y⁻ | x))
    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of real data as real of their class, and of generated ones as fake of theirs."""
        (real, y), (fake, fake_y) = self.real(turn), self.fake(turn)
        loss = self.learnt(real, real_of(y)) + self.learnt(fake, fake_of(fake_y))
        return {"classification": self.weight * loss}

    # Hou et al. 2022: λ (E_q −log C(y⁺ | x) − E_q −log C(y⁻ | x))
    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of generated data as real of their class, and not as fake of it."""
        logits, y = self.fake(turn)
        again = turn.critic(turn.fake, turn.fake_condition).extra["class_logits"] if self.two_passes else logits
        loss = self.obeyed(logits, real_of(y)) - self.obeyed(again, fake_of(y))
        return {"classification": self.generator_weight * loss}
