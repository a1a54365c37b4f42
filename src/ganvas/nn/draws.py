"""The random numbers of a training step, all through one place.

Latents, labels, penalties, augmentations and noise layers draw here, each under a name. Usually torch's generator
answers; inside `fed`, a source of the caller's does, so that a step can be given the very numbers of another
implementation's run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

from ganvas.types import Latent, LatentSpec

Source = Callable[[str, tuple[int, ...]], Tensor]
"""(name of the draw, its shape) -> its values."""

_source: ContextVar[Source | None] = ContextVar("source of draws", default=None)


@contextlib.contextmanager
def fed(source: Source) -> Iterator[None]:
    """Every draw in this block is what `source` says."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def normal(name: str, shape: Sequence[int], *, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Numbers from N(0, 1) of this shape, on the device and in the type of `like`."""
    source, dtype = _source.get(), _floating(like)
    if source is not None:
        return _given(source, name, shape).to(like.device, dtype)
    return torch.randn(tuple(shape), generator=generator, device=like.device, dtype=dtype)


def uniform(name: str, shape: Sequence[int], *, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Numbers from U(0, 1), 1 itself never, of this shape, on the device and in the type of `like`."""
    source, dtype = _source.get(), _floating(like)
    if source is not None:
        return _given(source, name, shape).to(like.device, dtype)
    return torch.rand(tuple(shape), generator=generator, device=like.device, dtype=dtype)


def integers(
    name: str, low: int, high: int, shape: Sequence[int], *, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """int64 of this shape on the device of `like`, each of `low` to `high` − 1 equally likely."""
    source = _source.get()
    if source is not None:
        return _given(source, name, shape).to(like.device, torch.int64)
    return torch.randint(low, high, tuple(shape), generator=generator, device=like.device)


def latents(spec: LatentSpec, space: str, n: int, *, like: Tensor, name: str = "latent") -> Latent:
    """n points (n, *shape) of a latent space's prior: N(0, I), or U(−1, 1) in each number."""
    shape = (n, *spec.shape)
    values = 2 * uniform(name, shape, like=like) - 1 if spec.prior == "uniform" else normal(name, shape, like=like)
    return Latent(values, space)


def _floating(like: Tensor) -> torch.dtype | None:
    """The type of numbers beside `like`: its own, or torch's default beside whole numbers."""
    return like.dtype if like.is_floating_point() else None


def _given(source: Source, name: str, shape: Sequence[int]) -> Tensor:
    values = source(name, tuple(shape))
    if tuple(values.shape) != tuple(shape):
        raise ValueError(f"the draw {name!r} is {tuple(shape)}, and the source gave {tuple(values.shape)}")
    return values
