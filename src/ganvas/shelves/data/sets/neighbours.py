"""Each datum with one of its nearest neighbours, as instance conditioning learns from (Casanova et al. 2021)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from numpy.typing import NDArray
from torch import Tensor

from ganvas.errors import BadValue, CheckpointError
from ganvas.files.files import read_tensors, write_tensors
from ganvas.parts import Slot, dataset, extractor_for
from ganvas.shelves.data.reading.made_of import WithConditions, drawn, joined, with_more
from ganvas.shelves.data.reading.store import digest_of
from ganvas.types import Batch, ConditionSpec, Dataset, DataSpec, Extractor

BATCH = 256  # data that are embedded at once


@dataset("neighbours")
class Neighbours(WithConditions):
    """Each datum comes with the features of one of its k nearest neighbours in the set, drawn anew for each batch.

    A generator that reads the condition `neighbour` (D,) learns p(x | h), the data around an instance h (Casanova et
    al. 2021, eq. 1), and can be asked for what lies around any instance whose features it is given. The paper draws the
    instance and takes the datum from its neighbourhood; here the datum is drawn and the instance is taken from its
    neighbourhood, so that each datum is seen once an epoch. A datum is not its own neighbour.

    Neighbours are exact, by the cosine of features, and are taken of the data without random flips. They are computed
    once and kept in `$GANVAS_CACHE/neighbours` (default `~/.cache/ganvas`) under the content of data and extractor.

    Parameters
    ----------
    data : the set.
    extractor : gives the features.
    k : neighbours of each datum.
    labels : add the class of the neighbour as the condition `neighbour_label`.
    normalise : scale features to length 1.

    Raises
    ------
    BadValue : as many neighbours as there are data or more, labels asked for and not there, an extractor for other
        kinds of data, or a set that is read as a stream.
    """

    def __init__(
        self,
        *,
        data: Annotated[Dataset, Slot("dataset")],
        extractor: Annotated[Extractor, Slot("extractor")] = "random-net",  # type: ignore[assignment]
        k: Annotated[int, Gt(0)] = 50,
        labels: bool = False,
        normalise: bool = True,
    ) -> None:
        extractor = extractor_for(extractor, data.spec.modality)
        facts = {"extractor": extractor.name, **dict(extractor.provenance), "k": k}
        if k >= len(data):
            raise BadValue(
                f"{k} neighbours of each of {len(data)} data", key="k", hint=f"data.k={max(1, len(data) // 10)}"
            )
        if labels and not data.spec.num_classes:
            raise BadValue("the data have no labels", key="labels", hint="leave data.labels out")
        features, neighbours, classes = neighbours_of(data.unflipped(), extractor, k, facts)
        self.features = torch.nn.functional.normalize(features) if normalise else features  # (n, D)
        self.neighbours = neighbours  # (n, k), the nearest first
        self.classes = classes if labels else None
        more = conditions(self.features.shape[1], data.spec.num_classes if labels else 0)
        super().__init__(data, more, {**facts, "normalise": normalise})

    @classmethod
    def preview(
        cls, *, data: DataSpec | None = None, extractor: Extractor | None = None, labels: bool = False, **_: object
    ) -> DataSpec | None:
        """What these keys promise where the set does; the extractor says how long its features are."""
        if data is None or extractor is None:
            return None
        extractor = extractor_for(extractor, data.modality)
        features = embedded(data.stand_in(2, torch.Generator().manual_seed(0)), data, extractor)
        return with_more(data, conditions(features.shape[1], data.num_classes if labels else 0))

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The data at `indices` with the features (n, D) of one neighbour each."""
        place = drawn(indices, self.neighbours.shape[1], rng)
        chosen = torch.from_numpy(self.neighbours[indices, place])
        more = {"neighbour": self.features[chosen]}
        if self.classes is not None:
            more["neighbour_label"] = self.classes[chosen]
        return joined(self.data.batch(indices, rng), **more)


def conditions(length: int, classes: int) -> dict[str, ConditionSpec]:
    """The conditions that neighbours bring."""
    specs = {"neighbour": ConditionSpec((length,))}
    return {**specs, "neighbour_label": ConditionSpec((), classes)} if classes else specs


def embedded(batch: Batch, spec: DataSpec, extractor: Extractor) -> Tensor:
    """Features (n, D) float32 on the CPU of data rounded as their files are."""
    modality = spec.modality
    return extractor(modality.restored(modality.rounded(batch.data)))[0].float().cpu()


def neighbours_of(
    data: Dataset, extractor: Extractor, k: int, facts: dict[str, object]
) -> tuple[Tensor, NDArray[np.int64], Tensor | None]:
    """Features (n, D), the numbers (n, k) of each datum's neighbours, and labels (n,) or None; kept in the cache."""
    file = cache_file(digest_of({"set": data.fingerprint, **facts}))
    with contextlib.suppress(CheckpointError):  # never written, or damaged: it is made anew
        tensors, _ = read_tensors(file)
        if {"features", "neighbours"} <= tensors.keys() and tensors["neighbours"].shape == (len(data), k):
            return tensors["features"], tensors["neighbours"].numpy(), tensors.get("label")
    features, labels = [], []
    for start in range(0, len(data), BATCH):
        batch = data.batch(np.arange(start, min(start + BATCH, len(data))), np.random.default_rng(0))
        features.append(embedded(batch, data.spec, extractor))
        if batch.label is not None:
            labels.append(batch.label)
    all_features = torch.cat(features)
    neighbours = nearest(all_features.numpy(), k)
    tensors = {"features": all_features, "neighbours": torch.from_numpy(neighbours)}
    if labels:
        tensors["label"] = torch.cat(labels)
    with contextlib.suppress(OSError, CheckpointError):  # without a cache the next time takes longer, no more
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, tensors, {"set": data.fingerprint, "extractor": extractor.name})
    return all_features, neighbours, tensors.get("label")


def nearest(features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The numbers (n, k) of the nearest rows of each of features (n, D) by cosine, without the row itself."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(features)
    numbers: NDArray[np.int64] = index.kneighbors(return_distance=False)  # of the fitted rows: none is its own
    return numbers.astype(np.int64)


def cache_file(key: str) -> Path:
    """Where the neighbours of this key lie or would lie."""
    root = os.environ.get("GANVAS_CACHE") or Path.home() / ".cache" / "ganvas"
    return Path(root).expanduser() / "neighbours" / f"{key[:40]}.safetensors"
