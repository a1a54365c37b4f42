"""What metrics ask of images before they look at a pixel."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganvas.errors import DataError, UsageError
from ganvas.types import EvidenceSet

Images: TypeAlias = "npt.ArrayLike | Tensor"


def images_of(side: EvidenceSet | None, name: str) -> Tensor:
    """The images of a set, unchecked.

    Raises
    ------
    UsageError : it has none.
    """
    if side is None or side.images is None:
        raise UsageError(f"the evidence holds no {name} images", hint="gather what the metric's `needs` names")
    return side.images


def label_of(side: EvidenceSet | None, name: str) -> Tensor:
    """The labels of a set, unchecked.

    Raises
    ------
    UsageError : it has none.
    """
    if side is None or side.label is None:
        raise UsageError(f"the {name} images have no labels, and this metric needs them", hint="give images by class")
    return side.label


def stack(images: Images, name: str, *, at_least: int = 1) -> Tensor:
    """Images as a tensor (N, C, H, W) of bytes; floats in [-1, 1] are rounded as in a file.

    Raises
    ------
    UsageError : not four axes, an empty one, or fewer than `at_least` images.
    DataError : NaN, or floats outside [-1, 1].
    """
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.asarray(images))
    if tensor.ndim != 4 or 0 in tensor.shape[1:] or not (tensor.dtype == torch.uint8 or tensor.is_floating_point()):
        raise UsageError(
            f"{name} images must be (N, C, H, W) of bytes or of floats in [-1, 1], not {tuple(tensor.shape)} of "
            f"{tensor.dtype}"
        )
    if len(tensor) < at_least:
        raise UsageError(f"{len(tensor)} {name} images, and at least {at_least} are needed", hint="sample more")
    if tensor.dtype == torch.uint8:
        return tensor
    if not bool((tensor.abs() <= 1).all()):  # NaN is not below anything
        raise DataError(f"{name} images hold NaN or values outside [-1, 1]", hint="bytes are given as uint8")
    return ((tensor.float() + 1) * 127.5).round().byte()


def stack_labels(label: npt.ArrayLike | Tensor, count: int, name: str) -> Tensor:
    """Labels as a tensor (N,) of int64, checked.

    Raises
    ------
    UsageError : not one whole number an image.
    DataError : negative ones.
    """
    tensor = label if isinstance(label, Tensor) else torch.from_numpy(np.asarray(label))
    if tensor.shape != (count,) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise UsageError(
            f"{count} {name} images need as many class numbers, not {tuple(tensor.shape)} of {tensor.dtype}"
        )
    if count and int(tensor.min()) < 0:
        raise DataError(f"{name} labels hold {int(tensor.min())}", hint="classes are numbered from 0")
    return tensor.long()
