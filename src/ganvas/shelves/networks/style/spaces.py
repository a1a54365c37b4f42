"""What generators with a mapping network share: one w from z, as many as there are layers, and the way to an image."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.nn import draws
from ganvas.nn.mapping import MappingNetwork, as_condition
from ganvas.types import Latent, LatentSpec, Noise, SpacedGenerator


class MappedGenerator(SpacedGenerator):
    """A generator that is told what to make by one w for each of its L layers.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (L, w_dim). Each follows from the one before, see `to_space`.

    Parameters
    ----------
    mapping : from z to w; in training its running mean of w follows.
    z_dim, w_dim : lengths of z and w.
    layers : L.
    """

    def __init__(self, mapping: MappingNetwork, z_dim: int, w_dim: int, layers: int) -> None:
        super().__init__()
        self.mapping = mapping
        self.layers = layers
        self.conditional = mapping.classes > 0
        self.latents = {
            "z": LatentSpec((z_dim,), "normal"),
            "w": LatentSpec((w_dim,), "none"),
            "w+": LatentSpec((layers, w_dim), "none"),
        }

    @abstractmethod
    def draw(self, ws: Tensor) -> Tensor:
        """ws (N, L, w_dim) -> images (N, C, H, W)."""

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W) float32, near [−1, 1] but not limited to it."""
        w = self.map(latent, label)  # (N, w_dim)
        if self.training:
            self.mapping.track(w)
        return self.draw(self.broadcast(w))

    def map(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> w (N, w_dim).

        Raises
        ------
        UsageError : labels are needed and there are none.
        """
        if not self.conditional:
            return self.mapping(z)  # type: ignore[no-any-return]
        if label is None:
            raise UsageError("a conditional generator was given no labels", hint="pass label=(N,) int64")
        return self.mapping(z, as_condition(label, self.mapping.classes))  # type: ignore[no-any-return]

    def broadcast(self, w: Tensor) -> Tensor:
        """w (N, w_dim) -> ws (N, L, w_dim), the same for every layer."""
        return w[:, None].expand(-1, self.layers, -1)

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """The same points in a later space, in the order z, w, w+.

        Raises
        ------
        UsageError : there is no such space, or it comes before the one that the points are in.
        """
        order = list(self.latents)
        if space not in order or latent.space not in order or order.index(space) < order.index(latent.space):
            raise UsageError(
                f"there is no way from latent space {latent.space!r} to {space!r}",
                hint=f"each of {', '.join(order)} leads to those after it",
            )
        values = latent.values
        for at in order[order.index(latent.space) : order.index(space)]:
            values = self.map(values, label) if at == "z" else self.broadcast(values)
        return Latent(values, space)

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces; the running mean of w stays.

        Raises
        ------
        UsageError : there is no such space.
        """
        return self.draw(self.to_space(latent, "w+", label).values)


LayerNoise = Noise | torch.Generator
"""Where the noise of a layer comes from; a generator means random noise of its own numbers."""


def noise_for(x: Tensor, const: Tensor, noise: LayerNoise) -> Tensor | None:
    """What a layer adds to a map (N, C, H, W) before its strength: (H, W), (N, 1, H, W), or None for nothing.

    Parameters
    ----------
    const : (H, W), the layer's own.
    """
    if noise == "none":
        return None
    if noise == "const":
        return const
    source = noise if isinstance(noise, torch.Generator) else None
    return draws.normal("layer noise", (len(x), 1, *x.shape[2:]), like=x, generator=source)


class NoisyGenerator(MappedGenerator):
    """A mapped generator whose layers add noise: its own constant, unless something else is asked for."""

    noisy = True

    @abstractmethod
    def draw(self, ws: Tensor, noise: LayerNoise | None = None) -> Tensor:
        """ws (N, L, w_dim) -> images (N, C, H, W); None: `usual_noise`."""

    @property
    def usual_noise(self) -> Noise:
        return "const"

    def noised(self, latent: Latent, label: Tensor | None = None, *, noise: LayerNoise) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces; nothing is mixed and the running mean of w stays.

        Parameters
        ----------
        noise : "random", the network's "const", or "none"; a torch.Generator: random, of its numbers.

        Raises
        ------
        UsageError : there is no such space.
        """
        return self.draw(self.to_space(latent, "w+", label).values, noise)

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces; nothing is mixed and the running mean of w stays.

        Raises
        ------
        UsageError : there is no such space.
        """
        return self.noised(latent, label, noise=self.usual_noise)


class MixingGenerator(NoisyGenerator):
    """StyleGAN's way of training: random noise, and a share of the batches that mix two w. It knows the mean of w.

    Parameters
    ----------
    mixing : the share of training batches whose layers after a random one get the w of another z.
    """

    def __init__(self, mapping: MappingNetwork, z_dim: int, w_dim: int, layers: int, *, mixing: float) -> None:
        super().__init__(mapping, z_dim, w_dim, layers)
        self.mixing = mixing

    def forward(self, latent: Tensor, label: Tensor | None = None, *, noise: LayerNoise | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W) float32, near [−1, 1] but not limited to it.

        Parameters
        ----------
        label : (N,) int64, or weights of the classes (N, K).
        noise : "random", the network's "const", or "none"; None: random in training, else const.
        """
        w = self.map(latent, label)  # (N, w_dim)
        if self.training:
            self.mapping.track(w)
        ws = self.broadcast(w)  # (N, L, w_dim)
        if self.training and self.mixing > 0:
            ws = self.mix(ws, latent, label)
        return self.draw(ws, noise)

    def as_trained(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """Points of "w+" of which training mixes a share; those of other spaces as `to_space` gives them."""
        made = self.to_space(latent, space, label)
        if space != "w+" or latent.space != "z" or not (self.training and self.mixing > 0):
            return made
        return Latent(self.mix(made.values, latent.values, label), space)

    @property
    def usual_noise(self) -> Noise:
        return "random" if self.training else "const"

    # Karras et al. 2019, section 3.1; one crossover point a batch, as released
    def mix(self, ws: Tensor, z: Tensor, label: Tensor | None) -> Tensor:
        """ws whose layers from a random one on come from another z, in a share `mixing` of all calls."""
        crossover = draws.integers("crossover", 1, ws.shape[1], (), like=ws)
        mixed = draws.uniform("mixed", (), like=ws) < self.mixing
        other = self.broadcast(self.map(draws.normal("other latent", z.shape, like=z), label))
        return torch.where(mixed, crossed(ws, other, crossover), ws)

    @property
    def centre(self) -> Latent:
        """The running mean of w."""
        return Latent(self.mapping.w_avg[None], "w")


def crossed(ws: Tensor, other: Tensor, crossover: Tensor | int) -> Tensor:
    """Two (N, L, w_dim): the layers from number `crossover` on are those of `other`."""
    layer = torch.arange(ws.shape[1], device=ws.device)
    return torch.where((layer >= crossover)[:, None], other, ws)
