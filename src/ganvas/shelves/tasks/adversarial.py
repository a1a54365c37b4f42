"""A generator against a critic."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.precise import precise
from ganvas.nn.statistics import held_still, untracked
from ganvas.parts import Entry, Slot, Slots, task
from ganvas.types import (
    Augment,
    Batch,
    Condition,
    Constraint,
    Critic,
    Facts,
    Gauge,
    Generator,
    Hook,
    Knob,
    Latent,
    LatentSpec,
    Nets,
    Objective,
    Regularizer,
    Role,
    Scores,
    Side,
    Task,
    Term,
    Translator,
    Turn,
    Update,
)


@task("adversarial", paper="Goodfellow et al. 2014, algorithm 1")
class Adversarial(Task):
    """A generator and a critic take turns; everything else is a term.

    Terms with `every: 1` join the loss of their side; lazy ones are updates of their own, as in StyleGAN2, appendix B.

    Parameters
    ----------
    objective : what the two play for.
    critic_steps : the critic's updates a step.
    first : whose updates a step begins with; StyleGAN2 lets the generator begin.
    fake_labels : the class labels of generated data: those of the real batch, or drawn anew from all classes alike, as
        in BigGAN's code and PyTorch-StudioGAN.
    regularizers : terms of either side, constraints on weights, and gauges for the log, by name.
    augment : what real and generated data go through before the critic sees them.
    """

    roles: ClassVar[Mapping[str, Role]] = {
        "generator": Role((Generator, Translator)),
        "discriminator": Role((Critic,)),
    }
    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    sampler = "plain"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        critic_steps: Annotated[int, Gt(0)] = 1,
        first: Side = "discriminator",
        fake_labels: Literal["real", "uniform"] = "real",
        regularizers: Annotated[Mapping[str, Entry], Slots("regularizer", Term)] = MappingProxyType({}),
        augment: Annotated[Augment, Slot("augment")] | None = None,
    ) -> None:
        self.nets = nets
        self.objective = objective
        self.critic_steps = critic_steps
        self.first = first
        self.classes = facts.spec.num_classes if fake_labels == "uniform" else 0  # to draw fake labels from
        if fake_labels == "uniform" and not self.classes:
            raise BadValue("the data have no classes to draw labels from", key="fake_labels", hint="fake_labels=real")
        self.augment = augment
        self.regularizers = regularizers
        self.terms = {name: entry for name, entry in regularizers.items() if isinstance(entry.part, Regularizer)}
        self.constraints = {name: entry for name, entry in regularizers.items() if isinstance(entry.part, Constraint)}
        self.gauges = {name: entry for name, entry in regularizers.items() if isinstance(entry.part, Gauge)}
        self.weights = {name: entry.extra.weight for name, entry in self.terms.items()}  # a schedule may move them
        beside = {**self.constraints, **self.gauges}
        for name, entry in beside.items():
            if entry.extra != Term():
                does = "acts on the weights after every update" if name in self.constraints else "is only read"
                raise BadValue(
                    f"{name!r} {does}; it has no weight and no every",
                    where=f"task.regularizers.{name}", hint=f"ganvas show regularizer {name}",
                )  # fmt: skip
        self.generator = cast("Generator | Translator", nets["generator"])
        self.discriminator = cast("Critic", nets["discriminator"])
        if augment is not None and augment.tells_level and not self.discriminator.head.reads_level:
            raise BadValue(
                f"augment {augment.called()!r} tells the critic how noisy its images are, and this critic's head cannot"
                " be told",
                key="augment", hint="wrap the head: networks.discriminator.conditioning={use: level, head: plain}",
            )  # fmt: skip
        self.discriminator.head.check(objective)
        self.warn_of_batch_norm()
        self.space, self.latent_spec = next(iter(self.generator.latents.items()), ("none", LatentSpec((0,))))

    # Gulrajani et al. 2017, section 4: the penalty is on each datum's slope, which batch norm mixes with its mates'
    def warn_of_batch_norm(self) -> None:
        """Say so where a term reads the slope at single data and the critic's scores depend on whole batches."""
        slopes = [name for name, entry in self.terms.items() if entry.part.per_datum]
        batch_norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        if slopes and any(isinstance(module, batch_norms) for module in self.nets["discriminator"].modules()):
            warnings.warn(
                f"regularizer {slopes[0]!r} takes the critic's slope at each datum, and batch norm makes it depend on "
                "the others; networks.discriminator.norm=layer or none keeps them apart"
            )

    # ------------------------------------------------------------------ the updates

    def updates(self) -> list[Update]:
        constrain = {side: self.constrain(side) for side in ("discriminator", "generator")}
        critic = Update(
            ("discriminator",), self.critic_losses, repeat=self.critic_steps, after=constrain["discriminator"]
        )
        generator = Update(("generator",), self.generator_losses, after=constrain["generator"])
        plan = [[critic, *self.lazy("discriminator")], [generator, *self.lazy("generator")]]
        return [update for updates in (plan if self.first == "discriminator" else plan[::-1]) for update in updates]

    def critic_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        turn = self.turn(batch, step, for_generator=False)
        losses = {}
        if not self.objective.by_head:
            losses["adversarial"] = self.objective.critic(turn.real_scores.judged, turn.fake_scores.judged)
        losses |= self.discriminator.head.critic_losses(turn, self.objective)
        losses |= self.term_losses("discriminator", turn)
        for part in self.hooks().values():
            part.observe(turn)
        return losses

    def generator_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        turn = self.turn(batch, step, for_generator=True)
        losses = {}
        if not self.objective.by_head:
            fake_logits = turn.fake_scores.judged
            real_logits = turn.real_scores.judged if self.objective.reads_real else fake_logits.new_empty(0)
            losses["adversarial"] = self.objective.generator(real_logits, fake_logits)
        losses |= self.discriminator.head.generator_losses(turn, self.objective)
        losses |= self.term_losses("generator", turn)
        return losses

    def term_losses(self, side: str, turn: Turn) -> dict[str, Tensor]:
        return {
            name: self.weights[name] * entry.part(turn)
            for name, entry in self.terms.items()
            if entry.part.belongs_to(side) and entry.extra.every == 1
        }

    def lazy(self, side: str) -> list[Update]:
        return [
            Update(
                (side,),
                partial(self.lazy_loss, name, entry),
                every=entry.extra.every,
                after=self.constrain(side),
                again=True,
            )
            for name, entry in self.terms.items()
            if entry.part.belongs_to(side) and entry.extra.every > 1
        ]

    def lazy_loss(self, name: str, entry: Entry, batch: Batch, step: int) -> dict[str, Tensor]:
        regularizer: Regularizer = entry.part
        turn = self.turn(batch, step, for_generator=regularizer.side == "generator")
        return {name: self.weights[name] * regularizer(turn)}

    def constrain(self, side: str) -> Callable[[Batch], None] | None:
        acting = [entry.part for entry in self.constraints.values() if entry.part.side == side]
        if not acting and side != "discriminator":
            return None

        def apply(batch: Batch) -> None:
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
        knobs: dict[str, Knob] = {
            f"regularizers.{name}.weight": partial(self.weights.__setitem__, name) for name in self.weights
        }
        for path, part in self.hooks().items():
            knobs |= {f"{path}.{name}": knob for name, knob in part.knobs().items()}
        return knobs

    @property
    def least_batch(self) -> int:
        """The fewest data of one pass that every part can work with."""
        critic = self.discriminator
        return max(critic.least_batch, critic.head.least_batch, *(part.least_batch for part in self.hooks().values()))

    # ------------------------------------------------------------------ one turn

    def turn(self, batch: Batch, step: int, *, for_generator: bool) -> Turn:
        generate = self.generate_taught if for_generator else self.generate_untaught
        asked = self.asked(batch)
        latent = self.draw(len(batch), batch.data)
        with contextlib.nullcontext() if for_generator else untracked(self.generator):
            for entry in self.terms.values():
                score = partial(self.score_latent, condition=asked)
                latent = entry.part.move_latent(latent, score, differentiable=for_generator)
        real = self.discriminator.fade_real(batch.data)
        if not for_generator:
            for part in self.hooks().values():
                real = part.mix_real(real, lambda: generate(self.draw(len(batch), batch.data), asked))
        return Turn(
            nets=self.nets, step=step, real=real, condition=batch.condition, latent=latent, fake_condition=asked,
            critic=self.critic, generate=generate,
        )  # fmt: skip

    def draw(self, n: int, like: Tensor) -> Latent:
        return draws.latents(self.latent_spec, self.space, n, like=like)

    def asked(self, batch: Batch) -> Condition:
        """The conditions that generated data are asked for."""
        if not self.classes:
            return batch.condition
        label = draws.integers("label", 0, self.classes, (len(batch),), like=batch.data)
        return Condition({**batch.condition, "label": label})

    def generate(self, latent: Latent, condition: Condition) -> Tensor:
        return self.generator.make(latent, condition)

    def generate_taught(self, latent: Latent, condition: Condition) -> Tensor:
        """As `generate`, for the generator's updates: its running means stay where the critic's updates left them."""
        with held_still(self.generator):
            return self.generate(latent, condition)

    def generate_untaught(self, latent: Latent, condition: Condition) -> Tensor:
        """As `generate`, for the critic's updates: the generator's running statistics stay.

        There are no gradients, unless the latents bring some: then a term learns how they were moved.
        """
        moved = torch.is_grad_enabled() and latent.values.requires_grad
        with torch.set_grad_enabled(moved), untracked(self.generator):
            return self.generate(latent, condition)

    def score_latent(self, latent: Latent, condition: Condition) -> Tensor:
        return self.critic(self.generate(latent, condition), condition).logits

    def critic(self, data: Tensor, condition: Condition) -> Scores:
        level = None
        if self.augment is not None:
            data, level = self.augment.with_level(data) if self.augment.tells_level else (self.augment(data), None)
        scores: Scores = self.discriminator(data, **condition.of(self.discriminator))
        if level is not None:
            scores = self.discriminator.head.at_level(scores, level)
        # Losses are taken in float32, whatever the precision of the passes.
        pieces = None if scores.pieces is None else precise(scores.pieces)
        return dataclasses.replace(scores, logits=precise(scores.logits), pieces=pieces)

    # ------------------------------------------------------------------ resume

    def hooks(self) -> dict[str, Hook]:
        """Every part that takes part, by its path in the recipe from the task on."""
        hooks: dict[str, Hook] = {"objective": self.objective}
        if self.augment is not None:
            hooks["augment"] = self.augment
        return hooks | {f"regularizers.{name}": entry.part for name, entry in self.regularizers.items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: state for name, part in self.hooks().items() if (state := part.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.hooks().items():
            if name in state:
                part.load_state_dict(state[name])
