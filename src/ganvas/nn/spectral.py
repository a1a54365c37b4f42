"""Spectral normalisation of one layer's weight (Miyato et al. 2018, Algorithm 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

_WARM_UP = 15  # power iterations on the initial weight


class SpectralNorm(nn.Module):
    """W ↦ W / σ(W), with σ(W) ≈ uᵀ W v by one power iteration in each training forward (eq. 8-9).

    The iteration is kept out of compiled graphs: inductor's partitioner would recompute it in the backward pass from a
    buffer that a second forward of the critic has changed by then, and torch refuses.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, *, dim: int, eps: float) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps
        W = self.matrix(weight.detach())  # (rows, columns)
        self.register_buffer("_u", F.normalize(torch.randn(len(W), device=W.device), dim=0, eps=eps))
        self.register_buffer("_v", F.normalize(torch.randn(W.shape[1], device=W.device), dim=0, eps=eps))
        for _ in range(0 if W.is_meta else _WARM_UP):  # without values there is nothing to warm up
            self._u, self._v = self.iterate(W, self._u)

    def matrix(self, weight: Tensor) -> Tensor:
        return (weight if self.dim == 0 else weight.transpose(0, self.dim)).flatten(1)

    def iterate(self, W: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        v = F.normalize(torch.mv(W.t(), u), dim=0, eps=self.eps)
        return F.normalize(torch.mv(W, v), dim=0, eps=self.eps), v

    def forward(self, weight: Tensor) -> Tensor:
        W = self.matrix(weight)
        u, v = self._u, self._v
        if self.training:
            with torch.no_grad():
                u, v = self.iterate(W, u)
                self._u.copy_(u)
                self._v.copy_(v)
        return weight / torch.dot(u, torch.mv(W, v))


# What torch.compiler.disable sets; the decorator itself would import the whole compiler, 1.5 s at every start.
SpectralNorm.iterate._torchdynamo_disable = True  # type: ignore[attr-defined]


def spectral(module: nn.Module, eps: float = 1e-6) -> nn.Module:
    """Divide `module.weight` by its largest singular value, and return the module.

    The estimate stands still in eval mode. Convolutions are read as (C_out, C_in * k * k) matrices, transposed ones as
    (C_out, C_in * k * k) too, embeddings as (classes, D).

    Parameters
    ----------
    module : any layer with a `weight` of at least two dimensions, its values already initialised: a few iterations on
        them warm `u` and `v` up.
    eps : keeps the norm of `u` and `v` away from 0; 1e-6 is what the published SNGAN and SAGAN scores used.
    """
    transposed = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    weight = module.weight
    assert isinstance(weight, Tensor)
    # unsafe: the parametrization is known to keep shape and type, and checking would run it three times.
    parametrize.register_parametrization(
        module, "weight", SpectralNorm(weight, dim=1 if transposed else 0, eps=eps), unsafe=True
    )
    return module
