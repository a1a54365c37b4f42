"""What a critic can know of a datum's batch mates: a generator that repeats itself is found out by them.

Both make the scores of a datum depend on the rest of its batch, so real and generated data have to come separately.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganvas.nn.init import Init


class MinibatchDiscrimination(nn.Module):
    """How close a datum's features are to those of its batch mates (Salimans et al. 2016, section 3.2).

    Parameters
    ----------
    features : A, the length of the features.
    kernels : B, how many measures of closeness.
    kernel_dim : C, the dimensions in which each is taken.
    init : initial weights and normalisation of the tensor T, (B * C, A) as the weight of a linear layer.
    """

    def __init__(self, features: int, kernels: int, kernel_dim: int, init: Init) -> None:
        super().__init__()
        self.shape = (kernels, kernel_dim)
        self.project = init(nn.Linear(features, kernels * kernel_dim, bias=False))

    # c_b(x_i, x_j) = exp(−‖M_i,b − M_j,b‖₁), o(x_i)_b = Σ_j c_b(x_i, x_j), j = i included
    def forward(self, x: Tensor) -> Tensor:
        """(N, A) -> o (N, B), each between 1 and N."""
        M = self.project(x).view(-1, *self.shape)  # (N, B, C)
        distance = (M[:, None] - M[None]).abs().sum(3)  # (N, N, B)
        return torch.exp(-distance).sum(1)


# Karras et al. 2018 (ProGAN), section 3, in the groups of StyleGAN2's released code
def minibatch_std(x: Tensor, group: int | None = None, channels: int = 1) -> Tensor:
    """Mean standard deviation over a datum's group, the same for all of the group: (N, D, ...) -> (N, channels).

    Parameters
    ----------
    x : features or a feature map; D is a multiple of `channels`.
    group : data in one group, datum i with i + k · N / group; N where that is less. None: the whole batch. N must be a
        multiple of it, else the largest divisor of N below it is taken.
    channels : into how many means D is cut.
    """
    n = len(x)
    size = n if group is None else next(divisor for divisor in range(min(group, n), 0, -1) if n % divisor == 0)
    grouped = x.reshape(size, n // size, channels, -1)  # (G, N/G, F, D/F · ...)
    deviation = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean(2)  # (N/G, F)
    return deviation.repeat(size, 1)  # (N, F)
