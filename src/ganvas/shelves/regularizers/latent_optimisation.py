"""LOGAN: latents take a step uphill on the critic before either network learns from their images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.parts import regularizer
from ganvas.types import Latent, Regularizer, Side, Turn


@regularizer("latent-optimisation", paper="Wu et al. 2019, eq. 7, 11-12")
class LatentOptimisation(Regularizer):
    """z′ = z + Δz, Δz = rate · g (gradient) or rate · g / (damping + ‖g‖²) (natural gradient), g = ∂D(G(z)) / ∂z.

    The generator learns through Δz; the critic takes z′ as given. A share of the latent's dimensions moves, chosen anew
    in each update. The term itself, ‖Δz‖², keeps steps short; the paper's weight is 300.
    """

    side: Side = "generator"

    def __init__(
        self,
        *,
        method: Literal["gradient", "natural"] = "natural",
        steps: Annotated[int, Gt(0)] = 1,
        rate: Annotated[float, Gt(0)] = 0.9,
        damping: Annotated[float, Gt(0)] = 5.0,
        share: Annotated[float, Ge(0), Le(1)] = 0.8,
    ) -> None:
        self.method = method
        self.steps = steps
        self.rate = rate
        self.damping = damping
        self.share = share
        self.moved: Tensor | None = None  # Δz of the present update

    def move_latent(self, latent: Latent, score: Callable[[Latent], Tensor], *, differentiable: bool) -> Latent:
        z = latent.values
        moving = (torch.rand(z.shape[1:], device=z.device) < self.share).to(z)
        start = z
        with torch.enable_grad():
            for _ in range(self.steps):
                if not (differentiable and z.requires_grad):
                    z = z.detach().requires_grad_(True)
                (g,) = torch.autograd.grad(score(Latent(z, latent.space)).sum(), z, create_graph=differentiable)
                g = g * moving
                if self.method == "natural":
                    g = g / (self.damping + g.flatten(1).square().sum(1).view(-1, *[1] * (g.dim() - 1)))
                z = z + self.rate * g
        if not differentiable:
            z = z.detach()
        self.moved = z - start
        return Latent(z, latent.space)

    def __call__(self, turn: Turn) -> Tensor:
        assert self.moved is not None
        return self.moved.flatten(1).square().sum(1).mean()
