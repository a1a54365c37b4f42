"""The contracts of data sets, extractors and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from ganvas import parts, values
from ganvas.parts import Part
from ganvas.recipe import check_node
from ganvas.types import Dataset, Evidence, EvidenceSet, Extractor, Metric

pytestmark = pytest.mark.filterwarnings("ignore:.*samples are few")

READS = {"features", "logits", "label", "images"}


def at_hand() -> list[Part]:
    """Data sets that need no files."""
    return [part for part in parts.every("dataset") if not any(each.required for each in part.fields().values())]


def open_dataset(part: Part, **keys: Any) -> Dataset:
    return parts.build("dataset", check_node("dataset", {"use": part.name, **values.plain(part.tiny), **keys}))


every_dataset = pytest.mark.parametrize("part", at_hand(), ids=lambda part: part.name)
every_extractor = pytest.mark.parametrize("name", [part.name for part in parts.every("extractor")])
every_metric = pytest.mark.parametrize("name", [part.name for part in parts.every("metric")])


# --------------------------------------------------------------------------------------------------- data sets


def test_digits_and_shapes_are_at_hand() -> None:
    assert {"digits", "shapes"} <= {part.name for part in at_hand()}


@every_dataset
def test_batches_are_images_of_the_promised_form(part: Part) -> None:
    dataset = open_dataset(part)
    n = len(dataset)
    batch = dataset.batch(np.arange(min(n, 50)), np.random.default_rng(0))
    assert batch.data.shape == (min(n, 50), *dataset.spec.shape)
    assert batch.data.dtype == torch.float32
    assert batch.data.min() >= -1
    assert batch.data.max() <= 1
    assert batch.data.std() > 0.01
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
    fewer = {key: value // 2 for key, value in part.tiny.items()}
    assert open_dataset(part, **fewer).fingerprint != dataset.fingerprint


# --------------------------------------------------------------------------------------------------- extractors


@every_extractor
def test_extractor_takes_images_of_any_form(name: str) -> None:
    extractor: Extractor = parts.build("extractor", check_node("extractor", name))
    assert extractor.name == name
    widths = set()
    for channels, height, width in ((1, 8, 8), (3, 32, 20), (4, 16, 16)):
        images = torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
        features, logits = extractor(images)
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
def test_extractor_is_a_function_of_each_image(name: str) -> None:
    extractor: Extractor = parts.build("extractor", check_node("extractor", name))
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features, _ = extractor(images)
    assert torch.equal(extractor(images)[0], features)
    rebuilt = parts.build("extractor", check_node("extractor", name))
    assert torch.equal(rebuilt(images)[0], features)
    alone, _ = extractor(images[1:2])
    torch.testing.assert_close(alone[0], features[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features[0], features[1])


@every_extractor
def test_provenance_says_where_numbers_come_from(name: str) -> None:
    provenance = parts.build("extractor", check_node("extractor", name)).provenance
    assert {"sha256", "layer", "resizer", "source"} <= set(provenance)
    assert all(isinstance(text, str) and text for text in provenance.values())
    assert len(provenance["sha256"]) == 64


# --------------------------------------------------------------------------------------------------- metrics


@pytest.fixture(scope="module")
def shapes() -> tuple[EvidenceSet, EvidenceSet]:
    """(real, fake): two draws of shapes with the same distribution of everything that a metric may read."""
    sides = []
    for seed in (0, 1):
        dataset = parts.build("dataset", check_node("dataset", {"use": "shapes", "count": 200, "seed": seed}))
        batch = dataset.batch(np.arange(200), np.random.default_rng(0))
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(200, 6, generator=generator)
        logits = torch.randn(200, 10, generator=generator) + 8 * torch.nn.functional.one_hot(batch.label, 10)
        sides.append(EvidenceSet(features=features, logits=logits, label=batch.label, images=batch.data))
    return sides[0], sides[1]


def only(side: EvidenceSet, needs: frozenset[str]) -> EvidenceSet:
    return EvidenceSet(**{name: getattr(side, name) for name in needs})


def spoilt(side: EvidenceSet) -> EvidenceSet:
    """Everything wrong: features far away and all alike, other classes and unsure of them, images of nothing."""
    return EvidenceSet(
        features=side.features * 0.05 + 4,
        logits=side.logits.roll(1, dims=1) * 0.05,
        label=side.label,
        images=torch.full_like(side.images, 0.3),
    )


def measured(metric: Metric, real: EvidenceSet, fake: EvidenceSet) -> Mapping[str, float]:
    return metric(Evidence(only(real, metric.needs), only(fake, metric.needs)))


@every_metric
def test_metric_says_what_it_reads_and_which_way_is_better(name: str, shapes: tuple[EvidenceSet, EvidenceSet]) -> None:
    metric: Metric = parts.build("metric", check_node("metric", name))
    assert metric.needs
    assert metric.needs <= READS
    found = measured(metric, *shapes)  # and it reads nothing else: the rest is not there
    assert set(found) == set(metric.lower_is_better)
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    assert all(isinstance(lower, bool) for lower in metric.lower_is_better.values())


@every_metric
def test_metric_is_a_pure_function(name: str, shapes: tuple[EvidenceSet, EvidenceSet]) -> None:
    metric: Metric = parts.build("metric", check_node("metric", name))
    before = [getattr(side, need).clone() for side in shapes for need in sorted(metric.needs)]
    torch.manual_seed(0)
    one = measured(metric, *shapes)
    torch.manual_seed(1)
    np.random.seed(1)
    other = measured(parts.build("metric", check_node("metric", name)), *shapes)
    assert one == other
    after = [getattr(side, need) for side in shapes for need in sorted(metric.needs)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every_metric
def test_metric_prefers_the_good_to_the_spoilt(name: str, shapes: tuple[EvidenceSet, EvidenceSet]) -> None:
    metric: Metric = parts.build("metric", check_node("metric", name))
    real, fake = shapes
    good, bad = measured(metric, real, fake), measured(metric, real, spoilt(fake))
    for value, lower in metric.lower_is_better.items():
        assert good[value] < bad[value] if lower else good[value] > bad[value], value
