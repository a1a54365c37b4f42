"""The generator and critic of StyleGAN (Karras et al. 2019, "A Style-Based Generator Architecture for GANs").

Both may be grown by one resolution from a trained network of half the size, as Progressive GAN is: see
`ganvas.nn.growing` and `ganvas.shelves.networks.gan.progan`, of which the critic is, with smoothed maps. Written from
the paper and from what the released networks compute. Differences in how:

- Doubling and the convolution after it are one step, at a quarter of the cost; borders included, it is the same
  function, of a kernel that is turned round.
- He's √2 is applied to biases of the critic and of the mapping network, too: they learn that much faster.
- Sides need not be equal or powers of two: the constant has H/2^n x W/2^n pixels, n = floor(log2(min(H, W) / 4)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from ganvas.nn.equalized import LEAKY_GAIN, EqualizedConv2d, EqualizedLinear, in_full, leaky
from ganvas.nn.fir import filter2d, filter_taps
from ganvas.nn.growing import Growing, double
from ganvas.nn.mapping import USUAL_MAPPING, MappingNetwork, MappingOptions
from ganvas.parts import Factory, network
from ganvas.shelves.networks.gan.progan import NEAREST, Count, GrowingCritic, Share, fade_of, resolutions
from ganvas.shelves.networks.gan.pyramid import require_classes
from ganvas.shelves.networks.style.spaces import LayerNoise, MixingGenerator, noise_for
from ganvas.shelves.networks.style.stylegan2 import channels_at
from ganvas.types import CriticHead, DataSpec

BINOMIAL = (1.0, 2.0, 1.0)
_EPS = 1e-8  # added to the variance


# Karras et al. 2019, eq. 1: y_s (x − μ(x)) / σ(x) + y_b
def adain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Adaptive instance normalisation: (N, C, H, W), y_s and y_b (N, C) -> (N, C, H, W), statistics in float32."""
    y = in_full(x)
    variance, mean = torch.var_mean(y, (2, 3), correction=0, keepdim=True)
    # (σ² + ε)^−½, so written because the ONNX exporter takes "+ 1e-8" for nothing; first maps may be constant
    inverse = _EPS**-0.5 * (variance / _EPS + 1).rsqrt()
    return torch.addcmul(shift[:, :, None, None], y - mean, inverse * scale[:, :, None, None]).to(x.dtype)


class StyleLayer(nn.Module):
    """Noise of a learnt strength for each channel, bias, leaky ReLU, and the style of w: the end of every layer."""

    noise_const: Tensor

    def __init__(self, channels: int, w_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = EqualizedLinear(w_dim, 2 * channels)
        self.register_buffer("noise_const", torch.randn(size))

    def forward(self, x: Tensor, w: Tensor, noise: LayerNoise) -> Tensor:
        """(N, C, H, W) and w (N, w_dim) -> (N, C, H, W)."""
        if (added := noise_for(x, self.noise_const, noise)) is not None:
            x = x + added * self.noise_strength[:, None, None]
        x = leaky(x + self.bias[:, None, None])
        scale, shift = self.affine(w).chunk(2, 1)  # (N, C) each
        return adain(x, scale + 1, shift)


class GeneratorBlock(nn.Module):
    """The layers of one resolution: doubled, convolved and smoothed, and convolved; the first starts from a constant.

    Parameters
    ----------
    in_ : channels of the block before; None for the first one.
    """

    taps: Tensor

    def __init__(self, in_: int | None, out: int, w_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("taps", filter_taps(BINOMIAL), persistent=False)
        if in_ is None:
            self.const = nn.Parameter(torch.ones(out, *size))
        self.conv0 = None if in_ is None else EqualizedConv2d(in_, out, 3, bias=False, up=2, taps=NEAREST)
        self.conv1 = EqualizedConv2d(out, out, 3, bias=False)
        self.style0 = StyleLayer(out, w_dim, size)
        self.style1 = StyleLayer(out, w_dim, size)

    def forward(self, x: Tensor | None, ws: Tensor, noise: LayerNoise) -> Tensor:
        """Map (N, in, h, w), None before the first block, and ws (N, 2, w_dim) -> (N, out, 2h, 2w)."""
        if x is None or self.conv0 is None:
            x = self.const.expand(len(ws), -1, -1, -1)
        else:
            x = filter2d(self.conv0(x, LEAKY_GAIN), self.taps)
        x = self.style0(x, ws[:, 0], noise)
        return self.style1(self.conv1(x, LEAKY_GAIN), ws[:, 1], noise)  # type: ignore[no-any-return]


@network(
    "stylegan-generator",
    system="stylegan",
    paper="Karras et al. 2019 (StyleGAN), section 2",
    tiny={
        "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "mapping": {"layers": 2},
    },
)  # fmt: skip
class StyleGANGenerator(MixingGenerator, Growing):
    """Style-based generator with adaptive instance normalisation, which may be grown by one block from a trained one.

    Images of any channel count whose sides are divisible by 2^n, n = floor(log2(min(H, W) / 4)), from 4 to 4096 pixels.
    `from:` takes weights of this network, or of one for images of half the size.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (L, w_dim), one w for each of L = 2n + 2 layers.

    In training, noise is random, a share of the batches mixes two w, and the running mean of w follows. In eval mode
    noise is a constant of the network, so that a latent has one image.

    Parameters
    ----------
    spec : what to make.
    z_dim, w_dim : length of z, drawn from N(0, 1), and of w.
    channel_base, channel_max : a map of p pixels has channel_base / p channels, at most channel_max.
    conditioning : "mapping" lets the mapping network see the class; None ignores labels.
    mapping : layers, widths and learning rate of the mapping network, see `MappingNetwork`.
    mixing : the share of training batches whose layers after a random one get the w of another z.
    average_decay : of the running mean of w, a training batch.
    fade : the weight α of the finest resolution at the start, the rest being the coarser image, doubled; a schedule may
        move it. None: there is no coarser image beside it.

    Raises
    ------
    BadValue : a size that cannot be halved so often, labels asked for and not there, or nothing to fade from.
    """

    bounded = False
    image_layer = "to_image"

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 512,
        w_dim: Count = 512,
        channel_base: Count = 16384,
        channel_max: Count = 512,
        conditioning: Literal["mapping"] | None = None,
        mapping: MappingOptions = USUAL_MAPPING,
        mixing: Share = 0.9,
        average_decay: Annotated[float, Ge(0), Lt(1)] = 0.995,
        fade: Share | None = None,
    ) -> None:
        n = resolutions(spec)
        require_classes(conditioning, spec)
        classes = spec.num_classes if conditioning else 0
        super().__init__(
            MappingNetwork(z_dim, w_dim, classes=classes, beta=average_decay, **asdict(mapping)),
            z_dim,
            w_dim,
            2 * n + 2,
            mixing=mixing,
        )
        widths = channels_at(n, channel_base, channel_max)
        self.blocks: Sequence[GeneratorBlock] = nn.ModuleList(  # type: ignore[assignment]
            GeneratorBlock(
                widths[i - 1] if i else None, widths[i], w_dim, (spec.height >> n - i, spec.width >> n - i)
            )
            for i in range(n + 1)
        )  # fmt: skip
        self.to_image = EqualizedConv2d(widths[n], spec.channels, 1)
        self.fade = fade_of(fade, n)
        if self.fade is not None:
            self.to_image_before = EqualizedConv2d(widths[n - 1], spec.channels, 1)

    def draw(self, ws: Tensor, noise: LayerNoise | None = None) -> Tensor:
        """ws (N, L, w_dim) -> images (N, C, H, W) float32."""
        noise = noise or self.usual_noise
        x: Tensor | None = None
        before: Tensor | None = None
        for i, block in enumerate(self.blocks):
            before, x = x, block(x, ws[:, 2 * i : 2 * i + 2], noise)
        image = in_full(self.to_image(x))
        if self.fade is None:
            return image
        return self.fade(lambda: double(in_full(self.to_image_before(before))), image)  # type: ignore[no-any-return]


@network(
    "stylegan-discriminator",
    paper="Karras et al. 2019 (StyleGAN), section 2 and appendix C",
    tiny={"channel_base": 128, "channel_max": 8},
)
class StyleGANDiscriminator(GrowingCritic):
    """ProGAN's critic, whose maps are smoothed before they are halved.

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
        minibatch_group: Annotated[int, Gt(0)] | None = 4,
        fade: Share | None = None,
    ) -> None:
        super().__init__(
            spec, channel_base=channel_base, channel_max=channel_max, conditioning=conditioning,
            minibatch_group=minibatch_group, fade=fade, smooth=BINOMIAL,
        )  # fmt: skip
