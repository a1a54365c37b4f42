"""SAN: the direction of a critic's last layer learns by a loss of its own (Takida et al. 2024).

The features keep the objective's loss with the direction held; the direction ω is moved to where the two sides differ
most. That makes the generator's objective a distance between distributions, which the usual losses do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.nn.san import SANLinear
from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import AnyHead, Head, build_inner
from ganvas.types import DataSpec, Objective, Scores, Turn


@conditioning("san", paper="Takida et al. 2024", system="san")
class SANHead(Head):
    """SAN: another head whose last layer has a normalised direction, taught by a loss of its own.

    Works over heads whose logit is one row of a linear layer. With `multi-discriminator` each class has a direction of
    its own, the paper's class-conditional form.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like.
    wrap : what the critic does to its layers. Weight normalisation does not reach the layer of the logit, which has
        its own.
    bias : whether the layer of the logit has one; it is added to the layer's input.
    head : whose last layer it is.
    direction_weight : of the direction's loss.

    Raises
    ------
    BadValue : the head's logit is not one row of a linear layer.
    """

    linear_logit = False

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        head: AnyHead = "plain",
        direction_weight: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__()
        inner = build_inner(head, features, spec, wrap, bias)
        if not (isinstance(inner, Head) and inner.linear_logit):
            raise BadValue(
                f"the logit of conditioning {inner.called()!r} is not one row of a linear layer, which SAN normalises",
                key="conditioning.head",
                hint="networks.discriminator.conditioning="
                f"{{use: san, head: {'multi-discriminator' if spec.num_classes else 'plain'}}}",
            )
        self.direction_weight = direction_weight
        inner.linear = SANLinear(inner.linear)
        self.head = inner

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) and perhaps label (N,) -> the inner head's scores and extra "direction" (N,), equal to the logits."""
        scores: Scores = self.head(features, label)
        rows = self.last.direction(self.head.inputs(features, label))
        return Scores(scores.logits, features, {**scores.extra, "direction": self.head.pick(rows, label)})

    def check(self, objective: Objective) -> None:
        """Refuse `by-head` and relativistic objectives, which have no loss of one datum's logit for the direction.

        Raises
        ------
        BadValue : it is one of them.
        """
        super().check(objective)
        if objective.reads_real:
            raise BadValue(
                "the direction of SAN learns by the generator's loss of single data, and this objective compares pairs",
                key="objective",
                hint="task.objective=hinge",
            )

    # Takida et al. 2024: the direction maximises E_real[ω·h] − E_fake[ω·h], data weighted by the derivative of the
    # generator's loss R_3. R_3(s ω·sg(h)) has that gradient in ω, for hinge and Wasserstein R_3(t) = −t.
    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "direction", and the inner head's terms.

        An objective that leaves generated data out does so in the generator's update alone: every datum of both sides
        teaches the direction, by the loss that is taken of those that are left.
        """
        objective = objective.selects_of or objective
        real, fake = turn.real_scores.extra["direction"], turn.fake_scores.extra["direction"]
        none = torch.empty_like(real[:0])
        loss = objective.generator(none, real) - objective.generator(none, fake)
        return {"direction": self.direction_weight * loss, **self.head.critic_losses(turn, objective)}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """The inner head's terms."""
        return self.head.generator_losses(turn, objective)

    def after_step(self) -> None:
        """Normalise the direction's weight."""
        self.last.normalize()
        self.head.after_step()

    @property
    def last(self) -> SANLinear:
        assert isinstance(self.head.linear, SANLinear)
        return self.head.linear
