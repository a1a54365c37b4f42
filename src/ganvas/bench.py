"""Protocols: what is scored against what, and how sure the numbers are.

A protocol is YAML with the keys of `Protocol`. A score is a row that says how it was made; rows made unlike each other
are not to be compared.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ganvas import parts, yaml12
from ganvas.errors import BadValue, DataError, RecipeError, nearest
from ganvas.model import Model
from ganvas.parts import Slot, Slots
from ganvas.recipe import PROTOCOLS, Positive, check_section
from ganvas.types import Dataset, Evidence, EvidenceSet, Extractor, Metric

_BATCH = 256  # images that are sampled, or embedded, at once


@dataclass(frozen=True)
class Protocol:
    """How a score is made."""

    metrics: Annotated[Mapping[str, Any], Slots("metric")]
    extractor: Annotated[Any, Slot("extractor")]
    reference: Annotated[Any, Slot("dataset")] | None = None  # None: the data that the model was trained on
    samples: Positive | None = None  # images per sampling seed; None: as many as the reference has
    seeds: tuple[int, ...] = (0, 1, 2)  # sampling seeds
    summary: str | None = None
    name: str = field(default="", kw_only=True)


def load_protocol(source: str | Path) -> dict[str, Any]:
    """A protocol by its shipped name or path, checked and filled.

    Raises
    ------
    RecipeError : there is none, or it has problems.
    """
    text = str(source)
    file = Path(text) if text.endswith((".yaml", ".yml")) else PROTOCOLS / f"{text}.yaml"
    if not file.is_file():
        known = sorted(each.stem for each in PROTOCOLS.glob("*.yaml"))
        raise BadValue(f"there is no protocol {text!r}.{nearest(text, known)}", hint=f"there are {', '.join(known)}")
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=text) from None
    data, marks = yaml12.read(content, text)
    return check_section(Protocol, {"name": file.stem, **data} if isinstance(data, dict) else data, marks, "a protocol")


# --------------------------------------------------------------------------------------------------- scoring


def of_dataset(dataset: Dataset, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """A data set in its own order, without random flips."""
    n = min(len(dataset), limit or len(dataset))
    for start in range(0, n, _BATCH):
        # A fixed generator: whatever a data set does at random, it does the same every time.
        batch = dataset.batch(np.arange(start, min(start + _BATCH, n)), np.random.default_rng(0))
        yield batch.data, batch.label


def of_model(model: Model, n: int, seed: int, label: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """n samples; `label` (n,) asks for classes, as the reference has them."""
    images = model.sample(n, seed=seed, label=label, batch=_BATCH)
    for start in range(0, n, _BATCH):
        yield images[start : start + _BATCH], None if label is None else label[start : start + _BATCH]


def gather(batches: Iterator[tuple[Tensor, Tensor | None]], extractor: Extractor, needs: frozenset[str]) -> EvidenceSet:
    """Embed images once for all metrics; keeps only what some metric needs."""
    features, logits, labels, images = [], [], [], []
    for data, label in batches:
        if needs & {"features", "logits"}:
            own_features, own_logits = extractor(data)
            features.append(own_features)
            if own_logits is not None:
                logits.append(own_logits)
        if "images" in needs:
            images.append(data)
        if label is not None:
            labels.append(label)
    return EvidenceSet(
        features=torch.cat(features) if features else None,
        logits=torch.cat(logits) if logits else None,
        label=torch.cat(labels) if labels else None,
        images=torch.cat(images) if images else None,
    )


@dataclass(frozen=True)
class Judge:
    """A protocol made ready: reference embedded, metrics built. Scores any number of image sets."""

    protocol: Mapping[str, Any]
    extractor: Extractor
    metrics: Mapping[str, Metric]
    real: EvidenceSet
    n_real: int
    fingerprint: str

    @classmethod
    def of(cls, protocol: Mapping[str, Any], reference: Dataset) -> Judge:
        extractor: Extractor = parts.build("extractor", protocol["extractor"])
        metrics = {name: parts.build("metric", node) for name, node in protocol["metrics"].items()}
        for name, metric in metrics.items():
            if "logits" in metric.needs and not extractor.classes:
                raise BadValue(
                    f"metric {name!r} reads class logits, which extractor {extractor.name!r} has not",
                    where=f"protocol {protocol['name']}", hint="ganvas list features",
                )  # fmt: skip
        needs = frozenset().union(*(metric.needs for metric in metrics.values()))
        real = gather(of_dataset(reference), extractor, needs)
        return cls(protocol, extractor, metrics, real, len(reference), reference.fingerprint)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(metric.needs for metric in self.metrics.values()))

    def score_model(self, model: Model) -> list[dict[str, Any]]:
        """Rows with a t-interval over the protocol's sampling seeds."""
        n = self.protocol["samples"] or self.n_real
        label = self.asked_labels(model, n)
        tries = [
            self.values(gather(of_model(model, n, seed, label), self.extractor, self.needs))
            for seed in self.protocol["seeds"]
        ]
        how = f"95 % t-interval over {len(tries)} sampling seeds"
        return self.rows(tries, n, how, seeds=list(self.protocol["seeds"]))

    def score_images(self, dataset: Dataset) -> list[dict[str, Any]]:
        """Rows for images that are there; one value each, without an interval."""
        n = min(len(dataset), self.protocol["samples"] or len(dataset))
        tries = [self.values(gather(of_dataset(dataset, n), self.extractor, self.needs))]
        return self.rows(tries, n, "none: one fixed set of images", fake_fingerprint=dataset.fingerprint)

    def asked_labels(self, model: Model, n: int) -> Tensor | None:
        """Classes in the reference's own proportions, in its order, repeated to n."""
        if not model.num_classes or self.real.label is None:
            return None
        return self.real.label.repeat(-(-n // len(self.real.label)))[:n]

    def values(self, fake: EvidenceSet) -> tuple[dict[str, float], list[str]]:
        """(value by name, what had to be warned of)."""
        found: dict[str, float] = {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name, metric in self.metrics.items():
                if "label" in metric.needs and fake.label is None:
                    warnings.warn(f"{name} is left out: these images were not asked for by class", stacklevel=2)
                    continue
                found.update(metric(Evidence(self.real, fake)))
        return found, sorted({str(each.message) for each in caught})

    def rows(
        self, tries: Sequence[tuple[dict[str, float], list[str]]], n: int, how: str, **more: Any
    ) -> list[dict[str, Any]]:
        better = {name: lower for metric in self.metrics.values() for name, lower in metric.lower_is_better.items()}
        limits = {name: pair for metric in self.metrics.values() for name, pair in metric.limits.items()}
        notes = sorted({note for _, own in tries for note in own})
        rows = []
        for name in tries[0][0]:
            values = [found[name] for found, _ in tries]
            low, high = t_interval(values, limits[name])
            rows.append(
                {
                    "metric": name, "value": fmean(values), "low": low, "high": high, "interval": how,
                    "lower_is_better": better[name], "protocol": self.protocol["name"],
                    "n_fake": n, "n_real": self.n_real, "reference": self.fingerprint, "extractor": self.extractor.name,
                    **dict(self.extractor.provenance), "notes": notes, **more,
                }
            )  # fmt: skip
        return rows


def t_interval(
    values: Sequence[float], limits: tuple[float, float] = (-math.inf, math.inf), confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Student's interval of the mean, cut at what the value can be; None for a single value, which has no spread."""
    if len(values) < 2:
        return None, None
    from scipy.stats import t

    mean, half = fmean(values), float(t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return max(limits[0], mean - half), min(limits[1], mean + half)


def judge_for(protocol: Mapping[str, Any], trained_on: Mapping[str, Any] | None) -> Judge:
    """A judge for a protocol; without a reference of its own it takes the data that a recipe trained on.

    Raises
    ------
    DataError : the reference is not at hand.
    """
    node = protocol["reference"] or trained_on
    if node is None:
        raise DataError(
            f"protocol {protocol['name']!r} has no reference of its own",
            hint="say what to compare with: --against FOLDER",
        )
    node = copy.deepcopy(dict(node))
    if "flip" in node:
        node["flip"] = False
    return Judge.of(protocol, parts.build("dataset", node))
