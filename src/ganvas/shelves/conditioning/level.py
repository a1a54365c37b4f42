"""How much was done to an image reaches the critic beside its label."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import AnyHead, HeadAround
from ganvas.types import DataSpec, Scores

_FREQUENCIES = 32


@conditioning("level", paper="Wang et al. 2022 (Diffusion-GAN), section 3; Miyato & Koyama 2018, eq. 3")
class LevelConditioning(HeadAround):
    """Another head, plus the inner product of the features with a learnt function of the noise level.

    D(y, t) = head(φ(y)) + ⟨ψ(t) − ψ(0), φ(y)⟩: at level 0, clean images, it is the other head to the bit. ψ sees t
    through sines and cosines, so there may be any number of levels.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`.
    head : the other head, with its own loss terms.
    """

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        head: AnyHead = "plain",
    ) -> None:
        super().__init__(head, features, spec, wrap, bias)
        self.reads_level = True
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


def _waves(t: Tensor) -> Tensor:
    """(N,) -> (N, 64): sines and cosines with wavelengths from 2π to 2π · 10000 levels."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(_FREQUENCIES, device=t.device) / (_FREQUENCIES - 1))
    phase = t[:, None] * frequencies
    return torch.cat((phase.sin(), phase.cos()), dim=1)
