"""How much was done to an image reaches the critic beside its label."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.parts import Factory, conditioning
from ganvas.types import CriticHead, DataSpec, Objective, Scores, Turn

_FREQUENCIES = 32


@conditioning("level", paper="Wang et al. 2022 (Diffusion-GAN), section 3; Miyato & Koyama 2018, eq. 3")
class LevelConditioning(nn.Module):
    """Another head, plus the inner product of the features with a learnt function of the noise level.

    D(y, t) = head(φ(y)) + ⟨ψ(t) − ψ(0), φ(y)⟩: at level 0, clean images, it is the other head to the bit. ψ sees t
    through sines and cosines, so there may be any number of levels.

    Parameters
    ----------
    features : D, the length of the critic's feature vector.
    spec : what the data look like.
    wrap : what the critic does to its layers: first values, and its weight normalisation.
    bias : whether the other head's linear layer has one.
    head : the other head, with its own loss terms.
    """

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        head: Annotated[Callable[..., CriticHead], Factory("conditioning")] = "plain",  # type: ignore[assignment]
    ) -> None:
        super().__init__()
        build = partial(parts.build, "conditioning", {"use": head}) if isinstance(head, str) else head
        self.inner: CriticHead = build(features, spec, wrap, bias)
        self.psi = nn.Sequential(
            wrap(nn.Linear(2 * _FREQUENCIES, features)), nn.SiLU(), wrap(nn.Linear(features, features, bias=False))
        )

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """Scores of clean data: (N, D) -> logits (N,)."""
        return self.inner(features, label)

    def at_level(self, scores: Scores, level: Tensor) -> Scores:
        """Scores of data at levels t (N,), from their scores as clean data."""
        phi = scores.features
        psi = self.psi(_waves(torch.cat((level, torch.zeros_like(level))))).chunk(2)
        return dataclasses.replace(scores, logits=scores.logits + ((psi[0] - psi[1]) * phi).sum(1))

    # ------------------------------------------------------------------ everything else is the other head's

    def check(self, objective: Objective) -> None:
        self.inner.check(objective)

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        return self.inner.critic_losses(turn, objective)

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        return self.inner.generator_losses(turn, objective)

    def after_step(self) -> None:
        self.inner.after_step()


def _waves(t: Tensor) -> Tensor:
    """(N,) -> (N, 64): sines and cosines with wavelengths from 2π to 2π · 10000 levels."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(_FREQUENCIES, device=t.device) / (_FREQUENCIES - 1))
    phase = t[:, None] * frequencies
    return torch.cat((phase.sin(), phase.cos()), dim=1)
