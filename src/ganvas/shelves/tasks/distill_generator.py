"""A generator learns to make what another one makes of the same latents; no real data are looked at.

The terms are those of MobileStyleGAN (Belousov 2021), for any two generators with the same latents. A student that can
be asked for images of smaller sizes, too, is taught at each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.haar import haar
from ganvas.parts import Entry, Slot, Slots, task
from ganvas.shelves.tasks.adversarial import Adversarial
from ganvas.types import (
    Augment,
    Batch,
    Condition,
    DataSpec,
    Facts,
    Generator,
    Latent,
    Nets,
    Objective,
    Role,
    Scores,
    Task,
    Term,
    Turn,
    Update,
)

Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Distances:
    """Weights of the mean absolute and of the mean squared difference."""

    l1: Weight = 1.0
    l2: Weight = 1.0


BOTH = Distances()


class Lesson:
    """Student and teacher, and how far the images of one are from those of the other.

    Parameters
    ----------
    nets : `generator` is the student.
    share : names of the modules whose weights the student begins with.
    pixels, wavelets : weights of the differences of the images, and of their Haar bands; None: no such term.

    Raises
    ------
    BadValue : the two do not begin with the same latents, make images of odd sides, or cannot share a module.
    """

    def __init__(
        self, nets: Nets, spec: DataSpec, *, share: Sequence[str], pixels: Distances | None, wavelets: Distances | None
    ) -> None:
        self.student, self.teacher = cast("Generator", nets["generator"]), cast("Generator", nets["teacher"])
        (space, latent), (other, expected) = (next(iter(net.latents.items())) for net in (self.student, self.teacher))
        if (space, latent) != (other, expected):
            raise BadValue(
                f"the student begins with {space} {latent.shape} ({latent.prior}), its teacher with"
                f" {other} {expected.shape} ({expected.prior}); they need the same latents",
                where="networks.generator", hint=f"networks.generator.z_dim={expected.shape[0]}",
            )  # fmt: skip
        if len(spec.shape) != 3 or (wavelets is not None and any(side % 2 for side in spec.shape[1:])):
            raise BadValue(f"data of {spec.shape} have no Haar bands", key="wavelets", hint="task.wavelets=~")
        self.pixels, self.wavelets = pixels, wavelets
        nets["teacher"].eval().requires_grad_(False)  # one latent, one image
        for name in share:
            self.copy(nets, name)

    def copy(self, nets: Nets, name: str) -> None:
        try:
            of_student, of_teacher = (nets[role].get_submodule(name) for role in ("generator", "teacher"))
            of_student.load_state_dict(of_teacher.state_dict())
        except (AttributeError, RuntimeError) as error:
            raise BadValue(
                f"student and teacher cannot share {name!r}: {str(error).splitlines()[-1].strip()}", key="share",
                hint="give both the same keys for it, or leave it out of `share`",
            ) from None  # fmt: skip

    @torch.no_grad()
    def answer(self, latent: Tensor, condition: Condition) -> Tensor:
        """What the teacher makes of z (N, z_dim): (N, C, H, W)."""
        data: Tensor = self.teacher(latent, **condition.of(self.teacher))
        return data

    def attempt(self, latent: Tensor, condition: Condition) -> list[Tensor]:
        """What the student makes of it, (N, C, h, w) from small to whole."""
        return list(self.student.scales(latent, condition.label))

    # Belousov 2021, section 3.5; smaller targets are smoothed before they are sampled
    def losses(self, attempt: Sequence[Tensor], answer: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name, each the sum over all sizes."""
        losses: dict[str, Tensor] = {}
        for image in attempt:
            target = answer
            if image.shape[2:] != answer.shape[2:]:
                target = F.interpolate(answer, size=image.shape[2:], mode="bilinear", antialias=True)
            if self.pixels is not None:
                add(losses, "pixels", self.pixels, image, target)
            if self.wavelets is not None:
                add(losses, "wavelets", self.wavelets, haar(image), haar(target))
        return losses


def add(losses: dict[str, Tensor], name: str, weights: Distances, image: Tensor, target: Tensor) -> None:
    """Add the weighted differences to those that are there; a weight of 0 has no term."""
    for norm, weight, distance in (("l1", weights.l1, F.l1_loss), ("l2", weights.l2, F.mse_loss)):
        if weight:
            key = f"{name}-{norm}"
            losses[key] = losses.get(key, 0.0) + weight * distance(image.float(), target.float())


@task("distill-generator", paper="Belousov 2021 (MobileStyleGAN), section 3.5")
class DistillGenerator(Task):
    """A generator learns the images that a frozen `teacher` makes of the same latents.

    Only the number and the labels of the data are used. The teacher is given `from:` a run and `freeze: all`.

    Parameters
    ----------
    share : modules, such as "mapping", that the student takes over from the teacher; `freeze:` them in the student, and
        a point of a space that they lead to stays the same point.
    pixels : weights of the differences of the images; null: none.
    wavelets : the same of their Haar bands.

    Raises
    ------
    BadValue : the two have other latents, or nothing in common to share.
    """

    roles: ClassVar[Mapping[str, Role]] = {"generator": Role((Generator,)), "teacher": Role((Generator,), frozen=True)}
    averaged = ("generator",)
    sampler = "plain"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        share: tuple[str, ...] = (),
        pixels: Distances | None = BOTH,
        wavelets: Distances | None = BOTH,
    ) -> None:
        self.lesson = Lesson(nets, facts.spec, share=share, pixels=pixels, wavelets=wavelets)
        if pixels is None and wavelets is None:
            raise BadValue("nothing is compared", key="pixels", hint="task.pixels={l1: 1, l2: 1}")
        self.latent = next(iter(self.lesson.student.latents.values()))

    def updates(self) -> list[Update]:
        return [Update(("generator",), self.losses)]

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        values = draws.latents(self.latent, "z", len(batch), like=batch.data).values
        answer = self.lesson.answer(values, batch.condition)
        return self.lesson.losses(self.lesson.attempt(values, batch.condition), answer)


@task("distill-generator-adversarially", paper="Belousov 2021 (MobileStyleGAN), section 3.5")
class DistillGeneratorAdversarially(Adversarial):
    """As `distill-generator`, with a critic to which the teacher's images are the real data.

    Both make their images of the same latents, also where critics and their penalties look at them.

    Parameters
    ----------
    share, pixels, wavelets : see `distill-generator`.
    adversarial_weight : of the student's adversarial loss; the paper's is 0.5.
    feature_weight : of the mean absolute difference between the critic's features of both images; null: none.
    objective, critic_steps, regularizers, augment : see `adversarial`.

    Raises
    ------
    BadValue : the two have other latents, or nothing in common to share.
    """

    roles: ClassVar[Mapping[str, Role]] = {**Adversarial.roles, "teacher": Role((Generator,), frozen=True)}

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        share: tuple[str, ...] = (),
        pixels: Distances | None = BOTH,
        wavelets: Distances | None = BOTH,
        adversarial_weight: Weight = 0.5,
        feature_weight: Annotated[float, Gt(0)] | None = None,
        objective: Annotated[Objective, Slot("objective")] = "non-saturating",  # type: ignore[assignment]
        critic_steps: Annotated[int, Gt(0)] = 1,
        regularizers: Annotated[Mapping[str, Entry], Slots("regularizer", Term)] = MappingProxyType({}),
        augment: Annotated[Augment, Slot("augment")] | None = None,
    ) -> None:
        super().__init__(
            nets, facts, objective=objective, critic_steps=critic_steps, regularizers=regularizers, augment=augment
        )
        self.lesson = Lesson(nets, facts.spec, share=share, pixels=pixels, wavelets=wavelets)
        self.adversarial_weight = adversarial_weight
        self.feature_weight = feature_weight
        self.attempted: list[Tensor] = []

    def turn(self, batch: Batch, step: int, *, for_generator: bool) -> Turn:
        turn = super().turn(batch, step, for_generator=for_generator)
        return dataclasses.replace(turn, real=self.lesson.answer(turn.latent.values, turn.condition))

    def generate(self, latent: Latent, condition: Condition) -> Tensor:
        self.attempted = self.lesson.attempt(latent.values, condition)
        return self.attempted[-1]

    def generator_losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        losses = super().generator_losses(batch, step)
        self.attempted = []  # the graph that hangs on it is needed no longer than its loss
        if "adversarial" in losses:
            losses["adversarial"] = self.adversarial_weight * losses["adversarial"]
        return losses

    def term_losses(self, side: str, turn: Turn) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if side == "generator":
            fake = turn.fake
            if not (self.attempted and self.attempted[-1] is fake):  # another latent has been asked for since
                self.attempted = self.lesson.attempt(turn.latent.values, turn.fake_condition)
            losses |= self.lesson.losses(self.attempted, turn.real)
            if self.feature_weight is not None:
                # Without augmentation, which would change the two in different ways.
                with torch.no_grad():
                    of_real: Scores = self.discriminator(turn.real, **turn.condition.of(self.discriminator))
                of_fake: Scores = self.discriminator(fake, **turn.fake_condition.of(self.discriminator))
                losses["features"] = self.feature_weight * F.l1_loss(of_fake.features.float(), of_real.features.float())
        return losses | super().term_losses(side, turn)
