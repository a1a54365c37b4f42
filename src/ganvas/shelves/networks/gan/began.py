"""The critic of BEGAN (Berthelot et al. 2017): an autoencoder, whose error says how real an image is.

Convolutions of 3 x 3 with exponential units; each halving adds `width` channels, the decoder doubles by repetition and
keeps `width`. Written from the paper, section 3.6 and figure 1; its generator has the decoder's form.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from ganvas.parts import network
from ganvas.shelves.networks.gan.pyramid import halvings
from ganvas.types import Critic, DataSpec, Generator, LatentSpec, OwnHead, Scores

_DEEPEST = 6

Width = Annotated[int, Gt(0)]


class Decoder(nn.Module):
    """h (N, hidden) -> images (N, C, H, W)."""

    def __init__(self, spec: DataSpec, width: int, hidden: int) -> None:
        super().__init__()
        n = halvings(spec, _DEEPEST)
        self.stem_shape = (width, spec.height >> n, spec.width >> n)
        self.project = nn.Linear(hidden, width * self.stem_shape[1] * self.stem_shape[2])
        layers: list[nn.Module] = []
        for i in range(n + 1):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ELU(), nn.Conv2d(width, width, 3, padding=1), nn.ELU()]
            if i < n:
                layers.append(nn.Upsample(scale_factor=2.0))
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, spec.channels, 3, padding=1))

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.layers(self.project(hidden).unflatten(1, self.stem_shape))
        return out


@network("began-generator", tiny={"width": 8, "z_dim": 8})
class BEGANGenerator(Generator):
    """BEGAN's generator: its critic's decoder on latents from [-1, 1].

    Parameters
    ----------
    spec : what to make.
    width : channels of every layer.
    z_dim : length of the latent vector, uniform in [-1, 1].

    Raises
    ------
    BadValue : a size that cannot be halved so often.
    """

    conditional = False
    bounded = False  # as published; its critic sees what leaves [-1, 1]

    def __init__(self, spec: DataSpec, *, width: Width = 128, z_dim: Width = 64) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((z_dim,), "uniform")}
        self.decoder = Decoder(spec, width, z_dim)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W)."""
        out: Tensor = self.decoder(latent)
        return out


@network("began-discriminator", tiny={"width": 8, "hidden": 8})
class BEGANDiscriminator(Critic):
    """An autoencoder as critic: the logit is minus the mean absolute error of rebuilding the image.

    Parameters
    ----------
    spec : what to judge.
    width : channels of the first layers; each halving adds as many.
    hidden : length of the code, which is `Scores.features`.

    Raises
    ------
    BadValue : a size that cannot be halved so often.
    """

    def __init__(self, spec: DataSpec, *, width: Width = 128, hidden: Width = 64) -> None:
        super().__init__()
        n = halvings(spec, _DEEPEST)
        channels = [width * (i + 1) for i in range(n + 1)]
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, width, 3, padding=1), nn.ELU()]
        for in_, out in pairwise(channels):
            layers += [nn.Conv2d(in_, in_, 3, padding=1), nn.ELU()]
            layers += [nn.Conv2d(in_, out, 3, stride=2, padding=1), nn.ELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels[-1], channels[-1], 3, padding=1), nn.ELU())
        self.code = nn.Linear(channels[-1] * (spec.height >> n) * (spec.width >> n), hidden)
        self.decoder = Decoder(spec, width, hidden)
        self.head = OwnHead()

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) -> minus the error of rebuilding, (N,), and the code (N, hidden)."""
        code = self.code(self.encoder(data).flatten(1))  # (N, hidden)
        error = (data - self.decoder(code)).abs().flatten(1).mean(1)  # (N,)
        return Scores(-error, code, {"rebuilding_error": error})
