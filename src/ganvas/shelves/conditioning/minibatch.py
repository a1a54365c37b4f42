"""Heads that also see how a datum's features stand among those of its batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.nn.minibatch import MinibatchDiscrimination, minibatch_std
from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import AnyHead, HeadAround
from ganvas.types import DataSpec, Scores

Count = Annotated[int, Gt(0)]


class _Joined(HeadAround):
    """Another head that reads the features and the B numbers that `measure` makes of their batch."""

    def __init__(
        self,
        measure: Callable[[Tensor], Tensor],
        count: int,
        head: AnyHead,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool,
    ) -> None:
        super().__init__(head, features + count, spec, wrap, bias)
        self.measure = measure

    def forward(self, features: Tensor, label: Tensor | None = None) -> Scores:
        """(N, D) -> the other head's scores of (N, D + B); the features that are told stay (N, D)."""
        scores = self.inner(torch.cat([features, self.measure(features)], 1), label)
        return dataclasses.replace(scores, features=features)


@conditioning("minibatch-discrimination", paper="Salimans et al. 2016, section 3.2", system="improved-techniques-gan")
class MinibatchDiscriminationHead(_Joined):
    """Another head that also sees, in B ways, how close a datum is to the others of its batch.

    The scores of a datum depend on its batch: gradient penalties and samplers that ask the critic then do, too.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`.
    head : the other head, with its own loss terms.
    kernels : B, how many measures of closeness.
    kernel_dim : C, the dimensions in which each is taken.
    """

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        head: AnyHead = "plain",
        kernels: Count = 100,
        kernel_dim: Count = 5,
    ) -> None:
        measure = MinibatchDiscrimination(features, kernels, kernel_dim, wrap)
        super().__init__(measure, kernels, head, features, spec, wrap, bias)


@conditioning("minibatch-std", paper="Karras et al. 2018 (ProGAN), section 3", system="progan")
class MinibatchStdHead(_Joined):
    """Another head that also sees how much the features vary over the batch.

    The scores of a datum depend on its batch: gradient penalties and samplers that ask the critic then do, too.

    Parameters
    ----------
    features, spec, wrap, bias : see `LinearHead`.
    head : the other head, with its own loss terms.
    group : data among which it is taken; a batch of a size that is no multiple of it is cut into the largest equal
        groups below.
    """

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        wrap: Callable[[nn.Module], nn.Module],
        bias: bool = True,
        *,
        head: AnyHead = "plain",
        group: Count = 4,
    ) -> None:
        super().__init__(partial(minibatch_std, group=group), 1, head, features, spec, wrap, bias)
