"""Spectral normalisation of one layer's weight (Miyato et al. 2018, Algorithm 1), and a look at singular values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganvas.nn.precise import precise
from ganvas.nn.statistics import Gathering

_WARM_UP = 15  # power iterations on the initial weight
_MATRICES = (
    nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True)
class PowerIteration:
    """How spectral normalisation follows the largest singular value of a weight.

    Parameters
    ----------
    iterations : in each training forward.
    eps : keeps the norm of the singular vectors away from 0; 1e-6 is what the published SNGAN and SAGAN scores used.
    """

    iterations: Annotated[int, Gt(0)] = 1
    eps: Annotated[float, Gt(0)] = 1e-6


class SpectralNorm(Gathering):
    """W ↦ W / σ(W), with σ(W) ≈ uᵀ W v by power iteration in each training forward (eq. 8-9).

    The iteration is kept out of compiled graphs: inductor's partitioner would recompute it in the backward pass from a
    buffer that a second forward of the critic has changed by then, and torch refuses.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, *, dim: int, power: PowerIteration) -> None:
        super().__init__()
        self.dim = dim
        self.eps, self.iterations = power.eps, power.iterations
        W = self.matrix(weight.detach())  # (rows, columns)
        self.register_buffer("_u", F.normalize(torch.randn(len(W), device=W.device), dim=0, eps=power.eps))
        self.register_buffer("_v", F.normalize(torch.randn(W.shape[1], device=W.device), dim=0, eps=power.eps))
        for _ in range(0 if W.is_meta else _WARM_UP):  # without values there is nothing to warm up
            self._u, self._v = self.iterate(W, self._u)

    def statistics(self) -> list[Tensor]:
        """The two singular vectors, which follow the weight."""
        return [self._u, self._v]

    def matrix(self, weight: Tensor) -> Tensor:
        return as_matrix(weight, self.dim)

    def iterate(self, W: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        return power_step(W, u, self.eps)

    def forward(self, weight: Tensor) -> Tensor:
        W = self.matrix(weight)
        u, v = self._u, self._v
        if self.training:
            with torch.no_grad():
                for _ in range(self.iterations):
                    u, v = self.iterate(W, u)
                torch._foreach_copy_([self._u, self._v], [u, v])
        return weight / torch.dot(u, torch.mv(W, v))


# What torch.compiler.disable sets; the decorator itself would import the whole compiler, 1.5 s at every start.
SpectralNorm.iterate._torchdynamo_disable = True  # type: ignore[attr-defined]


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """A weight as (rows, columns), with the output channels of dimension `dim` as rows."""
    return (weight if dim == 0 else weight.transpose(0, dim)).flatten(1)


def power_step(W: Tensor, u: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """One power iteration from u (rows,): the next u (rows,) and v (columns,), both of length 1."""
    v = _unit(torch.mv(W.t(), u), eps)
    return _unit(torch.mv(W, v), eps), v


def _unit(x: Tensor, eps: float) -> Tensor:
    # F.normalize to the bit, in 3 operators for 5: small networks have dozens of these in each step
    unit: Tensor = x / torch.linalg.vector_norm(x).clamp_(min=eps)
    return unit


def _output_dim(module: nn.Module) -> int:
    return 1 if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) else 0


def spectral(module: nn.Module, power: PowerIteration | None = None) -> nn.Module:
    """Divide `module.weight` by its largest singular value, and return the module.

    The estimate stands still in eval mode. Convolutions are read as (C_out, C_in * k * k) matrices, transposed ones as
    (C_out, C_in * k * k) too, embeddings as (classes, D).

    Parameters
    ----------
    module : any layer with a `weight` of at least two dimensions, its values already initialised: a few iterations on
        them warm `u` and `v` up.
    power : how the singular value is followed; None takes one iteration a forward.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    norm = SpectralNorm(weight, dim=_output_dim(module), power=power or PowerIteration())
    # unsafe: the parametrization is known to keep shape and type, and checking would run it three times.
    parametrize.register_parametrization(module, "weight", norm, unsafe=True)
    return module


# ---------------------------------------------------------------------------------------------------- looking


def weight_of(layer: nn.Module) -> Tensor | None:
    """What a layer has under the name of `weight`, parametrized or not; None where it has none."""
    if not ("weight" in layer._parameters or parametrize.is_parametrized(layer, "weight")):
        return None
    weight = layer.weight
    return weight if isinstance(weight, Tensor) else None


def learnt_weight(layer: nn.Module) -> Tensor:
    """A layer's weight without spectral normalisation; any other parametrization stays."""
    weight = layer.weight if _spectral_norm(layer) is None else _parametrizations(layer).original
    assert isinstance(weight, Tensor)
    return weight


def _spectral_norm(layer: nn.Module) -> SpectralNorm | None:
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    return next((norm for norm in _parametrizations(layer) if isinstance(norm, SpectralNorm)), None)


def _parametrizations(layer: nn.Module) -> parametrize.ParametrizationList:
    all_of_it = layer.parametrizations
    assert isinstance(all_of_it, nn.ModuleDict)
    of_weight = all_of_it["weight"]
    assert isinstance(of_weight, parametrize.ParametrizationList)
    return of_weight


@torch.no_grad()
def spectral_values(net: nn.Module, iterations: int) -> Iterator[tuple[str, float]]:
    """(name, largest singular value) of every layer's weight matrix, as it is without spectral normalisation.

    A spectrally normalised layer's own estimate is the start, and is left as it is; others start from a fixed vector.
    What is found approaches the value from below. Shared weights count once.

    Parameters
    ----------
    iterations : power iterations.
    """
    for name, layer in net.named_modules():
        if not isinstance(layer, _MATRICES):
            continue
        W = as_matrix(precise(learnt_weight(layer)), _output_dim(layer))
        norm = _spectral_norm(layer)
        u = torch.randn(len(W), generator=torch.Generator().manual_seed(0)).to(W) if norm is None else norm._u.to(W)
        for _ in range(iterations):
            u, v = power_step(W, u, 1e-12)
        yield name, torch.dot(u, torch.mv(W, v)).item()
