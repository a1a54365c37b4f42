"""Evidence: what metrics and analyses look at, and what they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from ganvas.types.data import Modality
    from ganvas.types.models import Subject


class Extractor(ABC):
    """A frozen network that turns data into features.

    Attributes
    ----------
    name : as on the shelf.
    provenance : weights' sha256, layer, resizer, source: stamped on every score.
    classes : how many classes its logits know; 0: no logits.
    class_names : what these are called; empty where nobody says.
    teaches : whether something can be taught by it; see `differentiable`.
    modalities : the modalities whose data it takes, by name; empty: all of them.
    """

    name: str
    provenance: Mapping[str, str]
    classes: int = 0
    class_names: tuple[str, ...] = ()
    teaches: bool = False
    modalities: ClassVar[tuple[str, ...]] = ("image",)

    @abstractmethod
    def __call__(self, data: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D) float32, logits (N, classes) or None); images come in [-1, 1], of any size and channels."""

    def suited(self, modality: Modality) -> Extractor:
        """The extractor for data of this modality, one of its own: itself, unless it depends on their rate or range."""
        return self

    def differentiable(self, data: Tensor) -> tuple[Tensor, Tensor | None]:
        """As a call, but of images (N, C, H, W) that are not rounded to 8 bits, and with gradients to them."""
        return self(data)


@dataclass(frozen=True)
class Moments:
    """What a Gaussian fitted to features is made of: `mean` (D,), unbiased `covariance` (D, D), float64, `count` N."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


@dataclass(frozen=True)
class EvidenceSet:
    """One set of data as metrics see it; all tensors on the CPU, None where nobody asked for them.

    `images` is (N, *shape) as their files would hold them, for images (N, C, H, W) uint8: data are rounded before
    anything else, so that a model scores like the files that it writes.
    """

    features: Tensor | None = None  # (N, D) float32
    logits: Tensor | None = None  # (N, K)
    label: Tensor | None = None  # (N,) int64
    images: Tensor | None = None
    moments: Moments | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything metrics may look at, sampled and embedded once for all of them.

    `training` is what the model was trained on, where a metric asks for it; `real` is what it is compared with.
    `class_names` are those of the labels of both; empty where nobody says.
    """

    real: EvidenceSet
    fake: EvidenceSet
    training: EvidenceSet | None = None
    model: Subject | None = None  # None where images are scored, not a model
    extractor: Extractor | None = None
    seed: int = 0  # the sampling seed; whatever a metric draws from the model itself follows it
    class_names: tuple[str, ...] = ()


class Metric(ABC):
    """A pure function of evidence.

    Attributes
    ----------
    needs : what it reads: "features", "logits", "label", "images" or "moments" of both sides; "real:logits",
        "fake:label", "training:features" and so on of one set; "model"; "extractor"; "pairs" where the i-th datum of
        one side belongs to the i-th of the other. What is named is never None: a metric whose labels, pairs, model or
        training data are not there is left out, with a note.
    lower_is_better : per value that it returns.
    limits : what each value can be; intervals are cut there.
    """

    needs: frozenset[str]
    modalities: ClassVar[tuple[str, ...]] = ()
    lower_is_better: Mapping[str, bool]
    limits: Mapping[str, tuple[float, float]]

    @abstractmethod
    def __call__(self, evidence: Evidence) -> dict[str, float]: ...

    def alarm(self, values: Mapping[str, float]) -> str:
        """One sentence for the user where the values mean that something is wrong with the data; else empty."""
        return ""


@dataclass(frozen=True)
class Sheet:
    """Data in rows, rounded as their files hold them: `images` (N, *shape), which for images are (N, C, H, W) uint8.

    `columns` stand in a row, and `caption` is what a reader has to know.
    """

    caption: str
    images: Tensor
    columns: int


@dataclass(frozen=True)
class Chart:
    """Curves (x, y), points (x, y) or the values of histograms (x alone), by the name of their series."""

    caption: str
    kind: Literal["lines", "points", "histogram"]
    series: Mapping[str, tuple[np.ndarray, ...]]  # each array (n,)
    x: str = ""  # what the axes say, with units
    y: str = ""


@dataclass(frozen=True)
class Panel:
    """One section of `ganvas inspect`: what there is to see and what it means."""

    title: str
    text: str
    sheets: tuple[Sheet, ...] = ()
    charts: tuple[Chart, ...] = ()


class Analysis(ABC):
    """A look at a model and its data that ends in pictures. `needs` and `modalities` are as a metric's."""

    needs: frozenset[str]
    modalities: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, evidence: Evidence) -> Panel | None:
        """The section, or None where there is nothing to show."""
