"""What happens to images between a camera and a network: noise, blur, JPEG, brightness, at three severities each.

After the kinds of Hendrycks & Dietterich 2019 (ImageNet-C), section 3; their severities 1, 3 and 5 of Gaussian noise,
JPEG and brightness. Their blurs are in pixels of 224; ours are shares of the shorter side, so that small images have
them, too. Each image of a batch is treated alike, and noise is a function of the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

SEVERITIES = 3

_NOISE = (0.08, 0.18, 0.38)  # standard deviation, of values in [0, 1]
_BLUR = (1 / 64, 1 / 32, 1 / 16)  # standard deviation over the shorter side
_QUALITY = (25, 15, 7)
_LIGHT = (0.1, 0.3, 0.5)  # added to values in [0, 1]

# ITU-T T.81, tables K.1 and K.2: what a quality of 50 divides the frequencies of a block by.
_LUMA = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], dtype=torch.float32)  # fmt: skip
_CHROMA = torch.full((8, 8), 99.0)
_CHROMA[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]], dtype=torch.float32
)
_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_BLOCK = 8


def noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise. Images (N, C, H, W) in [-1, 1], severity 1 to 3."""
    drawn = torch.randn(images.shape, generator=generator).to(images)
    return (images + 2 * _NOISE[severity - 1] * drawn).clamp(-1, 1)


def blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """A Gaussian filter; edges are repeated."""
    sigma = _BLUR[severity - 1] * min(images.shape[2:])
    reach = max(1, round(3 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    taps = torch.exp(-0.5 * (places / sigma) ** 2)
    taps = taps / taps.sum()
    x = images.flatten(0, 1)[:, None]  # (N * C, 1, H, W)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), "replicate"), taps[None, None, None])
    x = F.conv2d(F.pad(x, (0, 0, reach, reach), "replicate"), taps[None, None, :, None])
    blurred: Tensor = x.reshape(images.shape)
    return blurred


def jpeg(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """What a JPEG file loses: frequencies of blocks of 8 x 8, rounded as its quality says; colours are not subsampled.

    Images of 1 or 3 channels; of others each channel is taken for grey.
    """
    h, w = images.shape[2:]
    x = ((images + 1) * 127.5).round()  # a file holds whole numbers
    colour = x.shape[1] == 3
    if colour:
        x = torch.einsum("dc,nchw->ndhw", _TO_YCC.to(x), x)
        x[:, 1:] += 128
        x = x.round()
    x = F.pad(x, (0, -w % _BLOCK, 0, -h % _BLOCK), "replicate") - 128
    N, C, H, W = x.shape
    blocks = x.reshape(N, C, H // _BLOCK, _BLOCK, W // _BLOCK, _BLOCK).transpose(3, 4)  # (N, C, rows, columns, 8, 8)
    D = _cosines().to(x)
    steps = torch.stack([_steps(_LUMA, severity), *[_steps(_CHROMA, severity)] * 2] if colour else
                        [_steps(_LUMA, severity)] * C)[:, None, None].to(x)  # fmt: skip
    frequencies = _half_up(D @ blocks @ D.T / steps) * steps
    x = (D.T @ frequencies @ D).transpose(3, 4).reshape(N, C, H, W)[:, :, :h, :w] + 128
    if colour:
        x = x.round().clamp(0, 255)
        x[:, 1:] -= 128
        x = torch.einsum("dc,nchw->ndhw", torch.linalg.inv(_TO_YCC).to(x), x)
    decoded: Tensor = x.round().clamp(0, 255) / 127.5 - 1
    return decoded


def _half_up(x: Tensor) -> Tensor:
    """Rounded, ties away from 0 as libjpeg does; a block's mean often is one, give or take float rounding."""
    return x.sign() * (x.abs() + (0.5 + 1e-4)).floor()


def _cosines() -> Tensor:
    """(8, 8), the orthonormal cosine transform: row k is frequency k."""
    k, i = torch.arange(_BLOCK)[:, None], torch.arange(_BLOCK)[None]
    D: Tensor = torch.cos(torch.pi * (2 * i + 1) * k / (2 * _BLOCK)) * (2 / _BLOCK) ** 0.5
    D[0] *= 0.5**0.5
    return D


def _steps(table: Tensor, severity: int) -> Tensor:
    """A table of quality 50 at this severity's quality, as the Independent JPEG Group scales it."""
    quality = _QUALITY[severity - 1]
    return ((table * (5000 // quality) + 50) / 100).floor().clamp(1, 255)


def brightness(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Light added to every channel; what is too bright stays white."""
    return (images + 2 * _LIGHT[severity - 1]).clamp(-1, 1)


CORRUPTIONS: Mapping[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": noise, "blur": blur, "jpeg": jpeg, "brightness": brightness,
}  # fmt: skip


def corrupted(images: Tensor, *, seed: int = 0) -> Iterator[tuple[str, int, Tensor]]:
    """(name, severity, images) of each corruption at each severity."""
    for name, treat in CORRUPTIONS.items():
        for severity in range(1, SEVERITIES + 1):
            yield name, severity, treat(images, severity, torch.Generator().manual_seed(seed))
