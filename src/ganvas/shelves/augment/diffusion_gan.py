"""Adaptive noising by a diffusion process (Wang et al. 2022, Diffusion-GAN).

The critic sees y = √ᾱ_t x + √(1 − ᾱ_t) σ ε instead of x, on the real side as on the generated one, and is told t. The
generator's gradient flows through y. The process is T levels long, and T adapts to the critic's overfitting.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.errors import BadValue
from ganvas.nn import draws
from ganvas.parts import augment
from ganvas.shelves.augment.controller import OverfitController
from ganvas.types import Augment, Turn

_ENTRIES = 64  # of the list that t is drawn from; half of them are 0, clean images (section 3)


@augment("diffusion-noise", paper="Wang et al. 2022 (Diffusion-GAN), section 3", system="diffusion-gan")
class DiffusionNoise(Augment):
    """Noise of a random diffusion step t ≤ T, told to the critic; T adapts to the critic's overfitting.

    The critic's head must be able to take t: `conditioning: {use: level, head: <the one it would have>}`.

    Parameters
    ----------
    t_min, t_max : the shortest and the longest T.
    noise_std : σ of the noise, for images in [-1, 1].
    beta_start, beta_end : β_1 and β_T, linear in between whatever T is.
    prior : t uniform on 1..T, or proportional to t, so that newly opened levels are seen more.
    adapt : false keeps T where p puts it.
    target : d_target, the E[sign(D(real))] that T is steered by.
    p : how far T is from t_min to t_max at the start.
    interval : critic updates between adjustments of T.
    speed_kimg : thousands of real images in which T can go from t_min to t_max.

    Raises
    ------
    BadValue : t_min is above t_max, or beta_start above beta_end.
    """

    tells_level = True

    def __init__(
        self,
        *,
        t_min: Annotated[int, Gt(0)] = 10,
        t_max: Annotated[int, Gt(0)] = 1000,
        noise_std: Annotated[float, Gt(0)] = 0.05,
        beta_start: Annotated[float, Gt(0), Le(1)] = 1e-4,
        beta_end: Annotated[float, Gt(0), Le(1)] = 2e-2,
        prior: Literal["priority", "uniform"] = "priority",
        adapt: bool = True,
        target: Annotated[float, Ge(-1), Le(1)] = 0.6,
        p: Annotated[float, Ge(0), Le(1)] = 0.0,
        interval: Annotated[int, Gt(0)] = 4,
        speed_kimg: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        if t_min > t_max:
            raise BadValue(
                f"t_min {t_min} is above t_max {t_max}", key="t_min", hint=f"give a t_min of {t_max} or less"
            )
        if beta_start > beta_end:
            raise BadValue(
                f"beta_start {beta_start} is above beta_end {beta_end}", key="beta_start", hint="the noise must grow"
            )
        self.t_min, self.t_max = t_min, t_max
        self.noise_std = noise_std
        self.beta_start, self.beta_end = beta_start, beta_end
        self.prior = prior
        self.controller = OverfitController(p=p, adapt=adapt, target=target, interval=interval, speed_kimg=speed_kimg)
        self.alpha_bar = self.process()
        self.t_list = self.draw_list()

    @property
    def p(self) -> float:
        return self.controller.p

    @property
    def T(self) -> int:  # noqa: N802 - the paper's symbol
        """How many levels are open, between t_min and t_max."""
        return self.t_min + round(self.p * (self.t_max - self.t_min))

    # ------------------------------------------------------------------ the process

    def betas(self) -> Tensor:
        """β_1 … β_T, (T,) float64."""
        return torch.linspace(self.beta_start, self.beta_end, self.T, dtype=torch.float64)

    def process(self) -> Tensor:
        """ᾱ_t = Π_{s ≤ t} (1 − β_s) for t = 0 … T, (T + 1,) float64; ᾱ_0 = 1."""
        return torch.cat((torch.ones(1, dtype=torch.float64), (1 - self.betas()).cumprod(0)))

    def draw_list(self) -> Tensor:
        """The list that t is drawn from until T is adjusted again, (64,) int64: half 0, half by the prior on 1..T."""
        weights = torch.arange(1.0, self.T + 1) if self.prior == "priority" else torch.ones(self.T)
        opened = 1 + torch.multinomial(weights, _ENTRIES // 2, replacement=True)
        return torch.cat((opened, torch.zeros(_ENTRIES - len(opened), dtype=torch.int64)))

    # ------------------------------------------------------------------ what is done to images

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> noised ones."""
        return self.with_level(images)[0]

    def with_level(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Noised images (N, C, H, W), and the step t of each, (N,) int64."""
        t = self.t_list.to(images.device)[draws.integers("level", 0, _ENTRIES, (len(images),), like=images)]
        return self.apply(images, t, draws.normal("noise", images.shape, like=images)), t

    # Section 3: q(y | x, t) = N(y; √ᾱ_t x, (1 − ᾱ_t) σ² I)
    def apply(self, images: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Images (N, C, H, W) at steps t (N,), with standard normal noise of their shape."""
        alpha_bar = self.alpha_bar.to(images.device)[t][:, None, None, None]
        return alpha_bar.sqrt().to(images.dtype) * images + (1 - alpha_bar).sqrt().to(images.dtype) * (
            self.noise_std * noise
        )

    # ------------------------------------------------------------------ what is learnt

    def observe(self, turn: Turn) -> None:
        """Adjust T to the critic's scores of the real images, and draw the list of t anew."""
        if self.controller.observe(turn):
            self.alpha_bar = self.process()
            self.t_list = self.draw_list()

    def state_dict(self) -> dict[str, Any]:
        return {"controller": self.controller.state_dict(), "t_list": self.t_list}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.alpha_bar = self.process()
        self.t_list = state["t_list"].cpu()
