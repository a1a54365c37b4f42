"""A classifier that learns from few labels, and from telling real data from generated ones (Salimans et al. 2016).

Its K classes and "fake" share one softmax whose last logit is fixed at 0, so that with Z = Σ_k exp l_k

    p(k | x) = exp l_k / (Z + 1),   D(x) = p(real | x) = Z / (Z + 1),   log odds of D = log Z = logsumexp l

and the unsupervised loss is the logistic GAN loss of the logit log Z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.parts import Entry, Slot, Slots, conditioning, task
from ganvas.runtime import ranks
from ganvas.shelves.tasks.adversarial import Adversarial
from ganvas.types import NO_CONDITION, Augment, Batch, CriticHead, DataSpec, Facts, Nets, Objective, Scores, Term


@conditioning("k-plus-one", paper="Salimans et al. 2016, section 5", system="improved-techniques-gan")
class KPlusOne(CriticHead):
    """K class logits beside a fixed 0 for "fake": the critic's logit is their log-sum-exp. Labels are not looked at.

    The head of the task `semi-supervised`, which teaches it the classes.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like.
    wrap : what the critic does to its layers.
    bias : whether the layer of the class logits has one.

    Raises
    ------
    BadValue : the data have no classes.
    """

    def __init__(
        self, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool = True
    ) -> None:
        super().__init__()
        _require_classes(spec, "conditioning", "networks.discriminator.conditioning=plain")
        self.linear = wrap(nn.Linear(features, spec.num_classes, bias=bias))

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,) and extra "class_logits" (N, K)."""
        class_logits = self.linear(features)
        return Scores(class_logits.logsumexp(1), features, {"class_logits": class_logits})

    def check(self, objective: Objective) -> None:
        """Refuse `by-head`: there is no loss here.

        Raises
        ------
        BadValue : it is that.
        """
        if objective.by_head:
            raise BadValue(
                "objective 'by-head' leaves a critic with conditioning 'k-plus-one' without a loss", key="objective",
                hint="task.objective=non-saturating",
            )  # fmt: skip


@task("semi-supervised", paper="Salimans et al. 2016, section 5", system="improved-techniques-gan")
class SemiSupervised(Adversarial):
    """The critic learns K classes from few labelled data; the generator matches the mean of its features.

    The first `labelled_per_class` data of each class that training meets are the labelled ones: they are kept, and are
    saved for resume. No other label is looked at. The critic needs `conditioning: k-plus-one`; its class logits are the
    classifier that is trained here, `model.critic(images).extra["class_logits"]`.

    Parameters
    ----------
    labelled_per_class : how many labelled data of each class there are.
    labelled_batch : how many of them make a step, drawn with replacement.
    labelled_weight : of their cross entropy.
    """

    averaged = ("generator", "discriminator")

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        labelled_per_class: Annotated[int, Gt(0)] = 10,
        labelled_batch: Annotated[int, Gt(0)] = 64,
        labelled_weight: Annotated[float, Ge(0)] = 1.0,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        critic_steps: Annotated[int, Gt(0)] = 1,
        regularizers: Annotated[Mapping[str, Entry], Slots("regularizer", Term)] = MappingProxyType({}),
        augment: Annotated[Augment, Slot("augment")] | None = None,
    ) -> None:
        super().__init__(
            nets, facts, objective=objective, critic_steps=critic_steps, regularizers=regularizers, augment=augment
        )
        _require_classes(facts.spec, "use", "task=adversarial")
        if not isinstance(self.discriminator.head, KPlusOne):
            raise BadValue(
                "the critic has no class logits beside a fixed one for fakes", where="networks.discriminator",
                hint="networks.discriminator.conditioning=k-plus-one",
            )  # fmt: skip
        self.per_class = labelled_per_class
        self.labelled_batch = labelled_batch
        self.labelled_weight = labelled_weight
        self.counts = [0] * facts.spec.num_classes
        self.data: Tensor | None = None  # (n, *shape), n <= K · labelled_per_class
        self.label: Tensor | None = None  # (n,)

    def critic_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The adversarial terms without a label, and "labelled", E −log p(y | x, real) over labelled data."""
        self.meet(batch)
        losses = super().critic_losses(batch.with_condition(NO_CONDITION), step)
        if self.data is not None and self.label is not None:
            chosen = draws.integers("labelled", 0, len(self.data), (self.labelled_batch,), like=self.data)
            class_logits = self.critic(self.data[chosen], NO_CONDITION).extra["class_logits"]
            losses["labelled"] = self.labelled_weight * F.cross_entropy(class_logits, self.label[chosen])
        return losses

    # Salimans et al. 2016, section 3.1 and 5: ‖E f(x) − E f(G(z))‖₂² alone; "-log D(G(z))" makes worse classifiers
    def generator_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """ "features", and terms of the recipe."""
        turn = self.turn(batch.with_condition(NO_CONDITION), step, for_generator=True)
        real = turn.real_scores.features.detach().mean(0)  # (D,)
        gap = (real - turn.fake_scores.features.mean(0)).square().sum()
        return {"features": gap, **self.term_losses("generator", turn)}

    def meet(self, batch: Batch) -> None:
        """Keep the data of classes that have too few labelled ones yet."""
        if min(self.counts) >= self.per_class or batch.label is None:
            return
        everything, labels = ranks.everywhere(batch.data), ranks.everywhere(batch.label)
        new = []
        for i, k in enumerate(labels.tolist()):
            if self.counts[k] < self.per_class:
                self.counts[k] += 1
                new.append(i)
        if new:
            data, label = everything[new], labels[new]
            self.data = data if self.data is None else torch.cat([self.data, data])
            self.label = label if self.label is None else torch.cat([self.label, label])

    def state_dict(self) -> dict[str, Any]:
        return {"terms": super().state_dict(), "counts": self.counts, "data": self.data, "label": self.label}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["terms"])
        self.counts = list(state["counts"])
        self.data, self.label = cast("Tensor | None", state["data"]), cast("Tensor | None", state["label"])


def _require_classes(spec: DataSpec, key: str, hint: str) -> None:
    if spec.num_classes == 0:
        raise BadValue("there are no classes to learn: these data have no labels", key=key, hint=hint)
