"""A protocol at work: what is scored against what, and how sure the numbers are."""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from ganvas import parts
from ganvas.errors import BadValue, DataError, GanvasError, UsageError
from ganvas.evaluation import evidence
from ganvas.evaluation.class_names import NOWHERE, comparable, in_order_of, renumbered, united
from ganvas.evaluation.protocol import Measure, renamed
from ganvas.files.reading import check_data_places
from ganvas.model import Model, Rows
from ganvas.stats.intervals import around, halves
from ganvas.types import Condition, Dataset, DataSpec, Evidence, EvidenceSet, Extractor, Metric, Moments


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

_LONGEST = 60  # letters of a setting in a message


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
    BadValue : a metric reads class logits and its extractor has none, or one of both is for data of other
        modalities.
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
        self.class_names: tuple[str, ...] = () if isinstance(reference, Moments) else reference.class_names
        """Of the labels of both sides: the reference's classes, then those that only the other side has."""
        self.fingerprint = reference_is or ("" if isinstance(reference, Moments) else reference.fingerprint)
        self.watch = watch
        self.extractors: dict[str, Extractor] = {}
        self.entries: dict[str, Entry] = {}
        for name, node in protocol["metrics"].items():
            metric_node, beside = parts.split(Measure, node)
            extractor = self._extractor(beside["extractor"] or protocol["extractor"])
            metric: Metric = parts.build("metric", metric_node)
            if any(need.endswith("logits") for need in metric.needs) and not self.extractors[extractor].classes:
                raise BadValue(
                    f"metric {name!r} reads class logits, which extractor {self.extractors[extractor].name!r} has not",
                    where=f"protocol {protocol['name']}", hint="ganvas list features",
                )  # fmt: skip
            kind = "" if isinstance(reference, Moments) else reference.spec.modality.part_name
            if kind and metric.modalities and kind not in metric.modalities:
                raise BadValue(
                    f"metric {name!r} looks at {' or '.join(metric.modalities)} data, and these are {kind}",
                    where=f"protocol {protocol['name']}", hint="ganvas list metrics",
                )  # fmt: skip
            self.entries[name] = Entry(metric, extractor, renamed(name, metric_node["use"], metric))

    def _extractor(self, node: Mapping[str, Any]) -> str:
        key = json.dumps(node, sort_keys=True, default=str)
        if key not in self.extractors:
            extractor: Extractor = parts.build("extractor", node)
            if not isinstance(self.reference, Moments):
                try:
                    extractor = parts.extractor_for(extractor, self.reference.spec.modality)
                except BadValue as error:
                    error.where = error.where or f"protocol {self.protocol['name']}"
                    raise
            self.extractors[key] = extractor
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
        needed: dict[str, set[str]] = {key: set() for key in self.extractors}
        for entry in self.entries.values():
            needed[entry.extractor] |= _of_side(entry.metric.needs, side)
        return {key: frozenset(needs) for key, needs in needed.items()}

    @property
    def n_real(self) -> int:
        """Images in the reference; 0 where a file of statistics does not say."""
        return self.reference.count if isinstance(self.reference, Moments) else len(self.reference)

    # ------------------------------------------------------------------ scores

    def score_model(self, model: Model) -> list[dict[str, Any]]:
        """Rows for a trained model, with an interval over sampling seeds and halves of the reference."""
        check_modality(model.spec, self.reference, self.protocol["name"])
        n = self.protocol["samples"] or self.n_real
        if not n:
            raise DataError(
                "the reference does not say how many images it was made of, and neither does the protocol",
                hint="give the protocol `samples`",
            )
        asked = self.asked(model, n)
        looks, first = [], None
        for seed in self.protocol["seeds"]:
            source = evidence.of_model(model, n, seed, asked, self.protocol["sampler"])
            fake = self._by_name(
                evidence.gather(source, self.extractors, self._needs("fake"), self.watch), model.class_names
            )
            first = fake if first is None else first
            looks.append(self.look(self.real, fake, model, seed))
        assert first is not None
        spread = self.spread(first, model, of_fake=False)
        return self.rows(looks, spread, n, sampled=True, seeds=list(self.protocol["seeds"]))

    def score_images(self, dataset: Dataset) -> list[dict[str, Any]]:
        """Rows for images that are there, with an interval over halves of both sets."""
        check_modality(dataset.spec, self.reference, self.protocol["name"])
        source = evidence.of_dataset(dataset, self.protocol["samples"])
        fake = self._by_name(
            evidence.gather(source, self.extractors, self._needs("fake"), self.watch), dataset.class_names
        )
        looks = [self.look(self.real, fake, None, 0)]
        spread = self.spread(fake, None, of_fake=True)
        return self.rows(looks, spread, source.count, sampled=False, fake_fingerprint=dataset.fingerprint)

    def _by_name(self, fake: Sets, names: Sequence[str]) -> Sets:
        """Samples or images with labels that count the reference's classes, where the names of both are known."""
        reference = () if isinstance(self.reference, Moments) else self.reference.class_names
        if not comparable(names, reference):
            self.class_names = reference or tuple(names)
            return fake
        self.class_names = united(reference, names)
        return in_order_of(fake, names, self.class_names)

    def asked(self, model: Model, n: int) -> Condition | Rows:
        """What samples are made for: the reference's own conditions in their order, repeated to n; or random classes.

        Raises
        ------
        DataError : the model needs conditions, and the reference is a file of statistics.
        """
        others = [name for name in model.reads if name != "label"]
        if isinstance(self.reference, Moments):
            if others:
                raise DataError(
                    f"the model makes its data of {', '.join(others)}, and statistics have none",
                    hint="score against the data themselves",
                )
            return model.conditions(n, seed=0)
        if others:
            check_reference(model, self.reference.spec, self.protocol["name"])
            return evidence.conditions_of(model, self.reference)
        if not model.num_classes or self.protocol["labels"] == "uniform":
            return model.conditions(n, seed=0)
        label = next((images.label for images in self.real.values()), None)  # no extractor: nothing is measured
        if label is None:
            return model.conditions(n, seed=0)
        if comparable(model.class_names, self.reference.class_names):
            label = renumbered(label, self.reference.class_names, model.class_names)
            label = label[label != NOWHERE]  # classes that the model has not learnt cannot be asked for
        return Condition(label=label).repeat_to(n)

    def are_pairs(self, model: Model | None) -> bool:
        """Whether the i-th fake datum may belong to the i-th real one: always, unless a model made it of no such thing.

        What a model makes of the reference's own conditions, as of a small image, has the reference for its right
        answer; a class has no one answer.
        """
        return model is None or any(name != "label" for name in model.reads)

    def seen(self, name: str, real: EvidenceSet, fake: EvidenceSet, model: Model | None, seed: int) -> Evidence:
        """The evidence as one metric sees it."""
        entry = self.entries[name]
        extractor = self.extractors[entry.extractor]
        names = self.class_names
        if any(need.endswith("logits") for need in entry.metric.needs) and comparable(names, extractor.class_names):
            # Logits are in the order of the classifier's classes, and so must labels be.
            (real, fake), names = (
                (in_order_of({"": images}, names, united(extractor.class_names, names))[""] for images in (real, fake)),
                united(extractor.class_names, names),
            )
        return Evidence(real, fake, self.trained_on.get(entry.extractor), model, extractor, seed, names)

    def look(self, real: Sets, fake: Sets, model: Model | None, seed: int) -> Found:
        """Every metric's values on these sets; one that lacks what it reads is left out, with a note."""
        values: dict[str, float] = {}
        notes: dict[str, list[str]] = {}
        alarms: dict[str, str] = {}
        for name, entry in self.entries.items():
            seen = self.seen(name, real[entry.extractor], fake[entry.extractor], model, seed)
            lacking = _lacking(entry.metric, seen, pairs=self.are_pairs(model))
            if lacking:
                notes[name] = [f"{name} is left out: {lacking}"]
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = entry.metric(seen)
            values.update({entry.names[key]: value for key, value in result.items()})
            notes[name] = sorted({str(warning.message) for warning in caught})
            alarms[name] = entry.metric.alarm(result)
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
            real_half = {key: _taken(images, own_real) for key, images in self.real.items()}
            fake_half = {key: _taken(images, own_fake) for key, images in fake.items()}
            for name, entry in self.entries.items():
                divided = [side for side, rows in (("real", own_real), ("fake", own_fake)) if rows is not None]
                if "model" in entry.metric.needs or not any(_of_side(entry.metric.needs, side) for side in divided):
                    continue
                key = entry.extractor
                real_part, fake_part = real_half[key], fake_half[key]
                if "pairs" in entry.metric.needs:  # the same half of both
                    rows = own_fake if of_fake else own_real
                    if rows is None or evidence.size(self.real[key]) != evidence.size(fake[key]):
                        continue
                    real_part, fake_part = _taken(self.real[key], rows), _taken(fake[key], rows)
                seen = self.seen(name, real_part, fake_part, model, 0)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of small sets: the whole sets were warned of already
                    with contextlib.suppress(GanvasError):  # a half is too small for it
                        lacking = _lacking(entry.metric, seen, pairs=self.are_pairs(model))
                        for value_name, value in ({} if lacking else entry.metric(seen)).items():
                            tries.setdefault(entry.names[value_name], []).append(value)
        return {name: stdev(values) for name, values in tries.items() if len(values) == repeats > 1}

    # ------------------------------------------------------------------ rows

    def rows(
        self, tries: Sequence[Found], spread: Mapping[str, float], n: int, *, sampled: bool, **more: Any
    ) -> list[dict[str, Any]]:
        rows = []
        shown = {name for look in tries for name in look.values}
        left_out = [
            note for name, entry in self.entries.items() for note in tries[0].notes[name]
            if not shown & set(entry.names.values())
        ]  # fmt: skip
        for name, entry in self.entries.items():
            extractor, metric = self.extractors[entry.extractor], entry.metric
            notes = sorted({note for look in tries for note in look.notes[name]})
            alarms = [alarm for look in tries if (alarm := look.alarms.get(name))]
            for key, called in entry.names.items():
                values = [look.values[called] for look in tries if called in look.values]
                if not values:
                    continue
                rows.append(
                    {
                        "metric": called,
                        **_interval(values, spread.get(called), metric.limits[key], self.protocol["halves"], sampled),
                        "lower_is_better": metric.lower_is_better[key], "protocol": self.protocol["name"],
                        "n_fake": n, "n_real": self.n_real, "reference": self.fingerprint,
                        "extractor": extractor.name, **dict(extractor.provenance),
                        "labels": self.protocol["labels"], "sampler": self.protocol["sampler"],
                        # Chance may ring once: what most sampling seeds say is told.
                        "alarm": alarms[0] if 2 * len(alarms) > len(tries) else "",
                        "notes": [*notes, *left_out], **more,
                    }
                )  # fmt: skip
        if not rows:
            raise UsageError(
                f"not one value could be computed: {_why_empty(tries[0].notes)}",
                where=f"protocol {self.protocol['name']}",
                hint="choose other metrics: --metric NAME (ganvas list metrics)",
            )  # fmt: skip
        return rows


def _why_empty(notes: Mapping[str, Sequence[str]]) -> str:
    """Why no metric has a value."""
    return "; ".join(dict.fromkeys(note for every in notes.values() for note in every)) or "it has no metrics"


def _shortened(value: Any) -> str:
    """A setting in a message, and how many entries one has that is too long for it."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(value)} in all)"


def _of_side(needs: frozenset[str], side: str) -> set[str]:
    """What is read of one set: plain names are read of the real and the fake one."""
    plain = {need for need in needs if ":" not in need} - {"model", "extractor", "pairs"}
    prefixed = {need.partition(":")[2] for need in needs if need.startswith(f"{side}:")}
    return prefixed | (plain if side in ("real", "fake") else set())


def _lacking(metric: Metric, seen: Evidence, *, pairs: bool) -> str:
    """Why a metric cannot look at this evidence; empty where it can."""
    if "model" in metric.needs and seen.model is None:
        return "it measures a model, and these are data alone"
    if "pairs" in metric.needs and not (pairs and evidence.size(seen.real) == evidence.size(seen.fake)):
        return "it compares each image with its own original, and these are no pairs"
    if any(need.startswith("training:") for need in metric.needs) and seen.training is None:
        return "the training data are not at hand"
    for side, images in (("real", seen.real), ("fake", seen.fake), ("training", seen.training)):
        for need in sorted(_of_side(metric.needs, side)) if images is not None else ():
            if images is not None and vars(images)[need] is None:
                if need == "label":
                    return "these images were not asked for by class" if side == "fake" else "the data have no labels"
                return f"the {'reference' if side == 'real' else side} is a file of statistics, without {need}"
    return ""


def _halves_of(sets: Sets, repeats: int, seed: int) -> list[np.ndarray | None]:
    """Rows of random halves of a set; None each where it cannot be divided."""
    n = max(
        (evidence.size(images) for images in sets.values() if images.features is not None or images.images is not None),
        default=0,
    )
    return list(halves(n, repeats, seed)) if n >= 4 else [None] * repeats


def _taken(images: EvidenceSet, rows: np.ndarray | None) -> EvidenceSet:
    return images if rows is None else evidence.take(images, rows)


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


def check_modality(scored: DataSpec, reference: Dataset | Moments, protocol: str) -> None:
    """Refuse to compare data with those of another modality; a file of statistics does not say its own.

    Raises
    ------
    DataError : another modality, or the same with another rate, vocabulary, columns or the like.
    """
    if isinstance(reference, Moments):
        return
    modality, other = scored.modality, reference.spec.modality
    unlike = modality.unlike(other)
    if not unlike:
        return
    keys = [key for key in unlike if key != "use"]
    ours, theirs = ("".join(f", {key} {_shortened(unlike[key][side])}" for key in keys) for side in (0, 1))
    raise DataError(
        f"what is scored are {modality.called()} data{ours}, and the reference holds {other.called()} data{theirs}",
        where=f"protocol {protocol}",
        hint=f"compare with files of the same kind ({', '.join(modality.suffixes)}): ganvas eval RUN --against FOLDER",
    )


def check_reference(model: Model, reference: DataSpec, protocol: str) -> None:
    """Refuse a reference whose data do not come with what the model makes its data of, beside class labels.

    Raises
    ------
    DataError : says what is missing, or unlike.
    """
    wishes = model.wanted()
    for name, needed in wishes.items() if wishes.keys() - {"label"} else ():
        offered = reference.condition(name) if name in ("data", *reference.conditions) else None
        expected = model.spec.condition(name)
        if offered is None and not needed:
            continue
        if offered is None or (offered.shape, offered.categories) != (expected.shape, expected.categories):
            have = f"its own is {offered.shape}" if offered else f"it has {', '.join(reference.conditions) or 'none'}"
            raise DataError(
                f"the model makes its data of a condition {name!r} {expected.shape}, which the reference does not"
                f" have: {have}",
                where=f"protocol {protocol}",
                hint="give the protocol a `reference` that is made like the recipe's `data`, or none to take these",
            )  # fmt: skip


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
    """A data set as it is scored: without random flips, also in the sets that it is made of."""
    check_data_places(node)
    dataset: Dataset = parts.build("dataset", _without_flips(node))
    return dataset


def _without_flips(node: Mapping[str, Any]) -> dict[str, Any]:
    unflipped_node = copy.deepcopy(dict(node))
    if "flip" in unflipped_node:
        unflipped_node["flip"] = False
    for key, field in parts.find("dataset", unflipped_node["use"]).fields().items():
        if field.marker == parts.Slot("dataset") and unflipped_node.get(key):
            unflipped_node[key] = _without_flips(unflipped_node[key])
    return unflipped_node


def training_set(protocol: Mapping[str, Any], trained_on: Mapping[str, Any] | None) -> Dataset | None:
    """What a model was trained on, where a metric of the protocol asks for it and it is at hand."""
    node = protocol["training"] or trained_on
    metrics = (parts.build("metric", parts.split(Measure, entry)[0]) for entry in protocol["metrics"].values())
    if node is None or not any(need.startswith("training:") for metric in metrics for need in metric.needs):
        return None
    try:
        return unflipped(node)
    except DataError:
        return None  # the metric says that it was left out
