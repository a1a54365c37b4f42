"""Heads whose last layer has a row per class: multi-hinge, AM-GAN and LabelGAN, and one discriminator per class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import LinearHead, classes_of, given
from ganvas.types import DataSpec, Objective, Scores, Turn


# Crammer & Singer 2001: max(0, 1 + max_{k≠y} f_k − f_y); Kavalerov et al. 2021 use it with K + 1 classes
def crammer_singer(logits: Tensor, y: Tensor) -> Tensor:
    """Multi-class hinge of logits (N, K) and labels (N,): the right class must win by a margin of 1."""
    right = logits.gather(1, y[:, None]).squeeze(1)  # (N,)
    wrong = logits.scatter(1, y[:, None], -torch.inf).amax(1)  # (N,)
    return F.relu(1 + wrong - right).mean()


@conditioning("multi-hinge", paper="Kavalerov et al. 2021")
class MultiHingeHead(LinearHead):
    """K + 1 scores, the last one for "fake", under the multi-class hinge loss; brings the whole adversarial loss.

    The logit, which penalties and samplers read, is the score of the datum's class minus that of "fake".

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.

    Raises
    ------
    BadValue : the data have no labels.
    """

    pairing = "own"
    linear_logit = False

    def __init__(
        self, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool = True
    ) -> None:
        K = classes_of(spec, "multi-hinge")
        super().__init__(features, spec, wrap, bias, K + 1)
        self.fake = K  # the number of the class "fake"

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and label (N,) int64 -> logits (N,), extra "class_scores" (N, K + 1)."""
        scores: Tensor = self.linear(features)  # (N, K + 1)
        own_score = scores.gather(1, given(label, "multi-hinge")[:, None]).squeeze(1)  # (N,)
        return Scores(own_score - scores[:, self.fake], features, {"class_scores": scores})

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "adversarial": real data win in their class, generated ones in "fake"."""
        real, fake = turn.real_scores.extra["class_scores"], turn.fake_scores.extra["class_scores"]
        all_fake = torch.full_like(fake[:, 0], self.fake, dtype=torch.int64)
        loss = crammer_singer(real, given(turn.label, "multi-hinge")) + crammer_singer(fake, all_fake)
        return {"adversarial": loss}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "adversarial": generated data win in their class."""
        scores = turn.fake_scores.extra["class_scores"]
        return {"adversarial": crammer_singer(scores, given(turn.fake_label, "multi-hinge"))}


# Zhou et al. 2018: H(onehot(target), softmax(logits)); its gradient in the logits is softmax(logits) − onehot(target)
def activation_maximisation(logits: Tensor, target: Tensor) -> Tensor:
    """AM-GAN's generator loss on logits (N, K + 1): one class per datum is to win."""
    return F.cross_entropy(logits, target)


# Salimans et al. 2016, section 5: −log Σ_{k≤K} softmax(logits)_k; its gradient in logit k is D_k (1 − 1{k≤K} / D_real)
def label_gan(logits: Tensor) -> Tensor:
    """LabelGAN's generator loss on logits (N, K + 1), "fake" last: any real class may win."""
    return (logits.logsumexp(1) - logits[:, :-1].logsumexp(1)).mean()


@conditioning("am-gan", paper="Zhou et al. 2018", system="am-gan")
class ActivationMaximisationHead(LinearHead):
    """K real classes and "fake" in one softmax; the generator maximises one of them. Brings the whole adversarial loss.

    The logit, which penalties and samplers read, is log(1 − D_fake) − log D_fake.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.
    target : the class that a generated datum is pushed to. "label" is the one that it was made for, "likeliest" the
        real class that the critic finds likeliest (for generators that ignore labels), "any" the sum of them all, which
        is LabelGAN of Salimans et al. 2016.

    Raises
    ------
    BadValue : the data have no labels.
    """

    pairing = "own"
    linear_logit = False

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        target: Literal["label", "likeliest", "any"] = "label",
    ) -> None:
        K = classes_of(spec, "am-gan")
        super().__init__(features, spec, wrap, bias, K + 1)
        self.fake = K  # the number of the class "fake"
        self.target = target

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,), extra "class_scores" (N, K + 1)."""
        scores: Tensor = self.linear(features)  # (N, K + 1)
        return Scores(scores[:, :-1].logsumexp(1) - scores[:, -1], features, {"class_scores": scores})

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "adversarial": cross entropy with the class of real data, and with "fake"."""
        real, fake = turn.real_scores.extra["class_scores"], turn.fake_scores.extra["class_scores"]
        all_fake = torch.full_like(fake[:, 0], self.fake, dtype=torch.int64)
        loss = F.cross_entropy(real, given(turn.label, "am-gan")) + F.cross_entropy(fake, all_fake)
        return {"adversarial": loss}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "adversarial": cross entropy with the target class."""
        scores = turn.fake_scores.extra["class_scores"]
        if self.target == "any":
            return {"adversarial": label_gan(scores)}
        y = given(turn.fake_label, "am-gan") if self.target == "label" else scores[:, :-1].argmax(1)
        return {"adversarial": activation_maximisation(scores, y)}


@conditioning("multi-discriminator", paper="Choi et al. 2020")
class MultiDiscriminatorHead(LinearHead):
    """One linear logit per class; each datum is judged by that of its own.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`; the data must have classes.

    Raises
    ------
    BadValue : the data have no labels.
    """

    def __init__(
        self, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool = True
    ) -> None:
        super().__init__(features, spec, wrap, bias, classes_of(spec, "multi-discriminator"))

    def pick(self, outputs: Tensor, label: Tensor | None) -> Tensor:
        """(N, K) -> (N,)."""
        return outputs.gather(1, given(label, "multi-discriminator")[:, None]).squeeze(1)
