"""Optimizers that only follow the gradient. Each part is called with the parameters of one network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn

from ganvas.parts import optimizer

Rate = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]


@optimizer("sgd", paper="Robbins & Monro 1951")
def sgd(parameters: Iterable[nn.Parameter], *, lr: Rate = 1e-2, momentum: Share = 0.0) -> torch.optim.Optimizer:
    """Steps down the gradient, with momentum where asked for."""
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum)


@optimizer("rmsprop", paper="Tieleman & Hinton 2012", system="wgan")
def rmsprop(
    parameters: Iterable[nn.Parameter], *, lr: Rate = 5e-5, decay: Share = 0.99, eps: Rate = 1e-8
) -> torch.optim.Optimizer:
    """Steps down the gradient over its running root mean square; no momentum, as clipped critics need."""
    return torch.optim.RMSprop(parameters, lr=lr, alpha=decay, eps=eps)
