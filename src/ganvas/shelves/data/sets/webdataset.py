"""Tar shards as WebDataset writes them: by index where they lie on a disk, as a stream where they are far away."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Annotated, Any, Literal, cast
from urllib.parse import urljoin

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from ganvas.errors import BadValue, DataError
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading import cache, remote
from ganvas.shelves.data.reading.by_index import EncodedImages
from ganvas.shelves.data.reading.encoded import Encoded
from ganvas.shelves.data.reading.listing import OnCorrupt
from ganvas.shelves.data.reading.names import classes_in, json_of
from ganvas.shelves.data.reading.options import AS_THEY_ARE, PIXELS_AS_THEY_ARE, ImageOptions, PixelOptions
from ganvas.shelves.data.reading.shards import Access, Sample, expand, indexed, label_mode, label_of, read_at, samples
from ganvas.shelves.data.reading.store import digest_of
from ganvas.shelves.data.reading.stream import StreamedImages
from ganvas.types import DataSpec

MAX_SIZES = 64 << 20  # bytes of sizes.json: a million shards
CONNECTIONS = 8  # at once, while shards are counted


@dataset("webdataset")
class WebDataset(EncodedImages):
    """Images in local tar shards of WebDataset, read in place and decoded when they are needed.

    One walk over the headers notes where each image lies (20 bytes of memory an image), so shards are shuffled, split
    and resumed like any other data. A corrupt image is met only when it is read.

    Parameters
    ----------
    path : a folder of .tar files, one of them, or a pattern such as shards/{000..099}.tar.
    image : the extension of the images, such as jpg or seg.png; None: the one that is an image file's.
    labels : where labels come from. auto: a whole number in .cls, else "label" in .json, else none.
    corrupt : what happens at an image that cannot be read: stop there, or take the next one in its place, with a
        warning.
    images : see `ImageOptions`; form and channels are settled by a look at 64 images.

    Raises
    ------
    DataError : no such shard, one that is cut off or compressed, members that point outside, images without labels
        beside others with them, mixed sizes without `size`, a corrupt image, a URL.
    """

    def __init__(
        self,
        *,
        path: str,
        image: str | None = None,
        labels: Literal["auto", "none", "cls", "json"] = "auto",
        corrupt: OnCorrupt = "stop",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        self._shards = expand(path)
        if far := [shard for shard in self._shards if remote.is_url(shard)]:
            raise DataError("it is far away", where=far[0], hint="set data.use=webdataset-stream")
        self._index = indexed(self._shards, image, labels, path)
        values, names = classes_in(self._index.labels)
        facts = {"content": self._index.digest}
        self._begin(values, names, facts, images, count=len(self._index.size), where=path, corrupt=corrupt)

    @classmethod
    def preview(cls, *, labels: str = "auto", images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        return image_spec(images.promised(3, 32, 32), num_classes=0 if labels == "none" else 2)

    def _encoded(self, rows: NDArray[np.int64]) -> list[Encoded]:
        return [self._one(row) for row in rows.tolist()]

    def _one(self, row: int) -> Encoded:
        shard, offset = self._shards[self._index.shard[row]], int(self._index.offset[row])
        try:
            name, data = read_at(shard, offset, int(self._index.size[row]))
        except OSError as error:
            return Encoded(f"{shard} at byte {offset}", None, self._label(row), error.strerror or str(error))
        return Encoded(name, data, self._label(row))


@dataset("webdataset-stream")
class WebDatasetStream(StreamedImages):
    """Images in tar shards of WebDataset, read from one end to the other: over http(s), or from a slow disk.

    Order is a function of (seed, epoch, rank): shards are permuted and dealt out to the processes, then images are
    shuffled in blocks. How many images each shard holds is read from a sizes.json beside the shards, as OpenCLIP writes
    it ({"000.tar": 1000, ...}); without one, all shards are read through once, and the counts kept in the cache.
    Nothing is run to fetch data: addresses with pipe: are refused.

    Parameters
    ----------
    path : an address such as https://host/{000..099}.tar, or all that `webdataset` takes; .tar.gz is read, too.
    classes : how many classes the labels have, as nobody has seen all of them; None: no labels, which are then not
        looked for.
    image : the extension of the images, such as jpg or seg.png; None: the one that is an image file's.
    labels : where labels come from. auto: a whole number in .cls, else "label" in .json.
    block : so many images are shuffled among each other. They are held as they lie in the shards, and as many more that
        are read ahead.
    corrupt : what happens at an image that cannot be read: stop there, or take the next one of its block in its place,
        with a warning.
    images : see `PixelOptions`; form and channels are settled by a look at the first 64 images.

    Raises
    ------
    DataError : no such shard or server, a shard that is cut off or holds another number of images than it should, a
        label that is missing or no class, mixed sizes without `size`, a corrupt image.
    BadValue : `classes` without labels in the first datum.
    """

    def __init__(
        self,
        *,
        path: str,
        classes: Annotated[int, Ge(2)] | None = None,
        image: str | None = None,
        labels: Literal["auto", "cls", "json"] = "auto",
        block: Annotated[int, Ge(1)] = 1000,
        corrupt: OnCorrupt = "stop",
        images: Annotated[PixelOptions, Flat()] = PIXELS_AS_THEY_ARE,
    ) -> None:
        if classes is None and labels != "auto":
            raise BadValue("labels are read where their classes are counted", key="labels", hint="set data.classes")
        shards = _TarShards(expand(path), image, labels if classes else "none", classes)
        facts = {
            "shards": [[remote.basename(name), count] for name, count in zip(shards.names, shards.counts, strict=True)],
            "image": image, "labels": shards.labels, "classes": classes, "corrupt": corrupt,
        }  # fmt: skip
        super().__init__(
            shards, images, where=path, class_names=tuple(map(str, range(classes or 0))), block=block, corrupt=corrupt,
            fingerprint=digest_of({**facts, "block": block, **dataclasses.asdict(images)}),
        )  # fmt: skip

    @classmethod
    def preview(cls, *, classes: int | None = None, images: PixelOptions = PIXELS_AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file."""
        return image_spec(images.promised(3, 32, 32), num_classes=classes or 0)


class _TarShards:
    """Shards as `StreamedImages` reads them."""

    def __init__(self, names: Sequence[str], image: str | None, labels: str, classes: int | None) -> None:
        self.names = names
        self._image, self._classes = image, classes
        self.counts: Sequence[int] = _stated(names) or _all_counted(names, image)
        self.labels = labels
        if labels == "auto":
            first = next((s for name in names for s in self._samples(name, read=False, start=0)), None)
            self.labels = "none" if first is None else label_mode(first, labels, names[0])
            if first is not None and self.labels == "none":
                raise BadValue(f"{first.name} has no label beside it", key="classes", hint="leave data.classes out")

    def read(self, shard: int, start: int) -> Iterator[Encoded]:
        where = self.names[shard]
        for sample in self._samples(where, read=True, start=start):
            label = label_of(sample, self.labels, where)
            if label is not None and self._classes is not None and label >= self._classes:
                raise DataError(
                    f"the label of {sample.name} is {label}, beyond {self._classes} classes", where=where,
                    hint=f"set data.classes={label + 1} or more",
                )  # fmt: skip
            yield Encoded(f"{where}/{sample.name}", sample.data, label)

    def _samples(self, where: str, *, read: bool, start: int) -> Iterator[Sample]:
        with _opened(where) as file:
            yield from samples(file, where, _access(where), image=self._image, read=read, start=start)


def _access(place: str) -> Access:
    """By jumps where a file allows it: what is not wanted is not read."""
    return "r:" if place.endswith(".tar") and not remote.is_url(place) else "r|*"


def _opened(place: str) -> IO[bytes]:
    """A shard from its first byte on.

    Raises
    ------
    DataError
    """
    if remote.is_url(place):
        return cast("IO[bytes]", remote.RemoteFile(place))
    try:
        return Path(place).open("rb")
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}", where=place, hint="check data.path") from None


def _stated(names: Sequence[str]) -> list[int] | None:
    """How many images each shard holds, as the sizes.json beside the first one says; None where there is none.

    Raises
    ------
    DataError : it does not name every shard.
    """
    if remote.is_url(names[0]):
        place = urljoin(names[0], "sizes.json")
        data = remote.fetch(place, most=MAX_SIZES)
    else:
        file = Path(names[0]).parent / "sizes.json"
        place, data = str(file), file.read_bytes() if file.is_file() else None
    if data is None:
        return None
    form = 'it must be {"000.tar": 1000, ...} with every shard that data.path names'
    try:
        content: Any = json_of(data, place, form)
        counts = [content[remote.basename(name)] for name in names]
    except TypeError as error:
        raise DataError(f"it is no table of sizes: {error}", where=place, hint=form) from None
    except KeyError as error:
        raise DataError(f"it does not name the shard {error}", where=place, hint=form) from None
    if bad := [count for count in counts if not isinstance(count, int) or isinstance(count, bool) or count < 0]:
        raise DataError(f"{bad[0]!r} is no number of images", where=place, hint=form)
    return counts


def _all_counted(names: Sequence[str], image: str | None) -> list[int]:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(lambda name: _counted(name, image), names))


def _counted(name: str, image: str | None) -> int:
    """How many images a shard holds: from the cache, or by reading it through."""
    if remote.is_url(name):
        seen: list[Any] = [name, *remote.facts(name)]
    else:
        with _opened(name):
            state = Path(name).stat()
        seen = [str(Path(name).resolve()), state.st_size, state.st_mtime_ns]
    file = cache.folder(digest_of({"shard": seen, "image": image, "format": cache.FORMAT})[:40]) / "count.json"
    with contextlib.suppress(OSError, ValueError):
        return int(json.loads(file.read_text(encoding="utf-8")))
    with _opened(name) as opened:
        count = sum(1 for _ in samples(opened, name, _access(name), image=image))
    with contextlib.suppress(OSError):  # without a cache the next start takes longer, no more
        file.parent.mkdir(parents=True, exist_ok=True)
        with cache.replacing(file) as target:
            target.write(json.dumps(count).encode())
    return count
