"""The fully connected pair of cGAN (Mirza & Osindero 2014, "Conditional Generative Adversarial Nets", section 4.1).

Images in [-1, 1] end in tanh where the paper's in [0, 1] end in a sigmoid. Its dropout is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.init import Init
from ganvas.nn.maxout import Maxout
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import one_hot, require_classes
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores


def _uniform(module: nn.Module) -> nn.Module:
    return module  # torch's own start: U(-1/√inputs, 1/√inputs)


@network(
    "cgan-generator",
    system="cgan",
    paper="Mirza & Osindero 2014, section 4.1",
    tiny={"z_dim": 8, "z_width": 8, "label_width": 8, "width": 16},
)
class CGANGenerator(Generator):
    """Latent and label through a layer each, joined in a third, to pixels; the label is always looked at.

    Parameters
    ----------
    spec : what to make, of any shape; must have classes.
    z_dim : length of the latent vector, drawn from U(-1, 1).
    z_width, label_width : units of the first layers.
    width : units of the joint layer.

    Raises
    ------
    BadValue : the data have no classes.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Annotated[int, Gt(0)] = 100,
        z_width: Annotated[int, Gt(0)] = 200,
        label_width: Annotated[int, Gt(0)] = 1000,
        width: Annotated[int, Gt(0)] = 1200,
    ) -> None:
        super().__init__()
        require_classes("concat", spec)
        self.latents = {"z": LatentSpec((z_dim,), "uniform")}
        self.conditional = True
        self.spec = spec
        self.of_z = nn.Linear(z_dim, z_width)
        self.of_label = nn.Linear(spec.num_classes, label_width)
        self.joint = nn.Linear(z_width + label_width, width)
        self.to_data = nn.Linear(width, math.prod(spec.shape))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> data (N, *spec.shape) in [-1, 1]."""
        y = one_hot(label, self.spec.num_classes, latent)  # (N, K)
        h = torch.cat([F.relu(self.of_z(latent)), F.relu(self.of_label(y))], 1)  # (N, z_width + label_width)
        return self.to_data(F.relu(self.joint(h))).tanh().unflatten(1, self.spec.shape)  # type: ignore[no-any-return]


@network("cgan-discriminator", system="cgan", paper="Mirza & Osindero 2014, section 4.1", tiny={"width": 8})
class CGANDiscriminator(Critic):
    """One maxout layer on the flat data, and a head where the label joins it.

    Parameters
    ----------
    spec : what to score, of any shape.
    width, pieces : units of the maxout layer, and linear maps per unit.
    conditioning : how labels reach the critic; the default's sizes are the paper's.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Gt(0)] = 240,
        pieces: Annotated[int, Gt(0)] = 5,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        init: Init = _uniform
        self.body = Maxout(math.prod(spec.shape), width, pieces, init)
        self.head = build_head(conditioning, width, spec, init)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Data (N, *shape) and label (N,) int64 -> logits (N,) and features (N, width)."""
        return self.head(self.body(data.flatten(1)), label)
