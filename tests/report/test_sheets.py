"""What samples were made of: on their sheets, and in what the report says of them."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas import cli, parts
from ganvas.model import load
from ganvas.report import Record, page
from ganvas.report.sheets import captioned, inputs_of, interleaved, sheet
from ganvas.types import Condition, ConditionSpec, DataSpec

IMAGE = parts.modality_of("image")
LINE = 13  # pixels of the caption


def spec_of(shape: tuple[int, ...], low: tuple[int, ...]) -> DataSpec:
    return parts.data_spec("image", shape, {"low": ConditionSpec(low, modality=IMAGE), "label": ConditionSpec((), 3)})


def test_small_images_are_enlarged_and_take_the_colours_of_the_data() -> None:
    low = torch.linspace(-1, 1, 8).view(2, 1, 2, 2)
    found = inputs_of(Condition(low=low, label=torch.tensor([0, 1])), spec_of((3, 4, 4), (1, 2, 2)))
    assert list(found) == ["low"]  # a label is no picture
    assert found["low"].shape == (2, 3, 4, 4)
    assert torch.equal(found["low"][:, 0, ::2, ::2], low[:, 0])
    assert torch.equal(found["low"][:, :, 1, 1], found["low"][:, :, 0, 0])  # repeated, not blended
    colour = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    grey = inputs_of(Condition(low=colour), spec_of((1, 2, 2), (3, 1, 1)))["low"]
    assert torch.equal(grey, torch.zeros(1, 1, 2, 2))


def test_what_is_given_stands_above_what_is_made_of_it() -> None:
    given, made = torch.full((5, 1, 64, 64), -1.0), torch.full((5, 1, 64, 64), 1.0)
    pixels = np.asarray(sheet(made, {"low": given}, IMAGE, 3))
    rows = [int(pixels[LINE + row * (64 + 4) + 30, 30]) for row in range(4)]
    assert rows == [0, 255, 0, 255]
    assert int(pixels[LINE + 3 * 68 + 30, 2 * 68 + 30]) == 128  # there is no sixth
    assert pixels[:LINE].min() == 0  # the line of text
    assert np.array_equal(np.asarray(sheet(made, {}, IMAGE, 3)), np.asarray(IMAGE.show(made, 3)))
    assert interleaved([torch.arange(3), torch.arange(3) + 10], 2).tolist() == [0, 1, 10, 11, 2, 12]


def test_a_narrow_picture_is_widened_for_its_line() -> None:
    whole = captioned(Image.new("L", (8, 8), 0), "rows in turn: low (given), output")
    assert whole.width > 100 and whole.height == 8 + LINE


@pytest.fixture(scope="module")
def enlarger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pairs") / "run"
    words = ["train", "tiny/digits-super-resolution", "train.steps=1", "train.batch=4", "eval=", "--device", "cpu"]
    assert cli.run([*words, "--out", str(run)]) == 0
    return run


def blocks(pixels: np.ndarray) -> bool:
    """Whether a cell (64, 64) is made of 4 x 4 even blocks."""
    cells = pixels.reshape(4, 16, 4, 16)
    return bool((cells == cells[:, :1, :, :1]).all())


def test_sheets_of_an_enlarger_show_the_small_images(enlarger: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(small / f"{number}.png")
    out = tmp_path / "sheet.png"
    assert cli.run(["sample", str(enlarger), "--given", str(small), "--out", str(out)]) == 0
    for file in (out, *(enlarger / "samples").glob("step-*.png")):
        pixels = np.asarray(Image.open(file).convert("L"))
        assert blocks(pixels[LINE : LINE + 64, :64])
        assert not blocks(pixels[LINE + 68 : LINE + 132, :64])


def test_the_report_says_what_samples_are_made_of(enlarger: Path, tmp_path: Path) -> None:
    text = html.unescape((enlarger / "report.html").read_text(encoding="utf-8"))
    assert "Make samples of yours; FOLDER: files for low, image of 1 × 4 × 4 (.png)" in text
    command = f"ganvas sample {enlarger} --given low=FOLDER"
    assert command in text and f"sample {enlarger} --n" not in text
    assert f"ganvas.load('{enlarger}').transform({{'low': low}})  # low (N, 1, 4, 4)" in text
    assert "each column is one class" not in text  # the digits have classes, which it does not look at
    small = tmp_path / "small"
    small.mkdir()
    Image.new("L", (4, 4)).save(small / "0.png")
    assert cli.run([*command.replace("FOLDER", str(small)).split()[1:], "--out", str(tmp_path / "one.png")]) == 0


def test_columns_are_classes_only_where_the_model_looks_at_them(trained_run: Path) -> None:
    assert Record.read(trained_run, load(trained_run)).columns_are_classes
    assert "each column is one class" in (trained_run / "report.html").read_text(encoding="utf-8")


def test_conditions_that_no_file_holds_are_given_from_python(trained_run: Path) -> None:
    text = parts.modality_of({"use": "text", "vocabulary": ["a", " "]})
    needed = {"caption": ConditionSpec((7,), 2, text), "caption_mask": ConditionSpec((7,), 2)}
    record = replace(Record.read(trained_run), needed=needed)
    assert "--text caption=TEXT" in page(record) and "TEXT: a text for caption, at most 7 long" in page(record)
    numbers = page(replace(record, needed={"neighbour": ConditionSpec((16,))}))
    assert "ganvas sample" not in numbers
    assert "neighbour (N, 16)" in numbers
