"""Data made of conditions, and compared with the real ones value by value."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, cast

from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.parts import task
from ganvas.types import Batch, Facts, Knob, Latent, Nets, Role, Task, Translator, Update


@task("regress", paper="Shi et al. 2016, eq. 5; Lai et al. 2017, eq. 1")
class Regress(Task):
    """A translator learns to make each datum of its conditions; the loss is a weighted sum of distances between them.

    Parameters
    ----------
    l1 : weight of the mean absolute difference, whose best answer is the median.
    l2 : weight of the mean squared difference, whose best answer is the mean, and the highest PSNR.
    charbonnier : weight of the mean of sqrt(difference^2 + epsilon^2), an absolute difference that is smooth at 0.
    epsilon : of the Charbonnier distance, in units of the data.

    Raises
    ------
    BadValue : no distance has a weight.
    """

    roles: ClassVar[Mapping[str, Role]] = {"generator": Role((Translator,))}
    averaged: ClassVar[tuple[str, ...]] = ("generator",)
    sampler = "plain"

    def __init__(
        self,
        nets: Nets,
        facts: Facts,
        *,
        l1: Annotated[float, Ge(0)] = 0.0,
        l2: Annotated[float, Ge(0)] = 1.0,
        charbonnier: Annotated[float, Ge(0)] = 0.0,
        epsilon: Annotated[float, Gt(0)] = 0.001,
    ) -> None:
        self.generator = cast("Translator", nets["generator"])
        self.weights = {
            name: weight for name, weight in (("l1", l1), ("l2", l2), ("charbonnier", charbonnier)) if weight
        }
        self.epsilon = epsilon
        if not self.weights:
            raise BadValue("l1, l2 and charbonnier all weigh nothing", key="l2", hint="task.l2=1")

    def updates(self) -> list[Update]:
        return [Update(("generator",), self.losses)]

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        start = Latent(batch.data.new_empty(len(batch), 0), "none")
        difference = self.generator.make(start, batch.condition).float() - batch.data
        return {name: weight * self.distance(name, difference) for name, weight in self.weights.items()}

    def distance(self, name: str, difference: Tensor) -> Tensor:
        """The mean over all values of one distance."""
        if name == "l1":
            return difference.abs().mean()
        if name == "l2":
            return difference.square().mean()
        return (difference.square() + self.epsilon**2).sqrt().mean()

    def knobs(self) -> dict[str, Knob]:
        """The weights of the distances that count at the start."""
        return {name: partial(self.weights.__setitem__, name) for name in self.weights}
