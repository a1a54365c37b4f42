"""The discrete paths of DDPM: T steps of Gaussian noise, with a linear or a cosine schedule."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.nn.diffusion import Chain, eight_bit_log_likelihood, gaussian_kl
from ganvas.parts import path
from ganvas.types import Path

Predicts = Literal["noise", "data", "velocity"]
Steps = Annotated[int, Gt(1)]
Gamma = Annotated[float, Gt(0)]


class DDPM(Path):
    """What both schedules share: levels are the timesteps 0 to T − 1 as floats, and −1 is the clean end.

    x_t = √ᾱ_t x + √(1 − ᾱ_t) ε, with ᾱ_t the product of 1 − β up to t (Ho et al. 2020, eq. 4).

    Parameters
    ----------
    steps : T.
    predicts : ε, x, or the velocity √ᾱ ε − √(1 − ᾱ) x (Salimans & Ho 2022).
    learned_sigma : the network also says, as a second prediction in about [-1, 1], where between the least and the
        largest variance that of a step lies. Its term is the variational bound in bits per dimension, from which the
        mean gets no gradient; the first step's counts 8-bit bins (Nichol & Dhariwal 2021, section 3.1).
    min_snr : γ, where the error counts as if the signal-to-noise ratio ᾱ / (1 − ᾱ) were at most that (Hang et al. 2023,
        eq. 9); None: each level's error in what is predicted counts alike.
    """

    def __init__(
        self,
        *,
        steps: Steps = 1000,
        predicts: Predicts = "noise",
        learned_sigma: bool = False,
        min_snr: Gamma | None = None,
    ) -> None:
        self.steps = steps
        self.predicts = predicts
        self.learned_sigma = learned_sigma
        self.min_snr = min_snr
        self.sides = 1 + learned_sigma
        alpha_bar = (1 - self.betas()).cumprod(0)
        clean = torch.ones(1, dtype=torch.float64)
        self.alpha = torch.cat([clean, alpha_bar.sqrt()])  # (T + 1,): [t + 1] is that of timestep t
        self.sigma = torch.cat([1 - clean, (1 - alpha_bar).sqrt()])
        self.chain = Chain(self.alpha.flip(0), self.sigma.flip(0))

    @abstractmethod
    def betas(self) -> Tensor:
        """β of the timesteps 0 to T − 1, (T,) float64."""

    def draw_level(self, n: int, like: Tensor) -> Tensor:
        return draws.integers("level", 0, self.steps, (n,), like=like).float()

    def at(self, level: Tensor) -> tuple[Tensor, Tensor]:
        index = level.round().long().to(self.alpha.device) + 1
        return self.alpha[index].to(level), self.sigma[index].to(level)

    def levels(self, steps: int) -> Tensor:
        """Timesteps from T − 1 to 0, spread evenly and rounded, and the clean end."""
        if steps > self.steps:
            raise BadValue(f"{steps} steps along a path of {self.steps}", key="steps", hint=f"steps={self.steps}")
        spread = torch.linspace(self.steps - 1, 0, steps, dtype=torch.float64).round()
        return torch.cat([spread, torch.tensor([-1.0], dtype=torch.float64)])

    def target(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        if self.predicts == "noise":
            return noise
        if self.predicts == "data":
            return x
        alpha, sigma = self.scales(level, x)
        return alpha * noise - sigma * x

    def denoised(self, prediction: Tensor, x_t: Tensor, level: Tensor) -> Tensor:
        said = self.said(prediction)
        if self.predicts == "data":
            return said
        alpha, sigma = self.scales(level, x_t)
        return (x_t - sigma * said) / alpha if self.predicts == "noise" else alpha * x_t - sigma * said

    def said(self, prediction: Tensor) -> Tensor:
        """The prediction of noise, data or velocity alone, (N, ...)."""
        return prediction.chunk(2, dim=1)[0] if self.learned_sigma else prediction

    # Nichol & Dhariwal 2021, eq. 15; the official network says v in [-1, 1]
    def variance_share(self, prediction: Tensor) -> Tensor | None:
        return (prediction.chunk(2, dim=1)[1] + 1) / 2 if self.learned_sigma else None

    def losses(self, prediction: Tensor, x: Tensor, noise: Tensor, x_t: Tensor, level: Tensor) -> dict[str, Tensor]:
        error = (self.said(prediction) - self.target(x, noise, level)).square().flatten(1).mean(1)
        terms = {"mse": (self.weight(level).to(error) * error).mean()}
        if self.learned_sigma:
            step = self.steps - 1 - level.round().long()
            terms["bound"] = self.bound(prediction, x, x_t, level, self.chain, step).mean()
        return terms

    # Hang et al. 2023, section 3.4: min(SNR, γ) is the weight of the error in x
    def weight(self, level: Tensor) -> Tensor:
        """What each level's error counts, (N,)."""
        if self.min_snr is None:
            return torch.ones_like(level)
        alpha, sigma = self.at(level)
        ratio = (alpha / sigma).square()
        per_x = {"noise": ratio, "data": torch.ones_like(ratio), "velocity": ratio + 1}[self.predicts]
        return ratio.clamp(max=self.min_snr) / per_x

    # Nichol & Dhariwal 2021, eq. 4-7: L_{t−1}, or L_0 in the last step
    def bound(self, prediction: Tensor, x: Tensor, x_t: Tensor, level: Tensor, chain: Chain, step: Tensor) -> Tensor:
        """The variational bound's term (N,), in bits per dimension, of these steps (N,) int64 of a chain."""
        share = self.variance_share(prediction)
        assert share is not None
        log_variance = chain.log_variance(step, share)
        mean = chain.mean(step, self.denoised(prediction, x_t, level).detach(), x_t)
        least = chain.log_variance(step, torch.zeros_like(share))
        divergence = gaussian_kl(chain.mean(step, x, x_t), least, mean, log_variance)
        surprise = -eight_bit_log_likelihood(x, mean, log_variance)
        last = (step == len(chain) - 1).view(-1, *[1] * (x.dim() - 1))
        return torch.where(last, surprise, divergence).flatten(1).mean(1) / math.log(2)


@path("linear-ddpm", paper="Ho et al. 2020, section 4")
class LinearDDPM(DDPM):
    """The discrete diffusion path whose steps' noise rises linearly: β from 0.0001 to 0.02 over 1,000 steps.

    With another number of steps β is scaled by 1000 / T, so that the ends of the path stay about where they are.

    Parameters
    ----------
    steps, predicts, learned_sigma, min_snr : see `DDPM`: the timesteps, what the network predicts, whether it also
        predicts the steps' variance, and the largest signal-to-noise ratio that counts.
    """

    def betas(self) -> Tensor:
        scale = 1000 / self.steps
        if scale * 0.02 >= 1:
            raise BadValue(f"{self.steps} steps are too few for this schedule", key="steps", hint="path=cosine-ddpm")
        return torch.linspace(scale * 0.0001, scale * 0.02, self.steps, dtype=torch.float64)


@path("cosine-ddpm", paper="Nichol & Dhariwal 2021, eq. 17")
class CosineDDPM(DDPM):
    """The discrete diffusion path on which ᾱ falls as a squared cosine, slowly at both ends; no step's β exceeds 0.999.

    Parameters
    ----------
    steps, predicts, learned_sigma, min_snr : see `DDPM`: the timesteps, what the network predicts, whether it also
        predicts the steps' variance, and the largest signal-to-noise ratio that counts.
    """

    def betas(self) -> Tensor:
        time = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        falling = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
        return (1 - falling[1:] / falling[:-1]).clamp(max=0.999)
