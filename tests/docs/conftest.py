"""A place like a reader's: photos, archives and a trained run, made once and copied for each page."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.files import audio, video
from ganvas.training.train import train


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the guide's commands name."""
    root = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)

    def photo(file: Path, width: int = 80) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, width, 3), dtype=np.uint8)).save(file)

    for place in ("recordings/yes", "recordings/no", "films", "small"):
        (root / place).mkdir(parents=True)
    for number in range(4):
        photo(root / "sharp" / f"{number}.png")
        photo(root / "blurred" / f"{number}.png")
        sound = rng.integers(-9000, 9000, (1, 4000 + 100 * number), dtype=np.int16)
        audio.write(root / "recordings" / ("yes", "no")[number % 2] / f"{number}.wav", sound, 16_000)
        frames = rng.integers(0, 256, (20, 40, 40, 1), dtype=np.uint8)
        video.write(root / "films" / f"{number}.gif", frames, 10.0)
        Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(root / "small" / f"{number}.png")
    (root / "verse.txt").write_text("All that is gold does not glitter.\n" * 20, encoding="utf-8")
    weather = [f"day {day},{day % 7},{day % 5 / 2}" for day in range(60)]
    (root / "weather.csv").write_text("\n".join(["day,temperature,wind", *weather]), encoding="utf-8")
    people = [f"{20 + each},{each % 3},{('tea', 'coffee')[each % 2]},{('no', 'yes')[each % 2]}" for each in range(40)]
    (root / "people.csv").write_text("\n".join(["age,district,drink,answer", *people]), encoding="utf-8")

    for number in range(6):
        photo(root / "photos" / f"{number}.png", 80 + 16 * number)
        photo(root / "fakes" / f"{number}.png", 64)
        photo(root / "pets" / ("cat", "dog")[number % 2] / f"{number}.jpg")
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for file in sorted((root / "photos").iterdir()):
            archive.write(file, file.name)
    (root / "shards").mkdir()
    for number in range(2):
        with tarfile.open(root / "shards" / f"{number:02d}.tar", "w") as shard:
            for file in sorted((root / "photos").iterdir())[number::2]:
                shard.add(file, file.name)
    np.savez(root / "faces.npz", images=rng.integers(0, 256, (6, 40, 40, 3), dtype=np.uint8))
    digits = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    header = b"\0\0\x08\x03" + np.array(digits.shape, dtype=">u4").tobytes()
    (root / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + digits.tobytes()))
    (root / "data").mkdir()
    with tarfile.open(root / "data" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
        rows = {name: rng.integers(0, 10, (4, 3073), dtype=np.uint8).tobytes() for name in names}
        rows["batches.meta.txt"] = "\n".join(f"class{number}" for number in range(10)).encode()
        for name, content in rows.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    train("tiny/digits", "train.steps=2", "eval.every=2", "train.checkpoint_every=1", out=root / "runs" / "digits")
    return root


@pytest.fixture
def desk(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of it as working directory."""
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "cache"))
    return tmp_path
