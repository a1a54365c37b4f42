"""Conditions that a user gives, as networks take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganvas.errors import UsageError, nearest
from ganvas.types import Condition, ConditionSpec

Wish = Condition | Mapping[str, Tensor] | Tensor | None
"""What is asked for: conditions by name; a tensor (N,) stands for class labels."""

Rows = Callable[[int, int], Condition]
"""The conditions of samples `start` to `stop`, for those who do not want to hold all of them at once."""

Label = int | str | Sequence[int | str] | Tensor
"""A class, or one for each sample, by number or name."""


def condition_of(wish: Wish) -> Condition:
    """A wish as conditions by name."""
    if isinstance(wish, Condition):
        return wish
    if isinstance(wish, Tensor) or wish is None:
        return Condition.labelled(wish)
    return Condition(wish)


def fitted(name: str, value: Tensor, spec: ConditionSpec, n: int) -> Tensor:
    """The value of a condition for n samples as networks take it: (n, *shape), float32, or int64 where it is discrete.

    Raises
    ------
    UsageError : it is of another shape, count, type or range.
    """
    if not isinstance(value, Tensor):
        raise UsageError(f"condition {name!r} is a {type(value).__name__}", hint="give a tensor: torch.as_tensor(…)")
    shape = ("N", *spec.shape)
    if value.dim() != len(shape) or tuple(value.shape[1:]) != spec.shape:
        one = tuple(value.shape) == spec.shape
        raise UsageError(
            f"condition {name!r} is {tuple(value.shape)}, and should be ({', '.join(map(str, shape))})",
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


def class_numbers(label: Label, n: int, classes: int, class_names: Sequence[str]) -> Tensor:
    """The labels of n samples, (n,) int64, that one class or one for each sample mean.

    Raises
    ------
    UsageError : there are no classes, the label is out of range, or there are as many labels as there are not samples.
    """
    if not classes:
        raise UsageError(f"label {label!r}: this model knows no classes", hint="leave the label out")
    try:
        numbers = torch.as_tensor(_numbered(label, class_names)).reshape(-1)
        if len(numbers) and (numbers.is_floating_point() or numbers.dtype == torch.bool):
            raise TypeError(numbers.dtype)
        numbers = numbers.long()
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"label {label!r} is no class number", hint=f"give 0 to {classes - 1}") from None
    if len(numbers) not in (1, n):
        raise UsageError(f"{len(numbers)} labels for {n} samples", hint="give one label, or one for each sample")
    outside = numbers[(numbers < 0) | (numbers >= classes)]
    if len(outside):
        raise UsageError(
            f"label {int(outside[0])} is outside 0 to {classes - 1}", hint=f"its classes are {_listed(class_names)}"
        )
    return numbers.expand(n)


def _numbered(label: Label, class_names: Sequence[str]) -> Any:
    """Class names as their numbers; a number in text is a number unless a class is called so."""
    if isinstance(label, Tensor | int):
        return label
    names = [label] if isinstance(label, str) else list(label)
    return [_number(name, class_names) if isinstance(name, str) else name for name in names]


def _number(name: str, class_names: Sequence[str]) -> int:
    if name in class_names:
        return class_names.index(name)
    if name.lstrip("-").isdigit():
        return int(name)
    raise UsageError(
        f"no class is called {name!r}.{nearest(name, class_names)}", hint=f"its classes are {_listed(class_names)}"
    )


def _listed(class_names: Sequence[str]) -> str:
    more = len(class_names) - 20
    return ", ".join(f"{i} {name}" for i, name in enumerate(class_names[:20])) + (
        f" and {more} more" if more > 0 else ""
    )
