"""The report of a run: complete, self-contained, safe, and there for runs that have little to show."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas import report
from ganvas.files import pictures
from ganvas.files.files import append_rows, write_tensors
from ganvas.recipe.recipe import Recipe
from ganvas.recipe.yaml12 import write
from ganvas.report.page import evenly

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Balanced(HTMLParser):
    """Holds every element that was closed in its turn, with its attributes, and the text outside of style."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(file: Path) -> tuple[Balanced, str]:
    """The parsed page and its text, after what must hold of every page."""
    source = file.read_text(encoding="utf-8")
    assert file.stat().st_size < 3_000_000
    page = Balanced()
    page.feed(source)
    page.close()
    assert page.open == []
    ids = [own["id"] for _, own in page.found if "id" in own]
    assert len(ids) == len(set(ids))
    for tag, own in page.found:
        for key in ("src", "href", "data", "action", "srcset"):
            target = own.get(key)
            assert target is None or target.startswith(("data:image/", "#"))
            assert target is None or not target.startswith("#") or target[1:] in ids
        assert tag not in ("script", "link", "iframe", "object", "embed")
        assert not any(key.startswith("on") for key in own)
        assert tag != "img" or own.get("alt")
        assert tag != "th" or own.get("scope") in ("row", "col")
    assert "url(" not in source and "@import" not in source
    return page, " ".join(" ".join(page.text).split())


def score(step: int, metric: str, value: float, **more: Any) -> dict[str, Any]:
    return {
        "step": step, "metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1,
        "interval": "95 % t-interval over 3 sampling seeds", "lower_is_better": metric.endswith("distance"),
        "protocol": "digits", "n_fake": 500, "n_real": 500, "reference": "70559d5f9214eae3", "extractor": "digit-net",
        "sha256": "e0bfb5bbe4bee465322167", "layer": "input of the last linear layer", "seeds": [0, 1, 2], "notes": [],
        **more,
    }  # fmt: skip


def begun(folder: Path, *overrides: str) -> Path:
    """A run folder as it is when training starts."""
    recipe = Recipe.load("digits", ["train.steps=300", *overrides])
    (folder / "samples").mkdir(parents=True)
    recipe.save(folder / "recipe.yaml")
    (folder / "resolved.yaml").write_text(write(recipe.resolve()), encoding="utf-8")
    noted = {"ganvas": "0.1.0", "commit": None, "torch": "2.6", "seed": 0, "data": "531fb3494d", "data_count": 1297}
    later = {**noted, "torch": "2.7"}
    (folder / "provenance.json").write_text(json.dumps({**noted, "resumed": [later]}), encoding="utf-8")
    return folder


def model(folder: Path, names: list[str]) -> None:
    header = {"format": 1, "recipe": {"networks": {}}, "class_names": names, "step": 1, "spec": {}}
    write_tensors(folder / "model.safetensors", {"g.w": torch.zeros(1)}, {"ganvas": json.dumps(header)})


def sheet(folder: Path, step: int, *shape: int) -> None:
    images = torch.from_numpy(np.random.default_rng(step).uniform(-1, 1, (20, *shape)).astype("float32"))
    pictures.save(pictures.grid(images, 10), folder / "samples" / f"step-{step:07d}.png")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = begun(tmp_path / "a run")
    model(folder, [str(digit) for digit in range(10)])
    for step in range(20, 301, 20):
        sheet(folder, step, 1, 8, 8)
    rows = [
        {"step": step, "images": step * 64, "lr.generator": 2e-4, "discriminator.adversarial": 1 + 1 / step,
         "generator.adversarial": -1 / step}
        for step in range(10, 301, 10)
    ]  # fmt: skip
    append_rows(folder / "log.jsonl", rows)
    for step in (150, 300):
        rows = [score(step, "frechet_distance", 100 / step), score(step, "precision", step / 400)]
        append_rows(folder / "scores.jsonl", rows)
    return folder


def test_says_everything_about_a_finished_run(run: Path) -> None:
    file = report.write(run)
    assert file == run / "report.html"
    page, text = read(file)
    for wanted in (
        "Class-conditional GAN on 8×8", "finished 300 of 300 steps", "Fréchet distance", "↓ lower is better",
        "↑ higher is better", "0.33", "0.23 … 0.43", "Protocol digits, step 300", "500 generated against 500 real",
        "sampling seeds 0, 1, 2", "e0bfb5bbe4be", "95 % t-interval over 3 sampling seeds", "Samples over time",
        "Discriminator, adversarial", "Generator, adversarial", "networks.generator.width", "1,297", "531fb3494d",
        "PyTorch, when it went on 2.7", f"ganvas sample '{run}' --n 64", f"--resume --out '{run}'",
        f"ganvas eval '{run}'",
        "Squared Fréchet distance between Gaussians",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "e0bfb5bbe4bee" not in text  # the prefix is enough
    assert "Learning rate" not in text  # it never changed
    images = [own for tag, own in page.found if tag == "img"]
    assert len(images) == 1 + 12  # the last sheet, and at most twelve over time
    names = [own for tag, own in page.found if (own.get("class") or "") == "names"]
    assert "repeat(10," in str(names[0]["style"])
    assert not list(run.glob(".report*"))


def test_pictures_are_whole(run: Path) -> None:
    source = report.write(run).read_text(encoding="utf-8")
    first = re.search(r"data:image/png;base64,([^\"]+)", source)
    assert first is not None
    embedded = Image.open(io.BytesIO(base64.b64decode(first[1])))
    last = Image.open(run / "samples" / "step-0000300.png")
    np.testing.assert_array_equal(np.asarray(embedded), np.asarray(last))


def test_settings_differ_from_defaults_only_where_they_do(run: Path) -> None:
    _, text = read(report.write(run))
    table = text.split("Settings that are not at their default")[1].split("Every setting")[0]
    assert "networks.generator.width 32 256" in table
    assert "train.steps 300 10000" in table
    assert "task.objective hinge" in table
    assert "train.batch" not in table  # written in the recipe, and the default all the same
    assert "optim.use" not in table and "optim adam" not in table


def test_a_run_that_has_nothing_yet(tmp_path: Path) -> None:
    _, text = read(report.write(begun(tmp_path / "young")))
    assert "not finished 0 of 300 steps" in text
    assert "neither samples nor scores" in text
    assert "ganvas sample" not in text  # there is no model to sample from


def test_an_empty_folder(tmp_path: Path) -> None:
    page, _ = read(report.write(tmp_path))
    assert not [tag for tag, _ in page.found if tag in ("img", "svg")]


def test_an_interrupted_run(run: Path) -> None:
    for step in range(140, 301, 20):
        (run / "samples" / f"step-{step:07d}.png").unlink()
    (run / "scores.jsonl").unlink()
    (run / "log.jsonl").write_text('{"step": 10, "discriminator.adversarial": 1.0}\n{"step": 2', encoding="utf-8")
    (run / "checkpoints" / "step-0000127").mkdir(parents=True)
    _, text = read(report.write(run))
    assert "not finished 127 of 300 steps" in text
    assert "Samples at step 120" in text
    assert "Go on" in text and "--allow-changes" not in text


@pytest.mark.parametrize(
    "broken", ["provenance.json", "resolved.yaml", "recipe.yaml", "scores.jsonl", "model.safetensors"]
)
def test_a_broken_file_is_left_out(run: Path, broken: str) -> None:
    (run / broken).write_bytes(b'\x00\xff{"a": [1, <p>')
    _, text = read(report.write(run))
    assert "Samples at step 300" in text


def test_a_picture_that_is_cut_short_is_left_out(run: Path) -> None:
    file = run / "samples" / "step-0000300.png"
    file.write_bytes(file.read_bytes()[:200])
    page, _ = read(report.write(run))
    assert len([tag for tag, _ in page.found if tag == "img"]) == 11


def hostile(text: str) -> Iterator[str]:
    for pattern in ("<script>{}</script>", '"><img src=x onerror={}>', "'><b onclick='{}'>", "</title><p>{}"):
        yield pattern.format(text)


def test_what_files_say_is_text_and_nothing_else(tmp_path: Path) -> None:
    evil = list(hostile("alert(1)"))
    folder = begun(tmp_path / "<b>run", f"summary={json.dumps(evil[0])}")
    model(folder, evil)
    sheet(folder, 300, 1, 8, 8)
    provenance = {"ganvas": evil[1], evil[2]: evil[3], "resumed": [{evil[0]: evil[1]}, evil[2]]}
    (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    append_rows(folder / "log.jsonl", [{"step": 1, evil[0]: 1.0, f"{evil[1]}.{evil[2]}": 2.0}])
    more = {
        "protocol": evil[1],
        "extractor": evil[2],
        "sha256": evil[3],
        "interval": evil[0],
        "notes": evil,
        "layer": evil[1],
    }
    append_rows(folder / "scores.jsonl", [score(step, evil[0], 1.0, **more) for step in (1, 2)])
    page, text = read(report.write(folder))
    assert "alert(1)" in text  # shown as it is
    assert not [tag for tag, _ in page.found if tag == "b" and _.get("onclick")]


def test_heavy_pictures_are_made_light(tmp_path: Path) -> None:
    folder = begun(tmp_path / "photographs")
    names = ["airplane", "automobile", *"abcdefgh"]
    model(folder, names)
    for step in range(1, 15):
        sheet(folder, step, 3, 128, 128)
    page, _ = read(report.write(folder))  # which looks at the size
    image = next(own for tag, own in page.found if tag == "img")
    assert int(image["width"] or 0) >= 1000
    assert any((own.get("class") or "") == "names long" for _, own in page.found)


def test_scores_of_another_protocol_stand_apart(run: Path) -> None:
    more = {"protocol": "fid-10k", "n_fake": 10000, "notes": ["too few <samples>"], "low": None, "high": None}
    append_rows(run / "scores.jsonl", [score(300, "frechet_distance", 17.5, **more)])
    page, text = read(report.write(run))
    tiles = text.split("Scores at step 300 by protocol")[0]
    assert "17.5" not in tiles and "0.33" in tiles
    assert "Protocol fid-10k, step 300" in text and "too few <samples>" in text
    assert len([tag for tag, _ in page.found if tag == "caption"]) == 3


def test_a_number_that_was_scored_twice_is_shown_once(run: Path) -> None:
    append_rows(run / "scores.jsonl", [score(300, "precision", 0.5)])
    _, text = read(report.write(run))
    assert text.split("how they were made")[0].count("Precision") == 1
    assert "0.50" in text and "0.75" not in text.split("What to do")[0].split("Scores and how")[1]


def test_scores_that_are_not_finite(run: Path) -> None:
    more = {"low": float("nan"), "high": float("nan")}
    append_rows(run / "scores.jsonl", [score(300, "recall", float("nan"), **more), score(150, "recall", 0.2)])
    _, text = read(report.write(run))
    assert "NaN" in text


def test_evenly() -> None:
    assert evenly(list(range(5)), 12) == list(range(5))
    chosen = evenly(list(range(100)), 12)
    assert len(chosen) == 12 and chosen[0] == 0 and chosen[-1] == 99
    assert {b - a for a, b in itertools.pairwise(chosen)} == {9}


def test_colours_can_be_told_apart() -> None:
    """WCAG AA: text against what it stands on at least 4.5 to 1, in light and in dark."""
    style = (Path(report.__file__).parent / "style.css").read_text(encoding="utf-8")
    found = re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style)
    half = len(found) // 2
    for theme in (dict(found[:half]), dict(found[half:])):
        pairs = [
            *((text, ground) for text in ("ink", "soft", "series1") for ground in ("page", "card")),
            ("ink", "code"), ("good", "good-back"), ("open", "open-back"),
        ]  # fmt: skip
        for text, ground in pairs:
            light, dark = sorted((luminance(theme[text]), luminance(theme[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
