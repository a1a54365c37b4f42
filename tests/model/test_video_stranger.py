"""A video GAN by somebody else: one file of parts, one recipe, and nothing of ours changed."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import ganvas
from ganvas import cli, parts
from ganvas.files.files import read_rows
from ganvas.training.session import Watcher
from ganvas.training.train import train

PARTS = '''\
"""A generator and a critic of films with convolutions in time and space."""
import torch
from torch import nn

from ganvas.errors import BadValue
from ganvas.parts import network
from ganvas.types import Critic, DataSpec, Generator, LatentSpec, Scores


def quarter(spec: DataSpec) -> tuple[int, ...]:
    """(T / 4, H / 4, W / 4)."""
    if len(spec.shape) != 4 or any(side % 4 for side in spec.shape[1:]):
        raise BadValue(f"this network makes films whose sides 4 divides, not {spec.shape}", hint="data.size=16")
    return tuple(side // 4 for side in spec.shape[1:])


@network("clip-generator", tiny={"width": 4, "z_dim": 4})
class ClipGenerator(Generator):
    """Transposed convolutions over time and space."""

    def __init__(self, spec: DataSpec, *, z_dim: int = 16, width: int = 16) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((z_dim,))}
        self.layers = nn.Sequential(
            nn.ConvTranspose3d(z_dim, 2 * width, quarter(spec)),
            nn.BatchNorm3d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose3d(2 * width, width, 4, 2, 1),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.ConvTranspose3d(width, spec.channels, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, latent):
        return self.layers(latent[:, :, None, None, None])  # (N, C, T, H, W)


@network("clip-critic", tiny={"width": 4})
class ClipCritic(Critic):
    """Strided convolutions over time and space."""

    def __init__(self, spec: DataSpec, *, width: int = 16) -> None:
        super().__init__()
        t, h, w = quarter(spec)
        self.layers = nn.Sequential(
            nn.Conv3d(spec.channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv3d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.out = nn.Linear(2 * width * t * h * w, 1)

    def forward(self, data):
        features = self.layers(data)
        return Scores(self.out(features)[:, 0], features)
'''

RECIPE = """\
summary: a video GAN of somebody else on discs that move
data: {use: moving-shapes, count: 32, size: 16, frames: 4}
networks:
  generator: {use: clip-generator, z_dim: 8, width: 8}
  discriminator: {use: clip-critic, width: 8}
task: {use: adversarial, objective: non-saturating}
ema: {decay: 0.9}
train: {steps: 2, batch: 8, log_every: 1, checkpoint_every: 1, sample_every: 1}
"""

PROTOCOL = """\
summary: films by the values of their points
extractor: raw
metrics: {frechet-distance: {}, kernel-distance: {}}
samples: 32
seeds: [0]
"""

RAW = "raw" in {part.name for part in parts.every("extractor")}


@pytest.fixture(scope="module", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stranger")
    for name, text in {"clips.py": PARTS, "clips.yaml": RECIPE, "raw.yaml": PROTOCOL}.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def their_parts(work: Path) -> None:
    """As `--parts clips.py`; taken off the shelves again after each test."""
    parts.add_file(work / "clips.py")


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    """Two steps."""
    parts.add_file(work / "clips.py")
    train(work / "clips.yaml", out=work / "run", device="cpu")
    return work / "run"


class PulledPlug(Exception):
    """What ends a run between two steps, and nobody catches."""


class PullPlug(Watcher):
    def tick(self, step: int, values: object) -> None:
        if step == 2:
            raise PulledPlug


def test_the_recipe_is_checked(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["check", str(work / "clips.yaml"), "--parts", str(work / "clips.py")]
    assert cli.run(line) == 0, capsys.readouterr().err
    assert cli.run([*line, "data.frames=6"]) == 2
    assert "films whose sides 4 divides" in capsys.readouterr().err


def test_a_run_holds_film_strips(run: Path) -> None:
    rows = read_rows(run / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    with Image.open(run / "samples" / "step-0000002.png") as sheet:
        assert sheet.size == (10 * 68 - 4, 4 * 68 - 4)  # a column for each film, a row for each frame


@pytest.mark.parametrize("layout", ["false", "true"])
def test_a_broken_run_goes_on_to_the_bit(work: Path, layout: str, killing: ModuleType, tmp_path: Path) -> None:
    """Also where channels come last, which films have a layout of their own for."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    key = f"train.channels_last={layout}"
    train(work / "clips.yaml", key, out=whole, device="cpu")
    with pytest.raises(PulledPlug):
        train(work / "clips.yaml", key, out=broken, device="cpu", watcher=PullPlug())
    train(work / "clips.yaml", key, out=broken, device="cpu", resume=True)
    assert killing.differences(killing.contents(whole), killing.contents(broken)) == []


def test_the_layout_changes_nothing_but_rounding(work: Path, run: Path, tmp_path: Path) -> None:
    train(work / "clips.yaml", "train.channels_last=true", "train.accumulate=2", out=tmp_path / "run", device="cpu")
    train(work / "clips.yaml", "train.accumulate=2", out=tmp_path / "plain", device="cpu")
    one, other = (ganvas.load(tmp_path / name).sample(2) for name in ("run", "plain"))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_films_are_sampled_and_written(work: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ganvas.load(run)
    made = model.sample(5, seed=3)
    assert made.shape == (5, 3, 4, 16, 16) and made.abs().max() <= 1
    assert torch.equal(made[:2], model.sample(2, seed=3))
    assert model.score(made).shape == (5,)
    assert model.spec.modality.node() == {"use": "video", "rate": 8.0}

    line = ["sample", str(run), "--n", "3", "--seed", "3", "--parts", str(work / "clips.py"), "--out"]
    for out in ("strip.png", "films.npz", "films"):
        assert cli.run([*line, str(work / out)]) == 0, capsys.readouterr().err
    with np.load(work / "films.npz") as arrays:
        (values,) = (arrays[name] for name in arrays.files)
    assert np.array_equal(values.transpose(0, 4, 1, 2, 3), model.spec.modality.rounded(made[:3]).numpy())
    found = sorted((work / "films").rglob("*.gif"))
    assert len(found) == 3
    back = model.spec.modality.read(found[0], model.spec.shape)
    assert (back - made[0]).abs().mean() < 0.1  # of a film's colours a GIF keeps 256 a frame
    data = parts.build("dataset", {"use": "video", "path": str(work / "films"), "frames": 4})
    assert data.spec.shape == model.spec.shape  # what was written trains again


@pytest.mark.skipif(not RAW, reason="the extractor 'raw', for data of any kind, is not there")
@pytest.mark.filterwarnings("ignore:.*samples are few")
def test_films_are_scored(work: Path, run: Path) -> None:
    rows = ganvas.evaluate(run, protocol=work / "raw.yaml", device="cpu")
    assert {"frechet_distance", "kernel_distance"} <= {row["metric"] for row in rows}
    assert all(np.isfinite(row["value"]) and row["extractor"] == "raw" for row in rows)


@pytest.mark.skipif(not RAW, reason="the extractor 'raw', for data of any kind, is not there")
@pytest.mark.filterwarnings("ignore:.*samples are few")
def test_a_run_is_inspected(work: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["inspect", str(run), "--protocol", str(work / "raw.yaml"), "--parts", str(work / "clips.py"), "--json"]
    looks = [word for name in ("neighbours", "interpolation", "extremes", "critic") for word in ("--with", name)]
    assert cli.run([*line, *looks]) == 0, capsys.readouterr().err
    said = json.loads(capsys.readouterr().out)
    assert said["notes"] == []
    page = Path(said["report"]).read_text()
    assert page.count("data:image/gif;base64,") > 8  # films move in it
