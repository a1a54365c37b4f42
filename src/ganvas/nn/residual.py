"""The residual blocks that SNGAN, SAGAN and BigGAN are made of.

Where it makes no difference to the result, the cheaper order is used: a 1x1 convolution commutes with nearest
upsampling and with average pooling, so it always runs on the smaller map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.nn.init import Init

Skip = Literal["input", "relu"]
"""What a critic's block adds to its residual: its input, or its input after norm and relu.

Where activations work in place and no norm is between, the input is overwritten and "relu" is what is computed. So it
is in PyTorch-StudioGAN's critics under spectral norm.
"""


class GeneratorBlock(nn.Module):
    """Residual block that doubles the resolution: (norm, relu, up, conv, norm, relu, conv) + (up, 1x1 conv)."""

    def __init__(self, in_: int, out: int, norm: Callable[[int], nn.Module], init: Init) -> None:
        super().__init__()
        self.norm1 = norm(in_)
        self.conv1 = init(nn.Conv2d(in_, out, 3, padding=1))
        self.norm2 = norm(out)
        self.conv2 = init(nn.Conv2d(out, out, 3, padding=1))
        self.skip = init(nn.Conv2d(in_, out, 1))

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = F.relu(self.norm1(x, condition), inplace=True)
        h = self.conv1(F.interpolate(h, scale_factor=2.0))  # (N, out, 2h, 2w)
        h = self.conv2(F.relu(self.norm2(h, condition), inplace=True))
        out: Tensor = h + F.interpolate(self.skip(x), scale_factor=2.0)  # (N, out, 2h, 2w)
        return out


class CriticBlock(nn.Module):
    """Residual block that may halve the map: (norm, relu, conv, norm, relu, conv, pool) + (norm, pool, 1x1 conv).

    The skip is the identity where neither the resolution nor the width changes.

    Parameters
    ----------
    in_, out : channels.
    norm : makes the norm of so many channels.
    init : initial weights and normalisation of the convolutions.
    first : the block on pixels has no leading norm and activation, and its skip is pooled before it is normed.
    halve : whether the map is halved.
    wide : the first convolution already has `out` channels; otherwise the second one changes them.
    skip : see `Skip`.
    """

    def __init__(
        self,
        in_: int,
        out: int,
        norm: Callable[[int], nn.Module],
        init: Init,
        *,
        first: bool,
        halve: bool,
        wide: bool,
        skip: Skip,
    ) -> None:
        super().__init__()
        inner = out if wide else in_
        self.first, self.halve, self.from_input = first, halve, skip == "input"
        self.norm1 = nn.Identity() if first else norm(in_)
        self.conv1 = init(nn.Conv2d(in_, inner, 3, padding=1))
        self.norm2 = norm(inner)
        self.conv2 = init(nn.Conv2d(inner, out, 3, padding=1))
        if halve or in_ != out:
            self.norm0: nn.Module | None = norm(in_)
            self.skip: nn.Module | None = init(nn.Conv2d(in_, out, 1))
        else:
            self.norm0 = self.skip = None

    def forward(self, x: Tensor) -> Tensor:
        a = x if self.first else F.relu(self.norm1(x))
        h = self.conv2(F.relu(self.norm2(self.conv1(a))))
        h, x = self.pooled(h), x if self.from_input else a
        if self.norm0 is None or self.skip is None:
            return h + self.pooled(x)  # (N, out, ...)
        x = self.norm0(self.pooled(x)) if self.first else self.pooled(self.norm0(x))  # (N, in, ...)
        out: Tensor = h + self.skip(x)  # (N, out, ...)
        return out

    def pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.halve else x  # (N, C, h/2, w/2) or as it was
