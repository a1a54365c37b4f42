"""The sampler of autoencoders, which make data of data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganvas.errors import MissingCapability
from ganvas.parts import sampler
from ganvas.types import Autoencoder, Condition, Latent, LatentSpec, Sampler, Synthesizer


@sampler("reconstruction")
class Reconstructed(Sampler):
    """What an autoencoder gives back of the data that it is given, one for one.

    It reads the condition `data`: the picture of a run shows the first data of its set and their reconstructions below
    them, a protocol scores the reference's data against theirs (psnr, ssim and other metrics of pairs among its
    metrics), and whoever samples gives the data, `model.sample(n, condition={"data": data})`.
    """

    stochastic = False

    def reads(self, model: Synthesizer) -> Mapping[str, bool]:
        """The data, and what the autoencoder reads beside them."""
        beside = autoencoder_of(model).reads().items()
        return {"data": True, **{name: must for name, must in beside if name in model.spec.conditions}}

    def start(self, model: Synthesizer) -> LatentSpec | None:
        """Nothing is drawn.

        Raises
        ------
        MissingCapability : the model has no autoencoder.
        """
        autoencoder_of(model)
        return None

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        """Data (N, *shape)."""
        net = autoencoder_of(model)
        return net(condition["data"], **condition.of(net)).data.float()


def autoencoder_of(model: Synthesizer) -> Autoencoder:
    """The network that gives data back.

    Raises
    ------
    MissingCapability : there is none.
    """
    for net in model.nets.values():
        if isinstance(net, Autoencoder):
            return net
    raise MissingCapability(
        f"this needs an autoencoder; the model has {', '.join(model.nets)}", hint="ganvas list networks"
    )
