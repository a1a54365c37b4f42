"""How the spatial frequencies of generated images differ from those of real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from annotated_types import Ge

from ganvas.errors import UsageError
from ganvas.nn.spectrum import radial_profile
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Double
from ganvas.shelves.metrics.images import images_of, stack
from ganvas.shelves.metrics.ordering import in_canonical_order
from ganvas.types import Evidence, Metric

if TYPE_CHECKING:
    from ganvas.shelves.metrics.images import Images

ROUNDING_POWER = (1 / 255) ** 2 / 12  # of the error of 8-bit images in [0, 1]: nothing below it was ever in the image
CHUNK_VALUES = 2**24  # pixels that are transformed at once


@metric("spectral-distance", paper="Durall et al. 2020, eq. 2")
class SpectralDistance(Metric):
    """Distance in decibel between the mean radial power spectra of real and generated images; no extractor.

    spectral_distance = mean over rings k of |10 log10 S_real(k) / S_fake(k)|, with S(k) the mean power of all grey
    images at radius k; spectral_shape_distance is the same after each S is divided by its S(0), the power of the mean
    brightness, so that contrast and brightness count less. From 0 without bound, lower is better: an up-convolution
    that cannot make fine detail, or that leaves a pattern, is seen in the last rings.
    """

    needs = frozenset({"images"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"spectral_distance": True, "spectral_shape_distance": True}
    limits: Mapping[str, tuple[float, float]] = {
        "spectral_distance": (0, math.inf),
        "spectral_shape_distance": (0, math.inf),
    }

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real = mean_spectrum(images_of(evidence.real, "real"))
        fake = mean_spectrum(images_of(evidence.fake, "fake"))
        return {
            "spectral_distance": spectral_distance(real, fake),
            "spectral_shape_distance": spectral_distance(real / real[0], fake / fake[0]),
        }


@metric("spectral-detectability", paper="Durall et al. 2020")
class SpectralDetectability(Metric):
    """Accuracy at which a linear classifier tells generated images from real ones by their spectra; no extractor.

    Each image is its radial power spectrum, divided by the power of the mean brightness, in decibel. A logistic
    regression on standardised spectra is trained on all folds but one and judged on that one, each side counting half.
    In [0, 1], lower is better: 0.5 is as good as a coin, 1 means that every image is found out. Below 0.5 it says that
    both sides hold the same images, which teach the classifier the wrong side.

    Parameters
    ----------
    folds : parts that each side is divided into.
    """

    needs = frozenset({"images"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"spectral_detectability": True}
    limits: Mapping[str, tuple[float, float]] = {"spectral_detectability": (0, 1)}

    def __init__(self, *, folds: Annotated[int, Ge(2)] = 5) -> None:
        self.folds = folds

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        real, fake = images_of(evidence.real, "real"), images_of(evidence.fake, "fake")
        return {"spectral_detectability": spectral_detectability(real, fake, self.folds)}


def spectra(images: Images) -> Double:
    """Radial power spectra (N, R) of images (N, C, H, W) in [0, 1], R = min(H, W) // 2 + 1; see `nn.spectrum`.

    Ring 0 is one frequency: the squared mean brightness times H W. As published, the corners of the spectrum, beyond
    the highest frequency along an axis, do not count: a pure checkerboard lies there. The power of rounding to 8 bits
    is added, so that every logarithm is finite.

    Raises
    ------
    UsageError : no images.
    DataError : NaN, or floats outside [-1, 1].
    """
    pixels = stack(images, "given")
    step = max(1, CHUNK_VALUES // pixels[0].numel())
    with torch.inference_mode():
        profiles = torch.cat([radial_profile(pixels[i : i + step].float() / 255) for i in range(0, len(pixels), step)])
    return profiles.numpy().astype(np.float64) + ROUNDING_POWER


def mean_spectrum(images: Images) -> Double:
    """The mean of `spectra` over all images: (R,).

    Raises
    ------
    UsageError, DataError : as `spectra`.
    """
    mean: Double = spectra(images).mean(axis=0)
    return mean


def spectral_distance(real: Double, fake: Double) -> float:
    """Mean absolute difference in decibel of two power spectra (R,).

    Raises
    ------
    UsageError : spectra of different length.
    """
    if real.shape != fake.shape:
        raise UsageError(
            f"spectra of {len(real)} and {len(fake)} rings: the images have different sizes",
            hint="bring both sets to one size",
        )
    return float(np.abs(10 * np.log10(real / fake)).mean())


def spectral_detectability(real: Images, fake: Images, folds: int = 5) -> float:
    """Cross-validated balanced accuracy, in [0, 1], of real images (N, C, H, W) against generated ones (M, C, H, W).

    Raises
    ------
    UsageError : fewer images than folds on a side, or different sizes.
    DataError : NaN, or floats outside [-1, 1].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sides = [shape_vectors(images) for images in (real, fake)]
    if sides[0].shape[1] != sides[1].shape[1]:
        raise UsageError("real and generated images have different sizes", hint="bring both sets to one size")
    if min(map(len, sides)) < folds:
        raise UsageError(
            f"{folds} folds of {min(map(len, sides))} images", hint=f"give at least {folds} images on each side"
        )
    X = np.concatenate([in_canonical_order(vectors) for vectors in sides])
    y = np.repeat([0, 1], [len(vectors) for vectors in sides])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    division = StratifiedKFold(folds, shuffle=True, random_state=0)
    return float(balanced_accuracy_score(y, cross_val_predict(classifier, X, y, cv=division)))


def shape_vectors(images: Images) -> Double:
    """(N, R - 1): the spectrum of each image in decibel relative to the power of its mean brightness.

    Raises
    ------
    UsageError, DataError : as `spectra`.
    """
    power = spectra(images)
    relative: Double = 10 * np.log10(power[:, 1:] / power[:, :1])
    return relative
