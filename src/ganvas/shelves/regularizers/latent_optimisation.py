"""LOGAN: latents take a step uphill on the critic before either network learns from their images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from ganvas.nn import draws
from ganvas.parts import regularizer
from ganvas.types import Latent, Regularizer, Side, Turn


@regularizer("latent-optimisation", paper="Wu et al. 2019, eq. 7, 11-12")
class LatentOptimisation(Regularizer):
    """z′ = z + Δz, Δz = rate · g (gradient) or rate · g / (damping + ‖g‖²) (natural gradient), g = ∂D(G(z)) / ∂z.

    The term itself, ‖Δz‖², keeps steps short; the paper's weight is 300. PyTorch-StudioGAN's form is `moves: data`,
    `bound: 1`, `learnt_by: both`, with a damping of 0.1 and a weight of 0.1.

    Parameters
    ----------
    method : how far a step goes.
    steps : steps an update.
    rate : the paper's α.
    damping : the paper's β.
    share : how much of a latent moves, chosen anew in each update.
    moves : "dimensions": this share of the numbers of every latent, the same ones in the whole batch; "data": all
        numbers of this share of the batch.
    bound : latents are held within ± this after a step; None: nowhere.
    learnt_by : "generator": it learns through Δz and pays for it, and the critic takes z′ as given; "both" do.
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
        moves: Literal["dimensions", "data"] = "dimensions",
        bound: Annotated[float, Gt(0)] | None = None,
        learnt_by: Literal["generator", "both"] = "generator",
    ) -> None:
        self.method = method
        self.steps = steps
        self.rate = rate
        self.damping = damping
        self.share = share
        self.moves = moves
        self.bound = bound
        self.learnt_by = learnt_by
        self.cost: Tensor | None = None  # E ‖Δz‖² of the present update

    def belongs_to(self, side: Side) -> bool:
        return side == self.side or self.learnt_by == "both"

    def move_latent(self, latent: Latent, score: Callable[[Latent], Tensor], *, differentiable: bool) -> Latent:
        z = latent.values
        learnt = differentiable or self.learnt_by == "both"
        shape = z.shape[1:] if self.moves == "dimensions" else (len(z), *[1] * (z.dim() - 1))
        moving = (draws.uniform("moved latents", shape, like=z) > 1 - self.share).to(z)
        way = torch.zeros_like(z)  # that it costs to go
        with torch.enable_grad():
            for _ in range(self.steps):
                if not (learnt and z.requires_grad):
                    z = z.detach().requires_grad_(True)
                (g,) = torch.autograd.grad(score(Latent(z, latent.space)).sum(), z, create_graph=learnt)
                squares = g.flatten(1).square().sum(1).view(-1, *[1] * (g.dim() - 1))
                if self.moves == "dimensions":  # what stays is no part of the step whose length is damped
                    squares = (g * moving).flatten(1).square().sum(1).view_as(squares)
                step = self.rate * (g / (self.damping + squares) if self.method == "natural" else g)
                # PyTorch-StudioGAN counts what stays as if it had moved.
                way = way + (step * moving if self.moves == "dimensions" else step)
                z = z + step * moving
                if self.bound is not None:
                    z = z.clamp(-self.bound, self.bound)
        self.cost = way.flatten(1).square().sum(1).mean()
        return Latent(z if learnt else z.detach(), latent.space)

    def __call__(self, turn: Turn) -> Tensor:
        assert self.cost is not None
        return self.cost
