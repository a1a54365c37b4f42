"""Conditions that a user gives, as networks take them."""

from __future__ import annotations

import torch
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.types import ConditionSpec


def fitted(name: str, value: Tensor, spec: ConditionSpec, n: int) -> Tensor:
    """The value of a condition for n samples as networks take it: (n, *shape), float32, or int64 where it is discrete.

    Raises
    ------
    UsageError : it is of another shape, count, type or range.
    """
    if not isinstance(value, Tensor):
        raise UsageError(f"condition {name!r} is a {type(value).__name__}", hint="give a tensor: torch.as_tensor(…)")
    whole = ("N", *spec.shape)
    if value.dim() != len(whole) or tuple(value.shape[1:]) != spec.shape:
        one = tuple(value.shape) == spec.shape
        raise UsageError(
            f"condition {name!r} is {tuple(value.shape)}, and should be ({', '.join(map(str, whole))})",
            hint="a single one is value[None]" if one else "bring it to that shape first",
        )
    if len(value) not in (1, n):
        raise UsageError(
            f"{len(value)} values of condition {name!r} for {n} samples", hint="give one value, or one for each sample"
        )
    if value.is_floating_point() == bool(spec.categories):
        kind = f"whole numbers below {spec.categories}" if spec.categories else "floats"
        images = "" if spec.categories else "; of images in [-1, 1]: value / 127.5 - 1"
        raise UsageError(f"condition {name!r} is {value.dtype}", hint=f"give {kind}{images}")
    if spec.categories and value.numel() and not 0 <= int(value.min()) <= int(value.max()) < spec.categories:
        raise UsageError(
            f"condition {name!r} has values from {int(value.min())} to {int(value.max())}",
            hint=f"give whole numbers from 0 to {spec.categories - 1}",
        )
    return value.to(torch.int64 if spec.categories else torch.float32).expand(n, *spec.shape)
