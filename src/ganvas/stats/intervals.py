"""How sure a number is: Student's interval, and the spread that comes from having seen only so many images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

import numpy as np

CONFIDENCE = 0.95


def t_interval(
    values: Sequence[float], limits: tuple[float, float] = (-math.inf, math.inf), confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Student's interval of the mean, cut at what the value can be; None for a single value, which has no spread."""
    if len(values) < 2:
        return None, None
    return around(fmean(values), [(stdev(values) / len(values) ** 0.5, len(values) - 1)], limits, confidence)


def around(
    value: float,
    errors: Sequence[tuple[float, int]],
    limits: tuple[float, float] = (-math.inf, math.inf),
    confidence: float = CONFIDENCE,
) -> tuple[float | None, float | None]:
    """The interval of a value with independent errors, each (standard error, degrees of freedom).

    Variances add; the degrees of freedom of their sum are those of Welch (1947) and Satterthwaite (1946). None without
    any error that could be estimated.
    """
    if not errors:
        return None, None
    from scipy.special import stdtrit  # scipy.stats would take most of a second to import

    variance = sum(error**2 for error, _ in errors)
    half = 0.0
    if variance > 0:
        freedom = variance**2 / sum(error**4 / degrees for error, degrees in errors)
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(variance)
    return max(limits[0], value - half), min(limits[1], value + half)


def halves(count: int, repeats: int, seed: int) -> Iterator[np.ndarray]:
    """`repeats` random halves of range(count), without replacement, each (count // 2,) int64 in rising order.

    The bootstrap for statistics of sets of images. The variance of a mean over a random half, the whole being given,
    is exactly that of the mean over the whole, s^2 / n (Politis, Romano and Wolf 1999, section 2): no rescaling is
    needed. Drawing with replacement would put copies into the set, and copies are at distance 0, which every
    nearest-neighbour score takes for a perfect match.
    """
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        yield np.sort(rng.permutation(count)[: count // 2])
