"""Gradients of a critic with respect to its input, for penalties that are trained through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ganvas.nn.precise import precise


def input_gradient(scores_of: Callable[[Tensor], Tensor], data: Tensor) -> Tensor:
    """d sum(scores_of(data)) / d data, itself differentiable in the critic's weights.

    Everything inside runs in float32 with autocast off: half precision underflows in the second derivative.

    Parameters
    ----------
    scores_of : data (N, ...) float32 -> scores with leading dimension N; datum i's scores must depend on datum i alone
        for row i of the result to be its gradient (batch norm breaks this).
    data : (N, ...), where to take the gradient; it is detached, so nothing flows back through it.

    Returns
    -------
    (N, ...) float32, the shape of `data`.
    """
    with torch.enable_grad(), torch.autocast(data.device.type, enabled=False):
        x = precise(data.detach()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(scores_of(x).sum(), x, create_graph=True)
    return gradient
