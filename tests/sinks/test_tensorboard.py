"""TensorBoard event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas import parts
from ganvas.errors import MissingExtra
from ganvas.files import pictures
from ganvas.types import Sink


def opened(folder: Path) -> Sink:
    sink: Sink = parts.build("sink", {"use": "tensorboard"}, folder)
    return sink


def reader(folder: Path):  # type: ignore[no-untyped-def]
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def scalars(folder: Path, name: str) -> dict[int, float]:
    return {event.step: event.value for event in reader(folder).Scalars(name)}


def test_scalars_and_pictures(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    assert not (tmp_path / "tensorboard").exists()  # nothing is written before there is something to write
    for step in (10, 20):
        sink.row(step, {"step": step, "images": step * 64, "discriminator.adversarial": step / 2, "lr.generator": 0.5})
    for step, channels in ((10, 1), (20, 3), (30, 4)):
        sheet = pictures.grid(torch.linspace(-1, 1, 4 * channels * 64).reshape(4, channels, 8, 8), 2)
        pictures.save(sheet, tmp_path / f"{step}.png")
        sink.images(step, str(tmp_path / f"{step}.png"))
    sink.row(20, {"score.frechet_distance": 1.5})
    sink.close()
    assert scalars(tmp_path, "discriminator/adversarial") == {10: 5.0, 20: 10.0}
    assert scalars(tmp_path, "lr/generator") == {10: 0.5, 20: 0.5}
    assert scalars(tmp_path, "images") == {10: 640, 20: 1280}
    assert scalars(tmp_path, "score/frechet_distance") == {20: 1.5}
    assert "step" not in reader(tmp_path).Tags()["scalars"]
    for event in reader(tmp_path).Images("samples"):
        seen = Image.open(io.BytesIO(event.encoded_image_string))
        with Image.open(tmp_path / f"{event.step}.png") as written:
            np.testing.assert_array_equal(np.asarray(seen), np.asarray(written.convert(seen.mode)))


def test_a_resumed_run_takes_the_place_of_what_was_beyond(tmp_path: Path) -> None:
    for steps, value in (((10, 20, 30), 1.0), ((20, 30), 2.0)):
        sink = opened(tmp_path)
        for step in steps:
            sink.row(step, {"generator.adversarial": value})
        sink.close()
    assert scalars(tmp_path, "generator/adversarial") == {10: 1.0, 20: 2.0, 30: 2.0}


def test_closing_without_a_row(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(MissingExtra, match="needs the package tensorboard") as caught:
        opened(tmp_path)
    assert 'pip install "ganvas[tensorboard]" -c constraints.txt' in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_train_with_it(tmp_path: Path) -> None:
    from ganvas.training.train import train

    changes = [
        "train.steps=4", "train.batch=8", "train.log_every=2", "train.sample_every=2", "sinks={tensorboard: {}}",
        "networks.generator.width=8", "networks.discriminator.width=8", "eval=~",
    ]  # fmt: skip
    train("digits", *changes, out=tmp_path / "run", device="cpu")
    assert set(scalars(tmp_path / "run", "generator/adversarial")) == {2, 4}
    assert [event.step for event in reader(tmp_path / "run").Images("samples")] == [2, 4]
    assert (tmp_path / "run" / "report.html").is_file()
