"""How a critic gets its head: from a conditioning part, named or handed in."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ganvas import parts
from ganvas.errors import BadValue
from ganvas.types import CriticHead, DataSpec, Objective, Turn


def build_head(
    conditioning: Callable[..., CriticHead] | str,
    features: int,
    spec: DataSpec,
    wrap: Callable[[nn.Module], nn.Module],
    bias: bool = True,
) -> CriticHead:
    """The head of a critic.

    Parameters
    ----------
    conditioning : a factory, as recipes hand it in, or the name of a conditioning part with its defaults.
    features : D, the length of the feature vector that the head will get.
    spec : what the data look like.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the layer that gives the logit has one.

    Raises
    ------
    UnknownPart : no conditioning part has this name.
    """
    if isinstance(conditioning, str):
        head: CriticHead = parts.build("conditioning", {"use": conditioning}, features, spec, wrap, bias)
        return head
    return conditioning(features, spec, wrap, bias)


class OwnHead(nn.Module):
    """The head of a critic whose logits come from its own maps, so that no conditioning part can take their place.

    Terms that such a critic brings override these.
    """

    def check(self, objective: Objective) -> None:
        """Refuse `by-head`.

        Raises
        ------
        BadValue : it would leave the critic without a loss.
        """
        if getattr(objective, "absent", False):
            raise BadValue(
                "objective 'by-head' leaves this critic without a loss; it has no conditioning part",
                key="objective",
                hint="task.objective=hinge",
            )

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """Terms of the critic's update by name, weighted; none here."""
        return {}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """Terms of the generator's update by name, weighted; none here."""
        return {}

    def after_step(self) -> None:
        """What happens to the head's weights after each of the critic's updates; nothing here."""
