"""Directions of a latent space that change images most, read off the first weights after it, without any data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


# Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs" (SeFa)
def sefa(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The eigenvectors of AᵀA, A all weights below each other with rows of length 1, as the authors' code has them.

    Parameters
    ----------
    weights : each (rows, D), from a latent of D values; those of several layers are looked at together.

    Returns
    -------
    directions (D, D), one a row, of length 1, the strongest first; the sign is arbitrary. And their eigenvalues (D,),
    whose sum is the number of rows.
    """
    A = torch.cat([weight.detach().double() for weight in weights])  # (R, D)
    A = A / A.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    values, vectors = torch.linalg.eigh(A.T @ A)  # ascending
    return vectors.flip(1).T.to(weights[0].dtype), values.flip(0).to(weights[0].dtype)
