"""`ganvas sample` in spaces, with mixing, and as a moving picture."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Ganvas = Callable[..., Any]


def test_a_walk_is_a_closed_loop_of_small_steps(ganvas: Ganvas, trained_run: Path) -> None:
    said = ganvas(f"sample {trained_run} --walk walk.gif --n 2 --json")
    assert said.code == 0 and said.json["frames"] == 60
    with Image.open("walk.gif") as film:
        assert film.n_frames > 1
        frames = []
        for i in range(film.n_frames):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB"), dtype=float))
    steps = [np.abs(a - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    apart = np.abs(frames[0] - frames[len(frames) // 2]).mean()
    assert max(steps) < apart


def test_a_film_where_an_encoder_is(ganvas: Ganvas, trained_run: Path) -> None:
    if importlib.util.find_spec("av") is None and shutil.which("ffmpeg") is None:
        said = ganvas(f"sample {trained_run} --walk walk.mp4")
        assert said.code == 2 and "neither is installed" in said.err
        return
    assert ganvas(f"sample {trained_run} --walk walk.mp4 --n 2").code == 0
    assert Path("walk.mp4").read_bytes()[4:8] == b"ftyp"
    assert not list(Path().glob(".*"))


@pytest.fixture(scope="module")
def styled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ganvas.training.train import train

    folder = tmp_path_factory.mktemp("styled") / "run"
    train("tiny/digits-stylegan2", "train.steps=1", "eval=", out=folder, device="cpu")
    return folder


def test_truncation_in_w_and_mixing(ganvas: Ganvas, styled_run: Path) -> None:
    for options in ("", "--space w --truncation 0", "--space w --mix 1-2"):
        out = f"{options.replace(' ', '') or 'plain'}.npz"
        assert ganvas(f"sample {styled_run} --n 6 --label 0 {options} --out {out}").code == 0
    with np.load("--spacew--truncation0.npz") as file:
        mean = file["images"]
    with np.load("plain.npz") as plain, np.load("--spacew--mix1-2.npz") as mixed:
        assert not np.array_equal(plain["images"], mixed["images"])
        assert plain["images"].std(0).max() > 0
    assert mean.std(0).max() == 0  # every image is that of the mean w


def test_the_noise_of_layers(ganvas: Ganvas, styled_run: Path) -> None:
    found = {}
    for noise in ("random", "const", "none"):
        assert ganvas(f"sample {styled_run} --n 6 --label 0 --noise {noise} --out {noise}.npz").code == 0
        with np.load(f"{noise}.npz") as file:
            found[noise] = file["images"]
    assert found["random"].shape == found["const"].shape == found["none"].shape
    assert not np.array_equal(found["random"], found["const"]) or not np.array_equal(found["const"], found["none"])
    assert ganvas(f"sample {styled_run} --walk walk.gif --n 2 --noise none").code == 0


def test_a_model_without_latents_says_what_to_type_instead(ganvas: Ganvas, workplace: Path) -> None:
    assert ganvas("train tiny/digits-dit train.steps=1 train.batch=4 eval= --out run").code == 0
    instead = "ganvas sample run --sampler '{use: ddim, steps: 5, eta: 0.0, guidance: 1.5, clip: true}'"
    for options in ("--truncation 0.5", "--space w", "--mix 1-2", "--noise none", "--walk film.gif"):
        said = ganvas(f"sample run --n 2 --out x.png {options}")
        assert said.code == 2 and not Path("x.png").exists()
        assert f"MissingCapability: {options.split()[0]}" in said.err
        assert "this model has none: it is a denoiser, sampled by 'ddim'" in said.err
        assert instead in said.err
    assert ganvas(instead.removeprefix("ganvas ")).code == 0


def test_a_walk_of_other_data_than_images_says_what_they_are(ganvas: Ganvas, workplace: Path) -> None:
    assert ganvas("train tiny/tones-wavegan train.steps=1 train.batch=4 data.count=16 eval= --out run").code == 0
    said = ganvas("sample run --n 1 --walk walk.gif")
    assert said.code == 2 and not Path("walk.gif").exists()
    assert "a walk is made of images, and this model makes audio data" in said.err


def test_a_generator_without_a_mapped_space_says_what_to_type_instead(ganvas: Ganvas, trained_run: Path) -> None:
    said = ganvas(f"sample {trained_run} --space w --n 2 --out x.png")
    assert said.code == 2
    assert "MissingCapability: --space" in said.err and "this one has z" in said.err
    assert f"ganvas sample {trained_run} --truncation 0.7" in said.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--space w+", "'w+'"),
        ("--mix four", "'four'"),
        ("--mix 2-99", "layers 2 to 99"),
        ("--space w --sampler plain", "--sampler"),
        ("--noise much", "'much'"),
        ("--noise none --sampler plain", "--sampler"),
        ("--walk film.avi", "film.avi"),
        ("--walk nowhere/film.gif", "nowhere"),
        ("--walk film.gif --space s2", "'s2'"),
    ],
)
def test_what_cannot_be_is_told(ganvas: Ganvas, styled_run: Path, options: str, told: str) -> None:
    said = ganvas(f"sample {styled_run} --n 4 {options} --out x.png")
    assert said.code == 2 and told in said.err and not list(Path().iterdir())
