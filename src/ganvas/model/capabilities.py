"""What a model may or may not be able to do, by the networks that it has."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING

from ganvas.types import Autoencoder, Critic, Encoder, Maker, Network, Predictor, Tokenizer

if TYPE_CHECKING:
    from ganvas.model.model import Model


class Capability(ABC):
    """Something that a model may or may not be able to do."""

    name = ""
    kind: type[Network]

    @classmethod
    def present(cls, model: Model) -> bool:
        """Whether the model has it."""
        return any(isinstance(net, cls.kind) for net in model.nets.values())

    @classmethod
    def instead(cls, model: Model) -> str:
        """What the model has got, for the error."""
        return ", ".join(model.nets)


class HasLatents(Capability):
    """A network with latent spaces to draw from."""

    name = "latent spaces"

    @classmethod
    def present(cls, model: Model) -> bool:
        return bool(model.latents)


class HasMaker(Capability):
    """A network that data come out of."""

    name, kind = "a network that makes data", Maker


class HasCritic(Capability):
    """A network that scores data."""

    name, kind = "a critic", Critic


class HasEncoder(Capability):
    """A network that turns data into latents."""

    name, kind = "an encoder", Encoder


class HasAutoencoder(Capability):
    """A network that gives data back."""

    name, kind = "an autoencoder", Autoencoder


class HasTokenizer(Capability):
    """A network that turns data into tokens and back."""

    name, kind = "a tokenizer", Tokenizer


class HasPredictor(Capability):
    """A network that says something of data."""

    name, kind = "a predictor", Predictor
