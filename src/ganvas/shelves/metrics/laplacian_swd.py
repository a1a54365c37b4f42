"""Progressive GAN's statistical similarity: are small patches alike, at each scale by itself?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import UsageError
from ganvas.nn.fir import filter_taps
from ganvas.parts import metric
from ganvas.shelves.metrics.images import images_of, stack
from ganvas.types import Evidence, Metric

if TYPE_CHECKING:
    from ganvas.shelves.metrics.images import Images

_SMOOTH = (1.0, 4.0, 6.0, 4.0, 1.0)  # Burt & Adelson 1983
_CHUNK_VALUES = 2**24  # pixels whose pyramid is made at once
_LINES = 16  # projected and sorted at once
_SCALE = 1000.0  # published values are thousands


@metric("laplacian-swd", paper="Karras et al. 2018 (ProGAN), section 5", tiny={"patches": 8, "projections": 32})
class LaplacianSWD(Metric):
    """Sliced Wasserstein distance between small patches of real and generated images, at each scale by itself.

    Images are split into a Laplacian pyramid: differences of neighbouring resolutions, each half as large as the one
    before, and what is left at the end. From each level come random patches, each channel with mean 0 and variance 1
    over all patches of a side; the distance is E |quantile(u·x) − quantile(u·y)| over random unit vectors u, times
    1000. From 0 without bound, lower is better: large at the first level means other edges and grain, at the last one
    other shapes. Both sides are cut to the smaller number of images, evenly. Published values are those of 16,384
    images; fewer give higher ones.

    Parameters
    ----------
    level : 0 is the finest; None: the mean over all levels.
    smallest : pixels of the shorter side of the last level; images smaller than twice that have one level.
    size : pixels of a side of a patch.
    patches : from each image.
    projections : how many unit vectors.
    seed : decides places and vectors.

    Raises
    ------
    UsageError : there are not so many levels, or a level is smaller than a patch.
    """

    needs = frozenset({"images"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"laplacian_swd": True}
    limits: Mapping[str, tuple[float, float]] = {"laplacian_swd": (0, math.inf)}

    def __init__(
        self,
        *,
        level: Annotated[int, Ge(0)] | None = None,
        smallest: Annotated[int, Gt(0)] = 16,
        size: Annotated[int, Gt(0)] = 7,
        patches: Annotated[int, Gt(0)] = 128,
        projections: Annotated[int, Gt(0)] = 512,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.level = level
        self.smallest = smallest
        self.size = size
        self.patches = patches
        self.projections = projections
        self.seed = seed

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        distances = laplacian_swds(
            images_of(evidence.real, "real"),
            images_of(evidence.fake, "fake"),
            level=self.level,
            smallest=self.smallest,
            size=self.size,
            patches=self.patches,
            projections=self.projections,
            seed=self.seed,
        )
        return {"laplacian_swd": sum(distances) / len(distances)}


def laplacian_swds(
    real: Images,
    fake: Images,
    *,
    level: int | None = None,
    smallest: int = 16,
    size: int = 7,
    patches: int = 128,
    projections: int = 512,
    seed: int = 0,
) -> list[float]:
    """The distance times 1000 at each level, the finest first; at one level alone where `level` says which.

    Patches of both sides come from the same places.

    Raises
    ------
    UsageError : no images, images of different shapes, no such level, or a level that is smaller than a patch.
    DataError : NaN, or floats outside [-1, 1].
    """
    sides = [stack(real, "real", at_least=1), stack(fake, "fake", at_least=1)]
    if sides[0].shape[1:] != sides[1].shape[1:]:
        shapes = " and ".join(str(tuple(side.shape[1:])) for side in sides)
        raise UsageError(f"real and fake images have different shapes: {shapes}", hint="bring them to one size")
    n = min(map(len, sides))
    sides = [side[torch.linspace(0, len(side) - 1, n).round().long()] for side in sides]
    count = levels_of(sides[0].shape[2:], smallest)
    if level is not None and level >= count:
        raise UsageError(f"there is no level {level}; these images have {count}", hint=f"give 0 to {count - 1}")
    distances = []
    for number in range(count) if level is None else (level,):
        x, y = (standardized(patches_of(side, number, count, size, patches, seed)) for side in sides)
        distances.append(_SCALE * sliced_w1(x.flatten(1), y.flatten(1), projections, seed))
    return distances


def levels_of(size: tuple[int, ...], smallest: int) -> int:
    """How many levels images (H, W) have: as long as both sides are even and the shorter half is not too small."""
    height, width = size
    if height % 2 or width % 2 or min(height, width) < 2 * smallest:
        return 1
    return 1 + levels_of((height // 2, width // 2), smallest)


def pyramid(images: Tensor, count: int) -> list[Tensor]:
    """Laplacian levels of float images (N, C, H, W), the finest first: (N, C, H / 2^i, W / 2^i); they sum up again."""
    levels = []
    for _ in range(count - 1):
        below = halved(images)
        levels.append(images - doubled(below))
        images = below
    return [*levels, images]


def halved(images: Tensor) -> Tensor:
    """Smoothed by [1, 4, 6, 4, 1] / 16 along both axes, every second pixel kept; edges are mirrored."""
    return _smoothed(images)[:, :, ::2, ::2]


def doubled(images: Tensor) -> Tensor:
    """Zeros between pixels, smoothed, brightness kept: (N, C, h, w) -> (N, C, 2h, 2w)."""
    n, c, h, w = images.shape
    wide = images.new_zeros(n, c, 2 * h, 2 * w)
    wide[:, :, ::2, ::2] = images
    return 4 * _smoothed(wide)


def _smoothed(images: Tensor) -> Tensor:
    taps = filter_taps(_SMOOTH).to(images)
    n, c, h, w = images.shape
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect").reshape(n * c, 1, h + 4, w + 4)
    along = F.conv2d(padded, taps.view(1, 1, 1, -1))
    return F.conv2d(along, taps.view(1, 1, -1, 1)).view(n, c, h, w)


def patches_of(images: Tensor, level: int, count: int, size: int, patches: int, seed: int) -> Tensor:
    """Random patches (N · patches, C, size, size) float32 of one level of bytes (N, C, H, W)."""
    n, c, height, width = images.shape
    h, w = height >> level, width >> level
    if min(h, w) < size:
        raise UsageError(f"patches of {size} pixels do not fit into level {level} of {h}x{w}", hint="take smaller ones")
    rng = torch.Generator().manual_seed(seed + level)
    top = torch.randint(h - size + 1, (n, patches, 1, 1), generator=rng)
    left = torch.randint(w - size + 1, (n, patches, 1, 1), generator=rng)
    offset = torch.arange(size)
    pixel = ((top + offset[:, None]) * w + left + offset).flatten(1)  # (N, patches · size²), row by row
    cut = images.new_empty(n, patches, c, size, size, dtype=torch.float32)
    step = max(1, _CHUNK_VALUES // (c * height * width))
    for start in range(0, n, step):
        piece = images[start : start + step].float()
        band = pyramid(piece, count)[level].flatten(2)  # (n, C, h w)
        at = pixel[start : start + step, None].expand(-1, c, -1)
        taken = band.gather(2, at).view(len(piece), c, patches, size, size)
        cut[start : start + step] = taken.transpose(1, 2)
    return cut.flatten(0, 1)


def standardized(patches: Tensor) -> Tensor:
    """Mean 0 and variance 1 in each channel of (N, C, h, w), in place; a channel without variance is all 0."""
    deviation, mean = torch.std_mean(patches, (0, 2, 3), correction=0, keepdim=True)
    return patches.sub_(mean).div_(deviation.clamp_min(1e-6))


def sliced_w1(x: Tensor, y: Tensor, projections: int, seed: int) -> float:
    """Mean over random unit vectors of the mean |sorted u·x − sorted u·y|, for two (N, D)."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.randn(projections, x.shape[1], generator=rng)
    u = u / u.norm(dim=1, keepdim=True)
    total = 0.0
    for piece in u.split(_LINES):
        one, other = (torch.sort(piece @ side.T, dim=1).values for side in (x, y))  # (L, N)
        total += float((one - other).abs().mean(1).sum())
    return total / projections
