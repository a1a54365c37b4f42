"""A score says how it was made, how sure it is, and does not depend on what it should not depend on."""

from pathlib import Path

import pytest
import torch

from ganvas import parts
from ganvas.errors import BadValue, DataError, RecipeError
from ganvas.evaluation import evidence
from ganvas.evaluation.judge import Judge, judge_for
from ganvas.evaluation.protocol import Measure, load_protocol
from ganvas.model import Model
from ganvas.recipe.check import PROTOCOLS, check_node
from ganvas.recipe.recipe import Recipe


def digits(**keys: object) -> object:
    return parts.build("dataset", check_node("dataset", {"use": "digits", **keys}))


def untrained(recipe: str = "tiny/digits") -> Model:
    resolved = Recipe.load(recipe).resolve()
    data = parts.build("dataset", resolved["data"])
    torch.manual_seed(0)
    generator = {
        key: value for key, value in resolved["networks"]["generator"].items() if key not in ("from", "net", "freeze")
    }
    return Model(resolved, data.spec, {"generator": parts.build("network", generator, data.spec)})


def small_protocol(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "small.yaml"
    file.write_text(text, encoding="utf-8")
    return load_protocol(file)


@pytest.mark.parametrize("file", sorted(PROTOCOLS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_protocol_is_filled_and_named(file: Path) -> None:
    protocol = load_protocol(file.stem)
    assert protocol["name"] == file.stem
    assert protocol["summary"] and protocol["metrics"] and protocol["seeds"]
    for node in protocol["metrics"].values():
        parts.build("metric", parts.split(Measure, node)[0])


def test_unknown_protocols_and_keys_are_answered_with_the_nearest() -> None:
    with pytest.raises(BadValue, match="Did you mean 'digits'"):
        load_protocol("digts")


def test_a_protocol_with_an_unknown_key_says_where(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        small_protocol(tmp_path, "extractor: digit-net\nmetrics: {frechet-distance: {}}\nseds: [1]\n")
    assert "small.yaml:3:1" in str(caught.value)
    assert "'seeds'" in str(caught.value)


def test_real_data_against_themselves_are_at_distance_zero_and_fully_covered(tmp_path: Path) -> None:
    protocol = small_protocol(tmp_path, "extractor: digit-net\nmetrics: {frechet-distance: {}, density-coverage: {}}\n")
    held_out = digits(split="test")
    rows = {row["metric"]: row for row in Judge(protocol, held_out).score_images(held_out)}
    assert 0 <= rows["frechet_distance"]["value"] < 1e-6
    assert rows["coverage"]["value"] == 1.0


def test_rows_say_how_they_were_made(tmp_path: Path) -> None:
    protocol = small_protocol(
        tmp_path,
        "extractor: digit-net\nmetrics: {frechet-distance: {}, class-agreement: {}}\nsamples: 80\nseeds: [3, 4]\n",
    )
    held_out = digits(split="test")
    rows = Judge(protocol, held_out).score_model(untrained())
    for row in rows:
        assert row["protocol"] == "small" and row["n_fake"] == 80 and row["n_real"] == 500 and row["seeds"] == [3, 4]
        assert row["extractor"] == "digit-net" and row["reference"] == held_out.fingerprint
        assert row["low"] <= row["value"] <= row["high"]
        assert any(len(str(value)) == 64 for value in row.values())  # the weights' sha256


def test_scores_do_not_depend_on_how_images_are_batched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = small_protocol(
        tmp_path, "extractor: digit-net\nmetrics: {frechet-distance: {}}\nsamples: 100\nseeds: [0]\n"
    )
    values = []
    for batch in (7, 256):
        monkeypatch.setattr(evidence, "BATCH", batch)
        values.append(Judge(protocol, digits(split="test")).score_model(untrained())[0]["value"])
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_classes_are_asked_for_in_the_references_own_proportions(tmp_path: Path) -> None:
    protocol = small_protocol(tmp_path, "extractor: digit-net\nmetrics: {class-agreement: {}}\n")
    judge = Judge(protocol, digits(split="test"))
    asked = judge.asked(untrained(), 1000).label
    assert asked is not None
    assert torch.bincount(asked).tolist() == [100] * 10


def test_a_metric_that_needs_classes_is_left_out_with_a_note_for_images_without(tmp_path: Path) -> None:
    protocol = small_protocol(
        tmp_path, "extractor: digit-net\nmetrics: {frechet-distance: {}, class-agreement: {}}\nsamples: 40\n"
    )
    rows = Judge(protocol, digits(split="test")).score_model(untrained("tiny/digits-dcgan"))
    assert [row["metric"] for row in rows] == ["frechet_distance"]
    assert any("class-agreement is left out" in note for note in rows[0]["notes"])


def test_logits_are_refused_where_the_extractor_has_none(tmp_path: Path) -> None:
    protocol = small_protocol(tmp_path, "extractor: random-net\nmetrics: {class-agreement: {}}\n")
    with pytest.raises(BadValue, match="class logits"):
        Judge(protocol, digits(split="test"))


def test_a_protocol_without_reference_asks_for_one(tmp_path: Path) -> None:
    protocol = small_protocol(tmp_path, "extractor: random-net\nmetrics: {frechet-distance: {}}\n")
    with pytest.raises(DataError) as caught:
        judge_for(protocol, None)
    assert "--against" in caught.value.hint
