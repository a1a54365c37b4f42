"""How many of the thousand modes of stacked digits a model reaches, and how evenly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.images import images_of, stack
from ganvas.types import Evidence, Extractor, Metric

if TYPE_CHECKING:
    from ganvas.shelves.metrics.images import Images

MODES, DIGITS = 1000, 10
CHUNK = 512  # images whose channels are classified at once


@metric("stacked-modes", paper="Metz et al. 2017; Lin et al. 2018")
class StackedModes(Metric):
    """Modes of stacked digits that samples reach, of 1,000, and the divergence of their shares from equal ones.

    Each channel is classified by the extractor, which must know the ten digits (`digit-net`); the three digits are the
    mode. `modes_reached` counts the modes with at least one sample; `modes_kl` is KL(samples || uniform) over modes in
    nats, from 0 (even) to ln 1000 = 6.9 (one mode), biased upwards by about 999 / (2 N). Papers report both for 26,000
    samples; warns where even a perfect model would miss modes.
    """

    needs = frozenset({"fake:images", "extractor"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {"modes_reached": False, "modes_kl": True}
    limits: Mapping[str, tuple[float, float]] = {"modes_reached": (0, MODES), "modes_kl": (0, math.log(MODES))}

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        if evidence.extractor is None:
            raise UsageError("the evidence holds no extractor", hint="name digit-net in the protocol")
        modes = modes_of(images_of(evidence.fake, "fake"), evidence.extractor)
        ceiling = MODES * (1 - (1 - 1 / MODES) ** len(modes))
        if ceiling < MODES - 1:
            warnings.warn(
                f"{len(modes)} samples are few for {MODES} modes: even a perfect model would reach about {ceiling:.0f}"
            )
        return {"modes_reached": float(len(np.unique(modes))), "modes_kl": kl_from_uniform(modes, MODES)}


def modes_of(images: Images, extractor: Extractor) -> npt.NDArray[np.int64]:
    """The modes (N,), 0 to 999, of images (N, 3, H, W): red's digit is the hundreds.

    Raises
    ------
    UsageError : not three channels, no images, or an extractor that does not tell ten classes apart.
    DataError : NaN, or floats outside [-1, 1].
    """
    pixels = stack(images, "fake")
    if pixels.shape[1] != 3:
        raise UsageError(
            f"images of {pixels.shape[1]} channels are no stacked digits",
            hint="this metric is for the data set 'stacked-digits' only",
        )
    if extractor.classes != DIGITS:
        raise UsageError(
            f"extractor {extractor.name!r} knows {extractor.classes} classes, and there are {DIGITS} digits",
            hint="use digit-net",
        )
    modes = []
    for piece in torch.split(pixels, CHUNK):
        planes = piece.flatten(0, 1)[:, None].float() / 127.5 - 1  # (3 n, 1, H, W)
        _, logits = extractor(planes)
        assert logits is not None
        modes.append(logits.argmax(1).view(-1, 3) @ torch.tensor([100, 10, 1], device=logits.device))
    return torch.cat(modes).cpu().numpy()


def kl_from_uniform(modes: npt.ArrayLike, count: int) -> float:
    """KL divergence in nats of the shares of `modes` (N,), whole numbers below `count`, from 1 / count each.

    Raises
    ------
    UsageError : no modes.
    DataError : one outside 0 .. count - 1.
    """
    array = np.asarray(modes)
    if not array.size:
        raise UsageError("there are no samples", hint="give at least one")
    if array.min() < 0 or array.max() >= count:
        raise DataError(f"modes from {array.min()} to {array.max()} of {count}")
    share = np.bincount(array.ravel(), minlength=count) / array.size
    share = share[share > 0]
    return max(0.0, float((share * np.log(share * count)).sum()))
