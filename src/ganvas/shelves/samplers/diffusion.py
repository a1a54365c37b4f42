"""Samplers of denoisers: from noise down a path's levels to data, along any path.

Each step asks the network for the clean data x̂ in x_t, or for what x̂ follows from, and moves to the next level.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.nn.diffusion import Chain
from ganvas.nn.guidance import both_predictions, denoiser_of, guided, path_of
from ganvas.parts import sampler
from ganvas.types import Condition, Denoiser, Latent, LatentSpec, Modality, Path, Sampler, Synthesizer

Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Descent:
    """Everything that a step down the levels needs.

    Attributes
    ----------
    levels : (K + 1,) float64.
    chain : the K steps between them.
    guidance, guided_channels : see `AlongPath`.
    limit : what cuts clean data to what they can be; None: nothing does.
    """

    net: Denoiser
    path: Path
    levels: Tensor
    chain: Chain
    condition: Condition
    guidance: float
    guided_channels: int | None
    limit: Modality | None

    def predict(self, k: int, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """The network's prediction at step k's level (N, ...), and the clean data x̂ that it stands for (N, ...)."""
        level = torch.full((len(x_t),), self.levels[k].item(), device=x_t.device)
        if self.guidance == 1:
            prediction = self.net(x_t, level, **self.condition.of(self.net))
        else:
            channels = x_t.shape[1] if self.guided_channels is None else self.guided_channels
            prediction = guided(*both_predictions(self.net, x_t, level, self.condition), self.guidance, channels)
        x = self.path.denoised(prediction.float(), x_t, level)
        return prediction.float(), x if self.limit is None else self.limit.limited(x)


class AlongPath(Sampler):
    """Goes down the levels of the path that the model was trained along; a subclass says how one step is done.

    Parameters
    ----------
    steps : how many, over levels that the path spreads.
    guidance : strength of classifier-free guidance: 1 none, above it away from what the network predicts without
        conditions. It takes a network that was trained with `condition_dropout`.
    guided_channels : guidance moves only the first so many channels (3 in DiT's release); None: all.
    clip : whether clean data are cut to their range in each step, as data of pixels are.
    levels : the levels themselves, falling, in place of `steps`; the clean end is added.
    """

    def __init__(
        self,
        *,
        steps: Count = 50,
        guidance: float = 1.0,
        guided_channels: Count | None = None,
        clip: bool = True,
        levels: tuple[float, ...] | None = None,
    ) -> None:
        self.steps = steps
        self.guidance = guidance
        self.guided_channels = guided_channels
        self.clip = clip
        self.levels = levels
        if levels is not None and (not levels or any(high <= low for high, low in itertools.pairwise(levels))):
            raise UsageError(f"levels {list(levels)} do not fall", where="levels", hint="such as levels=[999, 499, 0]")

    def start(self, model: Synthesizer) -> LatentSpec:
        denoiser_of(model)
        path_of(model)
        return LatentSpec(tuple(model.spec.shape))

    def descent(self, model: Synthesizer, condition: Condition) -> Descent:
        """The levels that are gone down, and who is asked on the way."""
        path = path_of(model)
        levels = self.levels_of(path)
        limit = model.spec.modality if self.clip else None
        return Descent(
            denoiser_of(model), path, levels, Chain(*path.at(levels)), condition, self.guidance, self.guided_channels,
            limit,
        )  # fmt: skip

    def levels_of(self, path: Path) -> Tensor:
        """(K + 1,) float64.

        Raises
        ------
        UsageError : a level of the sampler's own lies outside the path.
        """
        if self.levels is None:
            return path.levels(self.steps)
        noisiest, clean = path.levels(1).tolist()
        for level in self.levels:
            if not clean < level <= noisiest:
                raise UsageError(
                    f"level {level:g} does not lie on this path", where="levels",
                    hint=f"its levels are at most {noisiest:g} and above {clean:g}",
                )  # fmt: skip
        return torch.tensor([*self.levels, clean], dtype=torch.float64)

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        descent = self.descent(model, condition)
        x_t = descent.chain.sigma[0].item() * start.values
        for k in range(len(descent.chain)):
            x_t = self.step(descent, k, x_t, rng)
        return x_t

    @abstractmethod
    def step(self, descent: Descent, k: int, x_t: Tensor, rng: torch.Generator) -> Tensor:
        """x at the level below step k's, (N, ...)."""


def fresh(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)


@sampler("ddpm", paper="Ho et al. 2020, algorithm 2; Nichol & Dhariwal 2021, section 3.1", tiny={"steps": 2})
class AncestralSampler(AlongPath):
    """Ancestral sampling: each step draws from the posterior of the level below, given the clean data in sight.

    Parameters
    ----------
    variance : of a step: `learned`, where the network predicts it, and else `large`; or the least or the largest that
        it can be, `small` (β̃) and `large` (β; in the last step but one β̃).
    steps, guidance, guided_channels, clip, levels : see `ddim`.
    """

    stochastic = True

    def __init__(
        self,
        *,
        steps: Count = 250,
        variance: Literal["learned", "small", "large"] = "learned",
        guidance: float = 1.0,
        guided_channels: Count | None = None,
        clip: bool = True,
        levels: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            steps=steps, guidance=guidance, guided_channels=guided_channels, clip=clip, levels=levels
        )  # fmt: skip
        self.variance = variance

    def step(self, descent: Descent, k: int, x_t: Tensor, rng: torch.Generator) -> Tensor:
        prediction, x = descent.predict(k, x_t)
        log_variance = self.log_variance(descent.chain, k, descent.path.variance_share(prediction), x)
        return descent.chain.ancestral(k, x, x_t, log_variance, fresh(x_t, rng))

    def log_variance(self, chain: Chain, k: int, share: Tensor | None, like: Tensor) -> Tensor:
        """Of step k, (N, ...): where the network puts it, or a fixed one."""
        if self.variance == "learned" and share is not None:
            return chain.log_variance(k, share)
        large = self.variance != "small" and k < len(chain) - 1
        return chain.log_variance(k, torch.full_like(like, float(large)))


@sampler("ddim", paper="Song et al. 2021 (DDIM), eq. 12", tiny={"steps": 2})
class ImplicitSampler(AlongPath):
    """Each step keeps the noise that is in sight and changes how much of it there is; eta draws some of it anew.

    Parameters
    ----------
    eta : 0 is deterministic, 1 ancestral sampling with the least variance.
    steps : how many, over levels that the path spreads.
    guidance : strength of classifier-free guidance: 1 none, above it away from what the network predicts without
        conditions. It takes a network that was trained with `condition_dropout`.
    guided_channels : guidance moves only the first so many channels (3 in DiT's release); None: all.
    clip : whether clean data are cut to their range in each step, as data of pixels are.
    levels : the levels themselves, falling, in place of `steps`; the clean end is added.
    """

    def __init__(
        self,
        *,
        steps: Count = 50,
        eta: Share = 0.0,
        guidance: float = 1.0,
        guided_channels: Count | None = None,
        clip: bool = True,
        levels: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            steps=steps, guidance=guidance, guided_channels=guided_channels, clip=clip, levels=levels
        )  # fmt: skip
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, descent: Descent, k: int, x_t: Tensor, rng: torch.Generator) -> Tensor:
        _, x = descent.predict(k, x_t)
        return descent.chain.implicit(k, x, x_t, self.eta, fresh(x_t, rng) if self.eta else None)


@sampler("euler", paper="Song et al. 2021 (score SDE), section 4.3", tiny={"steps": 2})
class Euler(AlongPath):
    """Euler's method on the path's ordinary differential equation, with the path's own steps as differentials.

    It is `ddim` without new noise, whatever the path; along a straight one it is Euler's method on the velocity.

    Parameters
    ----------
    steps, guidance, guided_channels, clip, levels : see `ddim`.
    """

    def step(self, descent: Descent, k: int, x_t: Tensor, rng: torch.Generator) -> Tensor:
        _, x = descent.predict(k, x_t)
        return descent.chain.between(k, x_t, x, descent.chain.noise(k, x, x_t))


@sampler("heun", paper="Karras et al. 2022 (EDM), algorithm 1", tiny={"steps": 2})
class Heun(AlongPath):
    """Heun's method on the path's ordinary differential equation: the slopes at both ends of a step are averaged.

    K steps take 2K − 1 calls of the network, as the clean end has no slope.

    Parameters
    ----------
    steps, guidance, guided_channels, clip, levels : see `ddim`.
    """

    def __init__(
        self,
        *,
        steps: Count = 25,
        guidance: float = 1.0,
        guided_channels: Count | None = None,
        clip: bool = True,
        levels: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            steps=steps, guidance=guidance, guided_channels=guided_channels, clip=clip, levels=levels
        )  # fmt: skip

    def step(self, descent: Descent, k: int, x_t: Tensor, rng: torch.Generator) -> Tensor:
        chain = descent.chain
        _, x = descent.predict(k, x_t)
        noise = chain.noise(k, x, x_t)
        ahead = chain.between(k, x_t, x, noise)
        if k == len(chain) - 1:
            return ahead
        _, further = descent.predict(k + 1, ahead)
        noise_further = chain.noise(k + 1, further, ahead)
        return chain.between(k, x_t, (x + further) / 2, (noise + noise_further) / 2)
