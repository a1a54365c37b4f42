"""The small critic of "simple-SAN" (Takida et al. 2024, the authors' demonstration on MNIST)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from annotated_types import Gt, Len
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.init import normal
from ganvas.nn.spectral import spectral
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import require_images
from ganvas.shelves.networks.heads import build_head
from ganvas.types import Critic, CriticHead, DataSpec, Scores

LEAK = 0.2


@network("san-discriminator", system="san", paper="Takida et al. 2024, authors' code", tiny={"widths": [4, 8, 8]})
class SANDiscriminator(Critic):
    """Three strided convolutions, the last two under spectral norm, and a SAN head on the flattened map.

    Images of any channel count from 12 pixels a side.

    Parameters
    ----------
    spec : what to score.
    widths : channels after each of the convolutions.
    conditioning : the last layer; `{use: san, head: multi-discriminator}` gives each class a direction of its own.

    Raises
    ------
    BadValue : images that are too small, or labels asked for and not there.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Annotated[tuple[Annotated[int, Gt(0)], ...], Len(3, 3)] = (128, 256, 512),
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "san",
    ) -> None:
        super().__init__()
        require_images(spec)
        h, w = (((side - 6) // 2 + 1) // 2 // 2 for side in (spec.height, spec.width))
        if min(h, w) < 1:
            raise BadValue(
                f"images of {spec.height}x{spec.width} are too small; the shorter side must be 12 or more",
                hint="data.size=16",
            )
        first, second, third = widths
        self.conv1 = normal(nn.Conv2d(spec.channels, first, 6, stride=2))
        self.conv2 = spectral(normal(nn.Conv2d(first, second, 4, stride=2, padding=1)))
        self.conv3 = spectral(normal(nn.Conv2d(second, third, 4, stride=2, padding=1)))
        self.head = build_head(conditioning, third * h * w, spec, normal, bias=False)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and perhaps label (N,) -> logits (N,) and features (N, D)."""
        h = data
        for conv in (self.conv1, self.conv2, self.conv3):
            h = F.leaky_relu(conv(h), LEAK, inplace=True)
        return self.head(h.flatten(1), label)  # (N, widths[2] * h * w)
