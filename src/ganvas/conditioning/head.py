"""What heads share: they are modules, and most bring no loss terms."""

from __future__ import annotations

from torch import Tensor, nn

from ganvas.types import Scores


class Head(nn.Module):
    """A critic's last layer that leaves the losses to the objective. Heads with terms of their own override these."""

    def critic_losses(self, real: Scores, fake: Scores, label: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """Terms of the critic's update by name, unweighted; none here."""
        return {}

    def generator_losses(self, fake: Scores, label: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """Terms of the generator's update by name, unweighted; none here."""
        return {}
