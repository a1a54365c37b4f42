"""Critics: what they say of data, and the heads by which conditions reach them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.types.data import DataSpec
from ganvas.types.named import Named
from ganvas.types.networks import Network

if TYPE_CHECKING:
    from ganvas.types.training import Objective, Turn


@dataclass(frozen=True)
class Scores:
    """What a critic says of N data: `logits` (N,), its last `features` (N, D), and what its head adds by name.

    A critic that judges data piece by piece gives the logits of all P pieces as `pieces` (N, P), and their means as
    `logits`.
    """

    logits: Tensor
    features: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    pieces: Tensor | None = None

    @property
    def judged(self) -> Tensor:
        """What objectives act on: the logits (N,), or (N * P,) those of all pieces."""
        return self.logits if self.pieces is None else self.pieces.flatten()


class CriticHead(nn.Module, Named, ABC):
    """How labels reach a critic: the last layer, and the loss terms that come with it (often none).

    Called with features (N, D) and perhaps label (N,) int64 it gives the scores of N data. Terms are weighted already.
    They may read everything of the turn, and the objective that acts on the logit.

    Attributes
    ----------
    reads_level : whether it can be told how much an augmentation did to the data; see `at_level`.
    least_batch : how many data of one pass it compares.
    """

    reads_level: bool = False
    least_batch: int = 1

    if TYPE_CHECKING:

        def __call__(self, features: Tensor, label: Tensor | None = None) -> Scores: ...

    def check(self, objective: Objective) -> None:
        """Raise BadValue where this objective cannot go with this head."""

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """Terms of the critic's update by name, weighted; none here."""
        return {}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """Terms of the generator's update by name, weighted; none here."""
        return {}

    def after_step(self) -> None:
        """What happens to the head's weights after each of the critic's updates; nothing here."""

    def at_level(self, scores: Scores, level: Tensor) -> Scores:
        """The scores of data to which so much (N,) was done, 0 for nothing; without being told, they count as clean."""
        return scores


class OwnHead(CriticHead):
    """The head of a critic whose logits come from its own maps, so that no conditioning part can take their place.

    Terms that such a critic brings override those of a head.
    """

    def check(self, objective: Objective) -> None:
        """Refuse `by-head`.

        Raises
        ------
        BadValue : it would leave the critic without a loss.
        """
        if objective.by_head:
            raise BadValue(
                "objective 'by-head' leaves this critic without a loss; it has no conditioning part",
                key="objective",
                hint="task.objective=hinge",
            )


class Critic(Network):
    """A network that scores data. `head` is its conditioning part; without one its logits are its own."""

    if TYPE_CHECKING:
        head: CriticHead

        def __call__(self, data: Tensor, *args: Any, **condition: Any) -> Scores: ...
    else:

        @property
        def head(self):
            # Not made in __init__: a module that is replaced keeps its place among its neighbours, and with it the
            # order of parameters that optimizers count by.
            head = self._modules.get("head")
            return _OWN if head is None else head

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        if not isinstance(output, Scores):
            return [f"its answer is a {type(output).__name__}, and should be Scores"]
        faults = []
        if tuple(output.logits.shape) != (n,):
            faults.append(f"its logits are {tuple(output.logits.shape)}, and should be ({n},)")
        if output.features.dim() != 2 or len(output.features) != n:
            faults.append(f"its features are {tuple(output.features.shape)}, and should be ({n}, D)")
        if output.pieces is not None and (output.pieces.dim() != 2 or len(output.pieces) != n):
            faults.append(f"its pieces are {tuple(output.pieces.shape)}, and should be ({n}, P)")
        return faults


_OWN = OwnHead()
