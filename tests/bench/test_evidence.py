"""Image sets are rounded to 8 bits, embedded once, and remembered by content."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganvas import parts
from ganvas.evaluation import evidence
from ganvas.evaluation.judge import Entry, Judge
from ganvas.parts import data_spec, image_spec
from ganvas.recipe.check import check_node
from ganvas.types import Batch, Dataset, Evidence, Extractor, Metric

IMAGE = image_spec((3, 4, 4)).modality


class Counting(Extractor):
    """An extractor that counts the images it was shown: its feature is the mean colour, its logits their signs."""

    name = "counting"
    classes = 2
    provenance: Mapping[str, str] = {"sha256": "0" * 64, "layer": "mean", "resizer": "none"}

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(images)
        mean = images.mean(dim=(2, 3))
        return mean, torch.cat([mean[:, :1], -mean[:, :1]], 1)


class Fixed(Dataset):
    """A data set of given images in [-1, 1]."""

    def __init__(self, images: Tensor, label: Tensor | None = None, fingerprint: str = "fixed") -> None:
        self.images, self.label, self.fingerprint = images, label, fingerprint
        self.spec = image_spec(tuple(images.shape[1:]), 0 if label is None else int(label.max()) + 1)
        self.class_names = tuple(map(str, range(self.spec.num_classes)))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        return Batch.labelled(self.images[indices], None if self.label is None else self.label[indices])


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def gathered(data: Fixed, net: Counting, *needs: str) -> evidence.EvidenceSet:
    return evidence.gather(evidence.of_dataset(data), {"": net}, {"": frozenset(needs)})[""]


def test_bytes_are_what_a_picture_file_would_hold() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(IMAGE.rounded(IMAGE.restored(every)), every)
    assert IMAGE.rounded(torch.tensor([[[[-3.0, 3.0]]]])).tolist() == [[[[0, 255]]]]
    points = torch.randn(5, 2)
    assert torch.equal(data_spec("plane", (2,)).modality.rounded(points), points)


def test_a_set_is_embedded_once_and_remembered_by_its_content() -> None:
    data, net = Fixed(noise(20), fingerprint="remembered"), Counting()
    first = gathered(data, net, "features", "logits")
    again = gathered(data, net, "features", "logits")
    assert net.seen == 20
    assert torch.equal(first.features, again.features) and torch.equal(first.logits, again.logits)
    other = Counting()
    other.provenance = {**net.provenance, "layer": "another"}
    gathered(data, other, "features")
    assert other.seen == 20  # another layer is another entry
    gathered(Fixed(noise(20, 1), fingerprint="other content"), net, "features")
    assert net.seen == 40


def test_labels_come_with_what_was_remembered() -> None:
    label = torch.arange(12) % 3
    data = Fixed(noise(12), label, fingerprint="labelled")
    gathered(data, Counting(), "features")
    assert torch.equal(gathered(data, Counting(), "features").label, label)


def test_a_damaged_entry_is_made_anew() -> None:
    data, net = Fixed(noise(10), fingerprint="damaged"), Counting()
    good = gathered(data, net, "features")
    (file,) = [f for f in cache().glob("*.safetensors") if b"damaged 10" in f.read_bytes()]
    file.write_bytes(file.read_bytes()[:-7])
    assert torch.equal(gathered(data, net, "features").features, good.features)
    assert net.seen == 20


def cache() -> Path:
    return Path(os.environ["GANVAS_CACHE"]) / "features"


def embed_digits(_: int) -> list[float]:
    torch.set_num_threads(1)
    data = parts.build("dataset", check_node("dataset", {"use": "digits", "split": "test"}))
    net = parts.build("extractor", {"use": "digit-net"})
    found = evidence.gather(evidence.of_dataset(data), {"": net}, {"": frozenset({"features"})})[""]
    return [float(found.features.double().sum()), len(found.features)]


def test_two_processes_at_once_come_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        one, other = pool.map(embed_digits, range(2))
    assert one == other == embed_digits(0)
    assert len(list((tmp_path / "features").iterdir())) == 1  # nothing half-written stays behind


def test_images_are_kept_only_where_somebody_asks() -> None:
    data = Fixed(noise(6), fingerprint="pictures")
    assert gathered(data, Counting(), "features").images is None
    kept = gathered(data, Counting(), "images")
    assert kept.images.dtype == torch.uint8 and kept.features is None


def test_taken_rows_have_moments_of_their_own() -> None:
    whole = gathered(Fixed(noise(30), fingerprint="moments"), Counting(), "moments")
    half = evidence.take(whole, np.arange(10))
    assert half.moments.count == 10
    np.testing.assert_allclose(half.moments.mean, whole.features[:10].double().mean(0), rtol=1e-6)
    np.testing.assert_allclose(half.moments.covariance, np.cov(whole.features[:10].double().numpy().T), rtol=1e-5)


# --------------------------------------------------------------------------------------------------- the judge


def protocol(**keys: Any) -> dict[str, Any]:
    metrics = {
        name: {**check_node("metric", {"use": name, **node} if isinstance(node, dict) else name), "extractor": None}
        for name, node in keys.pop("metrics", {"frechet-distance": None}).items()
    }
    return {
        "name": "test", "summary": None, "metrics": metrics, "extractor": {"use": "random-net"}, "reference": None,
        "training": None, "samples": None, "labels": "reference", "sampler": None, "seeds": (0,), "halves": 6, **keys,
    }  # fmt: skip


def big(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_floats_and_the_bytes_that_they_round_to_score_alike() -> None:
    real, fake = Fixed(big(40), fingerprint="real"), big(40, 1)
    rounded = IMAGE.restored(IMAGE.rounded(fake))
    scores = [
        Judge(protocol(), real).score_images(Fixed(data, fingerprint=name))[0]["value"]
        for name, data in (("floats", fake), ("bytes", rounded))
    ]
    assert scores[0] == scores[1]


def test_the_order_of_a_set_does_not_matter() -> None:
    real, fake = big(40), big(40, 1)
    order = torch.randperm(40)
    one = Judge(protocol(), Fixed(real, fingerprint="a")).score_images(Fixed(fake, fingerprint="b"))[0]
    two = Judge(protocol(), Fixed(real[order], fingerprint="c")).score_images(
        Fixed(fake[order.flip(0)], fingerprint="d")
    )[0]
    assert one["value"] == pytest.approx(two["value"], rel=1e-8)


def test_a_set_against_itself_is_at_distance_zero() -> None:
    same = Fixed(big(300), fingerprint="same")
    row = Judge(protocol(), same).score_images(same)[0]
    apart = Judge(protocol(), same).score_images(Fixed(big(300, 1), fingerprint="apart"))[0]
    assert 0 <= row["value"] <= 1e-8 * apart["value"]


def test_fixed_images_have_an_interval_from_halves_and_it_is_named() -> None:
    row = Judge(protocol(), Fixed(big(64), fingerprint="r")).score_images(Fixed(big(64, 1), fingerprint="f"))[0]
    assert row["low"] < row["value"] < row["high"]
    assert row["interval"] == "95 % t-interval: 6 random halves of both sets"
    assert row["error_of_sampling"] is None and row["error_of_reference"] > 0
    none = Judge(protocol(halves=0), Fixed(big(64), fingerprint="r")).score_images(Fixed(big(64, 1), fingerprint="f"))[
        0
    ]
    assert none["low"] is None and none["interval"].startswith("none")


def test_a_metric_under_another_name_may_read_another_extractor() -> None:
    rules = protocol(metrics={"frechet-distance": None})
    rules["metrics"]["again"] = {**rules["metrics"]["frechet-distance"], "extractor": {"use": "digit-net"}}
    rows = Judge(rules, Fixed(big(40), fingerprint="r")).score_images(Fixed(big(40, 1), fingerprint="f"))
    assert [(row["metric"], row["extractor"]) for row in rows] == [
        ("frechet_distance", "random-net"),
        ("again", "digit-net"),
    ]


class Probe(Metric):
    """A metric that reads what it is told to read and counts the images it finds there."""

    lower_is_better: Mapping[str, bool] = {"probe": True}
    limits: Mapping[str, tuple[float, float]] = {"probe": (0, 1e9)}

    def __init__(self, *needs: str, alarm: str = "") -> None:
        self.needs = frozenset(needs)
        self.says = alarm

    def __call__(self, seen: Evidence) -> dict[str, float]:
        return {"probe": float(evidence.size(seen.fake))}

    def alarm(self, values: Mapping[str, float]) -> str:
        return self.says if values["probe"] > 3 else ""


def judge_with(metric: Probe, real: Fixed, training: Fixed | None = None) -> Judge:
    judge = Judge(protocol(), real, training)
    key = next(iter(judge.extractors))
    judge.entries = {"probe": Entry(metric, key, {"probe": "probe"})}
    return judge


@pytest.mark.parametrize(
    ("need", "told"),
    [
        ("model", "it measures a model"),
        ("fake:label", "not asked for by class"),
        ("real:label", "the data have no labels"),
        ("training:features", "training data are not at hand"),
        ("pairs", "no pairs"),
    ],
)
def test_a_metric_without_what_it_reads_is_left_out_and_the_row_of_others_says_why(need: str, told: str) -> None:
    judge = judge_with(Probe(need), Fixed(big(9), fingerprint="r"))
    found = judge.look(judge.real, {key: evidence.EvidenceSet(images=big(5)) for key in judge.extractors}, None, 0)
    assert not found.values
    assert told in found.notes["probe"][0]


def test_an_alarm_stands_in_the_row() -> None:
    judge = judge_with(Probe("fake:images", alarm="something is wrong"), Fixed(big(9), fingerprint="r"))
    assert judge.score_images(Fixed(big(8), fingerprint="f"))[0]["alarm"] == "something is wrong"
    assert judge.score_images(Fixed(big(2), fingerprint="g"))[0]["alarm"] == ""
