"""Moving averages of weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganvas.engine.layout import local
from ganvas.nn.statistics import statistics_of
from ganvas.recipe.schema import Ema
from ganvas.types import Adjustable, Knob


def average_decay(ema: Ema, seen: int, batch: int) -> float:
    """The decay of a step that was begun with `seen` real images behind it.

    0 before the start, and never a longer half-life than the ramp-up allows: with ratio ρ it is at most ρ × `seen`
    (Karras et al. 2020, `ema_rampup`), so that early averages do not remember the initial weights.
    """
    start = ema.start_images if ema.start_steps is None else ema.start_steps * batch
    if seen < start:
        return 0.0
    decay = ema.decay
    if ema.half_life_images is not None:
        decay = 0.5 ** (batch / max(ema.half_life_images, 1e-8))
    if ema.rampup_ratio is not None:
        decay = min(decay, 0.5 ** (batch / max(ema.rampup_ratio * seen, 1e-8)))
    return decay


class Averages(Adjustable):
    """Averaged copies of some networks, in eval mode.

    Parameters are averaged, and with them the statistics of normalisation layers, which belong to the weights that they
    were gathered with, unless `ema.buffers` says that they are copied. All other buffers are copied.
    """

    def __init__(self, nets: Mapping[str, nn.Module], roles: tuple[str, ...], settings: Ema) -> None:
        self.settings = settings
        self.nets = {role: copy.deepcopy(nets[role]).eval().requires_grad_(False) for role in roles}

    def averaged(self, net: nn.Module) -> list[Tensor]:
        """What of a network is averaged."""
        tensors = [*net.parameters(), *(statistics_of(net) if self.settings.buffers == "average" else ())]
        return [local(tensor) for tensor in tensors]

    @torch.no_grad()
    def update(self, nets: Mapping[str, nn.Module], seen: int, batch: int) -> None:
        """W ← decay · W + (1 − decay) · weights, after a step that was begun with `seen` images behind it."""
        decay = average_decay(self.settings, seen, batch)
        for role, average in self.nets.items():
            averages, weights = self.averaged(average), self.averaged(nets[role])
            if decay == 0:
                torch._foreach_copy_(averages, weights)
            else:
                torch._foreach_lerp_(averages, weights, 1 - decay)
            done = {id(tensor) for tensor in averages}
            pairs = zip(average.buffers(), nets[role].buffers(), strict=True)
            copied = [(to, of) for to, of in pairs if id(local(to)) not in done]
            if copied:
                torch._foreach_copy_([to for to, _ in copied], [of for _, of in copied])

    def knobs(self) -> dict[str, Knob]:
        if self.settings.half_life_images is None:
            return {"decay": lambda value: self.change(dataclasses.replace(self.settings, decay=value))}
        return {
            "half_life_images": lambda value: self.change(dataclasses.replace(self.settings, half_life_images=value))
        }

    def change(self, settings: Ema) -> None:
        self.settings = settings

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        return {role: net.state_dict() for role, net in self.nets.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for role, net in self.nets.items():
            net.load_state_dict(state[role])
