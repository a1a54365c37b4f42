"""A trained critic learns the ground that samples cross when they are refined by it (Liu et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from ganvas.parts import Entry, Slot, Slots, task
from ganvas.tasks.adversarial import Adversarial
from ganvas.types import Augment, DataSpec, Latent, Nets, Objective, Term, Update


@task("shape-critic", paper="Liu et al. 2020, section 3.3", system="collaborative-sampling")
class ShapeCritic(Adversarial):
    """The critic alone learns, from real data and samples at a random number of the `collaborative` sampler's steps.

    For networks that start `from:` a trained pair, the generator with `freeze: all`. Afterwards sample with
    `sampler: {use: collaborative, steps: …, rate: …}` and the same keys.

    Parameters
    ----------
    steps : K; each sample is refined by k ~ U{0, …, K − 1} steps with the critic as it is now.
    rate : of one step.
    """

    def __init__(
        self,
        nets: Nets,
        spec: DataSpec,
        *,
        steps: Annotated[int, Gt(0)] = 50,
        rate: Annotated[float, Gt(0)] = 0.1,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        regularizers: Annotated[Mapping[str, Entry], Slots("regularizer", Term)] = MappingProxyType({}),
        augment: Annotated[Augment, Slot("augment")] | None = None,
    ) -> None:
        super().__init__(nets, spec, objective=objective, regularizers=regularizers, augment=augment)
        self.steps = steps
        self.rate = rate

    def updates(self) -> list[Update]:
        return [update for update in super().updates() if update.nets == ("discriminator",)]

    # Liu et al. 2020, eq. 4: x ← x − rate · ∇ softplus(−D(x)), as the sampler does it
    def generate(self, latent: Latent, label: Tensor | None) -> Tensor:
        x = super().generate(latent, label).detach()
        left = torch.randint(self.steps, (len(x),), device=x.device)  # k of each
        for step in range(int(left.max())):
            with torch.enable_grad():
                at = x.requires_grad_(True)
                (slope,) = torch.autograd.grad(F.softplus(-self.discriminator(at, label).logits).sum(), at)
            more = (left > step).view(-1, *[1] * (x.dim() - 1))
            x = torch.where(more, x.detach() - self.rate * slope, x.detach())
        return torch.where(left.view(-1, *[1] * (x.dim() - 1)) > 0, x.clamp(-1, 1), x)
