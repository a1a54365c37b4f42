"""Feature-space critics: frozen features, mixed by frozen random convolutions, one small critic per resolution.

Sauer et al. 2021, "Projected GANs Converge Faster", section 3.2. Maps are listed from the finest to the coarsest, each
half as large as the one before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.nn.init import Init, layer_init

LEAK = 0.2
CLASS_DIM = 64  # of the vectors whose inner product conditions a critic
EMBEDDING_DIM = 128


def freeze(net: nn.Module) -> nn.Module:
    """The same network with buffers in place of parameters; its mode is left as it is."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return net


class Frozen(nn.Module):
    """A network that never learns and never leaves eval mode; gradients pass through it to its input.

    What were parameters become buffers: they are saved and moved with the rest, and no optimizer sees them.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = freeze(net.eval())

    def train(self, mode: bool = True) -> Frozen:
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        maps: Sequence[Tensor] = self.net(x)
        return maps


# ---------------------------------------------------------------------------------------------------- mixing


class FeatureMixer(nn.Module):
    """Random 1x1 convolutions across channels, then, from the coarsest map on, random ones across scales.

    Parameters
    ----------
    inputs : channels of each map.
    width : channels of the finest mixed map.
    expand : each coarser level has twice the channels; else all have `width`.
    scales : also mix across scales, which doubles every map's resolution.

    Attributes
    ----------
    outputs : channels of each mixed map.
    """

    def __init__(self, inputs: Sequence[int], *, width: int, expand: bool = True, scales: bool = True) -> None:
        super().__init__()
        mixed = [width << i if expand else width for i in range(len(inputs))]
        self.channel_mixers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(inputs, mixed, strict=True))
        self.outputs = mixed
        self.scale_mixers = nn.ModuleList()
        if scales:  # the sum of a level is made of maps of equal width, so each hands half of its channels on
            self.outputs = [width, *mixed[:-1]] if expand else mixed
            self.scale_mixers.extend(nn.Conv2d(a, b, 1) for a, b in zip(mixed, self.outputs, strict=True))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """(N, inputs[i], h, w) each -> (N, outputs[i], 2h, 2w), or h and w as they are without `scales`."""
        mixed = [mixer(x) for mixer, x in zip(self.channel_mixers, maps, strict=True)]
        if not self.scale_mixers:
            return mixed
        outputs: list[Tensor] = []
        for i in range(len(mixed) - 1, -1, -1):
            x = mixed[i] + outputs[-1] if outputs else mixed[i]
            # A 1x1 convolution commutes with interpolation, so it runs on the smaller map.
            x = self.scale_mixers[i](x)
            h, w = (side * 2 for side in x.shape[2:]) if i == 0 else mixed[i - 1].shape[2:]
            outputs.append(F.interpolate(x, (h, w), mode="bilinear", align_corners=True))
        return outputs[::-1]


# ---------------------------------------------------------------------------------------------------- critics


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel, then a 1x1 one across them."""

    def __init__(self, in_: int, out: int, init: Init) -> None:
        super().__init__()
        self.depthwise = init(nn.Conv2d(in_, in_, 3, padding=1, groups=in_, bias=False))
        self.pointwise = init(nn.Conv2d(in_, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


def down_block(in_: int, out: int, init: Init, *, separable: bool, patch: bool) -> nn.Sequential:
    """Halves the resolution; with `patch`, a 1x1 convolution follows."""
    if separable:
        block = nn.Sequential(
            SeparableConv(in_, out, init), nn.BatchNorm2d(out), nn.LeakyReLU(LEAK, inplace=True), nn.AvgPool2d(2)
        )
    else:
        conv = init(nn.Conv2d(in_, out, 4, stride=2, padding=1))
        block = nn.Sequential(conv, nn.BatchNorm2d(out), nn.LeakyReLU(LEAK, inplace=True))
    if not patch:
        return block
    conv = init(nn.Conv2d(out, out, 1, bias=False))
    return nn.Sequential(block, conv, nn.BatchNorm2d(out), nn.LeakyReLU(LEAK, inplace=True))


class LevelCritic(nn.Module):
    """The critic of one level: blocks that halve the map, then one convolution without padding to the logits.

    Parameters
    ----------
    channels : of the input and after each block.
    kernel : sides of the last convolution.
    classes : K; 0 for none. With classes the logit is an inner product with a learnt vector of the class, over the
        root of their length.
    separable : blocks with separable convolutions.
    patch : blocks with a 1x1 convolution each.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        kernel: tuple[int, int] = (4, 4),
        classes: int = 0,
        separable: bool = False,
        patch: bool = False,
    ) -> None:
        super().__init__()
        init = layer_init(lambda layer: layer, spectral_norm=True)  # torch's own first values
        pairs = pairwise(channels)
        self.blocks = nn.Sequential(*(down_block(a, b, init, separable=separable, patch=patch) for a, b in pairs))
        self.judge = init(nn.Conv2d(channels[-1], CLASS_DIM if classes else 1, kernel, bias=False))
        self.embed: nn.Module | None = None
        if classes:
            self.embed = nn.Sequential(
                nn.Embedding(classes, EMBEDDING_DIM), nn.Linear(EMBEDDING_DIM, CLASS_DIM), nn.LeakyReLU(LEAK)
            )

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, channels[0], h, w) and perhaps label (N,) -> logits (N, 1, h', w'), and its last map's means (N, D)."""
        h = self.blocks(x)
        logits: Tensor = self.judge(h)
        if self.embed is not None:
            y = self.embed(label)[:, :, None, None]  # (N, 64, 1, 1)
            logits = (logits * y).sum(1, keepdim=True) / math.sqrt(CLASS_DIM)
        return logits, h.mean((2, 3))


class LevelCritics(nn.Module):
    """One critic per level, which do not see each other's maps."""

    def __init__(self, levels: Sequence[LevelCritic]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, maps: Sequence[Tensor], label: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Maps of all levels -> logits (N, 1, h, w) of each, and all their means (N, D), one after the other.

        Maps beyond the last critic are not looked at.
        """
        judged = [level(x, label) for level, x in zip(self.levels, maps[: len(self.levels)], strict=True)]
        return [logits for logits, _ in judged], torch.cat([means for _, means in judged], 1)
