"""Data sets made of other data sets: partners that belong together, and what each adds to a batch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import BadValue, DataError
from ganvas.evaluation.judge import unflipped
from ganvas.recipe.check import check_node
from ganvas.shelves.data.sets import neighbours as neighbours_module
from ganvas.types import Batch, Dataset

Write = Callable[..., list[np.ndarray]]
DIGITS = {"use": "digits", "limit": 60}
LOW = {**DIGITS, "size": 4}
EMOJI = Path(__file__).parents[3] / "shared" / "data" / "emoji128.zip"


def opened(**node: Any) -> Dataset:
    return parts.build("dataset", check_node("dataset", node))


def read(dataset: Dataset, *indices: int, seed: int = 0) -> Batch:
    return dataset.batch(np.array(indices or range(len(dataset))), np.random.default_rng(seed))


def folder(root: Path, name: str) -> dict[str, Any]:
    return {"use": "folder", "path": str(root / name)}


MADE = [
    {"use": "paired", "data": DIGITS, "given": LOW, "name": "low"},
    {"use": "unpaired", "data": DIGITS, "other": {"use": "shapes", "count": 40}},
    {"use": "captioned", "data": DIGITS, "template": "a photo of {name}"},
    {"use": "neighbours", "data": DIGITS, "extractor": "digit-net", "k": 5, "labels": True},
]
each_of_them = pytest.mark.parametrize("node", MADE, ids=lambda node: node["use"])


# --------------------------------------------------------------------------------------------------- all of them


@each_of_them
def test_the_set_that_it_is_made_of_stays_itself(node: dict[str, Any]) -> None:
    made, inner = opened(**node), opened(**DIGITS)
    assert len(made) == len(inner)
    assert made.class_names == inner.class_names
    batch, alone = read(made, 3, 50, 3), read(inner, 3, 50, 3)
    assert torch.equal(batch.data, alone.data)
    assert torch.equal(batch.label, alone.label)
    assert torch.equal(batch.index, alone.index)


@each_of_them
def test_conditions_are_as_the_spec_says(node: dict[str, Any]) -> None:
    made = opened(**node)
    batch = read(made)
    assert batch.condition.keys() == made.spec.conditions.keys()
    for name, value in batch.condition.items():
        spec = made.spec.conditions[name]
        assert tuple(value.shape) == (len(made), *spec.shape)
        assert value.dtype == (torch.int64 if spec.categories else torch.float32)
        if spec.categories:
            assert 0 <= int(value.min()) <= int(value.max()) < spec.categories
        again = read(made, 7, 8).condition[name]
        assert torch.equal(again[0], value[7])  # a fixed rng gives a datum the same in any batch
        assert torch.equal(again[1], value[8])


@each_of_them
def test_fingerprint_follows_both_sets(node: dict[str, Any]) -> None:
    assert opened(**node).fingerprint == opened(**node).fingerprint
    other = {**DIGITS, "limit": 59}
    fewer = {**node, "data": other, **({"given": {**LOW, "limit": 59}} if "given" in node else {})}
    assert opened(**fewer).fingerprint != opened(**node).fingerprint
    for key, change in (("given", {"channels": 3}), ("other", {"count": 41})):
        if key in node:
            changed = {**node, key: {**node[key], **change}}
            assert opened(**changed).fingerprint != opened(**node).fingerprint


@pytest.mark.parametrize("node", [MADE[0], MADE[1], MADE[3]], ids=lambda node: node["use"])
def test_preview_promises_what_comes(node: dict[str, Any]) -> None:
    filled = check_node("dataset", node)
    assert parts.preview(parts.find("dataset", node["use"]), filled) == opened(**node).spec


def test_a_set_that_is_no_preview_makes_none() -> None:
    part = parts.find("dataset", "captioned")
    assert parts.preview(part, check_node("dataset", MADE[2])) is None
    filled = check_node("dataset", {**MADE[2], "length": 9, "vocabulary": [" ", "a"]})
    assert parts.preview(part, filled).conditions["text"].shape == (9,)


def test_sets_of_sets_of_sets() -> None:
    made = opened(use="captioned", data=MADE[0], template="the digit {name}")
    assert {"label", "low", "text", "text_mask"} == set(made.spec.conditions)
    assert torch.equal(read(made, 4).condition["low"], read(opened(**LOW), 4).data)


def test_a_condition_that_is_there_is_not_replaced() -> None:
    with pytest.raises(BadValue, match="have a condition 'low' already"):
        opened(use="paired", data=MADE[0], given=LOW, name="low")


# --------------------------------------------------------------------------------------------------- paired


def test_pairs_flip_together() -> None:
    made = opened(use="paired", data={**DIGITS, "flip": True}, given={**LOW, "flip": True}, name="low")
    still = opened(use="paired", data=DIGITS, given=LOW, name="low")
    assert made.flips
    batch, plain = read(made, seed=3), read(still)
    flipped = [not torch.equal(one, other) for one, other in zip(batch.data, plain.data, strict=True)]
    assert 10 < sum(flipped) < 50
    for number, mirrored in enumerate(flipped):
        low = plain.condition["low"][number]
        assert torch.equal(batch.condition["low"][number], low.flip(-1) if mirrored else low)
    assert torch.equal(read(made.unflipped(), seed=3).condition["low"], plain.condition["low"])


def test_flips_of_one_alone_are_refused() -> None:
    with pytest.raises(BadValue, match="'data' is flipped at random and 'given' is not"):
        opened(use="paired", data={**DIGITS, "flip": True}, given=LOW)
    with pytest.raises(BadValue, match="'given' is flipped at random and 'data' is not"):
        opened(use="paired", data=DIGITS, given={**LOW, "flip": True})


def test_an_evaluation_flips_no_inner_set() -> None:
    flipping = {**DIGITS, "flip": True}
    node = {"use": "unpaired", "data": {"use": "paired", "data": flipping, "given": {**LOW, "flip": True}},
            "other": flipping}  # fmt: skip
    still = unflipped(check_node("dataset", node))
    assert opened(**node).flips
    assert not still.flips
    assert torch.equal(read(still, seed=1).data, read(opened(**DIGITS)).data)


def test_sets_of_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="60 data and 20 to pair them with"):
        opened(use="paired", data=DIGITS, given={**LOW, "limit": 20})


def test_partners_have_the_same_names(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "high", "a/1.png", "a/2.png", "b/1.png")
    write_images(tmp_path / "low", "a/1.png", "a/2.png", "b/1.png", size=(4, 4))
    write_images(tmp_path / "other", "a/1.png", "a/3.png", "b/1.png", size=(4, 4))
    made = opened(use="paired", data=folder(tmp_path, "high"), given=folder(tmp_path, "low"))
    assert made.names(np.array([2, 0])) == ["b/1.png", "a/1.png"]
    assert made.spec.conditions["given"].shape == (3, 4, 4)
    with pytest.raises(DataError, match=r"datum 1 is a/2\.png, and its partner is a/3\.png"):
        opened(use="paired", data=folder(tmp_path, "high"), given=folder(tmp_path, "other"))
    opened(use="paired", data=folder(tmp_path, "high"), given=folder(tmp_path, "other"), match="order")


def test_the_folder_that_all_lie_in_and_the_suffix_are_no_part_of_a_name(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "high", "hr/1.png", "hr/2.png")
    write_images(tmp_path / "low", "1.bmp", "2.bmp", size=(4, 4))
    made = opened(use="paired", data=folder(tmp_path, "high"), given=folder(tmp_path, "low"))
    assert len(made) == 2


def test_names_outlive_the_cache(tmp_path: Path, write_images: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganvas.shelves.data.reading import prepare

    monkeypatch.setattr(prepare, "WORTH_CACHING", 0)
    write_images(tmp_path / "high", "x.png", "y.png", "z.png")
    for _ in range(2):  # decoded, and then from the cache
        assert opened(**folder(tmp_path, "high")).names(np.array([2, 1])) == ["z.png", "y.png"]


# --------------------------------------------------------------------------------------------------- unpaired


def test_partners_are_drawn_anew_and_evenly() -> None:
    made = opened(**MADE[1])
    others = read(opened(use="shapes", count=40))

    def partners(seed: int) -> list[int]:
        drawn = read(made, seed=seed).condition["other"]
        return [int((others.data == each).flatten(1).all(1).nonzero()[0]) for each in drawn]

    counts = np.bincount([number for seed in range(20) for number in partners(seed)], minlength=40)
    assert partners(0) == partners(0) != partners(1)
    assert counts.min() > 10  # of 1200 draws, 30 each; below 10 once in ten thousand tries
    assert counts.max() < 60


# --------------------------------------------------------------------------------------------------- captioned


@pytest.fixture
def captioned_folder(tmp_path: Path, write_images: Write) -> Path:
    write_images(tmp_path / "set", "a/1.png", "a/2.png", "b/1.png")
    return tmp_path / "set"


def captions(file: Path, *rows: tuple[str, str]) -> None:
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


THREE = (("b/1.png", "a  fish"), ("a/2.png", "two cats"), ("a/1.png", "cat"))


def texts(dataset: Dataset, batch: Batch) -> list[str]:
    vocabulary = dataset.spec.conditions["text"].modality.node()["vocabulary"]
    rows = zip(batch.condition["text"], batch.condition["text_mask"].bool(), strict=True)
    return ["".join(vocabulary[token] for token in tokens[mask]) for tokens, mask in rows]


def test_captions_beside_the_files_are_found_by_name(captioned_folder: Path) -> None:
    captions(captioned_folder / "captions.jsonl", *THREE)
    made = opened(use="captioned", data={"use": "folder", "path": str(captioned_folder)})
    batch = read(made)
    assert texts(made, batch) == ["cat", "two cats", "a fish"]
    assert batch.condition["text_mask"].sum(1).tolist() == [3, 8, 6]
    assert batch.condition["text"].shape == (3, 8)


def test_captions_of_a_csv_elsewhere(captioned_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    rows = "\n".join(f'{name},"{text}, it says"' for name, text in THREE)
    file.write_text(f"file_name,text\n{rows}\n", encoding="utf-8")
    made = opened(
        use="captioned", data={"use": "folder", "path": str(captioned_folder)}, captions=str(file), by="words"
    )
    assert texts(made, read(made))[0] == "cat, it says"
    vocabulary = made.spec.conditions["text"].modality.node()["vocabulary"]
    assert vocabulary == [" ", ",", "a", "cat", "cats", "fish", "it", "says", "two"]


def test_captions_in_an_archive(captioned_folder: Path, tmp_path: Path) -> None:
    captions(captioned_folder / "captions.jsonl", *THREE)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(captioned_folder.rglob("*.*")):
            archive.write(file, f"train/{file.relative_to(captioned_folder)}")
    made = opened(use="captioned", data={"use": "zip", "path": str(tmp_path / "set.zip"), "folder": "train"})
    assert texts(made, read(made, 2, 0)) == ["a fish", "cat"]


def test_tokens_are_those_of_the_modality(captioned_folder: Path) -> None:
    captions(captioned_folder / "captions.jsonl", *THREE)
    for by in ("characters", "words"):
        made = opened(use="captioned", data={"use": "folder", "path": str(captioned_folder)}, by=by)
        batch = read(made, 1)
        known = made.spec.conditions["text"].modality
        tokens = known.encode("two cats")  # type: ignore[attr-defined]
        assert batch.condition["text"][0][: len(tokens)].tolist() == tokens.tolist()
        assert int(batch.condition["text_mask"].sum()) == len(tokens)


def test_one_of_several_captions_is_drawn(captioned_folder: Path) -> None:
    captions(captioned_folder / "captions.jsonl", *THREE, ("a/1.png", "an animal"))
    made = opened(use="captioned", data={"use": "folder", "path": str(captioned_folder)})
    assert {texts(made, read(made, 0, seed=seed))[0] for seed in range(20)} == {"cat", "an animal"}
    assert {texts(made, read(made, 1, seed=seed))[0] for seed in range(20)} == {"two cats"}


def test_longer_captions_are_cut_with_a_warning(captioned_folder: Path) -> None:
    captions(captioned_folder / "captions.jsonl", *THREE)
    with pytest.warns(UserWarning, match="2 of 3 captions are longer than 5 tokens"):
        made = opened(use="captioned", data={"use": "folder", "path": str(captioned_folder)}, length=5)
    assert texts(made, read(made)) == ["cat", "two c", "a fis"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"file_name": "a/1.png", "text": "cat"}\n', "2 of 3 data have no caption, such as a/2.png"),
        ('{"file_name": "a/1.png", "text": "cat"}\n{"file": 3}\n', "a row has no file_name and text"),
        ("cat\n", "it is no JSON"),
        ('{"file_name": "a/1.png", "text": " "}\n', "a row has no file_name and text"),
        ("", "3 of 3 data have no caption"),
    ],
)
def test_captions_that_do_not_fit_are_refused(captioned_folder: Path, content: str, problem: str) -> None:
    (captioned_folder / "captions.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        opened(use="captioned", data={"use": "folder", "path": str(captioned_folder)})


def test_what_is_missing_for_captions_is_said(captioned_folder: Path, tmp_path: Path) -> None:
    inner = {"use": "folder", "path": str(captioned_folder)}
    with pytest.raises(DataError, match="no captions lie beside the data"):
        opened(use="captioned", data=inner)
    captions(tmp_path / "texts.jsonl", *THREE)
    with pytest.raises(DataError, match="no file names that captions could be looked up by"):
        opened(use="captioned", data=DIGITS, captions=str(tmp_path / "texts.jsonl"))
    with pytest.raises(DataError, match="the vocabulary has no 'f', which is in the caption 'a fish'"):
        opened(use="captioned", data=inner, captions=str(tmp_path / "texts.jsonl"), vocabulary=[" ", "a", "t"])
    with pytest.raises(BadValue, match="no place for the class"):
        opened(use="captioned", data=DIGITS, template="a digit")


def test_texts_of_classes() -> None:
    made = opened(**MADE[2])
    batch = read(made)
    assert texts(made, batch) == [f"a photo of {label}" for label in batch.label.tolist()]


@pytest.mark.skipif(not EMOJI.is_file(), reason="../shared/data/emoji128.zip is not at hand")
def test_captions_of_emoji() -> None:
    made = opened(use="captioned", data={"use": "zip", "path": str(EMOJI), "size": 8, "channels": 3, "limit": 40})
    names = made.names(np.arange(len(made)))
    with zipfile.ZipFile(EMOJI) as archive:
        lines = [json.loads(line) for line in archive.read("captions.jsonl").splitlines()]
    wanted = {line["file_name"]: " ".join(line["text"].split()) for line in lines}
    assert texts(made, read(made)) == [wanted[name] for name in names]


# --------------------------------------------------------------------------------------------------- neighbours


def test_neighbours_are_exact_and_not_oneself() -> None:
    made = opened(**MADE[3])
    extractor = parts.build("extractor", check_node("extractor", "digit-net"))
    features = torch.nn.functional.normalize(extractor(read(made).data)[0])
    alike = (features @ features.T).fill_diagonal_(-2)
    for seed in range(3):
        given = read(made, seed=seed).condition["neighbour"]
        found = (given @ features.T).argmax(1)
        assert torch.allclose(features[found], given, atol=1e-6)
        rank = (alike > alike.gather(1, found[:, None]) + 1e-6).sum(1)  # how many are nearer
        assert int(rank.max()) < 5


def test_labels_are_those_of_the_neighbour() -> None:
    made = opened(**MADE[3])
    features, labels = made.features, read(made).label  # type: ignore[attr-defined]
    batch = read(made, seed=2)
    found = (batch.condition["neighbour"] @ features.T).argmax(1)
    assert torch.equal(batch.condition["neighbour_label"], labels[found])


def test_neighbours_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened(**MADE[3])

    def never(*arguments: object) -> None:
        raise AssertionError("they lie in the cache")

    monkeypatch.setattr(neighbours_module, "nearest", never)
    again = opened(**MADE[3])
    assert torch.equal(read(one).condition["neighbour"], read(again).condition["neighbour"])
    with pytest.raises(AssertionError, match="cache"):
        opened(**{**MADE[3], "k": 6})


SOUND = {"use": "tones", "rate": 8000, "count": 12}
VERSE = {"use": "grammar", "count": 12}


@pytest.mark.parametrize(("data", "extractor"), [(SOUND, "log-mel"), (VERSE, "raw")], ids=["rate", "categories"])
def test_the_extractor_is_made_ready_for_these_data(data: dict[str, Any], extractor: str) -> None:
    plain = opened(**data)
    ready = parts.extractor_for(parts.build("extractor", check_node("extractor", extractor)), plain.spec.modality)
    made = opened(use="neighbours", data=data, extractor=extractor, k=2, normalise=False)
    assert torch.equal(made.features, ready(read(plain).data)[0])  # type: ignore[attr-defined]


def test_features_are_of_data_without_flips() -> None:
    flipping = opened(**{**MADE[3], "data": {**DIGITS, "flip": True}})
    assert torch.equal(flipping.features, opened(**MADE[3]).features)  # type: ignore[attr-defined]


def test_neighbours_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadValue, match="60 neighbours of each of 60 data"):
        opened(**{**MADE[3], "k": 60})
    with pytest.raises(BadValue, match="extractor 'digit-net' takes image data, and these are plane") as caught:
        opened(use="neighbours", data={"use": "gaussians", "count": 64}, extractor="digit-net", k=2)
    assert caught.value.hint == "extractors for them: raw"
    arrays = {"use": "paired", "data": MADE[1], "given": LOW}
    assert "neighbour" in opened(use="neighbours", data=arrays, k=2).spec.conditions
