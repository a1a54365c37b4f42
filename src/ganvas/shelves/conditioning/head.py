"""What heads share: the layer that gives the logit, and the terms that most of them do not bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import BadValue, UsageError
from ganvas.parts import Factory
from ganvas.types import CriticHead, DataSpec, Objective, Scores, Turn

AnyHead = Annotated[Callable[..., CriticHead] | str, Factory("conditioning")]
Pairing = Literal["needed", "optional", "own"]


class Head(CriticHead):
    """A critic's last layer that leaves the losses to the objective. Heads with terms of their own override these.

    The logit is `pick(linear(inputs(features, label)), label)`; `normalised` (see `san`) takes `linear`'s place.
    """

    pairing: ClassVar[Pairing] = "needed"
    """Whether an objective acts on the logit: it must; it may, for `objective: by-head` leaves the head's terms alone;
    or it must not, since the head brings the whole loss."""

    linear_logit: ClassVar[bool] = True  # the logit is one row of `linear` times its inputs
    linear: nn.Module

    def inputs(self, features: Tensor, label: Tensor | None) -> Tensor:
        """What `linear` reads: (N, D) -> (N, D')."""
        return features

    def pick(self, outputs: Tensor, label: Tensor | None) -> Tensor:
        """What `linear` gives (N, rows) -> logits (N,)."""
        return outputs.squeeze(1)

    def logit(self, features: Tensor, label: Tensor | None) -> Tensor:
        """(N, D) and perhaps label (N,) int64 -> logits (N,)."""
        return self.pick(self.linear(self.inputs(features, label)), label)

    def check(self, objective: Objective) -> None:
        """Refuse an objective that cannot go with this head.

        Raises
        ------
        BadValue : `by-head` beside a head without a loss, or another one beside a head that brings all of it.
        """
        name, absent = self.called(), objective.by_head
        if self.pairing == "own" and not absent:
            raise BadValue(
                f"conditioning {name!r} brings the whole loss, so that no objective can come on top",
                key="objective",
                hint="task.objective=by-head",
            )
        if self.pairing == "needed" and absent:
            raise BadValue(
                f"objective 'by-head' leaves a critic with conditioning {name!r} without a loss",
                key="objective",
                hint="task.objective=hinge",
            )


class LinearHead(Head):
    """A head whose logit is made by one linear layer on the features.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the linear layer has one.
    rows : of the layer.
    """

    def __init__(
        self, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool = True, rows: int = 1
    ) -> None:
        super().__init__()
        self.linear = wrap(nn.Linear(features, rows, bias=bias))

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and perhaps label (N,) int64 -> logits (N,)."""
        return Scores(self.logit(features, label), features)


class HeadAround(CriticHead):
    """A head around another one: what is not said here is the other's.

    Parameters
    ----------
    head : the other one's name, or what makes it.
    features, spec, wrap, bias : for it.
    """

    def __init__(
        self, head: AnyHead, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool
    ) -> None:
        super().__init__()
        self.inner = build_inner(head, features, spec, wrap, bias)
        self.least_batch = self.inner.least_batch
        self.reads_level = self.inner.reads_level

    def check(self, objective: Objective) -> None:
        self.inner.check(objective)

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        return self.inner.critic_losses(turn, objective)

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        return self.inner.generator_losses(turn, objective)

    def after_step(self) -> None:
        self.inner.after_step()

    def at_level(self, scores: Scores, level: Tensor) -> Scores:
        return self.inner.at_level(scores, level)


def build_inner(
    head: AnyHead, features: int, spec: DataSpec, wrap: Callable[[nn.Module], nn.Module], bias: bool
) -> CriticHead:
    """The head inside another one, from its name or from what makes it."""
    given = (features, spec, wrap, bias)
    inner: CriticHead = parts.build("conditioning", {"use": head}, *given) if isinstance(head, str) else head(*given)
    return inner


def classes_of(spec: DataSpec, name: str) -> int:
    """K, the number of classes.

    Raises
    ------
    BadValue : the data have none; `name` is the part that needs them.
    """
    if spec.num_classes == 0:
        raise BadValue(
            f"conditioning {name!r} needs labelled data and these have no classes",
            key="conditioning",
            hint="networks.discriminator.conditioning=plain",
        )
    return spec.num_classes


def given(label: Tensor | None, name: str) -> Tensor:
    """The label (N,) itself.

    Raises
    ------
    UsageError : there is none; `name` is the part that needs it.
    """
    if label is None:
        raise UsageError(f"a critic with conditioning {name!r} was given no labels", hint="pass label=(N,) int64")
    return label


def in_full(x: Tensor) -> Tensor:
    """Half precision -> float32; others as they are. Exponentials of similarities need the digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
