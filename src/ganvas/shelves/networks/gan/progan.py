"""Progressive GAN (Karras et al. 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation").

One resolution is one network and one run; the next run takes over its weights with `from:` and fades its newest block
in, see `ganvas.nn.growing`. The recipe keys `stages` and `schedules` make a whole growth of it. Written from the paper
and from what the released networks compute, which differ from it in this, as do ours: the critic halves its maps before
the bias and the leaky ReLU, not after, so that the convolution is strided. Differences in how:

- Doubling before and halving after a convolution are part of it, at a quarter of the cost; borders included, it is the
  same function, of a kernel that is turned round where it doubles.
- He's √2 is applied to biases, too: they learn that much faster.
- Sides need not be equal or powers of two: the smallest map has H/2^n x W/2^n pixels, n = floor(log2(min(H, W) / 4)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from ganvas.errors import BadValue
from ganvas.nn.equalized import EqualizedConv2d, EqualizedLinear, equalized, in_full
from ganvas.nn.fir import filter2d, filter_taps
from ganvas.nn.growing import Fade, Growing, double, halve
from ganvas.nn.mapping import pixel_norm
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.pyramid import halvings, require_images
from ganvas.shelves.networks.heads import build_head
from ganvas.shelves.networks.style.stylegan2 import Epilogue, channels_at
from ganvas.types import Critic, CriticHead, DataSpec, Generator, LatentSpec, Scores

Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]

DEEPEST = 10  # 4096 pixels
NEAREST = (1.0, 1.0)  # taps that repeat a pixel going up, and take the mean of two going down


def resolutions(spec: DataSpec) -> int:
    """n = floor(log2(min(H, W) / 4)): how many blocks stand on the smallest one; 0 for images of 4 to 7 pixels.

    Raises
    ------
    BadValue : the data are no images, a side is below 4, not divisible by 2^n, or n is too large.
    """
    require_images(spec)
    if not 4 <= min(spec.height, spec.width) < 8:
        return halvings(spec, DEEPEST)
    return 0


def fade_of(start: float | None, n: int) -> Fade | None:
    """What fades the finest resolution in.

    Raises
    ------
    BadValue : there is no coarser one.
    """
    if start is None:
        return None
    if n == 0:
        raise BadValue(
            "images of less than 8 pixels are the first ones; there is nothing to fade from", key="fade",
            hint="fade=null",
        )  # fmt: skip
    return Fade(start)


# ---------------------------------------------------------------------------------------------------- generator


class GeneratorBlock(nn.Module):
    """Two 3x3 convolutions, each with leaky ReLU and pixel norm; the first one doubles the map.

    The block of the smallest map begins with a linear layer in place of the first convolution.
    """

    def __init__(self, in_: int, out: int, *, first: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.shape = None if first is None else (out, *first)
        if first is None:
            self.conv0: nn.Module = EqualizedConv2d(in_, out, 3, up=2, taps=NEAREST, activate=True)
        else:
            self.conv0 = EqualizedLinear(in_, math.prod((out, *first)), activate=True)
        self.conv1 = EqualizedConv2d(out, out, 3, activate=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, 2h, 2w), or of the first block (N, in) -> (N, out, h, w)."""
        x = self.conv0(x)
        x = pixel_norm(x if self.shape is None else x.view(-1, *self.shape))
        return pixel_norm(self.conv1(x))


@network(
    "progan-generator",
    system="progan",
    paper="Karras et al. 2018 (ProGAN), section 2 and table 2",
    tiny={"z_dim": 8, "channel_base": 128, "channel_max": 8},
)
class ProGANGenerator(Growing, Generator):
    """Generator that doubles a map block by block, and may be grown by one block from a trained one.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 4 to 4096 pixels.
    `from:` takes weights of this network, or of one for images of half the size.

    Parameters
    ----------
    spec : what to make.
    z_dim : length of z, drawn from N(0, 1) and put on a sphere.
    channel_base, channel_max : a map of p pixels has channel_base / p channels, at most channel_max.
    fade : the weight α of the finest resolution at the start, the rest being the coarser image, doubled; a schedule may
        move it. None: there is no coarser image beside it.

    Raises
    ------
    BadValue : a size that cannot be halved so often, or nothing to fade from.
    """

    bounded = False
    conditional = False
    image_layer = "to_image"

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 512,
        channel_base: Count = 16384,
        channel_max: Count = 512,
        fade: Share | None = None,
    ) -> None:
        super().__init__()
        n = resolutions(spec)
        widths = channels_at(n, channel_base, channel_max)
        self.latents = {"z": LatentSpec((z_dim,), "normal")}
        self.blocks: Sequence[GeneratorBlock] = nn.ModuleList(  # type: ignore[assignment]
            GeneratorBlock(widths[i - 1], widths[i])
            if i
            else GeneratorBlock(z_dim, widths[0], first=(spec.height >> n, spec.width >> n))
            for i in range(n + 1)
        )
        self.to_image = EqualizedConv2d(widths[n], spec.channels, 1)
        self.fade = fade_of(fade, n)
        if self.fade is not None:
            self.to_image_before = EqualizedConv2d(widths[n - 1], spec.channels, 1)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> images (N, C, H, W) float32, near [−1, 1] but not limited to it."""
        x = before = pixel_norm(latent)
        for block in self.blocks:
            before, x = x, block(x)
        image = in_full(self.to_image(x))
        if self.fade is None:
            return image
        return self.fade(lambda: double(in_full(self.to_image_before(before))), image)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------------- critic


class CriticBlock(nn.Module):
    """Two 3x3 convolutions with leaky ReLU, the second of which halves the map, smoothed before by `taps`."""

    taps: Tensor | None

    def __init__(self, in_: int, out: int, taps: Sequence[float] | None) -> None:
        super().__init__()
        self.register_buffer("taps", None if taps is None else filter_taps(taps), persistent=False)
        self.conv0 = EqualizedConv2d(in_, in_, 3, activate=True)
        self.conv1 = EqualizedConv2d(in_, out, 3, down=2, taps=NEAREST, activate=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h/2, w/2)."""
        x = self.conv0(x)
        return self.conv1(x if self.taps is None else filter2d(x, self.taps))  # type: ignore[no-any-return]


class GrowingCritic(Growing, Critic):
    """What the critics of ProGAN and StyleGAN share.

    Parameters
    ----------
    smooth : taps of the filter before each halving; None: there is none.
    """

    image_layer = "from_image"

    def __init__(
        self,
        spec: DataSpec,
        *,
        channel_base: int,
        channel_max: int,
        conditioning: Callable[..., CriticHead] | str,
        minibatch_group: int | None,
        fade: float | None,
        smooth: Sequence[float] | None,
    ) -> None:
        super().__init__()
        n = resolutions(spec)
        widths = channels_at(n, channel_base, channel_max)
        self.from_image = EqualizedConv2d(spec.channels, widths[n], 1, activate=True)
        self.blocks: Sequence[CriticBlock] = nn.ModuleList(  # type: ignore[assignment]
            CriticBlock(widths[i + 1], widths[i], smooth) for i in range(n)
        )
        self.epilogue = Epilogue(
            widths[0], None, (spec.height >> n, spec.width >> n), group=minibatch_group, statistics=1, clamp=None
        )
        self.head = build_head(conditioning, widths[0], spec, equalized)
        self.fade = fade_of(fade, n)
        if self.fade is not None:
            self.from_image_before = EqualizedConv2d(spec.channels, widths[n - 1], 1, activate=True)

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        """Images (N, C, H, W) in [-1, 1] and label (N,) int64 -> logits (N,) and features (N, D)."""
        x = self.from_image(data)
        for number in reversed(range(len(self.blocks))):
            x = self.blocks[number](x)
            if self.fade is not None and number == len(self.blocks) - 1:
                x = self.fade(lambda: self.from_image_before(halve(data)), x)
        return self.head(self.epilogue(x, None), label)

    # Karras et al. 2018, figure 2: "During a resolution transition, we interpolate between two resolutions of the real
    # images, similarly to how the generator output combines two resolutions"
    def fade_real(self, real: Tensor) -> Tensor:
        """Images (N, C, H, W) as sharp as those of a generator with the same α."""
        return real if self.fade is None else self.fade(lambda: double(halve(real)), real)


@network(
    "progan-discriminator",
    system="progan",
    paper="Karras et al. 2018 (ProGAN), sections 2 and 3 and table 2",
    tiny={"channel_base": 128, "channel_max": 8},
)
class ProGANDiscriminator(GrowingCritic):
    """Critic that halves a map block by block, with a map of the batch's variation; grown like its generator.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 4 to 4096 pixels.
    Scores depend on the batch by way of the variation. While it fades in, real images are shown to it at the same mix
    of two resolutions. `from:` takes weights of this network, or of one for images of half the size.

    Parameters
    ----------
    spec : what to score.
    channel_base, channel_max : a map of p pixels has channel_base / p channels, at most channel_max. D, the length of
        the features, is the width at the smallest map.
    conditioning : how labels reach the critic.
    minibatch_group : data among which the variation is taken; None: the whole batch.
    fade : the weight α of the finest resolution at the start, the rest being what the block before made of the image,
        halved; a schedule may move it. None: there is no coarser way beside it.

    Raises
    ------
    BadValue : a size that cannot be halved so often, or nothing to fade from.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        channel_base: Count = 16384,
        channel_max: Count = 512,
        conditioning: Annotated[Callable[..., CriticHead] | str, Factory("conditioning")] = "plain",
        minibatch_group: Count | None = 4,
        fade: Share | None = None,
    ) -> None:
        super().__init__(
            spec, channel_base=channel_base, channel_max=channel_max, conditioning=conditioning,
            minibatch_group=minibatch_group, fade=fade, smooth=None,
        )  # fmt: skip
