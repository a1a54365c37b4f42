"""Critics that map data to vectors whose distributions are compared by a kernel: MMD-GAN and energy distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.errors import UsageError
from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import LinearHead, in_full
from ganvas.types import DataSpec, Objective, Scores, Turn

Kernel = Literal["gaussian", "rational-quadratic", "energy"]
BANDWIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)  # σ of the Gaussians that are summed (Li et al. 2017)
ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)  # of the rational quadratics that are summed (Bińkowski et al. 2018)


def kernel(x: Tensor, y: Tensor, name: Kernel) -> Tensor:
    """k(x_i, y_j) of (N, d) and (M, d) -> (N, M).

    gaussian Σ_σ exp(−|x − y|² / 2σ²); rational-quadratic Σ_α (1 + |x − y|² / 2α)^−α; energy −|x − y|, with which MMD²
    is the energy distance of Székely & Rizzo 2013.
    """
    square = (x[:, None] - y[None]).square().sum(2)  # (N, M)
    if name == "energy":
        # the square root has no gradient at 0, where a datum meets itself
        return -torch.where(square > 0, square, 1).sqrt() * (square > 0)
    if name == "gaussian":
        return torch.stack([torch.exp(-square / (2 * sigma**2)) for sigma in BANDWIDTHS]).sum(0)
    return torch.stack([(1 + square / (2 * alpha)) ** -alpha for alpha in ALPHAS]).sum(0)


# Gretton et al. 2012, eq. 3: MMD²_u = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean k(x_i, y_j)
def mmd2(x: Tensor, y: Tensor, name: Kernel) -> Tensor:
    """The unbiased estimate of MMD² between samples (N, d) and (M, d), each of two or more.

    Raises
    ------
    UsageError : a sample of one.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise UsageError("MMD needs two or more data of each side", hint="train.batch=16")

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a, name)
        return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y, name).mean()


@conditioning("mmd", paper="Li et al. 2017; Bińkowski et al. 2018")
class KernelHead(LinearHead):
    """MMD-GAN: the critic gives vectors, and the players fight over the kernel distance of the two batches.

    Brings the whole adversarial loss. There is no logit: the mean of a datum's vector stands in where one is read.
    Labels are not looked at.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`.
    dim : length of the vectors that the kernel compares.
    kernel : "gaussian" sums five bandwidths, "rational-quadratic" five exponents; "energy" is the energy distance.
    """

    pairing = "own"
    linear_logit = False
    least_batch = 2  # of each side

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        dim: Annotated[int, Gt(0)] = 16,
        kernel: Kernel = "rational-quadratic",
    ) -> None:
        super().__init__(features, spec, wrap, bias, dim)
        self.kernel: Kernel = kernel

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> logits (N,), extra "vector" (N, dim)."""
        vector: Tensor = self.linear(features)
        return Scores(vector.mean(1), features, {"vector": vector})

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "adversarial": minus the distance."""
        return {"adversarial": -self.distance(turn)}

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]:
        """ "adversarial": the distance."""
        return {"adversarial": self.distance(turn)}

    def distance(self, turn: Turn) -> Tensor:
        x, y = (in_full(scores.extra["vector"]) for scores in (turn.real_scores, turn.fake_scores))
        return mmd2(x, y, self.kernel)
