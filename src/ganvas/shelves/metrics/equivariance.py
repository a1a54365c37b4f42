"""Equivariance: does an image move as its source does? (Karras et al. 2021, "Alias-Free GANs", appendix E.)

A movement is done twice, at the source of an image and on the image, and the two are compared where both are known.
The latter needs an ideal filter: a Lanczos-windowed sinc for translations, the product of two, in the directions before
and after, for rotations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor
from torch.nn import functional as F

from ganvas.errors import DataError, UsageError
from ganvas.nn.fir import upfirdn2d
from ganvas.parts import metric
from ganvas.types import Evidence, Latent, Metric, Movable

Share = Annotated[float, Gt(0), Le(0.5)]
Samples = Annotated[int, Gt(0)]

_BATCH = 16  # images that are moved alike
_PEAK = 2.0  # from black to white
_LEAST = 1e-20  # mean squared error; below, decibels mean nothing

_WINDOW = 3  # lobes of a Lanczos filter on each side
_FINE = 4  # samples per pixel between which rotations interpolate linearly
_PERIOD = 64  # pixels on each side within which rotations' filters are made


@metric("translation-equivariance", paper="Karras et al. 2021, eq. 22-23 and appendix E.1-E.2", tiny={"samples": 4})
class TranslationEquivariance(Metric):
    """How exactly images shift with their source, by whole pixels (EQ-T) and by parts of them: PSNR in dB.

    10 log10(4 / E (g(T[z0]; w) − T[g(z0; w)])²), over images, channels and the pixels that are known after the shift.
    Higher is better; published numbers use 50,000 images. It is the generator's own images that are compared: neither
    cut to [−1, 1] nor rounded. Shifts are uniform and the same for up to 16 images.

    Parameters
    ----------
    samples : images.
    furthest : shift in either direction, as a share of the side.
    """

    needs = frozenset({"model"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"eq_t": False, "eq_t_frac": False}
    limits: Mapping[str, tuple[float, float]] = {"eq_t": (-math.inf, math.inf), "eq_t_frac": (-math.inf, math.inf)}

    def __init__(self, *, samples: Samples = 2000, furthest: Share = 0.125) -> None:
        self.samples = samples
        self.furthest = furthest

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        whole_pixels, fractions = Errors(), Errors()
        for still, move, draw in batches(evidence, self.samples):
            H, W = still.shape[2:]
            for errors, rounded in ((whole_pixels, True), (fractions, False)):
                x, y = ((draw(2) * 2 - 1) * self.furthest * torch.tensor([W, H])).tolist()  # pixels
                if rounded:
                    x, y = float(round(x)), float(round(y))
                unit = min(H, W)
                at_source = move(torch.tensor([[1, 0, x / unit], [0, 1, y / unit], [0, 0, 1]]))
                expected, (rows, columns) = translated(still, x, y, lobes=0 if rounded else _WINDOW)
                errors.add(at_source[:, :, rows, columns] - expected)
        return {"eq_t": whole_pixels.decibels(), "eq_t_frac": fractions.decibels()}


@metric("rotation-equivariance", paper="Karras et al. 2021, eq. 24-29 and appendix E.3", tiny={"samples": 4})
class RotationEquivariance(Metric):
    """How exactly images turn with their source, by any angle (EQ-R): PSNR in dB.

    As for translations; what a turn of the image does to the corners of its spectrum is done to the other side, too.
    Of images below 13 pixels nothing is known after a turn, and of small ones little. Angles are uniform and the same
    for up to 16 images; published numbers use 50,000 images.

    Parameters
    ----------
    samples : images.
    """

    needs = frozenset({"model"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"eq_r": False}
    limits: Mapping[str, tuple[float, float]] = {"eq_r": (-math.inf, math.inf)}

    def __init__(self, *, samples: Samples = 2000) -> None:
        self.samples = samples

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        errors = Errors()
        for still, move, draw in batches(evidence, self.samples):
            angle = float(draw(1) * 2 - 1) * math.pi
            matrix = torch.eye(3)
            matrix[:2, :2] = turn(angle)
            expected, known = rotated(still, angle)
            turned = turned_band(move(matrix), angle)
            errors.add((turned - expected)[:, :, known])
        return {"eq_r": errors.decibels()}


class Errors:
    """Running mean of squares."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, difference: Tensor) -> None:
        self.total += float(difference.double().square().sum())
        self.count += difference.numel()

    def decibels(self) -> float:
        """Peak signal-to-noise ratio.

        Raises
        ------
        UsageError : nothing was compared.
        DataError : images that are not finite.
        """
        if not self.count:
            raise UsageError("images are too small to know what moves in", hint="rotations need 13 pixels or more")
        if not math.isfinite(self.total):
            raise DataError("the images hold NaN or infinite values", hint="the model has probably diverged")
        return 10 * math.log10(_PEAK**2 / max(self.total / self.count, _LEAST))


def batches(
    evidence: Evidence, samples: int
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor], Callable[[int], Tensor]]]:
    """For each batch its images (N, C, H, W), what gives them moved at their source, and uniform random numbers.

    Raises
    ------
    UsageError : there is no model, or its generator cannot be moved at its source.
    """
    model = evidence.model
    generator = None if model is None else model.generator
    if model is None or not isinstance(generator, Movable):
        raise UsageError(
            "equivariance needs a generator whose source can be moved",
            hint="stylegan2-generator, stylegan3-generator and stylegan-xl-generator are such",
        )
    latent, label = model.draw(samples, seed=evidence.seed), model.labels(samples, seed=evidence.seed)
    rng = torch.Generator().manual_seed(evidence.seed)
    for start in range(0, samples, _BATCH):
        piece = slice(start, start + _BATCH)
        points = Latent(latent.values[piece], latent.space)
        piece_label = None if label is None else label[piece]

        def move(matrix: Tensor, points: Latent = points, piece_label: Tensor | None = piece_label) -> Tensor:
            with torch.inference_mode():
                return generator.moved(points, matrix, piece_label).float().cpu()

        yield move(torch.eye(3)), move, lambda n: torch.rand(n, generator=rng)


# ---------------------------------------------------------------------------------------------------- translation


def translated(images: Tensor, x: float, y: float, *, lobes: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Images (N, C, H, W) shifted by (x, y) pixels, as far as they are known, and the rows and columns of that part.

    Parameters
    ----------
    lobes : of the Lanczos filter on each side; 0 for shifts by whole pixels, which need none.
    """
    (row_taps, rows, top), (column_taps, columns, left) = (
        _shift(amount, length, lobes) for amount, length in ((y, images.shape[2]), (x, images.shape[3]))
    )
    known = upfirdn2d(images, row_taps[:, None] * column_taps) if lobes else images
    h, w = rows.stop - rows.start, columns.stop - columns.start
    return known[:, :, top : top + h, left : left + w], (rows, columns)


def _shift(amount: float, length: int, lobes: int) -> tuple[Tensor, slice, int]:
    """Taps, the part of the target that is known, and where it begins in what the taps give."""
    pixels = math.floor(amount)
    before, behind = max(lobes - 1, 0), lobes  # samples that a target pixel needs on its two sides
    offset = torch.arange(-before, behind + 1, dtype=torch.float64) - (amount - pixels)
    taps = torch.sinc(offset) * lanczos(offset, lobes) if lobes else torch.ones(1, dtype=torch.float64)
    start, stop = max(pixels + behind, 0), max(min(length + pixels - before, length), 0)
    return (taps / taps.sum()).float(), slice(min(start, stop), stop), start - pixels - behind


def lanczos(x: Tensor, lobes: int) -> Tensor:
    """Lanczos window of x in samples."""
    return torch.where(x.abs() < lobes, torch.sinc(x / lobes), 0.0)


# ---------------------------------------------------------------------------------------------------- rotation


def turn(angle: float) -> Tensor:
    """(2, 2): where (x, y) goes, y down."""
    return torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


# Appendix E.3: the ideal filters before and after the turn, convolved, times their windows, convolved
def turn_filter(angle: float, fine: int) -> Tensor:
    """Filter (2 · 6 · fine − 1,) squared that keeps what an image holds before and after a turn; sums to 1 per phase.

    Parameters
    ----------
    fine : taps per pixel.
    """
    half = _PERIOD * fine
    axis = torch.arange(1 - half, half, dtype=torch.float64).roll(1 - half) / fine  # pixels, 0 first
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    after = torch.stack([x, y], 2) @ turn(angle).double().T
    square = [(x, y), (after[..., 0], after[..., 1])]
    band = _convolved(*(torch.sinc(u) * torch.sinc(v) for u, v in square))
    window = _convolved(*(lanczos(u, _WINDOW) * lanczos(v, _WINDOW) for u, v in square))
    reach = 2 * _WINDOW * fine  # taps on each side, and the one in the middle, where the windows' product ends
    taps = (band * window).roll((reach - 1, reach - 1), (0, 1))[: 2 * reach - 1, : 2 * reach - 1]
    phases = F.pad(taps, (0, 1, 0, 1)).view(4 * _WINDOW, fine, 4 * _WINDOW, fine)
    phases = phases / phases.sum((0, 2), keepdim=True)
    return phases.reshape(2 * reach, 2 * reach)[:-1, :-1].float()


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    """Periodic convolution of two (K, K)."""
    product: Tensor = torch.fft.ifftn(torch.fft.fftn(a) * torch.fft.fftn(b)).real
    return product


def rotated(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) turned around their middle, and which of their pixels (H, W) are known.

    Those are not for which the filter of the turn, or that of `turned_band`, leaves the image.
    """
    H, W = images.shape[2:]
    taps = turn_filter(angle, _FINE)
    reach = len(taps) // 2
    finer = upfirdn2d(images, taps, up=_FINE, padding=(2 * reach,) * 4)  # (N, C, 4 H + 2 reach, 4 W + 2 reach)
    y, x = torch.meshgrid(torch.arange(H) + 0.5 - H / 2, torch.arange(W) + 0.5 - W / 2, indexing="ij")
    source = torch.stack([x, y], 2) @ turn(-angle).T  # (H, W, 2) pixels from the middle, before the turn
    sides = torch.tensor([W, H])
    places = (source + sides / 2 - 0.5) * _FINE + reach  # of samples in `finer`
    lengths = sides * _FINE + 2 * reach
    grid = (places + 0.5) / lengths * 2 - 1
    turned = F.grid_sample(finer, grid.expand(len(images), -1, -1, -1), align_corners=False)
    nearest = places.round()
    known = ((nearest > 2 * reach) & (nearest < lengths - 2 * reach - 1)).all(2)
    edge = len(turn_filter(-angle, 1)) // 2
    inside = torch.zeros(H, W, dtype=torch.bool)
    inside[edge : H - edge, edge : W - edge] = True
    return turned, known & inside


def turned_band(images: Tensor, angle: float) -> Tensor:
    """Images that were turned at their source, without what the turn of an image would have cost them."""
    taps = turn_filter(-angle, 1)
    edge = len(taps) // 2
    return upfirdn2d(images, taps, padding=(edge,) * 4)
