"""Films as data: drawn ones, and those in folders and archives."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganvas import parts
from ganvas.errors import DataError
from ganvas.files import video as files
from ganvas.recipe.check import check_node
from ganvas.shelves.data.sets.moving_shapes import DIRECTIONS, MovingShapes
from ganvas.toys.shapes import recover


def build(**keys: Any) -> Any:
    return parts.build("dataset", check_node("dataset", {"use": "video", **keys}))


def read(dataset: Any, indices: Any = None, seed: int = 0) -> Any:
    return dataset.batch(
        np.arange(len(dataset)) if indices is None else np.asarray(indices), np.random.default_rng(seed)
    )


# --------------------------------------------------------------------------------------------------- drawn films


def test_discs_move_as_they_say() -> None:
    dataset = MovingShapes(count=12, size=32, frames=5)
    batch = read(dataset)
    assert batch.data.shape == (12, 3, 5, 32, 32)
    assert dataset.spec.modality.node() == {"use": "video", "rate": 8.0}
    places = []
    for t in range(5):
        found, valid = recover(batch.data[:, :, t].numpy())
        assert valid.all()
        assert (found["kind"] == 0).all() and (found["colour"] == dataset.factors["colour"]).all()
        places.append(np.stack([found["x"], found["y"]], 1))
    velocity = np.diff(places, axis=0)  # (4, 12, 2)
    wanted = np.stack([dataset.factors["vx"], dataset.factors["vy"]], 1)
    np.testing.assert_allclose(velocity, np.broadcast_to(wanted, velocity.shape), atol=0.01)
    steps = np.array(list(DIRECTIONS.values()))[batch.label]
    assert (np.sign(wanted) == steps).all()
    assert (np.abs(wanted).max(1) * 4 >= 0.5 * 0.38).all()


def test_drawn_films_are_functions_of_the_seed() -> None:
    one, same, other = (MovingShapes(count=6, size=16, frames=3, seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert np.array_equal(read(one).data, read(same).data)
    assert MovingShapes(count=6, size=16, frames=3, split="test").fingerprint != one.fingerprint
    assert MovingShapes.preview(size=16, frames=3) == one.spec


# --------------------------------------------------------------------------------------------------- films in files


def grey_film(value: int, frames: int = 6, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    """(T, H, W, 1): frame t is value + t all over, with a dark left half."""
    film = np.zeros((frames, *size, 1), dtype=np.uint8)
    film[:, :, size[1] // 2 :] = (value + np.arange(frames))[:, None, None, None]
    return film


@pytest.fixture
def gifs(tmp_path: Path) -> Path:
    """Two classes of three and two films."""
    for name, value in {"run/a": 10, "run/b": 30, "run/c": 50, "walk/d": 70, "walk/e": 90}.items():
        file = tmp_path / "gifs" / f"{name}.gif"
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, grey_film(value), 20)
    return tmp_path / "gifs"


def test_class_folders_of_gifs(gifs: Path) -> None:
    dataset = build(path=str(gifs), frames=6)
    assert (len(dataset), dataset.class_names) == (5, ("run", "walk"))
    assert dataset.spec.shape == (1, 6, 8, 10)  # grey, since all are
    assert dataset.spec.modality.rate == pytest.approx(20)
    batch = read(dataset)
    assert batch.label.tolist() == [0, 0, 0, 1, 1]
    pixels = dataset.spec.modality.rounded(batch.data)
    assert pixels[:, 0, :, 0, -1].tolist() == [[v + t for t in range(6)] for v in (10, 30, 50, 70, 90)]
    assert dataset.names(np.array([3])) == ["walk/d.gif"]


def test_an_archive_holds_the_same(gifs: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for file in sorted(gifs.rglob("*.gif")):
            archive.write(file, Path("train") / file.relative_to(gifs))
    packed = build(path=str(tmp_path / "films.zip"), folder="train", frames=6)
    assert packed.names(np.array([0])) == ["run/a.gif"]
    loose = build(path=str(gifs), frames=6)
    assert packed.fingerprint == loose.fingerprint


def test_clips_take_each_so_many_th_frame(gifs: Path) -> None:
    dataset = build(path=str(gifs), frames=3, stride=2)
    pixels = dataset.spec.modality.rounded(read(dataset).data)
    assert pixels[0, 0, :, 0, -1].tolist() == [10, 12, 14]
    assert dataset.spec.modality.rate == pytest.approx(10)


def test_clips_may_begin_anywhere_and_scores_see_the_first(gifs: Path) -> None:
    dataset = build(path=str(gifs), frames=2, start="random", flip=True)

    def starts(whole: Any, seed: int) -> list[int]:
        data = whole.spec.modality.rounded(read(whole, [0] * 40, seed).data)
        bright, left = data[:, 0, 0, 0].max(1).values - 10, data[:, 0, 0, 0, 0] > 0
        return bright.tolist() + left.int().tolist()

    assert starts(dataset, 1) == starts(dataset, 1) != starts(dataset, 2)
    assert set(starts(dataset, 1)[:40]) == {0, 1, 2, 3, 4} and set(starts(dataset, 1)[40:]) == {0, 1}
    assert set(starts(dataset.unflipped(), 1)) == {0}
    assert dataset.flips and not dataset.unflipped().flips
    assert dataset.fingerprint != build(path=str(gifs), frames=2).fingerprint


def test_folders_of_pictures_are_films_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name, value in {"clip.1": 10, "clip.2": 100}.items():
        folder = tmp_path / "frames" / name
        folder.mkdir(parents=True)
        for t in range(12):
            Image.fromarray(np.full((6, 6), value + t, dtype=np.uint8)).save(folder / f"f{t}.png")
    dataset = build(path=str(tmp_path / "frames"), frames=12, rate=12)
    assert dataset.spec.shape == (1, 12, 6, 6) and dataset.spec.modality.rate == 12
    assert not dataset.class_names  # the folders are films, not classes
    pixels = dataset.spec.modality.rounded(read(dataset).data)
    assert pixels[:, 0, :, 0, 0].tolist() == [[v + t for t in range(12)] for v in (10, 100)]
    (tmp_path / "frames" / "dataset.json").write_text(json.dumps({"labels": [["clip.1", 1], ["clip.2", 0]]}))
    assert read(build(path=str(tmp_path / "frames"), frames=12)).label.tolist() == [1, 0]
    nested = tmp_path / "nested"
    for number, name in enumerate(("clip.1", "clip.2")):
        (nested / f"class{number}").mkdir(parents=True)
        (tmp_path / "frames" / name).rename(nested / f"class{number}" / name)
    assert build(path=str(nested), frames=12).class_names == ("class0", "class1")


@pytest.mark.skipif(not files._has_av(), reason="the extra 'video' (av) is not installed")
def test_mp4_files_in_another_size(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for number in range(3):
        colour = np.full((5, 16, 24, 3), (200, 30 * number, 20), dtype=np.uint8)
        files.write(tmp_path / "films" / f"{number}.mp4", colour, 15)
    dataset = build(path=str(tmp_path / "films"), frames=4, size=8, limit=2)
    assert dataset.spec.shape == (3, 4, 8, 8) and dataset.spec.modality.rate == 15
    assert len(dataset) == 2
    assert dataset.spec.modality.rounded(read(dataset).data)[:, 0].float().mean() == pytest.approx(200, abs=6)
    assert build(path=str(tmp_path / "films"), frames=4, channels=1).spec.shape == (1, 4, 16, 24)


def test_what_cannot_be_used_is_told(gifs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run/a.gif \(6 frames, and a clip needs 7\)"):
        build(path=str(gifs), frames=4, stride=2)
    (gifs / "run" / "broken.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"run/broken.gif"):
        build(path=str(gifs), frames=2)
    with pytest.warns(UserWarning, match="left out .*broken"):
        assert len(build(path=str(gifs), frames=2, corrupt="skip")) == 5
    (gifs / "run" / "broken.gif").unlink()
    files.write(gifs / "run" / "other.gif", grey_film(3, size=(4, 4)), 20)
    with pytest.raises(DataError, match=r"a.gif is 10x8 \(width x height\), run/other.gif is 4x4"):
        build(path=str(gifs), frames=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no film found"):
        build(path=str(tmp_path / "empty"))
    with pytest.raises(DataError, match="no such file"):
        build(path=str(tmp_path / "nowhere"))


def test_keys_promise_what_the_files_keep(gifs: Path) -> None:
    part = parts.find("dataset", "video")
    keys = {"path": str(gifs), "frames": 3, "size": 8, "channels": 1, "rate": 20.0}
    assert parts.preview(part, keys) == build(**keys).spec
    assert parts.preview(part, {"path": "x", "frames": 3}) is None
