"""Adam and its kin. Each part is called with the parameters of one network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import nn

from ganvas.parts import optimizer

Rate = Annotated[float, Gt(0)]
Beta = Annotated[float, Ge(0), Lt(1)]


@optimizer("adam", paper="Kingma & Ba 2015, algorithm 1")
def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Rate = 2e-4,
    betas: tuple[Beta, Beta] = (0.0, 0.9),
    eps: Rate = 1e-8,
    lazy_every: Annotated[int, Gt(0)] | None = None,
) -> torch.optim.Optimizer:
    """Adam; the betas are those that most GANs use, (0, 0.9).

    Parameters
    ----------
    lazy_every : k, where a lazy term takes a step of its own after each k steps. Then k + 1 steps are to do what k
        would: the rate is c · lr and the betas are β^c, c = k / (k + 1) (Karras et al. 2020, StyleGAN2, appendix B).
    """
    c = 1.0 if lazy_every is None else lazy_every / (lazy_every + 1)
    return torch.optim.Adam(parameters, lr=c * lr, betas=(betas[0] ** c, betas[1] ** c), eps=eps, fused=True)


@optimizer("adamw", paper="Loshchilov & Hutter 2019, algorithm 2")
def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Rate = 2e-4,
    betas: tuple[Beta, Beta] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: Annotated[float, Ge(0)] = 0.01,
) -> torch.optim.Optimizer:
    """Adam with weight decay that is decoupled from the gradient."""
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
