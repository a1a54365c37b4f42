"""Trained models as samplers, metrics and edits see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ganvas.types.critics import Critic
from ganvas.types.data import Condition, DataSpec
from ganvas.types.evidence import Evidence
from ganvas.types.named import Named
from ganvas.types.networks import Generator, Latent, LatentSpec, Maker, Nets


def read_by_maker(model: Synthesizer) -> dict[str, bool]:
    """The conditions that a model's maker looks at, and whether it cannot do without; none where there is no maker."""
    if not any(isinstance(net, Maker) for net in model.nets.values()) or not model.maker.conditional:
        return {}
    return {name: must for name, must in model.maker.reads().items() if name in model.spec.conditions}


class Synthesizer(Protocol):
    """What a sampler needs of a trained model."""

    nets: Nets
    spec: DataSpec
    recipe: Mapping[str, Any]

    @property
    def maker(self) -> Maker: ...

    @property
    def generator(self) -> Generator | None: ...

    @property
    def critic(self) -> Critic: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def latents(self) -> Mapping[str, LatentSpec]: ...

    def synthesize(self, latent: Latent, condition: Condition = ...) -> Tensor: ...

    def score(self, data: Tensor, condition: Condition = ...) -> Tensor: ...


class Subject(Synthesizer, Protocol):
    """What a metric may do with a trained model."""

    def draw(self, n: int, *, seed: int, space: str | None = None, label: Tensor | None = None) -> Latent: ...

    def labels(
        self, n: int, *, seed: int, label: int | str | Sequence[int | str] | Tensor | None = None
    ) -> Tensor | None: ...


class Sampler(ABC):
    """Draws data from a trained model.

    Attributes
    ----------
    stochastic : whether it draws more noise than it starts from. It is then given whole blocks of fixed size, each with
        a generator of its own, so that its results do not depend on how many data are asked for.
    """

    stochastic: bool = False

    def reads(self, model: Synthesizer) -> Mapping[str, bool]:
        """The conditions that data are made for, by name, and whether they must be given.

        Those that the model's maker reads unless overridden. A sampler that makes its data of data, as one that
        reconstructs or fills in, reads the condition `data`: wherever samples are made beside a data set, for a
        picture or a score, these are its own data in their order.
        """
        return read_by_maker(model)

    def start(self, model: Synthesizer) -> LatentSpec | None:
        """The noise that it begins from, which the model draws; the model's first latent space unless overridden.

        None where it begins from nothing: `start` then has values (N, 0).

        Raises
        ------
        MissingCapability : the model has nothing that it could begin from.
        """
        from ganvas.errors import MissingCapability

        if not model.latents:
            raise MissingCapability(
                f"sampler {type(self).__name__} needs latent spaces; the model has {', '.join(model.nets)}",
                hint="ganvas list samplers",
            )
        return next(iter(model.latents.values()))

    @abstractmethod
    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        """Data (N, ...), as many as there are points in `start`."""


class Edit(Named, ABC):
    """A move of latents that changes what is made of them: fitted once to a model, applied at any strength.

    Attributes
    ----------
    space : the latent space whose points it moves; None: the one that is drawn from.
    """

    space: str | None = None

    @abstractmethod
    def fit(self, model: Subject, evidence: Evidence | None = None) -> Mapping[str, Tensor]:
        """What has to be known of the model, by name; `evidence` is there where labelled or real data are."""

    @abstractmethod
    def __call__(self, model: Subject, latent: Latent, state: Mapping[str, Tensor], strength: float) -> Latent:
        """Points (N, *shape) of the space, moved; at strength 0 they stay where they are."""
