"""Samplers that ask the critic. They need a model whose critic was kept, which every adversarial recipe does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.errors import MissingCapability
from ganvas.nn.refine import refined
from ganvas.parts import sampler
from ganvas.types import Condition, Latent, Sampler, StagedGenerator, Synthesizer

Steps = Annotated[int, Ge(0)]
Rate = Annotated[float, Gt(0)]


def _critic_logits(model: Synthesizer, latent: Tensor, space: str, condition: Condition) -> Tensor:
    """d(G(z)), (N,)."""
    return model.score(model.synthesize(Latent(latent, space), condition), condition)


def _gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """d Σ function / d at, detached."""
    with torch.enable_grad():
        point = at.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(function(point).sum(), point)
    return slope


def _normal(shape: torch.Size, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


@sampler("langevin", paper="Che et al. 2020 (DDLS), algorithm 1", tiny={"steps": 2})
class Langevin(Sampler):
    """Langevin dynamics in latent space towards what the critic takes for real.

    z ← z − ½ε ∇E(z) + noise · √ε n,  n ~ N(0, I),  E(z) = ½‖z‖² − d(G(z)); `noise: 1` is the exact dynamics.
    """

    stochastic = True

    def __init__(self, *, steps: Steps = 50, step_size: Rate = 0.01, noise: Annotated[float, Ge(0)] = 1.0) -> None:
        self.steps = steps
        self.step_size = step_size
        self.noise = noise

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        z = start.values

        def energy(point: Tensor) -> Tensor:
            prior = 0.5 * point.flatten(1).square().sum(1)
            return prior - _critic_logits(model, point, start.space, condition)

        for _ in range(self.steps):
            drift = 0.5 * self.step_size * _gradient(energy, z)
            z = z - drift + self.noise * math.sqrt(self.step_size) * _normal(z.shape, z, rng)
        return model.synthesize(Latent(z, start.space), condition)


@sampler("latent-optimisation", paper="Wu et al. 2019 (LOGAN), eq. 7")
class LatentOptimisation(Sampler):
    """Steps uphill on the critic's logit, kept close to the prior by the size of the step: z ← z + rate · ∇ d(G(z))."""

    stochastic = False

    def __init__(self, *, steps: Steps = 1, rate: Rate = 0.1) -> None:
        self.steps = steps
        self.rate = rate

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        z = start.values
        for _ in range(self.steps):
            z = z + self.rate * _gradient(lambda point: _critic_logits(model, point, start.space, condition), z)
        return model.synthesize(Latent(z, start.space), condition)


@sampler("collaborative", paper="Liu et al. 2020, eq. 4", system="collaborative-sampling", tiny={"steps": 2})
class Collaborative(Sampler):
    """Gradient steps on what the generator makes: x ← x − rate · ∇ softplus(−D(x)), starting from x = G(z).

    Parameters
    ----------
    steps, rate : of the refinement.
    stage : None refines images. A number refines the map after so many of the generator's stages instead, of which the
        rest of the generator makes the image; attention counts as a stage. A middle one works best on images.

    Raises
    ------
    MissingCapability : a stage is given, and the generator has none.
    """

    stochastic = False

    def __init__(self, *, steps: Steps = 50, rate: Rate = 0.1, stage: Annotated[int, Ge(0)] | None = None) -> None:
        self.steps = steps
        self.rate = rate
        self.stage = stage

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        if self.stage is not None:
            return self.from_stage(model, start, condition, self.stage)
        x = model.synthesize(start, condition)
        if not self.steps:
            return x
        x = refined(x, lambda data: model.score(data, condition), steps=self.steps, rate=self.rate)
        return x.clamp(-1, 1)

    def from_stage(self, model: Synthesizer, latent: Latent, condition: Condition, stage: int) -> Tensor:
        net = model.generator
        if not isinstance(net, StagedGenerator):
            raise MissingCapability(
                "`stage` needs a generator that is made of stages, and this one is not",
                hint="refine images instead: leave stage out",
            )
        half = net.to_stage(latent.values, condition.label, stages=stage)

        def images(h: Tensor) -> Tensor:
            return net.from_stage(dataclasses.replace(half, features=h)).float()

        def logits(h: Tensor) -> Tensor:
            return model.score(images(h), condition)

        return images(refined(half.features, logits, steps=self.steps, rate=self.rate))


class _Proposals:
    """Fresh latents for samplers that reject: same classes, new noise."""

    def __init__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> None:
        self.model, self.space, self.condition, self.rng = model, start.space, condition, rng
        self.first = start.values

    def __call__(self) -> tuple[Tensor, Tensor]:
        """(data, logits) of N new latents."""
        return self.score(_normal(self.first.shape, self.first, self.rng))

    def score(self, values: Tensor) -> tuple[Tensor, Tensor]:
        data = self.model.synthesize(Latent(values, self.space), self.condition)
        return data, self.model.score(data, self.condition)

    def uniform(self) -> Tensor:
        return torch.rand(len(self.first), generator=self.rng, device=self.first.device)


@sampler("rejection", paper="Azadi et al. 2019 (DRS), eq. 7-8")
class Rejection(Sampler):
    """Discriminator rejection sampling: proposals that the critic takes for real are likelier to be kept.

    One is kept with probability σ(F), F = d − d_M − log(1 − e^{d − d_M − ε}) − γ, where d_M is the largest logit seen,
    from `burn_in` rounds on, and γ is set so that a share `percentile` of them has F < 0. Where nothing is kept within
    `rounds`, the last proposal stands.
    """

    stochastic = True

    def __init__(
        self,
        *,
        percentile: Annotated[float, Ge(0), Le(100)] = 80.0,
        burn_in: Annotated[int, Gt(0)] = 4,
        rounds: Annotated[int, Gt(0)] = 100,
    ) -> None:
        self.percentile = percentile
        self.burn_in = burn_in
        self.rounds = rounds

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        propose = _Proposals(model, start, condition, rng)
        seen = torch.cat([propose()[1] for _ in range(self.burn_in)])
        highest = seen.max()
        images, logits = propose.score(start.values)
        done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        for _ in range(self.rounds):
            highest = torch.maximum(highest, logits.max())
            raw = self.raw(logits, highest)
            gamma = torch.quantile(self.raw(seen, highest), self.percentile / 100)
            done |= propose.uniform() < torch.sigmoid(raw - gamma)
            if done.all():
                break
            fresh, fresh_logits = propose()
            keep = done.view(-1, *[1] * (images.dim() - 1))
            images, logits = torch.where(keep, images, fresh), torch.where(done, logits, fresh_logits)
        return images

    @staticmethod
    def raw(logits: Tensor, highest: Tensor) -> Tensor:
        """F without γ; ε keeps the logarithm finite at the highest logit."""
        gap = (logits - highest).double()
        return (gap - torch.log1p(-torch.exp(gap - 1e-8))).to(logits)


@sampler("metropolis-hastings", paper="Turner et al. 2019 (MH-GAN), eq. 4", tiny={"steps": 2})
class MetropolisHastings(Sampler):
    """A chain over proposals of the generator, accepted with min(1, (D(x)⁻¹ − 1) / (D(x′)⁻¹ − 1)), D = σ(d).

    D⁻¹ − 1 = e^{−d}, so the ratio is e^{d(x′) − d(x)}. Chains start from the proposal itself, not from real data.
    """

    stochastic = True

    def __init__(self, *, steps: Steps = 100) -> None:
        self.steps = steps

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        propose = _Proposals(model, start, condition, rng)
        images, logits = propose.score(start.values)
        for _ in range(self.steps):
            fresh, fresh_logits = propose()
            accept = torch.log(propose.uniform()) < fresh_logits - logits
            images = torch.where(accept.view(-1, *[1] * (images.dim() - 1)), fresh, images)
            logits = torch.where(accept, fresh_logits, logits)
        return images
