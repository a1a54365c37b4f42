"""A generator against a critic."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, cast

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.nn.precise import precise
from ganvas.parts import Entry, Slot, Slots, task
from ganvas.types import (
    Adjustable,
    Augment,
    Batch,
    Batchwise,
    Constraint,
    Critic,
    DataSpec,
    Fading,
    Gauge,
    Generator,
    Knob,
    Latent,
    LatentMover,
    LevelAugment,
    LevelHead,
    Nets,
    Objective,
    Observer,
    RealMixer,
    Regularizer,
    Scores,
    Stateful,
    Term,
    Turn,
    Update,
)


@task("adversarial", paper="Goodfellow et al. 2014, algorithm 1")
class Adversarial:
    """A generator and a critic take turns; everything else is a term.

    Terms with `every: 1` join the loss of their side; lazy ones are updates of their own, as in StyleGAN2, appendix B.
    Fake data carry the labels of the real batch, so that both sides see the same label distribution.
    """

    roles: tuple[str, ...] = ("generator", "discriminator")
    averaged: tuple[str, ...] = ("generator",)
    sampler = "plain"

    def __init__(
        self,
        nets: Nets,
        spec: DataSpec,
        *,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        critic_steps: Annotated[int, Gt(0)] = 1,
        regularizers: Annotated[Mapping[str, Entry], Slots("regularizer", Term)] = MappingProxyType({}),
        augment: Annotated[Augment, Slot("augment")] | None = None,
    ) -> None:
        for role, protocol in (("generator", Generator), ("discriminator", Critic)):
            if not isinstance(nets[role], protocol):
                raise BadValue(
                    f"{type(nets[role]).__name__} is no {protocol.__name__.lower()}", where=f"networks.{role}",
                    hint=f"networks.{role} needs a network whose name ends so (ganvas list networks {role})",
                )  # fmt: skip
        self.nets = nets
        self.objective = objective
        self.critic_steps = critic_steps
        self.augment = augment
        self.regularizers = regularizers
        self.constraints = {name: entry for name, entry in regularizers.items() if isinstance(entry.part, Constraint)}
        self.gauges = {name: entry for name, entry in regularizers.items() if isinstance(entry.part, Gauge)}
        beside = {**self.constraints, **self.gauges}
        self.terms = {name: entry for name, entry in regularizers.items() if name not in beside}
        self.weights = {name: entry.extra.weight for name, entry in self.terms.items()}  # a course may move them
        for name, entry in beside.items():
            if entry.extra != Term():
                does = "acts on the weights after every update" if name in self.constraints else "is only read"
                raise BadValue(
                    f"{name!r} {does}; it has no weight and no every",
                    where=f"task.regularizers.{name}", hint=f"ganvas show regularizer {name}",
                )  # fmt: skip
        self.generator = cast("Generator", nets["generator"])
        self.discriminator = cast("Critic", nets["discriminator"])
        if isinstance(augment, LevelAugment) and not isinstance(self.discriminator.head, LevelHead):
            name = getattr(type(augment), "part_name", type(augment).__name__)
            raise BadValue(
                f"augment {name!r} tells the critic how noisy its images are, and this critic's head cannot be told",
                key="augment", hint="wrap the head: networks.discriminator.conditioning={use: level, head: plain}",
            )  # fmt: skip
        self.discriminator.head.check(objective)
        self.warn_of_batch_norm()
        self.by_head = getattr(objective, "absent", False)  # the head's terms are all there is
        self.space, self.latent_spec = next(iter(self.generator.latents.items()))

    # Gulrajani et al. 2017, section 4: the penalty is on each datum's slope, which batch norm mixes with its mates'
    def warn_of_batch_norm(self) -> None:
        """Say so where a term reads the slope at single data and the critic's scores depend on whole batches."""
        slopes = [name for name, entry in self.terms.items() if getattr(entry.part, "per_datum", False)]
        batch_norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        if slopes and any(isinstance(module, batch_norms) for module in self.nets["discriminator"].modules()):
            warnings.warn(
                f"regularizer {slopes[0]!r} takes the critic's slope at each datum, and batch norm makes it depend on "
                "the others; networks.discriminator.norm=layer or none keeps them apart"
            )

    # ------------------------------------------------------------------ the updates

    def updates(self) -> list[Update]:
        plan = [
            Update(
                ("discriminator",), self.critic_losses, repeat=self.critic_steps, after=self.constrain("discriminator")
            )
        ]
        plan += self.lazy("discriminator")
        plan += [Update(("generator",), self.generator_losses, after=self.constrain("generator"))]
        plan += self.lazy("generator")
        return plan

    def critic_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        turn = self.turn(batch, step, for_generator=False)
        losses = {}
        if not self.by_head:
            losses["adversarial"] = self.objective.critic(turn.real_scores.judged, turn.fake_scores.judged)
        losses |= self.discriminator.head.critic_losses(turn, self.objective)
        losses |= self.term_losses("discriminator", turn)
        for part in self.named_parts().values():
            if isinstance(part, Observer):
                part.observe(turn)
        return losses

    def generator_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        turn = self.turn(batch, step, for_generator=True)
        losses = {}
        if not self.by_head:
            fake_logits = turn.fake_scores.judged
            # An objective that does not say is taken to look at the real side.
            reads_real = getattr(self.objective, "reads_real", True)
            real_logits = turn.real_scores.judged if reads_real else fake_logits.new_empty(0)
            losses["adversarial"] = self.objective.generator(real_logits, fake_logits)
        losses |= self.discriminator.head.generator_losses(turn, self.objective)
        losses |= self.term_losses("generator", turn)
        return losses

    def term_losses(self, side: str, turn: Turn) -> dict[str, Tensor]:
        return {
            name: self.weights[name] * entry.part(turn)
            for name, entry in self.terms.items()
            if entry.part.side == side and entry.extra.every == 1
        }

    def lazy(self, side: str) -> list[Update]:
        return [
            Update((side,), partial(self.lazy_loss, name, entry), every=entry.extra.every, after=self.constrain(side))
            for name, entry in self.terms.items()
            if entry.part.side == side and entry.extra.every > 1
        ]

    def lazy_loss(self, name: str, entry: Entry, batch: Batch, step: int) -> dict[str, Tensor]:
        regularizer: Regularizer = entry.part
        turn = self.turn(batch, step, for_generator=regularizer.side == "generator")
        return {name: self.weights[name] * regularizer(turn)}

    def constrain(self, side: str) -> Callable[[], None] | None:
        acting = [entry.part for entry in self.constraints.values() if entry.part.side == side]
        if not acting and side != "discriminator":
            return None

        def apply() -> None:
            for constraint in acting:
                constraint.apply(self.nets[side])
            if side == "discriminator":
                self.discriminator.head.after_step()

        return apply

    # ------------------------------------------------------------------ what the engine may ask

    def readings(self) -> dict[str, float]:
        """What the gauges say of their networks, as `<role>.<gauge>.<name>`."""
        return {
            f"{entry.part.side}.{name}.{key}": value
            for name, entry in self.gauges.items()
            for key, value in entry.part.readings(self.nets[entry.part.side]).items()
        }

    def knobs(self) -> dict[str, Knob]:
        """Weights of terms, and what the parts themselves can move."""
        found: dict[str, Knob] = {
            f"regularizers.{name}.weight": partial(self.weights.__setitem__, name) for name in self.weights
        }
        for path, part in self.named_parts().items():
            if isinstance(part, Adjustable):
                found |= {f"{path}.{name}": knob for name, knob in part.knobs().items()}
        return found

    @property
    def least_batch(self) -> int:
        """The fewest data of one pass that every part can work with."""
        asked = [*self.named_parts().values(), *self.nets["discriminator"].modules()]
        return max((part.least_batch for part in asked if isinstance(part, Batchwise)), default=1)

    # ------------------------------------------------------------------ one turn

    def turn(self, batch: Batch, step: int, *, for_generator: bool) -> Turn:
        generate = self.generate if for_generator else torch.no_grad()(self.generate)
        latent = self.draw(len(batch), batch.data.device)
        for mover in (entry.part for entry in self.terms.values() if isinstance(entry.part, LatentMover)):
            latent = mover.move(latent, partial(self.score_latent, label=batch.label), differentiable=for_generator)
        real = batch.data
        if isinstance(self.discriminator, Fading):
            real = self.discriminator.fade_real(real)
        if isinstance(self.augment, RealMixer) and not for_generator:
            real = self.augment.mix_real(real, lambda: generate(self.draw(len(batch), real.device), batch.label))
        return Turn(
            nets=self.nets, step=step, real=real, label=batch.label, latent=latent, fake_label=batch.label,
            critic=self.critic, generate=generate,
        )  # fmt: skip

    def draw(self, n: int, device: torch.device) -> Latent:
        values = torch.randn(n, *self.latent_spec.shape, device=device)
        if self.latent_spec.prior == "uniform":
            values = values.uniform_(-1, 1)
        return Latent(values, self.space)

    def generate(self, latent: Latent, label: Tensor | None) -> Tensor:
        return self.generator(latent.values, label)

    def score_latent(self, latent: Latent, label: Tensor | None) -> Tensor:
        return self.critic(self.generate(latent, label), label).logits

    def critic(self, data: Tensor, label: Tensor | None) -> Scores:
        level = None
        if isinstance(self.augment, LevelAugment):
            data, level = self.augment.with_level(data)
        elif self.augment is not None:
            data = self.augment(data)
        scores = self.discriminator(data, label)
        if level is not None:
            scores = cast("LevelHead", self.discriminator.head).at_level(scores, level)
        # Losses are taken in float32, whatever the precision of the passes.
        pieces = None if scores.pieces is None else precise(scores.pieces)
        return dataclasses.replace(scores, logits=precise(scores.logits), pieces=pieces)

    # ------------------------------------------------------------------ resume

    def named_parts(self) -> dict[str, Any]:
        named: dict[str, Any] = {"objective": self.objective, "augment": self.augment}
        named |= {f"regularizers.{name}": entry.part for name, entry in self.regularizers.items()}
        return named

    def stateful(self) -> dict[str, Stateful]:
        return {name: part for name, part in self.named_parts().items() if isinstance(part, Stateful)}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.stateful().items():
            part.load_state_dict(state[name])
