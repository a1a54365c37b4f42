"""Super-resolution by sub-pixel convolution (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using
an Efficient Sub-Pixel Convolutional Neural Network"), and a critic and a term for training it adversarially.

All layers work on the small image; the last one has r^2 channels for each of the large image's, which are dealt out to
the r x r pixels that stand where one stood (eq. 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.errors import BadValue
from ganvas.nn.init import layer_init, normal, orthogonal
from ganvas.parts import Factory, network, regularizer
from ganvas.shelves.networks.heads import build_head
from ganvas.types import ConditionSpec, Critic, CriticHead, DataSpec, Regularizer, Scores, Side, Translator, Turn

LEAK = 0.2
Width = Annotated[int, Gt(0)]


@network("espcn", paper="Shi et al. 2016, section 3", tiny={"widths": [8, 4]})
class ESPCN(Translator):
    """Enlarges the image `low` (N, c, h, w) to (N, C, r h, r w): convolutions, then the shuffle of r^2 channels.

    The factor r is that of the data. The paper's network has widths 64 and 32 and tanh, learns the luminance alone and
    is initialised as its predecessor SRCNN; this one learns all channels of the data together.

    Parameters
    ----------
    spec : what to make, and the condition `low` that it is made of.
    widths : channels after each convolution but the last; the first has 5x5 kernels, the others 3x3.
    activation : "tanh" as in the paper, or "relu".
    residual : learn only what is to be added to a bicubic enlargement (Kim et al. 2016, VDSR); needs as many channels
        in as out.

    Raises
    ------
    BadValue : no condition `low`, or sizes that are no whole multiple of its.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        widths: Annotated[tuple[Width, ...], MinLen(1)] = (64, 32),
        activation: Literal["tanh", "relu"] = "tanh",
        residual: bool = False,
    ) -> None:
        super().__init__()
        low = low_of(spec)
        self.factor = factor_of(spec, low)
        self.residual = residual
        self.activation = torch.tanh if activation == "tanh" else F.relu
        if residual and low.shape[0] != spec.channels:
            raise BadValue(
                f"nothing can be added to {low.shape[0]} channels to make {spec.channels}", key="residual",
                hint="networks.generator.residual=false",
            )  # fmt: skip
        inputs = [low.shape[0], *widths]
        outputs = [*widths, spec.channels * self.factor**2]
        convs = [
            nn.Conv2d(in_, out, 3 if i else 5, padding=1 if i else 2)
            for i, (in_, out) in enumerate(zip(inputs, outputs, strict=True))
        ]
        for conv in convs:
            nn.init.orthogonal_(conv.weight, nn.init.calculate_gain(activation))
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        if residual:  # it begins as the bicubic enlargement
            nn.init.zeros_(convs[-1].weight)
        self.convs = nn.ModuleList(convs)

    def forward(self, low: Tensor) -> Tensor:
        """Small images (N, c, h, w) in [-1, 1] -> (N, C, r h, r w), about in [-1, 1]."""
        h = low
        for conv in self.convs[:-1]:
            h = self.activation(conv(h))  # (N, width, h, w)
        image = F.pixel_shuffle(self.convs[-1](h), self.factor)  # (N, C, r h, r w)
        return image + enlarged(low, self.factor) if self.residual else image


@network("pair-discriminator", paper="Isola et al. 2017, eq. 1", tiny={"width": 8})
class PairDiscriminator(Critic):
    """Scores an image together with the small image `low` that it was made of, enlarged and laid beside its channels.

    Strided 4x4 convolutions with spectral norm halve the sides until the shorter one has 4 pixels or is odd; features
    are the mean of the last map.

    Parameters
    ----------
    spec : what to score, and the condition `low` that it comes with.
    width : channels after the first convolution, doubled at each halving up to eightfold.
    conditioning : how labels reach the critic.

    Raises
    ------
    BadValue : no condition `low`, or sizes that are no whole multiple of its.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Width = 64,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
    ) -> None:
        super().__init__()
        low = low_of(spec)
        self.factor = factor_of(spec, low)
        wrap = layer_init(normal, spectral_norm=True)
        channels, side = spec.channels + low.shape[0], (spec.height, spec.width)
        convs: list[nn.Module] = [wrap(nn.Conv2d(channels, width, 3, padding=1))]
        features = width
        while min(side) > 4 and not any(length % 2 for length in side):
            out = min(2 * features, 8 * width)
            convs.append(wrap(nn.Conv2d(features, out, 4, stride=2, padding=1)))
            features, side = out, (side[0] // 2, side[1] // 2)
        self.convs = nn.ModuleList(convs)
        self.head = build_head(conditioning, features, spec, layer_init(orthogonal, spectral_norm=True))

    def forward(self, data: Tensor, low: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) and their small ones (N, c, h, w), all in [-1, 1] -> logits (N,) and features (N, D)."""
        h = torch.cat([data, F.interpolate(low, scale_factor=self.factor)], dim=1)  # (N, C + c, H, W)
        for conv in self.convs:
            h = F.leaky_relu(conv(h), LEAK)
        return self.head(h.mean((2, 3)), label)


@regularizer("pixel", paper="Isola et al. 2017, eq. 3")
class Pixel(Regularizer):
    """Mean absolute difference between what is made and the datum whose conditions it was made for; for pairs."""

    side: Side = "generator"

    def __call__(self, turn: Turn) -> Tensor:
        return F.l1_loss(turn.fake.float(), turn.real)


def enlarged(low: Tensor, factor: int) -> Tensor:
    """The bicubic enlargement (N, C, r h, r w) of images (N, C, h, w), cut to [-1, 1]."""
    return F.interpolate(low, scale_factor=factor, mode="bicubic", align_corners=False).clamp(-1, 1)


def low_of(spec: DataSpec) -> ConditionSpec:
    """The condition `low`, an image.

    Raises
    ------
    BadValue : the data have none, or it is no image.
    """
    low = spec.conditions.get("low")
    hint = "data: {use: paired, data: {use: NAME}, given: {use: NAME, size: 16}, name: low}"
    if low is None:
        have = ", ".join(spec.conditions) or "none"
        raise BadValue(f"it enlarges a condition 'low'; the data come with {have}", hint=hint)
    if len(low.shape) != 3 or len(spec.shape) != 3:
        raise BadValue(f"it enlarges images, not {low.shape} to {spec.shape}", hint=hint)
    return low


def factor_of(spec: DataSpec, low: ConditionSpec) -> int:
    """How many times longer the sides of the data are than those of `low`.

    Raises
    ------
    BadValue : no whole number of times, or not as many in height and width.
    """
    _, h, w = low.shape
    factor = spec.height // h
    if (factor * h, factor * w) != (spec.height, spec.width):
        raise BadValue(
            f"{h}x{w} (height x width) cannot be enlarged to {spec.height}x{spec.width} by one whole factor",
            hint=f"give data of {2 * h}x{2 * w}, or a condition of another size: data.given.size",
        )  # fmt: skip
    return factor
