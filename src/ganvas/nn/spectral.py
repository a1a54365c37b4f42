"""Spectral normalisation of one layer's weight (Miyato et al. 2018, Algorithm 1)."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations


# Miyato et al. 2018, eq. 8-9: W_SN = W / sigma(W), with sigma(W) ~ u^T W v by one power iteration a training forward
def spectral(module: nn.Module, eps: float = 1e-6) -> nn.Module:
    """Divide `module.weight` by its largest singular value, and return the module.

    The estimate takes one power iteration in each training forward and stands still in eval mode. Convolutions are read
    as (C_out, C_in * k * k) matrices, transposed ones as (C_out, C_in * k * k) too, embeddings as (classes, D).

    Parameters
    ----------
    module : any layer with a `weight` of at least two dimensions, its values already initialised: fifteen iterations
        on them warm `u` and `v` up.
    eps : keeps the norm of `u` and `v` away from 0; 1e-6 is what the published SNGAN and SAGAN scores used.
    """
    return parametrizations.spectral_norm(module, eps=eps)
