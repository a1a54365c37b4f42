"""Adafactor: a second moment of rows and columns in place of one a weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from ganvas.parts import optimizer


@optimizer("adafactor", paper="Shazeer & Stern 2018, algorithm 6")
def adafactor(
    parameters: Iterable[nn.Parameter],
    *,
    lr: Annotated[float, Gt(0)] = 1e-2,
    decay_power: Annotated[float, Le(0)] = -0.8,
    clip: Annotated[float, Gt(0)] = 1.0,
    weight_decay: Annotated[float, Ge(0)] = 0.0,
) -> torch.optim.Optimizer:
    """Steps of Adam's kind that keep m + n numbers of an m x n weight, not 2mn; the rate is relative to the weight.

    There is no first moment. Zhai et al. 2022 (Scaling Vision Transformers, section 3.4) add one in bfloat16 and cap
    the decay of the second; torch has neither.

    Parameters
    ----------
    lr : the most of a weight's root mean square that a step moves; the t-th one takes min(lr, 1/√t).
    decay_power : p, the second moment's decay at step t is 1 − t^p.
    clip : an update of a larger root mean square is scaled down to it.
    """
    return torch.optim.Adafactor(parameters, lr=lr, beta2_decay=decay_power, d=clip, weight_decay=weight_decay)
