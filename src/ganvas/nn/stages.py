"""Generators that can be entered at any stage: a first map, a row of stages, and a last layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ganvas.errors import UsageError
from ganvas.nn.attention import SelfAttention
from ganvas.types import StagedGenerator, StageOutput

Conditions = Sequence[Tensor | None]
"""The condition (N, D) of each stage, None for a stage without one."""


class StackedGenerator(StagedGenerator):
    """What generators made of stages share: all of `forward`, and the way in at any stage (`types.StagedGenerator`).

    The stages are `blocks` unless `stage` and `stages` say otherwise: layers that are handed a map and a condition, or
    self-attention, which is handed the map alone.
    """

    blocks: nn.ModuleList

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.blocks)

    @abstractmethod
    def begin(self, latent: Tensor, label: Tensor | None) -> tuple[Tensor, Conditions]:
        """Latents (N, D) and label (N,) int64 -> the first map (N, C, h, w), and the condition of each stage."""

    def stage(self, number: int, h: Tensor, condition: Tensor | None) -> Tensor:
        """What one stage makes of the map (N, C, h, w)."""
        block = self.blocks[number]
        out: Tensor = block(h) if isinstance(block, SelfAttention) else block(h, condition)
        return out

    @abstractmethod
    def finish(self, h: Tensor) -> Tensor:
        """The last map -> images (N, C, H, W) in [-1, 1]."""

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> images (N, C, H, W) in [-1, 1]."""
        h, conditions = self.begin(latent, label)
        return self.finish(self.through(h, conditions, range(self.stages)))

    def to_stage(self, latent: Tensor, label: Tensor | None = None, *, stages: int) -> StageOutput:
        """The map after the first so many stages.

        Raises
        ------
        UsageError : there are not so many.
        """
        if not 0 <= stages <= self.stages:
            raise UsageError(
                f"this generator has {self.stages} stages, and no map after {stages}", hint=f"0 to {self.stages}"
            )
        h, conditions = self.begin(latent, label)
        return StageOutput(self.through(h, conditions, range(stages)), stages, conditions)

    def from_stage(self, half: StageOutput) -> Tensor:
        """Images (N, C, H, W) of maps that `to_stage` gave, or of other maps in their place."""
        return self.finish(self.through(half.features, half.conditions, range(half.stage, self.stages)))

    def through(self, h: Tensor, conditions: Conditions, numbers: range) -> Tensor:
        for number in numbers:
            h = self.stage(number, h, conditions[number])
        return h
