"""Shards of WebDataset: read as that library reads them, by index or as a stream, and safe against hostile ones."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from serving import Server

from ganvas.engine.feed import Feed
from ganvas.errors import BadValue, DataError
from ganvas.evaluation import evidence
from ganvas.evaluation.evidence import of_dataset
from ganvas.shelves.data.reading import shards as module
from ganvas.shelves.data.reading.encoded import spread
from ganvas.shelves.data.reading.options import ImageOptions, PixelOptions
from ganvas.shelves.data.sets.folder import Folder
from ganvas.shelves.data.sets.webdataset import WebDataset, WebDatasetStream

Members = list[tuple[str, bytes]]


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def pack(file: Path, members: Members) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def labelled(numbers: range) -> Members:
    """Images 0, 1, ... whose labels are their numbers."""
    return [each for n in numbers for each in ((f"{n:03d}.png", picture(n)), (f"{n:03d}.cls", f"{n}\n".encode()))]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Shards of 5, 3 and 4 images."""
    for number, numbers in enumerate((range(5), range(5, 8), range(8, 12))):
        pack(tmp_path / "three" / f"{number}.tar", labelled(numbers))
    return tmp_path / "three"


def refused(problem: str, part: Any = WebDataset, **keys: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        part(**keys)
    assert problem in caught.value.problem, caught.value
    assert caught.value.hint
    assert caught.value.where
    return caught.value


def everything(data: Any) -> Any:
    return data.batch(np.arange(len(data)), np.random.default_rng(0))


def walked(data: WebDatasetStream) -> tuple[torch.Tensor, list[int]]:
    batches = list(data.walk(5))
    labels = [] if batches[0].label is None else torch.cat([each.label for each in batches]).tolist()
    return torch.cat([each.data for each in batches]), labels


# --------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("options", [{}, {"size": 6, "channels": 1}, {"size": (4, 9), "fit": "pad"}])
def test_the_pixels_are_those_of_the_folder(tmp_path: Path, three: Path, options: dict[str, Any]) -> None:
    for n in range(12):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / f"{n:03d}.png").write_bytes(picture(n))
    theirs = everything(Folder(path=tmp_path / "folder", images=ImageOptions(**options)))
    ours = WebDataset(path=str(three), images=ImageOptions(**options))
    assert torch.equal(everything(ours).data, theirs.data)
    assert everything(ours).label.tolist() == list(range(12))
    stream = WebDatasetStream(path=str(three), classes=12, images=PixelOptions(**options))
    data, labels = walked(stream)
    assert torch.equal(data, theirs.data)
    assert labels == list(range(12))
    assert stream.spec == ours.spec
    assert stream.class_names == ours.class_names


def test_it_agrees_with_the_library(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="needs the extra webdataset")
    with wds.ShardWriter(str(tmp_path / "%02d.tar"), maxcount=4, verbose=0) as writer:
        for n in range(10):
            key = f"deep/er.{n}" if n % 2 else f"a/{n}"
            writer.write({"__key__": key.replace(".", "_"), "png": picture(n), "json": {"label": n, "x": "y"}})
    files = sorted(map(str, tmp_path.glob("*.tar")))
    theirs = list(wds.WebDataset(files, shardshuffle=False, empty_check=False))
    ours = WebDataset(path=str(tmp_path / "{00..02}.tar"))
    assert len(ours) == len(theirs) == 10
    assert everything(ours).label.tolist() == [json.loads(sample["json"])["label"] for sample in theirs]
    for number, sample in enumerate(theirs):
        with Image.open(io.BytesIO(sample["png"])) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        assert torch.allclose(everything(ours).data[number], pixels, atol=1e-6)


def test_members_are_grouped_up_to_the_first_dot(tmp_path: Path) -> None:
    members = [
        ("./a/x.JPG", picture(0, kind="JPEG")), ("./a/x.json", b'{"label": 1}'), ("./a/x.seg.png", b"no image"),
        ("b/x.json", b'{"label": 0}'), ("b/x.webp", picture(1, kind="WEBP")), ("b/x.pkl", b"\x80harm"),
        ("c/only.txt", b"no image here"), ("._c.png", b"of a Mac"), ("README", b""),
    ]  # fmt: skip
    data = WebDataset(path=str(pack(tmp_path / "a.tar", members)))
    assert everything(data).label.tolist() == [1, 0]
    assert WebDatasetStream(path=str(tmp_path / "a.tar"), classes=2)._counts.tolist() == [2]


def test_which_image_of_several(tmp_path: Path) -> None:
    both = [(f"{n}.{ext}", picture(n + shift)) for n in range(3) for ext, shift in (("jpg", 0), ("mask.png", 50))]
    file = str(pack(tmp_path / "a.tar", both))
    masks = everything(WebDataset(path=file, image="mask.png")).data
    assert not torch.equal(masks, everything(WebDataset(path=file)).data)
    file = str(pack(tmp_path / "b.tar", [("1.jpg", picture(1)), ("1.png", picture(2))]))
    assert "data.image=png" in refused("two images of one datum", path=file).hint


def test_labels(tmp_path: Path, three: Path) -> None:
    assert everything(WebDataset(path=str(three), labels="none")).label is None
    assert WebDatasetStream(path=str(three)).spec.num_classes == 0
    refused("no .json beside it", path=str(three), labels="json")
    mixed = labelled(range(4))[:-1]
    for part, keys in ((WebDataset, {}), (WebDatasetStream, {"classes": 9})):
        refused("003.png has no .cls", part, path=str(pack(tmp_path / "m.tar", mixed)), **keys)
    for bad in (b"cat", b"-1", b"1.5", b""):
        file = pack(tmp_path / "bad.tar", [("0.png", picture(0)), ("0.cls", bad), ("1.png", picture(1))])
        refused("not a class number", path=str(file))
    broken = [("0.png", picture(0)), ("0.json", b"{"), ("1.png", picture(1)), ("1.json", b"{")]
    refused("not valid JSON", path=str(pack(tmp_path / "json.tar", broken)))
    refused("beyond 4 classes", WebDatasetStream, path=str(three), classes=4)
    with pytest.raises(BadValue, match="has no label beside it"):
        WebDatasetStream(path=str(pack(tmp_path / "n.tar", [("0.png", picture(0)), ("1.png", picture(1))])), classes=2)
    with pytest.raises(BadValue, match="classes are counted"):
        WebDatasetStream(path=str(three), labels="cls")


def test_limit_flip_and_length(three: Path) -> None:
    data = WebDataset(path=str(three), images=ImageOptions(limit=4, flip=True))
    assert len(data) == 4
    first, second = (data.batch(np.arange(4), np.random.default_rng(seed)).data for seed in (0, 3))
    same = (first == second).flatten(1).all(1)
    assert torch.equal(first[~same], second[~same].flip(-1))
    assert not same.all()


def test_patterns(three: Path, tmp_path: Path) -> None:
    many = [f"a{n:02d}x.tar" for n in range(8, 11)]
    for name in many:
        shutil.copy(three / "0.tar", tmp_path / name)
    assert module.expand(f"{tmp_path}/a{{08..10}}x.tar") == [f"{tmp_path}/{name}" for name in many]
    assert module.expand(f"{tmp_path}/a{{10,08}}x.tar") == [f"{tmp_path}/{many[2]}", f"{tmp_path}/{many[0]}"]
    assert module.expand(f"{tmp_path}/a*x.tar") == [f"{tmp_path}/{name}" for name in many]
    assert module.expand("http://host/{a,b}/{9..10}.tar") == [f"http://host/{s}/{n}.tar" for s in "ab" for n in (9, 10)]
    for bad, words in (
        (f"{tmp_path}/{{3..1}}.tar", "counts 3 up to 1"), (f"{tmp_path}/{{x}}.tar", "is no pattern"),
        (f"{tmp_path}/{{0..99999999999}}.tar", "counts 0"), (f"{tmp_path}/none.tar", "no such file"),
        (f"{tmp_path}/none*.tar", "no shard"), (f"{tmp_path}/a{{08,08}}x.tar", "named twice"),
    ):  # fmt: skip
        refused(words, path=bad)


# --------------------------------------------------------------------------------------------------- what is kept


def test_the_second_start_walks_no_header(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = WebDataset(path=str(three))
    walks: list[str] = []
    monkeypatch.setattr(module, "samples", lambda *_, **__: walks.append("walked") or iter(()))
    again = WebDataset(path=str(three))
    assert not walks
    assert again.fingerprint == first.fingerprint
    assert torch.equal(everything(again).data, everything(first).data)


def test_the_fingerprint_changes_with_pixels_and_labels(tmp_path: Path, three: Path) -> None:
    def prints(members: Members) -> str:
        return WebDataset(path=str(pack(tmp_path / "one" / "0.tar", members))).fingerprint

    members = labelled(range(3))
    first = prints(members)
    assert prints(members) == first
    pixels = bytearray(picture(0, kind="BMP"))
    grey = [("000.bmp", bytes(pixels)), *members[1:]]
    pixels[-1] ^= 1  # the same size, another pixel
    assert prints(grey) != prints([("000.bmp", bytes(pixels)), *members[1:]])
    assert prints([members[0], ("000.cls", b"1\n"), *members[2:]]) != first
    assert (
        WebDataset(path=str(three), images=ImageOptions(size=4)).fingerprint != WebDataset(path=str(three)).fingerprint
    )


def test_counts_come_from_sizes_json_or_are_made_once(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = WebDatasetStream(path=str(three))
    assert counted._counts.tolist() == [5, 3, 4]
    (three / "sizes.json").write_text(json.dumps({"0.tar": 5, "1.tar": 3, "2.tar": 4}))
    stated = WebDatasetStream(path=str(three))
    assert stated.fingerprint == counted.fingerprint
    (three / "sizes.json").write_text(json.dumps({"0.tar": 5, "1.tar": 4, "2.tar": 4}))
    refused("holds 3 images, not 4", WebDatasetStream, path=str(three))
    cases = (("[", "not valid JSON"), ('{"0.tar": 5}', "name the shard '1.tar'"), ('{"0.tar": -1}', "'1.tar'"))
    for bad, words in cases:
        (three / "sizes.json").write_text(bad)
        refused(words, WebDatasetStream, path=str(three))


# --------------------------------------------------------------------------------------------------- what is wrong


def test_a_corrupt_image(tmp_path: Path) -> None:
    members = labelled(range(100))
    assert 76 not in spread(100)  # not one of those that are looked at in the beginning
    members[2 * 76] = ("076.png", b"no image")
    file = str(pack(tmp_path / "a.tar", members))
    for data, take in (
        (WebDataset(path=file), everything), (WebDatasetStream(path=file, classes=100), walked),
    ):  # fmt: skip
        with pytest.raises(DataError, match="corrupt") as caught:
            take(data)
        assert caught.value.where == f"{file}/076.png"
    with pytest.warns(UserWarning, match=r"stands in for the corrupt .*076\.png"):
        labels = everything(WebDataset(path=file, corrupt="skip")).label.tolist()
    assert labels[75:79] == [75, 77, 77, 78]  # the image behind it, with its own label


def test_sizes_and_channels_that_differ(tmp_path: Path) -> None:
    odd = [*labelled(range(80)), ("080.png", picture(80, (9, 8))), ("080.cls", b"0")]
    grey = [(f"{n:03d}.png", picture(n, mode="L")) for n in range(80)] + [("080.png", picture(0))]
    for part, take in ((WebDataset, everything), (WebDatasetStream, walked)):
        refused_at = pytest.raises(DataError, match=r"different sizes: .*000\.png is 8x8 .*080\.png is 8x9")
        with refused_at:
            take(part(path=str(pack(tmp_path / "odd.tar", odd))))
    # One of the 64 that are looked at over the whole set is the last, but not over the stream's start.
    assert WebDataset(path=str(pack(tmp_path / "grey.tar", grey))).spec.channels == 3
    with pytest.raises(DataError, match="has 3 channels, and the images at the start have 1") as caught:
        walked(WebDatasetStream(path=str(tmp_path / "grey.tar")))
    assert "data.channels=3" in caught.value.hint


@pytest.mark.parametrize("part", [WebDataset, WebDatasetStream])
def test_shards_that_are_cut_off_or_no_tars(tmp_path: Path, part: Any) -> None:
    whole = pack(tmp_path / "a.tar", labelled(range(6))).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for name, data in {
        "in an image": whole[:700], "in a header": whole[: 2048 + 100], "at a member's end": whole[:end],
        "no tar": b"nothing of the kind" * 100, "empty": b"",
    }.items():  # fmt: skip
        (tmp_path / "cut").mkdir(exist_ok=True)
        file = tmp_path / "cut" / f"{name.replace(' ', '-')}.tar"
        file.write_bytes(data)
        refused("it is not a tar archive, or it is cut off", part, path=str(file))
    damaged = bytearray(whole)
    damaged[512 * (1 + -(-len(picture(0)) // 512)) + 3] ^= 1  # in the second header, whose checksum now lies
    (tmp_path / "damaged.tar").write_bytes(damaged)
    refused("a header is damaged", part, path=str(tmp_path / "damaged.tar"))


@pytest.mark.parametrize("part", [WebDataset, WebDatasetStream])
@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../../1.png", "C:\\1.png"])
def test_names_that_lead_outside(tmp_path: Path, part: Any, name: str) -> None:
    refused("points outside", part, path=str(pack(tmp_path / "a.tar", [*labelled(range(3)), (name, picture(9))])))


def test_links_are_not_followed_and_giants_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(tmp_path / "a.tar", labelled(range(3)))
    with tarfile.open(file, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("999.png")
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
    assert len(WebDataset(path=str(file))) == 3
    monkeypatch.setattr(module, "MAX_LABEL", 1)
    refused("MB", path=str(pack(tmp_path / "b.tar", labelled(range(12)))))


def test_nothing_is_ever_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    for part in (WebDataset, WebDatasetStream):
        refused("runs a command", part, path=f"pipe:touch {harm}")
        refused("runs a command", part, path=f"{{pipe:touch {harm},x}}.tar")
    assert not harm.exists()


def test_compressed_shards_are_for_the_stream(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.tar", labelled(range(4)))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole.read_bytes()))
    assert "webdataset-stream" in refused("it is compressed", path=str(tmp_path / "a.tar.gz")).hint
    data, labels = walked(WebDatasetStream(path=str(tmp_path / "a.tar.gz"), classes=4))
    assert labels == [0, 1, 2, 3]
    assert torch.equal(data, everything(WebDataset(path=str(whole))).data)
    (tmp_path / "b.tar.gz").write_bytes((tmp_path / "a.tar.gz").read_bytes()[:-300])
    refused("cut off", WebDatasetStream, path=str(tmp_path / "b.tar.gz"))


# --------------------------------------------------------------------------------------------------- far away


@pytest.fixture
def served(three: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(three))
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True, args=(0.01,)).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *_: Any) -> None: ...


def test_shards_behind_addresses(three: Path, served: str) -> None:
    near = WebDatasetStream(path=str(three), classes=12, block=4)
    far = WebDatasetStream(path=f"{served}/{{0..2}}.tar", classes=12, block=4)
    assert far.fingerprint == near.fingerprint  # it is the same data
    assert torch.equal(walked(far)[0], walked(near)[0])
    own = {"seed": 1, "rank": 0, "world": 2, "position": 3}
    one, other = (data.stream(**own).take(9, np.random.default_rng(0)) for data in (far, near))
    assert torch.equal(one.data, other.data)
    assert "webdataset-stream" in refused("it is far away", path=f"{served}/0.tar").hint
    refused("404", WebDatasetStream, path=f"{served}/9.tar")
    (three / "sizes.json").write_text(json.dumps({"0.tar": 5, "1.tar": 3, "2.tar": 4}))
    assert len(WebDatasetStream(path=f"{served}/{{0..2}}.tar?token=secret")) == 12


# --------------------------------------------------------------------------------------------------- in use


def test_training_order_is_that_of_any_other_set(tmp_path: Path, three: Path) -> None:
    (tmp_path / "folder").mkdir()
    for n in range(12):
        (tmp_path / "folder" / f"{n:03d}.png").write_bytes(picture(n))
    feeds = [
        Feed(data, 5, 7, torch.device("cpu"), channels_last=False)
        for data in (WebDataset(path=str(three)), Folder(path=tmp_path / "folder"))
    ]
    for _ in range(6):
        ours, theirs = map(next, feeds)
        assert torch.equal(ours.data, theirs.data)


def test_a_stream_can_be_the_reference(three: Path) -> None:
    by_index, stream = WebDataset(path=str(three)), WebDatasetStream(path=str(three), classes=12)
    for limit in (None, 7):
        ours, theirs = (list(of_dataset(data, limit).batches(0, 1)) for data in (stream, by_index))
        assert of_dataset(stream, limit).count == sum(len(batch) for batch in ours)
        assert torch.equal(torch.cat([batch.data for batch in ours]), torch.cat([batch.data for batch in theirs]))
        assert torch.equal(torch.cat([batch.label for batch in ours]), torch.cat([batch.label for batch in theirs]))


def test_processes_divide_the_reference(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "BATCH", 2)
    stream = WebDatasetStream(path=str(three), classes=12)
    shares = [[batch.label.tolist() for batch in of_dataset(stream, 9).batches(rank, 3)] for rank in range(3)]
    assert shares == [[[0, 1], [6, 7]], [[2, 3], [8]], [[4, 5]]]
