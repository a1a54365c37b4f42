"""StyleGAN's mapping network f: z -> w, with labels, the running mean of w, and truncation towards it.

Karras et al. 2019 (StyleGAN), sections 2 and 3.2 and appendix B; widths and rates are those of StyleGAN2's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.equalized import EqualizedLinear
from ganvas.nn.statistics import Follower


# Karras et al. 2018 (ProGAN), section 4.2
def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """x / sqrt(mean of x² over dimension 1 + eps): (N, D, ...) -> (N, D, ...)."""
    return x * (x.square().mean(1, keepdim=True) + eps).rsqrt()


def as_condition(label: Tensor, classes: int) -> Tensor:
    """Class labels (N,) int64, or weights of the classes (N, K) -> (N, K) float32."""
    return (F.one_hot(label, classes) if label.dim() == 1 else label).to(torch.get_default_dtype())


@dataclass(frozen=True)
class MappingOptions:
    """The keys of a recipe that belong to a mapping network; see there."""

    layers: Annotated[int, Gt(0)] = 8
    hidden_dim: Annotated[int, Gt(0)] | None = None
    embed_dim: Annotated[int, Gt(0)] | None = None
    lr_multiplier: Annotated[float, Gt(0)] = 0.01


USUAL_MAPPING = MappingOptions()


class MappingNetwork(Follower):
    """Fully connected layers from normalised latents, and perhaps a normalised embedding of the class, to w.

    Parameters
    ----------
    z_dim : length of the latent; 0 maps the class alone.
    w_dim : length of w.
    classes : K, how many classes are told apart; 0: no label is looked at.
    layers : how many layers, the embedding not counted.
    hidden_dim : width between the layers; None: w_dim.
    embed_dim : length of the class embedding; None: w_dim.
    lr_multiplier : how fast the layers learn, beside the rest of the generator; the embedding learns at full speed.
    beta : decay of `w_avg`, the running mean of w; None: there is none.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        *,
        classes: int = 0,
        layers: int = 8,
        hidden_dim: int | None = None,
        embed_dim: int | None = None,
        lr_multiplier: float = 0.01,
        beta: float | None = 0.998,
    ) -> None:
        super().__init__()
        self.z_dim, self.classes, self.beta = z_dim, classes, beta
        embed_dim = (embed_dim or w_dim) if classes else 0
        widths = [z_dim + embed_dim, *[hidden_dim or w_dim] * (layers - 1), w_dim]
        self.embed = EqualizedLinear(classes, embed_dim) if classes else None
        self.layers: Sequence[EqualizedLinear] = nn.ModuleList(  # type: ignore[assignment]
            EqualizedLinear(a, b, lr_multiplier=lr_multiplier, activate=True) for a, b in pairwise(widths)
        )
        if beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, condition: Tensor | None = None) -> Tensor:
        """z (N, z_dim), None where z_dim is 0, and condition (N, K), see `as_condition` -> w (N, w_dim).

        In the precision of the weights, whatever that of training.
        """
        dtype = self.layers[0].weight.dtype
        with torch.autocast(self.layers[0].weight.device.type, enabled=False):
            given = [pixel_norm(z.to(dtype))] if z is not None and self.z_dim else []
            if self.embed is not None:
                assert condition is not None
                given.append(pixel_norm(self.embed(condition.to(dtype))))
            x = torch.cat(given, 1)
            for layer in self.layers:
                x = layer(x)
        return x

    @torch.no_grad()
    def track(self, w: Tensor) -> None:
        """Move `w_avg` towards the mean of a training batch w (N, w_dim)."""
        assert self.beta is not None
        if self.following:
            self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, self.beta))

    # Karras et al. 2019, appendix B: w' = w_avg + psi (w - w_avg)
    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Points nearer to the mean: (N, w_dim) or (N, L, w_dim) -> the same shape.

        Parameters
        ----------
        psi : 1 leaves w as it is, 0 gives the mean.
        cutoff : with (N, L, w_dim), only the first so many of the L layers; None: all.
        """
        near = self.w_avg.lerp(w, psi)
        if cutoff is None or w.dim() == 2:
            return near
        return torch.cat([near[:, :cutoff], w[:, cutoff:]], 1)
