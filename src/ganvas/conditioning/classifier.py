"""Critics that also classify: AC-GAN, TAC-GAN and ADC-GAN, a classifier on the features of an unconditional critic.

p is the distribution of real (x, y), q that of generated ones. AC-GAN's generator maximises log P(y | x) besides
matching p(x), which rewards samples that are easy to classify: within-class diversity shrinks. TAC-GAN takes the
excess away with a twin classifier of generated data, ADC-GAN by telling the real of a class from the fake of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.conditioning.head import Head, classes_of, given
from ganvas.parts import conditioning
from ganvas.types import DataSpec, Objective, Scores, Turn

Normalize = Literal["both", "features"]
Weight = Annotated[float, Ge(0)]


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


def real_of(y: Tensor) -> Tensor:
    """y⁺, "real and of class y", among 2K classes; numbered as in the authors' code."""
    return 2 * y


def fake_of(y: Tensor) -> Tensor:
    """y⁻, "fake and of class y", among 2K classes."""
    return 2 * y + 1


@conditioning("auxiliary-classifier", paper="Odena et al. 2017, eq. 2-3")
class AuxiliaryClassifierHead(Head):
    """AC-GAN: an unconditional logit, and a classifier that the generator's samples must satisfy.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like; must have classes.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the layer of the logit has one; the classifier has none.
    weight : of the classification loss in the critic's update.
    generator_weight : of that in the generator's update; None means as `weight`.
    classify : what the critic learns to classify. "real" is what later work does; the paper's critic classifies fakes
        by their labels too ("both").
    normalize : "both" compares features and class weights by cosine; "features" normalises the features alone, as
        PyTorch-StudioGAN does under the name of both.

    Raises
    ------
    BadValue : the data have no labels.
    """

    pairing = "optional"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        weight: Weight = 1.0,
        generator_weight: Weight | None = None,
        classify: Literal["real", "both"] = "real",
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__()
        K = classes_of(spec, "auxiliary-classifier")
        self.weight = weight
        self.generator_weight = weight if generator_weight is None else generator_weight
        self.classify = classify
        self.linear = wrap(nn.Linear(features, 1, bias=bias))
        self.classifier = Classifier(features, K, wrap, normalize)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,), extra "class_logits" (N, K)."""
        return Scores(self.logit(features, label), features, {"class_logits": self.classifier(features)})

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of real data, or of both sides."""
        loss = classification(turn.real_scores.extra["class_logits"], given(turn.label, "auxiliary-classifier"))
        if self.classify == "both":
            y = given(turn.fake_label, "auxiliary-classifier")
            loss = loss + classification(turn.fake_scores.extra["class_logits"], y)
        return {"classification": self.weight * loss}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of generated data."""
        y = given(turn.fake_label, "auxiliary-classifier")
        return {
            "classification": self.generator_weight * classification(turn.fake_scores.extra["class_logits"], y),
        }


@conditioning("twin-auxiliary-classifier", paper="Gong et al. 2019")
class TwinAuxiliaryClassifierHead(Head):
    """TAC-GAN: an auxiliary classifier of real data, and a twin that learns from fakes and that the generator fools.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like; must have classes.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the layer of the logit has one; the classifiers have none.
    weight : of both classification losses in the critic's update.
    generator_weight : of both in the generator's update; None means as `weight`.
    normalize : as of `auxiliary-classifier`, for both classifiers.

    Raises
    ------
    BadValue : the data have no labels.
    """

    pairing = "optional"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        weight: Weight = 1.0,
        generator_weight: Weight | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__()
        K = classes_of(spec, "twin-auxiliary-classifier")
        self.weight = weight
        self.generator_weight = weight if generator_weight is None else generator_weight
        self.linear = wrap(nn.Linear(features, 1, bias=bias))
        self.classifier = Classifier(features, K, wrap, normalize)
        self.twin = Classifier(features, K, wrap, normalize)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,), extra "class_logits" and "twin_logits", both (N, K)."""
        extra = {"class_logits": self.classifier(features), "twin_logits": self.twin(features)}
        return Scores(self.logit(features, label), features, extra)

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of real data and "twin" of generated ones."""
        real = classification(turn.real_scores.extra["class_logits"], given(turn.label, "twin-auxiliary-classifier"))
        y = given(turn.fake_label, "twin-auxiliary-classifier")
        twin = classification(turn.fake_scores.extra["twin_logits"], y)
        return {"classification": self.weight * real, "twin": self.weight * twin}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of generated data, minus that of the "twin"."""
        extra, y = turn.fake_scores.extra, given(turn.fake_label, "twin-auxiliary-classifier")
        return {
            "classification": self.generator_weight * classification(extra["class_logits"], y),
            "twin": -self.generator_weight * classification(extra["twin_logits"], y),
        }


@conditioning("adc", paper="Hou et al. 2022", system="adc-gan")
class ADCHead(Head):
    """ADC-GAN: one classifier of 2K classes, "real of class y" and "fake of class y", beside the logit.

    With the best classifier its generator term alone is KL(q(x, y) || p(x, y)), so that the joint distribution is
    matched even without a logit (`objective: by-head`).

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like; must have classes.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the layer of the logit has one; the classifier has none.
    weight : λ of the classification loss in the critic's update.
    generator_weight : λ in the generator's update; None means as `weight`.
    normalize : as of `auxiliary-classifier`.

    Raises
    ------
    BadValue : the data have no labels.
    """

    pairing = "optional"

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        weight: Weight = 1.0,
        generator_weight: Weight | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__()
        K = classes_of(spec, "adc")
        self.weight = weight
        self.generator_weight = weight if generator_weight is None else generator_weight
        self.linear = wrap(nn.Linear(features, 1, bias=bias))
        self.classifier = Classifier(features, 2 * K, wrap, normalize)

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,), extra "class_logits" (N, 2K): real of class y at 2y, fake of it at 2y + 1."""
        return Scores(self.logit(features, label), features, {"class_logits": self.classifier(features)})

    # Hou et al. 2022: λ (E_p −log C(y⁺ | x) + E_q −log C(y⁻ | x))
    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of real data as real of their class, and of generated ones as fake of theirs."""
        real = classification(turn.real_scores.extra["class_logits"], real_of(given(turn.label, "adc")))
        fake = classification(turn.fake_scores.extra["class_logits"], fake_of(given(turn.fake_label, "adc")))
        return {"classification": self.weight * (real + fake)}

    # Hou et al. 2022: λ (E_q −log C(y⁺ | x) − E_q −log C(y⁻ | x))
    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "classification" of generated data as real of their class, and not as fake of it."""
        logits, y = turn.fake_scores.extra["class_logits"], given(turn.fake_label, "adc")
        loss = classification(logits, real_of(y)) - classification(logits, fake_of(y))
        return {"classification": self.generator_weight * loss}
