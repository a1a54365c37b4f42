"""A trained critic learns the ground that samples cross when they are refined by it (Liu et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.refine import refined
from ganvas.parts import Entry, Slot, Slots, task
from ganvas.shelves.tasks.adversarial import Adversarial
from ganvas.types import Augment, Condition, Facts, Latent, Nets, Objective, StagedGenerator, Term, Update


@task("shape-critic", paper="Liu et al. 2020, section 3.3", system="collaborative-sampling")
class ShapeCritic(Adversarial):
    """The critic alone learns, from real data and samples at a random number of the `collaborative` sampler's steps.

    For networks that start `from:` a trained pair, the generator with `freeze: all`. Afterwards sample with
    `sampler: {use: collaborative, steps: …, rate: …}` and the same keys.

    Parameters
    ----------
    steps : K; each sample is refined by k ~ U{0, …, K − 1} steps with the critic as it is now.
    rate : of one step.
    stage : as of the sampler.

    Raises
    ------
    BadValue : a stage is given, and the generator has none, or not so many.
    """

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        steps: Annotated[int, Gt(0)] = 50,
        rate: Annotated[float, Gt(0)] = 0.1,
        stage: Annotated[int, Ge(0)] | None = None,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        regularizers: Annotated[Mapping[str, Entry], Slots("regularizer", Term)] = MappingProxyType({}),
        augment: Annotated[Augment, Slot("augment")] | None = None,
    ) -> None:
        super().__init__(nets, facts, objective=objective, regularizers=regularizers, augment=augment)
        self.steps = steps
        self.rate = rate
        self.stage = stage
        stages = self.generator.stages if isinstance(self.generator, StagedGenerator) else None
        if stage is not None and (stages is None or stage > stages):
            has = f"{stages} stages" if stages else "no stages"
            raise BadValue(f"the generator has {has}, and no map after {stage}", key="stage", hint="task.stage=~")

    def updates(self) -> list[Update]:
        return [update for update in super().updates() if update.nets == ("discriminator",)]

    def generate(self, latent: Latent, condition: Condition) -> Tensor:
        """Samples (N, *shape) as the sampler refines them, each by its own number of steps."""
        steps = draws.integers("steps", 0, self.steps, (len(latent),), like=latent.values)  # k of each
        if self.stage is not None and isinstance(self.generator, StagedGenerator):
            net, half = self.generator, self.generator.to_stage(latent.values, condition.label, stages=self.stage)

            def images(h: Tensor) -> Tensor:
                return net.from_stage(dataclasses.replace(half, features=h))

            h = refined(half.features, lambda at: self.score(images(at), condition), steps=steps, rate=self.rate)
            return images(h).detach()
        x = super().generate(latent, condition).detach()
        moved = refined(x, lambda at: self.score(at, condition), steps=steps, rate=self.rate)
        return torch.where(steps.view(-1, *[1] * (x.dim() - 1)) > 0, moved.clamp(-1, 1), x)

    def score(self, data: Tensor, condition: Condition) -> Tensor:
        logits: Tensor = self.discriminator(data, **condition.of(self.discriminator)).logits
        return logits
