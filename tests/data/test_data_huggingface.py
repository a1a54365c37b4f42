"""Data sets of Hugging Face: mapped from Arrow files by index, or streamed from Parquet files."""

from __future__ import annotations

import functools
import http.server
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from serving import Server

from ganvas.errors import BadValue, DataError, MissingExtra
from ganvas.shelves.data.reading.options import ImageOptions, PixelOptions
from ganvas.shelves.data.sets.huggingface import HuggingFace, HuggingFaceStream

datasets = pytest.importorskip("datasets", reason="needs the extra datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def picture(n: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(n)).save(file, "PNG")
    return file.getvalue()


def table(numbers: range, **more: Any) -> Any:
    """Images 0, 1, ...; the class is the number modulo 3, the id the number."""
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES), "id": datasets.Value("int64")}
    rows = {
        "picture": [{"bytes": picture(n), "path": None} for n in numbers],
        "kind": [n % 3 for n in numbers],
        "id": list(numbers),
        **more,
    }
    kinds = {name: features.get(name, datasets.Value("string")) for name in rows}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    table(range(30)).save_to_disk(tmp_path / "saved", num_shards=3)
    return tmp_path / "saved"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    (tmp_path / "parquet").mkdir()
    for number, rows in enumerate((range(12), range(12, 20), range(20, 30))):
        table(rows).to_parquet(str(tmp_path / "parquet" / f"{number}.parquet"), batch_size=5)
    return tmp_path / "parquet"


def refused(problem: str, part: Any = HuggingFace, **keys: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        part(**keys)
    assert problem in caught.value.problem, caught.value
    assert caught.value.hint
    assert caught.value.where
    return caught.value


def expected(numbers: list[int]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(n)).permute(2, 0, 1) for n in numbers]) / 127.5 - 1


def test_by_index(saved: Path) -> None:
    data = HuggingFace(path=str(saved))
    assert (len(data), data.class_names) == (30, tuple(NAMES))
    batch = data.batch(np.array([29, 0, 7]), np.random.default_rng(0))
    assert torch.allclose(batch.data, expected([29, 0, 7]), atol=1e-6)
    assert batch.label.tolist() == [2, 0, 1]
    small = HuggingFace(path=str(saved), images=ImageOptions(size=(4, 6), channels=1, limit=9))
    assert (small.spec.shape, len(small)) == ((1, 4, 6), 9)
    assert len({data.fingerprint, small.fingerprint, HuggingFace(path=str(saved), labels="id").fingerprint}) == 3


def test_every_form_on_disk_is_the_same_data(saved: Path, parquet: Path) -> None:
    one = HuggingFace(path=str(saved))
    for path in (f"{saved}/*.arrow", str(parquet), f"{parquet}/{{0..2}}.parquet"):
        other = HuggingFace(path=path)
        assert other.fingerprint == one.fingerprint
        batches = [data.batch(np.arange(30), np.random.default_rng(0)) for data in (one, other)]
        assert torch.equal(batches[0].data, batches[1].data)
        assert torch.equal(batches[0].label, batches[1].label)


def test_splits(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": table(range(5)), "test": table(range(5, 9))})
    both.save_to_disk(tmp_path / "both")
    path = str(tmp_path / "both")
    assert [len(HuggingFace(path=path, split=split)) for split in (None, "train", "test")] == [5, 5, 4]
    assert "train, test" in refused("no split 'val'", path=path, split="val").hint


def test_columns(tmp_path: Path, saved: Path) -> None:
    path = str(saved)
    assert HuggingFace(path=path, labels="none").spec.num_classes == 0
    assert HuggingFace(path=path, labels="id").class_names == tuple(map(str, range(30)))
    assert "picture, kind, id" in refused("no column 'kid'", path=path, labels="kid").hint
    refused("holds no image files", path=path, image="id")
    two = table(range(4)).add_column("mask", [picture(n) for n in range(4)])
    two.save_to_disk(tmp_path / "two")
    refused("columns of images: picture, mask", path=str(tmp_path / "two"))
    assert len(HuggingFace(path=str(tmp_path / "two"), image="mask")) == 4  # plain bytes are image files, too
    table(range(4)).remove_columns("picture").save_to_disk(tmp_path / "none")
    refused("columns of images: none among kind, id", path=str(tmp_path / "none"))
    table(range(4), kind=[0, 1, -1, 2]).save_to_disk(tmp_path / "unlabelled")
    refused("labels run from -1", path=str(tmp_path / "unlabelled"))


def test_what_is_not_there(tmp_path: Path) -> None:
    for part in (HuggingFace, HuggingFaceStream):
        refused("cannot be read", part, path="nobody/nothing")
        refused("nothing of this kind", part, path="../elsewhere/x")
        (tmp_path / "empty").mkdir(exist_ok=True)
        refused("no ", part, path=str(tmp_path / "empty"))
    refused("nothing of this kind", HuggingFaceStream, path="a/b/c.arrow")


def test_corrupt_rows(tmp_path: Path) -> None:
    rows = [{"bytes": picture(n), "path": None} for n in range(100)]
    rows[76] = None
    table(range(100), picture=rows).save_to_disk(tmp_path / "bad")
    data = HuggingFace(path=str(tmp_path / "bad"))
    with pytest.raises(DataError, match="holds no bytes") as caught:
        data.batch(np.array([76]), np.random.default_rng(0))
    assert caught.value.where.endswith("bad, row 76")
    data = HuggingFace(path=str(tmp_path / "bad"), corrupt="skip")
    with pytest.warns(UserWarning, match="row 76"):
        assert data.batch(np.array([75, 76]), np.random.default_rng(0)).label.tolist() == [0, 2]


def test_files_that_a_table_names_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(0))
    named = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 3
    pq.write_table(pa.table({"picture": named}), tmp_path / "named.parquet")
    refused("holds no bytes", HuggingFaceStream, path=str(tmp_path / "named.parquet"))


# --------------------------------------------------------------------------------------------------- the stream


def walked(data: HuggingFaceStream) -> tuple[torch.Tensor, list[int]]:
    batches = list(data.walk(7))
    return torch.cat([each.data for each in batches]), torch.cat([each.label for each in batches]).tolist()


def test_the_stream_is_the_same_data(parquet: Path) -> None:
    stream = HuggingFaceStream(path=str(parquet), block=4)
    assert (len(stream), stream.class_names) == (30, tuple(NAMES))
    data, labels = walked(stream)
    assert torch.allclose(data, expected(list(range(30))), atol=1e-6)
    assert labels == [n % 3 for n in range(30)]
    grey = HuggingFaceStream(path=str(parquet), images=PixelOptions(size=4, channels=1))
    assert grey.spec.shape == (1, 4, 4)
    assert grey.fingerprint != stream.fingerprint


@pytest.mark.parametrize("start", [0, 4, 5, 6, 9, 11])
def test_a_shard_is_entered_anywhere(parquet: Path, start: int) -> None:
    stream = HuggingFaceStream(path=str(parquet), labels="id", classes=30)
    assert [image.label for image in stream._shards.read(0, start)] == list(range(start, 12))


@pytest.mark.parametrize("position", [0, 3, 17, 29, 30, 47])
def test_the_stream_goes_on_from_any_position(parquet: Path, position: int) -> None:
    stream = HuggingFaceStream(path=str(parquet), labels="id", classes=30, block=4)
    own = {"seed": 2, "rank": 0, "world": 1}
    whole = stream.stream(**own, position=0).take(70, np.random.default_rng(0))
    later = stream.stream(**own, position=position).take(20, np.random.default_rng(0))
    assert torch.equal(later.label, whole.label[position : position + 20])
    assert torch.equal(later.data, whole.data[position : position + 20])
    assert sorted(whole.label[:30].tolist()) == sorted(whole.label[30:60].tolist()) == list(range(30))


def test_labels_of_the_stream(parquet: Path) -> None:
    path = str(parquet)
    with pytest.raises(BadValue, match="does not say how many classes"):
        HuggingFaceStream(path=path, labels="id")
    with pytest.raises(BadValue, match="the labels have 3 classes"):
        HuggingFaceStream(path=path, classes=4)
    refused("is 20, none of 20 classes", HuggingFaceStream, path=path, labels="id", classes=20)
    assert HuggingFaceStream(path=path, labels="none").spec.num_classes == 0


def test_damaged_files(parquet: Path) -> None:
    file = parquet / "1.parquet"
    whole = file.read_bytes()
    for data in (whole[:-20], b"no parquet file", b""):
        file.write_bytes(data)
        refused("no Parquet file, or it is cut off", HuggingFaceStream, path=str(parquet))


class Ranged(http.server.SimpleHTTPRequestHandler):
    """Files by ranges, which the standard library's server cannot give."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def served(parquet: Path) -> Iterator[str]:
    handler = functools.partial(Ranged, directory=str(parquet))
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True, args=(0.01,)).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_behind_addresses(parquet: Path, served: str) -> None:
    near, far = (HuggingFaceStream(path=path) for path in (str(parquet), f"{served}/{{0..2}}.parquet"))
    assert far.fingerprint == near.fingerprint
    assert torch.equal(walked(far)[0], walked(near)[0])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for part in (HuggingFace, HuggingFaceStream):
        with pytest.raises(MissingExtra) as caught:
            part(path="x")
        assert 'pip install "ganvas[datasets]"' in caught.value.hint
