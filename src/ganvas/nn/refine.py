"""Data made better by a critic, step by step (Liu et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


# Liu et al. 2020, eq. 4: x ← x − rate · ∇ softplus(−d(x)), the generator's non-saturating loss
def refined(start: Tensor, logits: Callable[[Tensor], Tensor], *, steps: int | Tensor, rate: float) -> Tensor:
    """Where gradient steps towards what a critic takes for real lead to; no gradient flows back.

    Parameters
    ----------
    start : (N, ...), data, or anything that data are made from.
    logits : of N of them, (N,); the critic's.
    steps : how many for all, or for each, (N,) int64.
    rate : of one step.
    """
    x = start.detach()
    left = torch.as_tensor(steps, device=x.device).expand(len(x)).view(-1, *[1] * (x.dim() - 1))  # (N, 1, ...)
    for step in range(int(left.max()) if len(x) else 0):
        with torch.enable_grad():
            at = x.requires_grad_(True)
            (slope,) = torch.autograd.grad(F.softplus(-logits(at)).sum(), at)
        x = torch.where(left > step, x.detach() - rate * slope, x.detach())
    return x
