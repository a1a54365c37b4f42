"""`ganvas inspect`: what its looks find on planted sets, and the page that they end on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganvas import cli, parts, report
from ganvas.evaluation.protocol import load_protocol
from ganvas.model import Model
from ganvas.nn.eight_bit import eight_bit
from ganvas.parts import image_spec
from ganvas.recipe import yaml12
from ganvas.report import panels
from ganvas.report.figures import figure
from ganvas.training.train import train
from ganvas.types import Chart, Evidence, EvidenceSet, Generator, LatentSpec, Panel, Sheet


def images(n: int, seed: int, side: int = 8) -> Tensor:
    return eight_bit(torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1)


def flat(pictures: Tensor) -> Tensor:
    return pictures.flatten(1).float() / 255


def side(pictures: Tensor) -> EvidenceSet:
    return EvidenceSet(features=flat(pictures), images=pictures)


def analysis(name: str, **keys: object) -> object:
    return parts.build("analysis", {"use": name, **keys})


class Constant(Generator):
    """An unconditional generator: grey by the first number of its latent."""

    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((2,), "uniform")}

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent[:, :1, None, None].expand(-1, 1, 8, 8)


def test_copies_are_found_beside_their_originals() -> None:
    training, held_out = images(60, 0), images(40, 1)
    fake = torch.cat([training[7:9], images(30, 2)])
    panel = analysis("neighbours", rows=2, k=3)(Evidence(side(held_out), side(fake), side(training)))
    nearest = panel.sheets[1].images  # two rows: a sample, then its neighbours
    assert torch.equal(nearest[0], nearest[1]) and torch.equal(nearest[4], nearest[5])
    assert {int(training.flatten(1).eq(nearest[i].flatten()).all(1).nonzero()) for i in (1, 5)} == {7, 8}
    assert nearest.shape == (8, 1, 8, 8) and panel.sheets[1].columns == 4
    share = float(re.search(r"([\d.]+)% of the samples", panel.text)[1])
    assert 100 * 2 / 32 <= share < 20


def test_the_spectrum_shows_what_a_blur_takes_away() -> None:
    sharp = images(50, 0, 16)
    blurred = eight_bit(nn.functional.avg_pool2d(sharp.float() / 127.5 - 1, 3, 1, 1))
    panel = analysis("spectrum")(Evidence(side(sharp), side(blurred)))
    (_, real), (_, fake) = panel.charts[0].series["real"], panel.charts[0].series["generated"]
    assert fake[-1] < real[-1] - 5  # decibels
    assert float(re.search(r"samples have ([\d.]+) times", panel.text)[1]) < 0.5
    same = analysis("spectrum")(Evidence(side(sharp), side(sharp)))
    assert "1.00 times" in same.text


def test_a_walk_between_two_latents_is_monotone() -> None:
    model = Model({"sampler": {"use": "plain"}}, image_spec((1, 8, 8)), {"generator": Constant()})
    panel = analysis("interpolation", rows=3, columns=5)(Evidence(side(images(2, 0)), side(images(2, 0)), model=model))
    levels = panel.sheets[0].images[:, 0, 0, 0].view(3, 5).float()
    ends = model.draw(6, seed=0).values[:, 0]
    for row in range(3):
        assert levels[row, 0] == eight_bit(ends[row].view(1, 1, 1, 1)).item()
        assert levels[row, -1] == eight_bit(ends[3 + row].view(1, 1, 1, 1)).item()
        steps = levels[row].diff()
        assert (steps >= 0).all() or (steps <= 0).all()


def test_an_unconditional_model_without_a_critic_has_neither_section() -> None:
    model = Model({"sampler": {"use": "plain"}}, image_spec((1, 8, 8)), {"generator": Constant()})
    seen = Evidence(side(images(20, 0)), side(images(20, 1)), model=model)
    assert analysis("classes")(seen) is None
    assert analysis("critic")(seen) is None


def test_the_worst_samples_are_those_far_from_all_real_ones() -> None:
    real, fake = images(80, 0), images(40, 1)
    fake[13] = 255
    fake[21] = 0
    panel = analysis("extremes", count=2)(Evidence(side(real), side(fake)))
    worst = panel.sheets[1].images
    assert {int(worst[i].float().mean()) for i in range(2)} == {0, 255}


def test_the_map_keeps_apart_what_is_apart() -> None:
    a, b = images(60, 0), images(60, 1)
    b[:] = b // 8 + 200
    panel = analysis("embedding", count=60)(Evidence(side(a), side(b)))
    (x0, y0), (x1, y1) = (panel.charts[0].series[name] for name in ("real", "generated"))
    real, fake = np.stack([x0, y0], 1), np.stack([x1, y1], 1)
    between = np.linalg.norm(real.mean(0) - fake.mean(0))
    assert between > 2 * max(real.std(0).max(), fake.std(0).max())
    again = analysis("embedding", count=60)(Evidence(side(a), side(b)))
    np.testing.assert_array_equal(again.charts[0].series["real"][0], x0)


@pytest.mark.parametrize("kind", ["lines", "points", "histogram"])
def test_charts_draw_every_series_and_survive_what_is_not_finite(kind: str) -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, np.inf])
    chart = Chart("c", kind, {"one": (values, values), "two": (np.full(5, 3.0), np.arange(5.0))}, "x", "y")
    drawn = str(figure(chart))
    assert drawn.count("series1") == 2 and drawn.count("series2") == 2  # the curve and its legend
    assert "nan" not in drawn.lower() and "inf" not in drawn
    empty = figure(Chart("e", kind, {"one": (np.array([np.nan]), np.array([1.0]))}))
    assert "nothing that is finite" in empty


def test_panels_come_back_as_they_were_written(tmp_path: Path) -> None:
    picture = images(6, 0)
    chart = Chart("c", "lines", {"s": (np.array([0.0, 1.0]), np.array([2.0, np.nan]))}, "x", "y")
    panels.write(
        tmp_path,
        {"one": Panel("T", "text", (Sheet("cap", picture, 3),), (chart,))},
        {"step": 4},
        parts.modality_of("image"),
    )
    (kept,), facts = panels.read(tmp_path)
    assert (kept.title, kept.text, facts["step"]) == ("T", "text", 4)
    assert kept.sheets[0][0] == "cap" and kept.sheets[0][1].is_file()
    np.testing.assert_array_equal(kept.charts[0].series["s"][1], [2.0, np.nan])
    file = tmp_path / "inspection" / "panels.json"
    file.write_text(file.read_text().replace("one-0.png", "../../secret.png"))
    assert panels.read(tmp_path) == ((), {})  # no file outside the folder is ever shown
    file.write_text("{")
    assert panels.read(tmp_path) == ((), {})


def test_the_command_adds_sections_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, quick = tmp_path / "run", tmp_path / "quick.yaml"
    quick.write_text(yaml12.write({**load_protocol("digits"), "samples": 64, "seeds": [0]}), encoding="utf-8")
    train("tiny/digits", "train.steps=2", f"eval.protocol={quick}", out=folder, device="cpu")
    (folder / "scores.jsonl").unlink()
    assert cli.run(["inspect", str(folder), "--json", "--with", "neighbours", "--with", "spectrum"]) == 0
    said = json.loads(capsys.readouterr().out)
    page = Path(said["report"]).read_text(encoding="utf-8")
    assert "Nearest training data" in page and "Spectrum" in page and "Interpolation" not in page
    assert "http" not in re.sub(r"http://www.w3.org\S*", "", page)  # nothing is fetched
    assert (folder / "scores.jsonl").is_file()  # a run without scores is scored on the way
    again = report.write(folder).read_text(encoding="utf-8")
    assert "Nearest training data" in again  # a later report keeps them
    assert cli.run(["inspect", str(tmp_path / "nowhere")]) == 2
    assert cli.run(["inspect", str(folder), "--with", "neigbours"]) == 2
    assert "Did you mean 'neighbours'" in capsys.readouterr().err
