"""How the weights of a layer are initialised, and the weight normalisation that a network wraps around its layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from ganvas.errors import BadValue
from ganvas.nn.spectral import PowerIteration, spectral
from ganvas.nn.weight_norm import weight_norm as normalise_weight

Init = Callable[[nn.Module], nn.Module]
"""What a network does to every layer with a weight matrix: gives it its first values, and perhaps a normalisation."""


def orthogonal(module: nn.Module) -> nn.Module:
    """Orthogonal weight and zero bias for a convolution, linear layer or embedding (Saxe et al. 2014)."""
    nn.init.orthogonal_(_weight(module))
    return zero_bias(module)


def normal(module: nn.Module, std: float = 0.02) -> nn.Module:
    """Weight from N(0, std^2) and zero bias for a convolution, linear layer or embedding (Radford et al. 2016)."""
    nn.init.normal_(_weight(module), 0.0, std)
    return zero_bias(module)


def xavier(module: nn.Module) -> nn.Module:
    """Uniform weight and zero bias for a convolution, linear layer or embedding (Glorot & Bengio 2010, eq. 16)."""
    nn.init.xavier_uniform_(_weight(module))
    return zero_bias(module)


def layer_init(
    start: Init,
    *,
    spectral_norm: bool = False,
    weight_norm: bool = False,
    power_iteration: PowerIteration | None = None,
) -> Init:
    """`start`, followed by the normalisation that is asked for.

    The order matters: the power iteration's vectors are warmed up on the values that are there.

    Parameters
    ----------
    start : first values.
    spectral_norm, weight_norm : at most one of them.
    power_iteration : how the largest singular value is followed; None takes the usual one.

    Raises
    ------
    BadValue : a power iteration without spectral normalisation.
    """
    if power_iteration is not None and not spectral_norm:
        raise BadValue(
            "power_iteration is how spectral normalisation is computed, and this network has none",
            key="power_iteration", hint="power_iteration=~",
        )  # fmt: skip
    if spectral_norm:
        return partial(_start_then_normalise, start, partial(spectral, power=power_iteration))
    return partial(_start_then_normalise, start, normalise_weight) if weight_norm else start


def _start_then_normalise(start: Init, normalise: Init, module: nn.Module) -> nn.Module:
    return normalise(start(module))


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def zero_bias(module: nn.Module) -> nn.Module:
    """A layer whose bias, where it has one, is zero at first."""
    bias = dict(module.named_parameters(recurse=False)).get("bias")
    if bias is not None:
        nn.init.zeros_(bias)
    return module
