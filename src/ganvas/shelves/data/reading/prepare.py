"""From any source of pictures to one uint8 array: selection, decoding on all cores, the cache."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.shelves.data.reading import cache
from ganvas.shelves.data.reading.listing import OnCorrupt
from ganvas.shelves.data.reading.names import counted
from ganvas.shelves.data.reading.options import ImageOptions, PixelOptions
from ganvas.shelves.data.reading.pixels import Corrupt, Decoded, Picture, quantise, recolour, refit
from ganvas.shelves.data.reading.store import Prepared, StoredImages, digest_array, digest_of, require_two, subset
from ganvas.shelves.data.reading.tally import Tally, dark, extremes, mode_of, unread
from ganvas.types import Census

WORTH_CACHING = 4 << 20
"""Sources with fewer bytes are decoded every time: 4 MiB of JPEG take a few tenths of a second."""

CHUNK_BYTES = 32 << 20  # what is decoded before it is handed on: bounds memory, keeps every thread busy
MOST_NAMED = 20  # corrupt images, in an error

TASK_IMAGES = 64  # per task of the pool: small pictures take less time than starting a task

SMALL_PIXELS = 64 * 64
"""Pictures up to this size are decoded by one thread: so much of their time is Python's that two threads, which take
turns at the interpreter, are slower (32x32 JPEG: 45 µs alone, 66 µs with two; 256x256: twice as fast with two)."""


@dataclass(frozen=True)
class Source:
    """Pictures by number, before they are brought to one form.

    `read(i)` gives a picture (H, W, C), uint8 or float32 in 0..255, from any thread; it raises `Corrupt`. `left_out`
    says what lies beside them and is not read, by reason; `darkness` what to do where they use little of the range.
    """

    where: str
    names: Sequence[str]
    read: Callable[[int], Decoded]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    ignored: int = 0
    files: bool = True  # whether the names are those of files
    left_out: Mapping[str, int] = field(default_factory=dict)
    darkness: str = "scale the files to 0..255"


class _Richer(Exception):
    """No error: a picture has more channels than the ones before, so the decoding starts again with as many."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.channels = channels


class _Decoding:
    """One pass over a source. After `chunks` is exhausted, `described` tells what came of it."""

    def __init__(self, source: Source, options: ImageOptions, corrupt: OnCorrupt) -> None:
        self._source, self._options, self._corrupt = source, options, corrupt
        self._first_reasons: dict[int, str] = {}
        self._reference, first = self._first_readable()
        first = as_asked(first, options)
        height, width, channels = first.shape
        self._threads = 1 if height * width <= SMALL_PIXELS else cores()
        self._channels = options.channels or channels
        self._size = options.height_width or (height, width)
        self._good = np.ones(len(source.names), dtype=bool)
        self._reasons: dict[int, str] = {}
        self._tally = Tally(options)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what comes out."""
        return (self._channels, *self._size)

    @property
    def expected_bytes(self) -> int:
        return len(self._source.names) * int(np.prod(self.shape))

    def enrich(self, channels: int) -> None:
        """Start over with as many channels as were met later."""
        self._channels = channels

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Images (n, C, H, W) in the order of the source.

        Raises
        ------
        DataError : a corrupt image, or one of another size than the first.
        _Richer : a picture has more channels than the ones before, and none were asked for.
        """
        count = len(self._source.names)
        self._good[:] = True
        self._reasons.clear()
        self._tally = Tally(self._options)
        rows = max(TASK_IMAGES, CHUNK_BYTES // int(np.prod(self.shape)))
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="ganvas-decode")
        try:
            for start in range(0, count, rows):
                stop = min(start + rows, count)
                block = np.empty((stop - start, *self.shape), dtype=np.uint8)
                tasks = [(block[at - start : at - start + TASK_IMAGES], at) for at in range(start, stop, TASK_IMAGES)]
                list(pool.map(lambda task: self._fill(*task), tasks))
                good = self._good[start:stop]
                yield block if good.all() else block[good]
            if self._reasons and self._corrupt == "stop":
                raise self._stopped()
        finally:
            pool.shutdown(cancel_futures=True)

    def described(self, count: int) -> Prepared:
        """Everything but the pixels, after the last chunk.

        Raises
        ------
        DataError : fewer than two images were readable.
        """
        require_two(count, where=self._source.where)
        names, labels = self._source.names, self._source.labels
        return Prepared(
            np.empty((0, *self.shape), np.uint8),
            None if labels is None else labels[self._good],
            self._source.class_names,
            tuple(names[int(index)] for index in np.flatnonzero(~self._good)),
            self._source.ignored,
            tuple(names[int(index)] for index in np.flatnonzero(self._good)) if self._source.files else None,
            self._census(count),
        )

    def _census(self, count: int) -> Census:
        source, labels = self._source, self._source.labels
        left_out = {**source.left_out, "corrupt": int((~self._good).sum())}
        return Census(
            found=count + sum(left_out.values()),
            used=count,
            left_out={reason: number for reason, number in left_out.items() if number},
            sizes=self._tally.sizes,
            modes=self._tally.modes,
            classes=counted(None if labels is None else labels[self._good], source.class_names),
            notes=[*unread(left_out), *self._tally.notes(source.darkness)],
        )

    def _fill(self, block: NDArray[np.uint8], start: int) -> None:
        for row in range(len(block)):
            try:
                block[row] = self._one(start + row)
            except Corrupt as reason:
                self._reasons[start + row] = str(reason)
                self._good[start + row] = False

    def _one(self, number: int) -> NDArray[np.uint8]:
        entry = self._source.read(number)
        image = as_asked(entry.picture, self._options)
        if image.shape[2] != self._channels:
            if self._options.channels is None and image.shape[2] > self._channels:
                raise _Richer(image.shape[2])
            image = recolour(image, self._channels)
        if image.shape[:2] != self._size:
            if self._options.size is None:
                raise self._mixed(number, image)
            image = refit(image, self._size, self._options.fit)
        pixels = quantise(image).transpose(2, 0, 1)
        self._tally.add(self._source.names[number], entry, pixels)
        return pixels

    def _first_readable(self) -> tuple[int, Picture]:
        for number in range(len(self._source.names)):
            try:
                return number, self._source.read(number).picture
            except Corrupt as reason:
                self._first_reasons[number] = str(reason)
        if self._corrupt == "stop":
            self._reasons = self._first_reasons
            raise self._stopped()
        raise DataError(
            f"none of the {len(self._source.names)} images can be read",
            where=self._source.where,
            hint="are these image files whole? data.corrupt=stop names the first and its fault",
        )

    def _stopped(self) -> DataError:
        """All that cannot be read, at once."""
        said = [f"{self._source.names[number]} ({reason})" for number, reason in sorted(self._reasons.items())]
        if len(said) == 1:
            (number, reason), *_ = self._reasons.items()
            return DataError(
                f"this image is corrupt: {reason}",
                where=f"{self._source.where}/{self._source.names[number]}",
                hint="mend or remove it, or set data.corrupt=skip to leave such images out",
            )
        return DataError(
            f"{len(said)} of {len(self._source.names)} images are corrupt: " + "; ".join(said[:MOST_NAMED])
            + (f" and {len(said) - MOST_NAMED} more" if len(said) > MOST_NAMED else ""),
            where=self._source.where,
            hint="mend or remove them, or set data.corrupt=skip to leave such images out",
        )  # fmt: skip

    def _mixed(self, number: int, image: Picture) -> DataError:
        height, width = self._size
        names = self._source.names
        return DataError(
            f"the images have different sizes: {names[self._reference]} is {width}x{height} (width x height), "
            f"{names[number]} is {image.shape[1]}x{image.shape[0]}",
            where=self._source.where,
            hint="set a size for all, for example data.size=64",
        )


def prepare(
    facts: Mapping[str, Any],
    options: ImageOptions,
    opened: Callable[[], Source],
    *,
    weight: int,
    corrupt: OnCorrupt = "stop",
) -> Prepared:
    """Decode a source on all cores, or take what an earlier start decoded.

    Parameters
    ----------
    facts : plain values that identify the content and all that shaped the selection; they become the cache's key.
    opened : gives the source with its selection done; not called where the cache has the entry.
    weight : bytes of the source; decides whether the result is worth a file.

    Raises
    ------
    DataError
    """
    shaping = {key: value for key, value in dataclasses.asdict(options).items() if key != "flip"}
    # Another Pillow may decode to other bytes, so it does not share entries; the fingerprint leaves it out.
    key = digest_of({**facts, **shaping, "corrupt": corrupt, "format": cache.FORMAT, "pillow": PIL.__version__})[:40]
    prepared = cache.load(key)
    if prepared is None:
        prepared = _decoded(key, _Decoding(opened(), options, corrupt), weight)
    for note in prepared.census.notes if prepared.census else ():
        warnings.warn(note, stacklevel=3)
    if prepared.skipped:
        names = ", ".join(prepared.skipped[:3]) + (", ..." if len(prepared.skipped) > 3 else "")
        warnings.warn(f"{len(prepared.skipped)} corrupt images are left out: {names}", stacklevel=3)
    return prepared


def _decoded(key: str, decoding: _Decoding, weight: int) -> Prepared:
    while True:
        try:
            if weight >= WORTH_CACHING or decoding.expected_bytes > cache.IN_MEMORY:
                try:
                    cache.save(key, decoding.shape, decoding.chunks(), decoding.described)
                except OSError as error:
                    if decoding.expected_bytes > cache.IN_MEMORY:
                        raise DataError(
                            f"the prepared images need {decoding.expected_bytes / 1e9:.1f} GB and cannot be written: "
                            f"{error.strerror or error}",
                            where=str(cache.folder(key)),
                            hint="set GANVAS_CACHE to a folder with room, or lower data.size or data.limit",
                        ) from None
                else:
                    if (prepared := cache.load(key)) is not None:
                        return prepared
            blocks = list(decoding.chunks())
            pixels = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
            return dataclasses.replace(decoding.described(len(pixels)), pixels=pixels)
        except _Richer as more:
            decoding.enrich(more.channels)


def store_array(
    part: StoredImages,
    images: NDArray[Any],
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...],
    options: ImageOptions,
    *,
    where: str,
    scale: Callable[[NDArray[Any]], Picture] | None = None,
    scaling: str = "",
    darkness: str = "scale the values to 0..255",
) -> None:
    """Initialise a data set whose pictures are one array (N, H, W, C) already.

    Parameters
    ----------
    scale : brings a picture (H, W, C) of `images` to uint8 or to float32 in 0..255; None where it is uint8.
    scaling : names what `scale` does, for the fingerprint.
    darkness : what to do where the images use little of the range.

    Raises
    ------
    DataError : fewer than two images, or a number of channels that cannot become the one asked for.
    """
    require_two(len(images), where=where)
    height, width, channels = images.shape[1:]
    if options.channels not in (None, channels) and channels not in (1, 3, 4):
        raise DataError(
            f"{channels} channels cannot become {options.channels}", where=where, hint="leave data.channels out"
        )
    chosen = subset(len(images), labels, options.limit)
    beyond = len(images) - len(chosen)
    if len(chosen) < len(images):
        images, labels = images[chosen], None if labels is None else labels[chosen]
    facts = {
        "content": digest_array(images),
        "labels": None if labels is None else digest_array(labels),
        "class_names": class_names,
        "scaling": scaling,
    }
    if scale is None and options.promised(channels, height, width) == (channels, height, width):
        census = Census(
            found=len(images) + beyond, used=len(images), left_out={"beyond data.limit": beyond} if beyond else {},
            sizes={f"{width}x{height}": len(images)}, modes={mode_of(channels): len(images)},
            classes=counted(labels, class_names), notes=dark(*extremes(images), darkness),
        )  # fmt: skip
        for note in census.notes:
            warnings.warn(note, stacklevel=3)
        # A view: a mapped file stays mapped.
        prepared = Prepared(images.transpose(0, 3, 1, 2), labels, class_names, census=census)
    else:
        source = Source(
            where=where,
            names=_Numbers(len(images)),
            read=lambda number: Decoded(images[number] if scale is None else scale(images[number])),
            left_out={"beyond data.limit": beyond},
            darkness=darkness,
            labels=labels,
            class_names=class_names,
            files=False,
        )
        prepared = prepare(facts, options, lambda: source, weight=images.nbytes)
    StoredImages.__init__(part, prepared, digest_of({**facts, **dataclasses.asdict(options)}), flip=options.flip)


class _Numbers(Sequence[str]):
    """The names of pictures that have none: "0", "1", ..., without holding a million strings."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        return str(number)


def as_asked(picture: Picture, options: PixelOptions) -> Picture:
    """A picture without its alpha channel, unless that was asked for; alpha-weighted resizing is done on bytes."""
    if picture.shape[2] != 4:
        return picture
    return quantise(picture) if options.channels == 4 else recolour(quantise(picture), 3)


def cores() -> int:
    """How many this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
