"""Small fully connected networks for points and vectors: the networks of most toy experiments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.nn.init import layer_init, orthogonal
from ganvas.nn.spectral import PowerIteration
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import require_classes
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores

Width = Annotated[int, Gt(0)]


def _hidden(inputs: int, width: int, depth: int, init: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [init(nn.Linear(inputs if number == 0 else width, width)), nn.ReLU()]
    return nn.Sequential(*layers)


@network("mlp-generator", system="cgan", tiny={"width": 8, "z_dim": 4})
class MLPGenerator(Generator):
    """Fully connected generator of data of any shape; what it puts out is not bounded.

    Parameters
    ----------
    spec : what to make.
    width : units of each hidden layer.
    depth : hidden layers.
    z_dim : length of the latent vector, drawn from N(0, 1).
    conditioning : "concat" appends the one-hot class to the latent (Mirza & Osindero 2014); None ignores labels.

    Raises
    ------
    BadValue : labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Width = 128,
        depth: Width = 3,
        z_dim: Width = 16,
        conditioning: Literal["concat"] | None = None,
    ) -> None:
        super().__init__()
        self.shape = spec.shape
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        require_classes(conditioning, spec)
        self.conditional = conditioning is not None
        self.classes = spec.num_classes if self.conditional else 0
        init = layer_init(orthogonal, spectral_norm=False)
        self.hidden = _hidden(z_dim + self.classes, width, depth, init)
        self.out = init(nn.Linear(width, int(torch.Size(spec.shape).numel())))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and label (N,) int64 -> data (N, *shape)."""
        if self.classes:
            assert label is not None
            latent = torch.cat([latent, nn.functional.one_hot(label, self.classes).to(latent)], 1)
        out: Tensor = self.out(self.hidden(latent))  # (N, prod(shape))
        return out.view(-1, *self.shape)


@network("mlp-discriminator", system="cgan", tiny={"width": 8})
class MLPDiscriminator(Critic):
    """Fully connected critic of data of any shape.

    Parameters
    ----------
    spec : what to score.
    width : units of each hidden layer, and D, the length of the features.
    depth : hidden layers.
    norm : "spectral" normalises every weight matrix of critic and head.
    power_iteration : how the largest singular value is followed, under `norm: spectral`; None takes one iteration.
    conditioning : how labels reach the critic.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Width = 128,
        depth: Width = 3,
        norm: Literal["spectral", "none"] = "none",
        power_iteration: PowerIteration | None = None,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        init = layer_init(orthogonal, spectral_norm=norm == "spectral", power_iteration=power_iteration)
        self.hidden = _hidden(int(torch.Size(spec.shape).numel()), width, depth, init)
        self.head = build_head(conditioning, width, spec, init)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Data (N, *shape) and label (N,) int64 -> logits (N,) and features (N, width)."""
        return self.head(self.hidden(data.flatten(1)), label)
