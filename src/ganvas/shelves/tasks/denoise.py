"""A network learns to take noise away that was put on data along a path: diffusion models and flows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, cast

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.parts import Slot, task
from ganvas.types import Batch, Condition, Denoiser, Facts, Nets, Path, Role, Task, Update


@task("denoise", paper="Ho et al. 2020, algorithm 1")
class Denoise(Task):
    """Data are mixed with noise at levels drawn at random, and a network predicts what the path asks of it.

    Parameters
    ----------
    path : the schedule of the noise, what is predicted, and the loss.
    condition_dropout : the probability with which a datum's conditions, all of them together, are replaced by those
        that stand for none (`without` of the network), as classifier-free guidance needs (Ho & Salimans 2022).

    Raises
    ------
    BadValue : the data are not numbers, the network makes another number of predictions than the path reads, or
        nothing stands for the lack of one of its conditions.
    """

    roles: ClassVar[Mapping[str, Role]] = {"denoiser": Role((Denoiser,))}
    averaged = ("denoiser",)
    sampler = "ddim"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        path: Annotated[Path, Slot("path")] = "linear-ddpm",  # type: ignore[assignment]
        condition_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        self.denoiser = cast("Denoiser", nets["denoiser"])
        self.path = path
        self.condition_dropout = condition_dropout
        if facts.spec.modality.categories:
            raise BadValue(
                f"noise cannot be added to data of {facts.spec.modality.categories} categories", where="data",
                hint="ganvas list tasks",
            )  # fmt: skip
        if self.denoiser.sides != path.sides:
            raise BadValue(
                f"path {path.called()!r} reads {path.sides} predictions of the network, and"
                f" {self.denoiser.called()!r} makes {self.denoiser.sides}",
                key="path", hint="give both the same `learned_sigma`",
            )  # fmt: skip
        if condition_dropout:
            self.check_dropout(facts)

    def check_dropout(self, facts: Facts) -> None:
        condition = facts.spec.stand_in(1, torch.Generator().manual_seed(0)).condition
        nothing = self.denoiser.without(condition)
        for name in condition.of(self.denoiser):
            if name not in nothing:
                raise BadValue(
                    f"no value stands for the lack of {name!r} in {self.denoiser.called()!r}",
                    key="condition_dropout", hint="override `without` of the network, or task.condition_dropout=0",
                )  # fmt: skip

    def updates(self) -> list[Update]:
        return [Update(("denoiser",), self.losses)]

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        x = batch.data
        level = self.path.draw_level(len(x), x)
        noise = draws.normal("noise", x.shape, like=x)
        x_t = self.path.noisy(x, noise, level)
        condition = self.dropped(batch.condition)
        prediction = self.denoiser(x_t, level, **condition.of(self.denoiser)).float()
        return self.path.losses(prediction, x, noise, x_t, level)

    def dropped(self, condition: Condition) -> Condition:
        """The conditions, of which some data lose all."""
        if not (self.condition_dropout and condition):
            return condition
        nothing = self.denoiser.without(condition)
        some = next(iter(condition.values()))
        lost = draws.uniform("dropped condition", (len(some),), like=some) < self.condition_dropout
        return Condition(
            {
                name: torch.where(lost.view(-1, *[1] * (value.dim() - 1)), nothing[name], value)
                for name, value in condition.items()
                if name in nothing
            }
        )
