"""Last layers of discriminators with a normalised direction (Takida et al. 2024, SAN).

Each row ω of the weight counts by its direction alone and has a learnt scale s. The same output is given in two forms
that differ in what they teach:

- the function, s <sg(ω/|ω|), x>, which `forward` gives: gradients reach x and s;
- the direction, sg(s) <ω/|ω|, sg(x)>, which `direction` gives: gradients reach ω alone, at right angles to it.

As in the authors' code the bias is added to the input and has its size, so that no constant escapes the direction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TINY = 1e-12


class NormalizedRows(nn.Module, ABC):
    """The rows of a weight as directions, and a scale for each.

    Parameters
    ----------
    weight : (rows, ...), the first values of directions times scales.
    bias_size : length of the bias on the input, which starts at 0; None for no bias.
    """

    weight: nn.Parameter
    scale: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, weight: Tensor, bias_size: int | None) -> None:
        super().__init__()
        weight = weight.detach()
        self.scale = nn.Parameter(weight.flatten(1).norm(dim=1).clamp(min=TINY))  # (rows,)
        self.weight = nn.Parameter(unit_rows(weight))
        self.register_parameter("bias", None if bias_size is None else nn.Parameter(weight.new_zeros(bias_size)))

    @torch.no_grad()
    def normalize(self) -> None:
        """Bring the weight back to unit rows, as is done after each optimizer step; the layer's function stays."""
        self.weight.copy_(unit_rows(self.weight))

    # Takida et al. 2024: <ω, h> with |ω| = 1, the gradient stopped at ω
    def forward(self, x: Tensor) -> Tensor:
        """The output, which does not teach the direction."""
        return self.product(self.shifted(x), unit_rows(self.weight).detach()) * self.gain(x)

    # Takida et al. 2024: <ω, h> with |ω| = 1, the gradient stopped at h
    def direction(self, x: Tensor) -> Tensor:
        """The same values, which teach nothing but the direction."""
        return self.product(self.shifted(x).detach(), unit_rows(self.weight)) * self.gain(x).detach()

    def shifted(self, x: Tensor) -> Tensor:
        return x if self.bias is None else x + self.along_channels(self.bias)

    def gain(self, x: Tensor) -> Tensor:
        """The scales in the shape of the output."""
        return self.along_channels(self.scale)

    def along_channels(self, values: Tensor) -> Tensor:
        return values

    @abstractmethod
    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's linear map with this weight, without bias."""


def unit_rows(weight: Tensor) -> Tensor:
    """(rows, ...) -> each row divided by its length."""
    return F.normalize(weight.flatten(1), dim=1, eps=TINY).view_as(weight)


class SANLinear(NormalizedRows):
    """Linear layer with normalised rows: (N, D) -> (N, rows).

    Parameters
    ----------
    linear : the layer whose place it takes, for its sizes and first values; its weight normalisation is left behind.
    """

    def __init__(self, linear: nn.Module) -> None:
        weight = cast("Tensor", linear.weight)
        super().__init__(weight, weight.shape[1] if linear.bias is not None else None)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)


class SANConv(NormalizedRows):
    """Convolution over one or two dimensions with normalised filters.

    Parameters
    ----------
    conv : the `nn.Conv1d` or `nn.Conv2d` whose place it takes, for its sizes, stride, padding and first values.
    """

    def __init__(self, conv: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__(conv.weight, conv.in_channels if conv.bias is not None else None)
        self.dims = conv.weight.ndim - 2
        self.options = {
            "stride": conv.stride,
            "padding": conv.padding,
            "dilation": conv.dilation,
            "groups": conv.groups,
        }

    def along_channels(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * self.dims)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        convolve = cast("Callable[..., Tensor]", F.conv1d if self.dims == 1 else F.conv2d)
        return convolve(x, weight, **self.options)


class SANEmbedding(NormalizedRows):
    """A unit vector per class, times the class's scale: (N,) int64 -> (N, D).

    Parameters
    ----------
    embedding : the layer whose place it takes, for its sizes and first values.
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__(cast("Tensor", embedding.weight), None)
        self.scale = nn.Parameter(self.scale.detach()[:, None])  # (classes, 1), as in the authors' code

    def gain(self, x: Tensor) -> Tensor:
        return self.scale[x]

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(x, weight)
