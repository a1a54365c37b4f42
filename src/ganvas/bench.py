"""Protocols: what is scored against what, and how sure the numbers are.

A protocol is YAML with the keys of `Protocol`. A score is a row that says how it was made; rows made unlike each other
are not to be compared.
"""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge
from torch import Tensor

from ganvas import evidence, parts, yaml12
from ganvas.errors import BadValue, DataError, GanvasError, RecipeError, nearest
from ganvas.intervals import around, halves
from ganvas.model import Model
from ganvas.parts import Slot, Slots
from ganvas.recipe import PROTOCOLS, Positive, check_section
from ganvas.types import Alarm, Dataset, Evidence, EvidenceSet, Extractor, Metric, Moments

MADE_BY = (
    "protocol", "n_fake", "n_real", "reference", "extractor", "sha256", "layer", "resizer", "labels", "sampler",
)  # fmt: skip
"""The keys of a row that say how it was made. Rows of a metric may be compared where all of them are equal."""


@dataclass(frozen=True)
class Measure:
    """What stands beside a metric's own keys."""

    extractor: Annotated[Any, Slot("extractor")] | None = None  # None: the protocol's


@dataclass(frozen=True)
class Protocol:
    """How a score is made.

    A metric that is listed under another name than its own (`spatial: {use: frechet-distance, extractor: ...}`) gives
    its values that name.
    """

    metrics: Annotated[Mapping[str, Any], Slots("metric", Measure)]
    extractor: Annotated[Any, Slot("extractor")]
    reference: Annotated[Any, Slot("dataset")] | None = None  # None: the data that the model was trained on
    training: Annotated[Any, Slot("dataset")] | None = None  # what memorisation is judged by; None: the same
    samples: Positive | None = None  # images per sampling seed; None: as many as the reference has
    labels: Literal["reference", "uniform"] = "reference"  # which classes are asked for
    sampler: Annotated[Any, Slot("sampler")] | None = None  # truncation, batch-norm statistics; None: the recipe's
    seeds: tuple[int, ...] = (0, 1, 2)  # sampling seeds
    halves: Annotated[int, Ge(0)] = 20  # random halves that tell how sure the reference makes it; 0: not asked
    summary: str | None = None
    source: str | None = None  # where a published protocol was published
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


class Column(NamedTuple):
    """What is known of a value before it is there."""

    lower_is_better: bool
    limits: tuple[float, float]  # what it can be
    summary: str  # the metric's own first line


def columns(protocol: Mapping[str, Any]) -> dict[str, Column]:
    """Every value that a protocol's metrics can give, by the name that its rows have."""
    found = {}
    for name, node in protocol["metrics"].items():
        own, _ = parts.split(Measure, node)
        metric: Metric = parts.build("metric", own)
        summary = parts.find("metric", own["use"]).summary
        for key, shown in _renamed(name, own["use"], metric).items():
            found[shown] = Column(metric.lower_is_better[key], metric.limits[key], summary)
    return found


# --------------------------------------------------------------------------------------------------- scoring


class Entry(NamedTuple):
    """A metric of a protocol, and the extractor that it reads, by its key in `Judge.extractors`."""

    metric: Metric
    extractor: str
    names: Mapping[str, str]  # what the metric calls a value -> what the protocol calls it


class Found(NamedTuple):
    """What one look at the evidence came to."""

    values: dict[str, float]  # by the protocol's names
    notes: dict[str, list[str]]  # what had to be warned of, by metric
    alarms: dict[str, str]  # what is wrong with the images, by metric; empty where nothing is


Sets = Mapping[str, EvidenceSet]  # one set of images in each extractor


class Judge:
    """A protocol made ready: extractors and metrics built, the reference embedded when first needed.

    Parameters
    ----------
    reference : what is compared with; a file of statistics will do for metrics of moments alone.
    training : what the model was trained on, for metrics that look for copies of it.
    reference_is : the reference's fingerprint, where `reference` has none of its own.
    watch : told of every batch that is embedded.

    Raises
    ------
    BadValue : a metric reads class logits and its extractor has none.
    """

    def __init__(
        self,
        protocol: Mapping[str, Any],
        reference: Dataset | Moments,
        training: Dataset | None = None,
        *,
        reference_is: str = "",
        watch: evidence.Watch = evidence.unwatched,
    ) -> None:
        self.protocol = protocol
        self.reference = reference
        self.training = training
        self.fingerprint = reference_is or getattr(reference, "fingerprint", "")
        self.watch = watch
        self.extractors: dict[str, Extractor] = {}
        self.entries: dict[str, Entry] = {}
        for name, node in protocol["metrics"].items():
            own, beside = parts.split(Measure, node)
            extractor = self._extractor(beside["extractor"] or protocol["extractor"])
            metric: Metric = parts.build("metric", own)
            if any(need.endswith("logits") for need in metric.needs) and not self.extractors[extractor].classes:
                raise BadValue(
                    f"metric {name!r} reads class logits, which extractor {self.extractors[extractor].name!r} has not",
                    where=f"protocol {protocol['name']}", hint="ganvas list features",
                )  # fmt: skip
            self.entries[name] = Entry(metric, extractor, _renamed(name, own["use"], metric))

    def _extractor(self, node: Mapping[str, Any]) -> str:
        key = json.dumps(node, sort_keys=True, default=str)
        if key not in self.extractors:
            self.extractors[key] = parts.build("extractor", node)
        return key

    # ------------------------------------------------------------------ the two or three sets

    @cached_property
    def real(self) -> Sets:
        """The reference in every extractor."""
        if isinstance(self.reference, Moments):
            return dict.fromkeys(self.extractors, EvidenceSet(moments=self.reference))
        return evidence.gather(evidence.of_dataset(self.reference), self.extractors, self._needs("real"), self.watch)

    @cached_property
    def trained_on(self) -> Sets:
        """The training data in every extractor that a metric reads them in."""
        needs = self._needs("training")
        if self.training is None or not any(needs.values()):
            return {}
        return evidence.gather(evidence.of_dataset(self.training), self.extractors, needs, self.watch)

    def _needs(self, side: str) -> dict[str, frozenset[str]]:
        """What is read of one set, per extractor."""
        found: dict[str, set[str]] = {key: set() for key in self.extractors}
        for entry in self.entries.values():
            found[entry.extractor] |= _of_side(entry.metric.needs, side)
        return {key: frozenset(own) for key, own in found.items()}

    @property
    def n_real(self) -> int:
        """Images in the reference; 0 where a file of statistics does not say."""
        return self.reference.count if isinstance(self.reference, Moments) else len(self.reference)

    # ------------------------------------------------------------------ scores

    def score_model(self, model: Model) -> list[dict[str, Any]]:
        """Rows for a trained model, with an interval over sampling seeds and halves of the reference."""
        n = self.protocol["samples"] or self.n_real
        if not n:
            raise DataError(
                "the reference does not say how many images it was made of, and neither does the protocol",
                hint="give the protocol `samples`",
            )
        label = self.asked_labels(model, n)
        found, first = [], None
        for seed in self.protocol["seeds"]:
            source = evidence.of_model(model, n, seed, label, self.protocol["sampler"])
            fake = evidence.gather(source, self.extractors, self._needs("fake"), self.watch)
            first = fake if first is None else first
            found.append(self.look(self.real, fake, model, seed))
        assert first is not None
        spread = self.spread(first, model, of_fake=False)
        return self.rows(found, spread, n, sampled=True, seeds=list(self.protocol["seeds"]))

    def score_images(self, dataset: Dataset) -> list[dict[str, Any]]:
        """Rows for images that are there, with an interval over halves of both sets."""
        source = evidence.of_dataset(dataset, self.protocol["samples"])
        fake = evidence.gather(source, self.extractors, self._needs("fake"), self.watch)
        found = [self.look(self.real, fake, None, 0)]
        spread = self.spread(fake, None, of_fake=True)
        return self.rows(found, spread, source.count, sampled=False, fake_fingerprint=dataset.fingerprint)

    def asked_labels(self, model: Model, n: int) -> Tensor | None:
        """The classes that are asked for: in the reference's own proportions and order, repeated to n; or at random."""
        if not model.num_classes or self.protocol["labels"] == "uniform" or isinstance(self.reference, Moments):
            return model.labels(n, seed=0)
        label = next((each.label for each in self.real.values()), None)  # no extractor: nothing is measured
        return model.labels(n, seed=0) if label is None else label.repeat(-(-n // len(label)))[:n]

    def seen(self, name: str, real: EvidenceSet, fake: EvidenceSet, model: Model | None, seed: int) -> Evidence:
        """The evidence as one metric sees it."""
        extractor = self.entries[name].extractor
        return Evidence(real, fake, self.trained_on.get(extractor), model, self.extractors[extractor], seed)

    def look(self, real: Sets, fake: Sets, model: Model | None, seed: int) -> Found:
        """Every metric's values on these sets; one that lacks what it reads is left out, with a note."""
        values: dict[str, float] = {}
        notes: dict[str, list[str]] = {}
        alarms: dict[str, str] = {}
        for name, entry in self.entries.items():
            seen = self.seen(name, real[entry.extractor], fake[entry.extractor], model, seed)
            lacking = _lacking(entry.metric, seen)
            if lacking:
                notes[name] = [f"{name} is left out: {lacking}"]
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = entry.metric(seen)
            values.update({entry.names[key]: value for key, value in result.items()})
            notes[name] = sorted({str(each.message) for each in caught})
            alarms[name] = entry.metric.alarm(result) if isinstance(entry.metric, Alarm) else ""
        return Found(values, notes, alarms)

    def spread(self, fake: Sets, model: Model | None, *, of_fake: bool) -> dict[str, float]:
        """Standard error of each value from there being only so many images in the reference, and in `fake` if asked.

        See `intervals.halves`. The training data stay whole: half of them would hide half of the copies.
        """
        repeats = self.protocol["halves"]
        real_rows = _halves_of(self.real, repeats, 0)
        fake_rows = _halves_of(fake, repeats, 1) if of_fake else [None] * repeats
        tries: dict[str, list[float]] = {}
        for own_real, own_fake in zip(real_rows, fake_rows, strict=True):
            real_half = {key: _taken(whole, own_real) for key, whole in self.real.items()}
            fake_half = {key: _taken(whole, own_fake) for key, whole in fake.items()}
            for name, entry in self.entries.items():
                divided = [side for side, rows in (("real", own_real), ("fake", own_fake)) if rows is not None]
                if "model" in entry.metric.needs or not any(_of_side(entry.metric.needs, side) for side in divided):
                    continue
                key = entry.extractor
                real = _taken(self.real[key], own_fake) if "pairs" in entry.metric.needs else real_half[key]
                seen = self.seen(name, real, fake_half[key], model, 0)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of small sets: the whole sets were warned of already
                    with contextlib.suppress(GanvasError):  # a half is too small for it
                        for own, value in ({} if _lacking(entry.metric, seen) else entry.metric(seen)).items():
                            tries.setdefault(entry.names[own], []).append(value)
        return {name: stdev(values) for name, values in tries.items() if len(values) == repeats > 1}

    # ------------------------------------------------------------------ rows

    def rows(
        self, tries: Sequence[Found], spread: Mapping[str, float], n: int, *, sampled: bool, **more: Any
    ) -> list[dict[str, Any]]:
        rows = []
        shown = {name for found in tries for name in found.values}
        left_out = [
            note for name, entry in self.entries.items() for note in tries[0].notes[name]
            if not shown & set(entry.names.values())
        ]  # fmt: skip
        for name, entry in self.entries.items():
            extractor, metric = self.extractors[entry.extractor], entry.metric
            notes = sorted({note for found in tries for note in found.notes[name]})
            alarms = [told for found in tries if (told := found.alarms.get(name))]
            for own, called in entry.names.items():
                values = [found.values[called] for found in tries if called in found.values]
                if not values:
                    continue
                rows.append(
                    {
                        "metric": called,
                        **_interval(values, spread.get(called), metric.limits[own], self.protocol["halves"], sampled),
                        "lower_is_better": metric.lower_is_better[own], "protocol": self.protocol["name"],
                        "n_fake": n, "n_real": self.n_real, "reference": self.fingerprint,
                        "extractor": extractor.name, **dict(extractor.provenance),
                        "labels": self.protocol["labels"], "sampler": self.protocol["sampler"],
                        # Chance may ring once: what most sampling seeds say is told.
                        "alarm": alarms[0] if 2 * len(alarms) > len(tries) else "",
                        "notes": [*notes, *left_out], **more,
                    }
                )  # fmt: skip
        return rows


def _renamed(name: str, part: str, metric: Metric) -> dict[str, str]:
    """What a metric's values are called in a protocol: as the metric says, unless it is listed under another name."""
    own = list(metric.lower_is_better)
    if name == part:
        return {key: key for key in own}
    shown = name.replace("-", "_")
    return {key: shown if len(own) == 1 else f"{shown}_{key}" for key in own}


def _of_side(needs: frozenset[str], side: str) -> set[str]:
    """What is read of one set: plain names are read of the real and the fake one."""
    plain = {need for need in needs if ":" not in need} - {"model", "extractor", "pairs"}
    own = {need.partition(":")[2] for need in needs if need.startswith(f"{side}:")}
    return own | (plain if side in ("real", "fake") else set())


def _lacking(metric: Metric, seen: Evidence) -> str:
    """Why a metric cannot look at this evidence; empty where it can."""
    if "model" in metric.needs and seen.model is None:
        return "it measures a model, not images"
    if "pairs" in metric.needs and (seen.model is not None or evidence.size(seen.real) != evidence.size(seen.fake)):
        return "it compares each image with its own original, and these are no pairs"
    if any(need.startswith("training:") for need in metric.needs) and seen.training is None:
        return "the training data are not at hand"
    for side, whole in (("real", seen.real), ("fake", seen.fake), ("training", seen.training)):
        for need in sorted(_of_side(metric.needs, side)) if whole is not None else ():
            if getattr(whole, need) is None:
                if need == "label":
                    return "these images were not asked for by class" if side == "fake" else "the data have no labels"
                return f"the {'reference' if side == 'real' else side} is a file of statistics, without {need}"
    return ""


def _halves_of(sets: Sets, repeats: int, seed: int) -> list[np.ndarray | None]:
    """Rows of random halves of a set; None each where it cannot be divided."""
    n = max(
        (evidence.size(each) for each in sets.values() if each.features is not None or each.images is not None),
        default=0,
    )
    return list(halves(n, repeats, seed)) if n >= 4 else [None] * repeats


def _taken(whole: EvidenceSet, rows: np.ndarray | None) -> EvidenceSet:
    return whole if rows is None else evidence.take(whole, rows)


def _interval(
    values: Sequence[float], spread: float | None, limits: tuple[float, float], repeats: int, sampled: bool
) -> dict[str, Any]:
    """The value with its interval, the standard errors behind it and the method in words."""
    errors, how = [], []
    seeds_error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    if seeds_error is not None:
        errors.append((seeds_error, len(values) - 1))
        how.append(f"{len(values)} sampling seeds")
    if spread is not None:
        errors.append((spread, repeats - 1))
        how.append(f"{repeats} random halves of {'the reference' if sampled else 'both sets'}")
    low, high = around(fmean(values), errors, limits)
    return {
        "value": fmean(values), "low": low, "high": high,
        "interval": f"95 % t-interval: {' and '.join(how)}" if how else "none: one look at one set",
        "error_of_sampling": seeds_error, "error_of_reference": spread,
    }  # fmt: skip


def judge_for(
    protocol: Mapping[str, Any], trained_on: Mapping[str, Any] | None, watch: evidence.Watch = evidence.unwatched
) -> Judge:
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
    return Judge(protocol, unflipped(node), training_set(protocol, trained_on), watch=watch)


def unflipped(node: Mapping[str, Any]) -> Dataset:
    """A data set as it is scored: without random flips."""
    own = copy.deepcopy(dict(node))
    if "flip" in own:
        own["flip"] = False
    dataset: Dataset = parts.build("dataset", own)
    return dataset


def training_set(protocol: Mapping[str, Any], trained_on: Mapping[str, Any] | None) -> Dataset | None:
    """What a model was trained on, where a metric of the protocol asks for it and it is at hand."""
    node = protocol["training"] or trained_on
    metrics = (parts.build("metric", parts.split(Measure, each)[0]) for each in protocol["metrics"].values())
    if node is None or not any(need.startswith("training:") for metric in metrics for need in metric.needs):
        return None
    try:
        return unflipped(node)
    except DataError:
        return None  # the metric says that it was left out
