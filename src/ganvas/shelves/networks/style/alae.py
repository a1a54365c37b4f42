"""The networks of adversarial latent autoencoders (Pidhorskyi et al. 2020), for the task `alae`.

`alae-encoder` is that of StyleALAE, which reads styles where StyleGAN writes them; the generator is any with a space w.
The `mlp-*` ones are the permutation-invariant form. Written from the paper and from what the released networks compute
(podgorskiy/ALAE), of which the encoder differs in these:

- A map is smoothed and halved at once by [1, 3, 3, 1], which is its [1, 2, 1] blur and its mean of 2 × 2 pixels after
  the convolution; only the borders differ.
- The first leaky ReLU is applied once, there twice; the block of 4 pixels keeps its size, there it is halved, too.
- The gain √2 of leaky ReLUs goes to biases, too, and the maps to w have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from ganvas.nn.equalized import EqualizedConv2d, EqualizedLinear, in_full
from ganvas.nn.mapping import USUAL_MAPPING, MappingNetwork, MappingOptions
from ganvas.parts import network
from ganvas.shelves.networks.gan.pyramid import halvings
from ganvas.shelves.networks.style.spaces import MappedGenerator
from ganvas.shelves.networks.style.stylegan2 import DEEPEST, channels_at
from ganvas.types import DataSpec, Encoder, Latent, LatentCritic

Count = Annotated[int, Gt(0)]

_EPS = 1e-5  # added to the variance


# ---------------------------------------------------------------------------------------------- StyleALAE's encoder


# Pidhorskyi et al. 2020, section 5: instance normalisation hands over what it takes out
class StyleReader(nn.Module):
    """Instance normalisation whose statistics are read into w: w = C (μ, σ) + b, μ and σ those of each channel.

    Parameters
    ----------
    channels : of the map.
    w_dim : length of w.
    """

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.linear = EqualizedLinear(2 * channels, w_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> the map with mean 0 and variance 1 in each channel, and (N, w_dim)."""
        mean, std = instance_statistics(x)  # (N, C)
        w = self.linear(torch.cat([mean, std], 1))
        return (x - mean[:, :, None, None]) / std[:, :, None, None], w


def instance_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sqrt(variance + 1e-5) over the pixels, in float32 or better: (N, C, H, W) -> (N, C) twice."""
    variance, mean = torch.var_mean(in_full(x), (2, 3), correction=0)
    return mean, (variance + _EPS).sqrt()  # a constant map would have no gradient without the shift


class EncoderBlock(nn.Module):
    """Two convolutions, each read and normalised; the second may halve the map."""

    def __init__(self, in_: int, out: int, w_dim: int, *, down: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(in_, in_, 3, activate=True)
        self.read0 = StyleReader(in_, w_dim)
        self.conv1 = EqualizedConv2d(in_, out, 3, down=down, activate=True)
        self.read1 = StyleReader(out, w_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in, H, W) -> (N, out, H / down, W / down) and its part of w (N, w_dim)."""
        x, first = self.read0(self.conv0(x))
        x, second = self.read1(self.conv1(x))
        return x, first + second


@network(
    "alae-encoder",
    paper="Pidhorskyi et al. 2020, section 5 (StyleALAE)",
    tiny={"w_dim": 8, "channel_base": 128, "channel_max": 8},
)
class ALAEEncoder(Encoder):
    """Encoder to w that mirrors a style generator: the style is read where the generator writes it.

    w is the sum of linear maps of the means and standard deviations of all channels of 2n + 2 maps, those of two
    convolutions at each of H, H/2, ..., H/2^n pixels, n = floor(log2(min(H, W) / 4)). Nothing else reaches w.

    Parameters
    ----------
    spec : what to read.
    w_dim : length of w, as in the generator.
    channel_base, channel_max : a map of p pixels has channel_base / p channels, at most channel_max.

    Raises
    ------
    BadValue : a size that cannot be halved so often.
    """

    space = "w"

    def __init__(
        self, spec: DataSpec, *, w_dim: Count = 512, channel_base: Count = 16384, channel_max: Count = 512
    ) -> None:
        super().__init__()
        n = halvings(spec, DEEPEST)
        widths = channels_at(n, channel_base, channel_max)
        self.code_shape = (w_dim,)
        self.from_image = EqualizedConv2d(spec.channels, widths[n], 1, activate=True)
        self.blocks: Sequence[EncoderBlock] = nn.ModuleList(  # type: ignore[assignment]
            EncoderBlock(widths[i], widths[max(i - 1, 0)], w_dim, down=2 if i else 1) for i in range(n, -1, -1)
        )

    def forward(self, data: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] -> w (N, w_dim) float32."""
        x = self.from_image(data)
        parts = []
        for block in self.blocks:
            x, w = block(x)
            parts.append(w)
        return torch.stack(parts).sum(0)


# ---------------------------------------------------------------------------------------------- fully connected ones


def _layers(widths: Sequence[int], *, lr_multiplier: float = 1.0) -> nn.Sequential:
    """Linear layers with leaky ReLUs between, none at the end."""
    last = len(widths) - 2
    return nn.Sequential(
        *(
            EqualizedLinear(widths[i], widths[i + 1], lr_multiplier=lr_multiplier, activate=i < last)
            for i in range(last + 1)
        )
    )


@network(
    "mlp-style-generator",
    paper="Pidhorskyi et al. 2020, section 6.1",
    tiny={"z_dim": 8, "w_dim": 8, "width": 8, "mapping": {"layers": 2}},
)
class MLPStyleGenerator(MappedGenerator):
    """Fully connected generator of data of any shape behind a mapping network; what it puts out is not bounded.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (1, w_dim), the one w of its one style.

    Parameters
    ----------
    spec : what to make.
    z_dim, w_dim : length of z, drawn from N(0, 1), and of w.
    width, depth : units of each hidden layer behind w, and how many of them.
    mapping : layers, widths and learning rate of the mapping network, see `MappingNetwork`.
    """

    bounded = False

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 50,
        w_dim: Count = 50,
        width: Count = 1024,
        depth: Count = 2,
        mapping: MappingOptions = USUAL_MAPPING,
    ) -> None:
        super().__init__(MappingNetwork(z_dim, w_dim, **asdict(mapping)), z_dim, w_dim, 1)
        self.shape = spec.shape
        self.synthesis = _layers([w_dim, *[width] * depth, prod(spec.shape)])

    def draw(self, ws: Tensor) -> Tensor:
        """ws (N, 1, w_dim) -> data (N, *shape)."""
        out: Tensor = self.synthesis(ws[:, 0])  # (N, prod(shape))
        return out.view(-1, *self.shape)

    @property
    def centre(self) -> Latent:
        """The running mean of w."""
        return Latent(self.mapping.w_avg[None], "w")


@network("mlp-encoder", paper="Pidhorskyi et al. 2020, section 6.1", tiny={"w_dim": 8, "width": 8})
class MLPEncoder(Encoder):
    """Fully connected encoder from data of any shape to w.

    Parameters
    ----------
    spec : what to read.
    w_dim : length of w, as in the generator.
    width, depth : units of each hidden layer, and how many of them.
    """

    space = "w"

    def __init__(self, spec: DataSpec, *, w_dim: Count = 50, width: Count = 1024, depth: Count = 2) -> None:
        super().__init__()
        self.code_shape = (w_dim,)
        self.layers = _layers([prod(spec.shape), *[width] * depth, w_dim])

    def forward(self, data: Tensor) -> Tensor:
        """Data (N, *shape) -> w (N, w_dim)."""
        w: Tensor = self.layers(data.flatten(1))
        return w


@network("mlp-latent-critic", paper="Pidhorskyi et al. 2020, section 5", tiny={"w_dim": 8, "width": 8})
class MLPLatentCritic(LatentCritic):
    """Fully connected critic of points of w.

    Parameters
    ----------
    spec : what the encoder reads; it is not looked at.
    w_dim : length of w, as in the generator.
    width : units of each hidden layer; None: w_dim.
    layers : how many layers, the last one included.
    lr_multiplier : how fast it learns, beside the encoder; the released one's is 0.1.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        w_dim: Count = 512,
        width: Count | None = None,
        layers: Count = 3,
        lr_multiplier: Annotated[float, Gt(0)] = 0.1,
    ) -> None:
        super().__init__()
        self.latent_shape = (w_dim,)
        self.layers = _layers([w_dim, *[width or w_dim] * (layers - 1), 1], lr_multiplier=lr_multiplier)

    def forward(self, latent: Tensor) -> Tensor:
        """w (N, w_dim) -> logits (N,)."""
        logits: Tensor = self.layers(latent)[:, 0]
        return logits
