"""Samplers that go straight from a latent to data."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from ganvas.parts import sampler
from ganvas.types import Condition, Latent, LatentSpec, Sampler, Synthesizer, Translator


@sampler("plain")
class Plain(Sampler):
    """The generator's answer to a latent drawn from its prior, or a translator's to its conditions."""

    stochastic = False

    def start(self, model: Synthesizer) -> LatentSpec | None:
        return None if isinstance(model.maker, Translator) else super().start(model)

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        maker = model.maker
        return (
            maker.make(start, condition).float()
            if isinstance(maker, Translator)
            else model.synthesize(start, condition)
        )


@sampler("truncated", paper="Brock et al. 2019, section 3.1")
class Truncated(Sampler):
    """The truncation trick: normal latents limited to [−threshold, threshold]; less variety, more fidelity.

    The paper redraws values outside; the same distribution is had without a loop by mapping each normal value through
    z′ = Φ⁻¹(Φ(−t) + Φ(z)(Φ(t) − Φ(−t))), so a seed keeps its image recognisable at every threshold. At 0 all
    samples of a condition are the mean one.
    """

    stochastic = False

    def __init__(self, *, threshold: Annotated[float, Ge(0)] = 1.0) -> None:
        self.threshold = threshold

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        z = start.values.double()
        inside = math.erf(self.threshold / math.sqrt(2))  # Φ(t) − Φ(−t)
        share = (1 - inside) / 2 + torch.special.ndtr(z) * inside
        values = torch.special.ndtri(share).clamp(-self.threshold, self.threshold)
        return model.synthesize(Latent(values.to(start.values), start.space), condition)


@sampler("interpolated", paper="Karras et al. 2019, appendix B")
class Interpolated(Sampler):
    """Truncation by interpolation: latents are moved towards their prior's mean, z′ = ψ z; less variety at small ψ."""

    stochastic = False

    def __init__(self, *, psi: Annotated[float, Ge(0), Le(1)] = 0.7) -> None:
        self.psi = psi

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        return model.synthesize(Latent(self.psi * start.values, start.space), condition)
