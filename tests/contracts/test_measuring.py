"""The contracts of data sets, extractors and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import UsageError
from ganvas.nn.eight_bit import eight_bit
from ganvas.parts import Part, data_spec, image_spec, values
from ganvas.recipe.check import check_node
from ganvas.stats.moments import moments_of
from ganvas.types import Dataset, DataSpec, Evidence, EvidenceSet, Extractor, Metric

pytestmark = pytest.mark.filterwarnings("ignore:.*samples are few", "ignore:images of 3x32x32 hold")

READS = {"features", "logits", "label", "images", "moments", "model", "extractor", "pairs"}


def at_hand() -> list[Part]:
    """Data sets that need no files."""
    return [part for part in parts.every("dataset") if not any(each.required for each in part.fields().values())]


def open_dataset(part: Part, **keys: Any) -> Dataset:
    return parts.build("dataset", check_node("dataset", {"use": part.name, **values.plain(part.tiny), **keys}))


every_dataset = pytest.mark.parametrize("part", at_hand(), ids=lambda part: part.name)
# Those whose weights come from elsewhere keep the same contract in tests/features/, on weights that are made there.
FETCHED = {"weights", "run", "model"}
BUNDLED = [part.name for part in parts.every("extractor") if not FETCHED & part.fields().keys()]
every_extractor = pytest.mark.parametrize("name", BUNDLED)
every_metric = pytest.mark.parametrize("name", [part.name for part in parts.every("metric")])


# --------------------------------------------------------------------------------------------------- data sets


def test_digits_and_shapes_are_at_hand() -> None:
    assert {"digits", "shapes"} <= {part.name for part in at_hand()}


@every_dataset
def test_batches_are_data_of_the_promised_form(part: Part) -> None:
    dataset = open_dataset(part)
    n = len(dataset)
    batch = dataset.batch(np.arange(min(n, 50)), np.random.default_rng(0))
    assert batch.data.shape == (min(n, 50), *dataset.spec.shape)
    categories = dataset.spec.modality.categories
    assert batch.data.dtype == (torch.int64 if categories else torch.float32)
    assert batch.data.min() >= (0 if categories else -1)
    assert batch.data.max() <= (categories - 1 if categories else 1)
    assert batch.data.double().std() > 0.01
    assert len(dataset.class_names) == dataset.spec.num_classes
    if dataset.spec.num_classes:
        assert batch.label is not None
        assert batch.label.dtype == torch.int64
        assert batch.label.min() >= 0
        assert batch.label.max() < dataset.spec.num_classes
    else:
        assert batch.label is None


@every_dataset
def test_preview_promises_what_comes(part: Part) -> None:
    assert parts.preview(part, values.plain(part.tiny)) == open_dataset(part).spec


@every_dataset
def test_reading_is_by_index_alone(part: Part) -> None:
    dataset = open_dataset(part)
    order = np.array([5, 0, 5, 3])
    batch = dataset.batch(order, np.random.default_rng(0))
    for place, index in enumerate(order):
        alone = dataset.batch(np.array([index]), np.random.default_rng(1))
        assert torch.equal(alone.data[0], batch.data[place])
        if batch.label is not None:
            assert alone.label[0] == batch.label[place]


@every_dataset
def test_batches_are_copies(part: Part) -> None:
    dataset = open_dataset(part)
    first = dataset.batch(np.arange(3), np.random.default_rng(0)).data
    before = first.clone()
    first += 1
    assert torch.equal(dataset.batch(np.arange(3), np.random.default_rng(0)).data, before)


@every_dataset
def test_fingerprint_is_that_of_the_content(part: Part) -> None:
    dataset, again = open_dataset(part), open_dataset(part)
    assert dataset.fingerprint == again.fingerprint
    assert len(dataset.fingerprint) >= 32
    numbers = {key: value // 2 for key, value in part.tiny.items()}
    fewer = {key: value for key, value in numbers.items() if key in ("count", "limit")} or numbers
    assert open_dataset(part, **fewer).fingerprint != dataset.fingerprint


# --------------------------------------------------------------------------------------------------- extractors


FORMS = {
    "image": [image_spec((1, 8, 8)), image_spec((3, 32, 20)), image_spec((4, 16, 16))],
    "audio": [data_spec({"use": "audio", "rate": 8000}, shape) for shape in ((1, 4000), (2, 6000))],
    "text": [data_spec({"use": "text", "vocabulary": list("abcdefgh")}, shape) for shape in ((40,), (7,))],
}
"""Data of each modality that an extractor can say it takes."""


def forms_of(extractor: Extractor) -> list[DataSpec]:
    """Data that it has to take: of all its modalities, or images where it takes any."""
    return [spec for modality in extractor.modalities or ("image",) for spec in FORMS[modality]]


def data_for(extractor: Extractor, spec: DataSpec, n: int) -> tuple[Extractor, torch.Tensor]:
    """The extractor made ready for such data, and n of them at random."""
    return extractor.suited(spec.modality), spec.modality.draw(n, spec.shape, torch.Generator().manual_seed(0))


def test_two_extractors_are_at_hand() -> None:
    assert {"digit-net", "random-net"} <= set(BUNDLED)


@every_extractor
def test_extractor_takes_data_of_any_form(name: str) -> None:
    built: Extractor = parts.build("extractor", check_node("extractor", name))
    assert built.name == name
    widths = set()
    for spec in forms_of(built):
        extractor, data = data_for(built, spec, 3)
        features, logits = extractor(data)
        assert features.shape[0] == 3
        assert features.dim() == 2
        assert features.dtype == torch.float32
        assert not features.requires_grad
        assert torch.isfinite(features).all()
        assert (logits is None) == (extractor.classes == 0)
        if logits is not None:
            assert logits.shape == (3, extractor.classes)
        widths.add(features.shape[1])
    assert len(widths) == 1


@every_extractor
def test_extractor_is_a_function_of_each_datum(name: str) -> None:
    built: Extractor = parts.build("extractor", check_node("extractor", name))
    extractor, data = data_for(built, forms_of(built)[0], 4)
    features, _ = extractor(data)
    assert torch.equal(extractor(data)[0], features)
    rebuilt, _ = data_for(parts.build("extractor", check_node("extractor", name)), forms_of(built)[0], 4)
    assert torch.equal(rebuilt(data)[0], features)
    alone, _ = extractor(data[1:2])
    torch.testing.assert_close(alone[0], features[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features[0], features[1])


@every_extractor
def test_provenance_says_where_numbers_come_from(name: str) -> None:
    provenance = parts.build("extractor", check_node("extractor", name)).provenance
    assert {"sha256", "layer", "resizer", "source"} <= set(provenance)
    assert all(isinstance(text, str) and text for text in provenance.values())
    assert len(provenance["sha256"]) == 64


# --------------------------------------------------------------------------------------------------- metrics


N = 200


@pytest.fixture(scope="module")
def shapes() -> dict[str, EvidenceSet]:
    """Three draws of shapes with the same distribution of everything that a metric may read."""
    sides = {}
    for seed, name in enumerate(("real", "fake", "training")):
        dataset = parts.build("dataset", check_node("dataset", {"use": "shapes", "count": N, "seed": seed}))
        batch = dataset.batch(np.arange(N), np.random.default_rng(0))
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(N, 6, generator=generator)
        logits = torch.randn(N, 10, generator=generator) + 8 * torch.nn.functional.one_hot(batch.label, 10)
        sides[name] = EvidenceSet(
            features=features, logits=logits, label=batch.label, images=eight_bit(batch.data),
            moments=moments_of(features),
        )  # fmt: skip
    return sides


def reads(metric: Metric, side: str) -> set[str]:
    """What a metric reads of one set."""
    plain = {need for need in metric.needs if ":" not in need} - {"model", "extractor", "pairs"}
    own = {need.partition(":")[2] for need in metric.needs if need.startswith(f"{side}:")}
    return own | (plain if side != "training" else set())


def only(side: EvidenceSet, needs: set[str]) -> EvidenceSet:
    return EvidenceSet(**{name: getattr(side, name) for name in needs})


def spoilt(sides: Mapping[str, EvidenceSet], metric: Metric) -> EvidenceSet:
    """Everything wrong: features far away and all alike, other classes and unsure of them, images of nothing.

    For a metric that looks for copies: a few training data over and over.
    """
    if {"training:features", "training:images"} & metric.needs and "training:label" not in metric.needs:
        few = torch.arange(N) % (N // 4)
        training = sides["training"]
        return EvidenceSet(
            features=training.features[few], logits=training.logits[few], label=training.label[few],
            images=training.images[few], moments=moments_of(training.features[few]),
        )  # fmt: skip
    side = sides["fake"]
    features = side.features * 0.05 + 4
    return EvidenceSet(
        features=features, logits=side.logits.roll(1, dims=1) * 0.05, label=side.label,
        images=torch.full_like(side.images, 166), moments=moments_of(features),
    )  # fmt: skip


def measured(metric: Metric, sides: Mapping[str, EvidenceSet], fake: EvidenceSet) -> Mapping[str, float]:
    training = only(sides["training"], wanted) if (wanted := reads(metric, "training")) else None
    extractor = parts.build("extractor", {"use": "digit-net"}) if "extractor" in metric.needs else None
    return metric(
        Evidence(
            only(sides["real"], reads(metric, "real")), only(fake, reads(metric, "fake")), training, None, extractor
        )
    )


def good_side(sides: Mapping[str, EvidenceSet], metric: Metric) -> EvidenceSet:
    """What a good model draws; of a pair the second is the first with a little noise."""
    if "pairs" not in metric.needs:
        return sides["fake"]
    real = sides["real"]
    features = real.features + 0.01 * sides["fake"].features
    noisy = (
        real.images.float() + 4 * torch.randn(real.images.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 255)
    return replace(real, features=features, images=noisy.byte(), moments=moments_of(features))


def small(name: str) -> Metric:
    """A metric with the keys that make it quick."""
    return parts.build("metric", check_node("metric", {"use": name, **values.plain(parts.find("metric", name).tiny)}))


WITHOUT_MODEL = [part.name for part in parts.every("metric") if "model" not in small(part.name).needs]
every_pure_metric = pytest.mark.parametrize("name", WITHOUT_MODEL)


@every_metric
def test_metric_says_what_it_reads_and_which_way_is_better(name: str) -> None:
    metric = small(name)
    assert metric.needs
    assert {need.rpartition(":")[2] for need in metric.needs} <= READS
    assert {need.partition(":")[0] for need in metric.needs if ":" in need} <= {"real", "fake", "training"}
    assert set(metric.lower_is_better) == set(metric.limits)
    assert all(isinstance(lower, bool) for lower in metric.lower_is_better.values())
    assert all(low < high for low, high in metric.limits.values())


@every_pure_metric
def test_metric_is_a_pure_function_of_what_it_names(name: str, shapes: dict[str, EvidenceSet]) -> None:
    metric = small(name)
    fake = good_side(shapes, metric)
    before = [side.images.sum() + side.features.sum() for side in shapes.values()]
    torch.manual_seed(0)
    one = measured(metric, shapes, fake)  # and it reads nothing else: the rest is not there
    assert set(one) == set(metric.lower_is_better)
    assert all(type(value) is float and np.isfinite(value) for value in one.values())
    assert all(low <= one[key] <= high for key, (low, high) in metric.limits.items())
    torch.manual_seed(1)
    np.random.seed(1)
    other = measured(small(name), shapes, fake)
    assert one == other
    assert before == [side.images.sum() + side.features.sum() for side in shapes.values()]


@every_pure_metric
def test_metric_prefers_the_good_to_the_spoilt(name: str, shapes: dict[str, EvidenceSet]) -> None:
    metric = small(name)
    good = measured(metric, shapes, good_side(shapes, metric))
    try:
        bad = measured(metric, shapes, spoilt(shapes, metric))
    except UsageError:
        return  # that nothing can be said of such images is an answer, too
    for value, lower in metric.lower_is_better.items():
        assert good[value] < bad[value] if lower else good[value] > bad[value], value
