"""Films: files, strips, players, and what a walk through latents writes."""

from __future__ import annotations

import base64
import builtins
import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ganvas import parts
from ganvas.errors import DataError, MissingExtra, UsageError
from ganvas.files import video as files
from ganvas.model import walk
from ganvas.toys.shapes import draw, random_factors

GREY, COLOUR = (1, 6, 10, 12), (3, 6, 10, 12)  # (C, T, H, W)


def films(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Smooth ones: lossy files keep them nearly as they are."""
    C, T, H, W = shape
    x, y, t = (torch.linspace(0, 1, each) for each in (W, H, T))
    phase = torch.rand(n, C, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) * 6
    wave = torch.sin(phase + 3 * x + 2 * y[:, None] + 2 * t[:, None, None])
    return wave * 0.9


@pytest.fixture
def video() -> Any:
    return parts.modality_of({"use": "video", "rate": 10.0})


@pytest.fixture
def no_av(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not installed."""
    real = builtins.__import__

    def without(name: str, *args: Any, **keys: Any) -> Any:
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *args, **keys)

    monkeypatch.delitem(sys.modules, "av", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)


needs_av = pytest.mark.skipif(not files._has_av(), reason="the extra 'video' (av) is not installed")


def test_it_is_what_its_node_says(video: Any) -> None:
    assert video.node() == {"use": "video", "rate": 10.0}
    assert parts.modality_of(video.node()) == video != parts.modality_of({"use": "video", "rate": 12.0})
    assert parts.modality_of("video").rate == 25.0


def test_values_are_rounded_to_8_bits_and_back(video: Any) -> None:
    data = films(3, COLOUR)
    rounded = video.rounded(data)
    assert rounded.dtype == torch.uint8 and rounded.shape == data.shape
    assert torch.equal(video.rounded(video.restored(rounded)), rounded)
    assert (video.restored(rounded) - data).abs().max() <= 1 / 255 + 1e-6
    assert video.rounded(torch.tensor([-2.0, -1, 1, 2]).view(1, 1, 4, 1, 1)).flatten().tolist() == [0, 0, 255, 255]
    assert video.arrays(data)["videos"].shape == (3, 6, 10, 12, 3)


def test_a_grey_gif_is_exact(video: Any, tmp_path: Path) -> None:
    data = films(2, GREY)
    places = [tmp_path / "a.gif", tmp_path / "b.gif"]
    video.write(data, places)
    for film, file in zip(data, places, strict=True):
        assert torch.equal(video.rounded(video.read(file, GREY)[None]), video.rounded(film[None]))
    with Image.open(places[0]) as image:
        assert image.n_frames == 6 and image.info["loop"] == 0 and image.info["duration"] == 100


def test_a_gif_in_colour_has_256_colours_a_frame(video: Any, tmp_path: Path) -> None:
    few = torch.from_numpy(draw({k: v[:4] for k, v in random_factors(4, 0).items()}, 16)).permute(
        1, 0, 2, 3
    )  # (3, 4, …)
    video.write(video.restored(few[None]), [tmp_path / "few.gif"])
    assert torch.equal(video.rounded(video.read(tmp_path / "few.gif", (3, 4, 16, 16))[None])[0], few)  # no loss
    many = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    video.write(many, [tmp_path / "many.gif"])
    back = video.read(tmp_path / "many.gif", (3, 4, 32, 32))
    assert 0 < (back - many[0]).abs().mean() < 0.2
    assert len(np.unique(video.rounded(back[None])[0, :, 1].flatten(1).numpy(), axis=1).T) <= 256


def test_frames_that_are_alike_come_back_as_often_as_they_were(video: Any, tmp_path: Path) -> None:
    """A GIF's writer keeps one of them, and shows it for longer."""
    data = films(1, GREY)
    data[:, :, 3] = data[:, :, 2]
    data[:, :, 4] = data[:, :, 2]
    video.write(data, [tmp_path / "a.gif"])
    assert torch.equal(video.rounded(video.read(tmp_path / "a.gif", GREY)[None]), video.rounded(data))


@pytest.mark.parametrize("rate", [8.0, 24.0, 30.0, 50.0])
def test_a_gif_keeps_the_rate_on_the_whole(rate: float) -> None:
    frames = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1).repeat(4, 1).repeat(4, 2)
    film = files.decode(files.gif(frames, rate), "film")
    assert len(film.frames) == 30
    assert film.rate == pytest.approx(rate, rel=0.02)


@needs_av
@pytest.mark.parametrize("shape", [COLOUR, GREY, (3, 5, 9, 11)], ids=["colour", "grey", "odd"])
def test_mp4_comes_back_nearly_and_of_the_same_size(video: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = films(2, shape)
    places = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    video.write(data, places)
    for film, file in zip(data, places, strict=True):
        back = video.read(file, shape)
        assert back.shape == shape
        assert (back - film).abs().mean() < 0.12  # of films that differ by 0.5 and more
    assert files.read(places[0]).rate == pytest.approx(10)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.usefixtures("no_av")
def test_mp4_without_av_is_refused_in_words(video: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtra, match="neither is installed") as error:
        video.write(films(1, GREY), [tmp_path / "a.mp4"])
    assert "ganvas[video]" in error.value.hint
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(MissingExtra, match="package av"):
        video.read(tmp_path / "b.mp4", GREY)


FFMPEG = """#!{python}
import sys
sys.stdin.buffer.read() if {fails} == 0 else None
open(sys.argv[-1], "wb").write(" ".join(sys.argv[1:]).encode())
print("such a codec is not there", file=sys.stderr)
sys.exit({fails})
"""


@pytest.mark.usefixtures("no_av")
@pytest.mark.parametrize("fails", [0, 1])
def test_without_av_the_program_ffmpeg_writes(
    video: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """A program of that name stands in for it and says how it was called."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(FFMPEG.format(python=sys.executable, fails=fails))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    if fails:
        with pytest.raises(DataError, match="such a codec is not there"):
            video.write(films(1, COLOUR), [tmp_path / "a.mp4"])
    else:
        video.write(films(1, COLOUR), [tmp_path / "a.mp4"])
        line = (tmp_path / "a.mp4").read_text()
        assert "-s 12x10" in line and "-r 10.0" in line and "yuv420p" in line
    assert sorted(each.name for each in tmp_path.iterdir()) == (["bin"] if fails else ["a.mp4", "bin"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"RIFF and more", "begins like no GIF or MP4"),
        (b"GIF89a", "no film that can be read"),
        (b"GIF89a" + bytes(20), "no film that can be read"),
        pytest.param(b"\0\0\0\x18ftypmp42" + bytes(64), "no film that can be read", marks=needs_av),
    ],
)
def test_files_that_are_no_films_are_refused(video: Any, tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x.gif").write_bytes(content)
    with pytest.raises(DataError, match=problem) as error:
        video.read(tmp_path / "x.gif", GREY)
    assert str(tmp_path / "x.gif") in error.value.where


def test_a_gif_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    small, large = (Image.fromarray(np.full((1000, 1000), each, dtype=np.uint8)) for each in (0, 255))
    buffer = io.BytesIO()
    small.save(buffer, "GIF", save_all=True, append_images=[large], duration=[20, 600_000])  # 30,000 frames of 3 MB
    with pytest.raises(files.Unreadable, match="over 2 GiB"):
        files.decode(buffer.getvalue(), "film")


def test_what_does_not_fit_is_refused(video: Any, tmp_path: Path) -> None:
    video.write(films(1, GREY), [tmp_path / "a.gif"])
    with pytest.raises(DataError, match=r"6 frames of 12x10 .* not 7 of 12x10"):
        video.read(tmp_path / "a.gif", (1, 7, 10, 12))
    with pytest.raises(DataError, match="no film has 2 channels"):
        video.read(tmp_path / "a.gif", (2, 6, 10, 12))
    with pytest.raises(DataError, match="can hold 4 channels"):
        video.write(films(1, (4, 6, 10, 12)), [tmp_path / "b.gif"])
    with pytest.raises(DataError, match=r"ends in \.avi"):
        video.write(films(1, GREY), [tmp_path / "b.avi"])
    with pytest.raises(DataError, match="it cannot be read"):
        video.read(tmp_path / "nothing.gif", GREY)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.gif"]


def test_a_sheet_has_a_row_for_each_film_and_a_column_for_each_frame(video: Any) -> None:
    data = torch.full((2, 1, 4, 16, 16), -1.0)
    data[0, :, 1] = 1  # the second frame of the first film is white
    data[1, :, 3] = 1
    sheet = np.asarray(video.show(data))
    cell, gap = 64, 4
    lit = [[sheet[row * (cell + gap) + 9, column * (cell + gap) + 9] for column in range(4)] for row in range(2)]
    assert lit == [[0, 255, 0, 0], [0, 0, 0, 255]]
    assert video.note((1, 4, 16, 16)) == ""
    assert "8 or fewer of their 20 frames" in video.note((1, 20, 16, 16)) and "2 channels" in video.note((2, 4, 16, 16))
    wide = video.show(films(1, (3, 20, 16, 16)))
    assert wide.width == 8 * 64 + 7 * 4


def test_with_columns_films_lie_beside_each_other_and_time_goes_down(video: Any) -> None:
    """So that a class can have a column, and neighbours a row."""
    data = torch.full((3, 1, 2, 16, 16), -1.0)
    data[1, :, 1] = 1
    data[2, :, 0] = 1
    sheet = np.asarray(video.show(data, 2))
    cell, gap, rows = 64, 4, 16
    below = 2 * cell + gap + rows  # of the first row of films
    places = [[9, cell + gap + 9], [below + 9, below + cell + gap + 9]]
    found = [[[sheet[y, column * (cell + gap) + 9] for y in times] for column in range(2)] for times in places]
    assert found == [[[0, 0], [0, 255]], [[255, 0], [128, 128]]]  # the fourth film is not there
    assert video.show(films(4, COLOUR), 4).size == (4 * 72 + 3 * 4, 6 * 60 + 5 * 4)
    assert video.show(films(8, COLOUR), 4).height == 2 * (4 * 60 + 3 * 4) + 16


def test_a_player_is_a_gif_in_the_page(video: Any) -> None:
    page = video.player(films(3, GREY))
    found = re.findall(r'<img alt="film \d" src="data:image/gif;base64,([^"]+)">', page)
    assert len(found) == 3
    with Image.open(io.BytesIO(base64.b64decode(found[0]))) as image:
        assert image.n_frames == 6 and image.size == (12 * 6, 10 * 6)  # as large as a sheet's cells
    assert video.player(films(30, (1, 2, 4, 4))).count("<img") == 24


def test_a_walk_is_written_by_the_same_writer(tmp_path: Path) -> None:
    frames = [np.full((9, 11, 3), 40 * each, dtype=np.uint8) for each in range(5)]
    assert walk.save(iter(frames), tmp_path / "a.gif", fps=30) == 5
    assert files.read(tmp_path / "a.gif").frames.shape == (5, 8, 10, 3)
    for name in ("a.avi", "nowhere/a.gif"):
        with pytest.raises(UsageError):
            walk.save(iter(frames), tmp_path / name, fps=30)
