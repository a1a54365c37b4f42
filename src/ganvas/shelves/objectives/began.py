"""BEGAN's pair of losses (Berthelot et al. 2017): an autoencoder as critic, and a balance between its two errors."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.parts import objective
from ganvas.runtime import ranks
from ganvas.types import Objective, Turn


@objective("began", paper="Berthelot et al. 2017, section 3.4", system="gans-created-equal")
class BEGAN(Objective):
    """The critic rebuilds real images well and generated ones badly, as far as a moving balance k allows.

    With l the error of rebuilding, which is minus the logit of `began-discriminator`:
    L_D = l(x) − k l(G(z)),  L_G = l(G(z)),  k ← clip(k + λ (γ l(x) − l(G(z))), 0, 1), from k = 0; k is saved.

    Parameters
    ----------
    gamma : γ, the ratio of both errors that is aimed at; less gives less variety.
    rate : λ, how fast k follows.
    """

    reads_real = False

    def __init__(
        self, *, gamma: Annotated[float, Gt(0), Le(1)] = 0.5, rate: Annotated[float, Ge(0)] = 0.001
    ) -> None:  # fmt: skip
        self.gamma = gamma
        self.rate = rate
        self.k = 0.0

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.k * fake_logits.mean() - real_logits.mean()

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()

    def observe(self, turn: Turn) -> None:
        """Move k after a critic update."""
        with torch.no_grad():
            balance = turn.fake_scores.logits.mean() - self.gamma * turn.real_scores.logits.mean()
        self.k = min(1.0, max(0.0, self.k + self.rate * float(ranks.mean_over_ranks(balance))))

    def state_dict(self) -> dict[str, Any]:
        return {"k": self.k}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.k = float(state["k"])
