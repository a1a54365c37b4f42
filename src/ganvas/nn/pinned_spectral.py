"""Improved spectral normalisation: a weight keeps the largest singular value that it started with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganvas.nn.spectral import PowerIteration, SpectralNorm


class PinnedSpectralNorm(SpectralNorm):
    """W ↦ σ(W₀) W / σ(W) (Lee et al. 2022, eq. 8), with σ(W) followed as in `SpectralNorm`, from an exact start."""

    sigma: Tensor

    def __init__(self, weight: Tensor, *, dim: int, power: PowerIteration) -> None:
        super().__init__(weight, dim=dim, power=power)
        U, S, Vh = torch.linalg.svd(self.matrix(weight.detach()), full_matrices=False)
        self._u, self._v = U[:, 0].contiguous(), Vh[0].contiguous()
        self.register_buffer("sigma", S[0].clone())

    def forward(self, weight: Tensor) -> Tensor:
        return self.sigma * super().forward(weight)


def pin_spectral(module: nn.Module, power: PowerIteration | None = None) -> nn.Module:
    """Hold the largest singular value of `module.weight` where it is now, and return the module.

    Parameters
    ----------
    module : any layer with a `weight` of at least two dimensions, outputs first, its values already initialised.
    power : how the singular value is followed; None takes one iteration a forward.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    norm = PinnedSpectralNorm(weight, dim=0, power=power or PowerIteration())
    # unsafe: the parametrization is known to keep shape and type, and checking would run it three times.
    parametrize.register_parametrization(module, "weight", norm, unsafe=True)
    return module
