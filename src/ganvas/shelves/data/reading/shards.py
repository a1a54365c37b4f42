"""Tar shards in the layout of WebDataset: members in a row whose names agree up to the first dot are one datum.

`000017.jpg` with `000017.cls` or `000017.json` beside it is an image with its label. Nothing is unpacked to the disk,
and members that would need Python to read them (`.pyd`, `.pkl`, ...) are passed over.
"""

from __future__ import annotations

import hashlib
import itertools
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.shelves.data.reading import cache
from ganvas.shelves.data.reading.listing import IMAGES, hidden, refuse_escape
from ganvas.shelves.data.reading.names import json_of, some, spelled, text_of
from ganvas.shelves.data.reading.remote import basename, is_url
from ganvas.shelves.data.reading.store import checked_labels, digest_of

ENDINGS = frozenset(suffix.removeprefix(".") for suffix in IMAGES.suffixes)
LABELS = ("cls", "json")

MAX_IMAGE = 256 << 20  # bytes of one member: far more than any image file, far less than a machine's memory
MAX_LABEL = 1 << 20
MAX_SHARDS = 1_000_000

TAIL = 64
"""Bytes at the end of each image that go into the fingerprint of an index: in a PNG they hold a checksum of the pixels,
in JPEG and WebP the last of the coded ones."""

Access = Literal["r:", "r|*"]
"""How a tar is read: by jumps over what is not wanted, or forward alone and unpacked on the way."""


# --------------------------------------------------------------------------------------------------- which files

_BRACES = re.compile(r"\{([^{}]*)\}")


def expand(place: str) -> list[str]:
    """The shards that a folder, a pattern or an address means, in order.

    `{000..099}` counts, `{train,test}` lists, `*` matches what is there; of a folder all `.tar` files. What is there
    under the very name is meant, whatever its letters.

    Raises
    ------
    DataError : there are none, one is there twice, or addresses of a kind that is not read.
    """
    shards: list[str] = []
    there = not is_url(place) and Path(place).expanduser().exists()
    for address in [place] if there else _braces(place):
        if is_url(address):
            shards.append(address)
            continue
        path = Path(address).expanduser()
        if path.is_dir():
            shards += sorted(str(file) for file in path.iterdir() if file.name.endswith((".tar", ".tar.gz", ".tgz")))
        elif path.is_file():
            shards.append(str(path))
        elif "*" in path.name or "?" in path.name:
            shards += sorted(str(file) for file in path.parent.glob(path.name))
        else:
            raise DataError("there is no such file", where=address, hint="check data.path")
    if not shards:
        raise DataError("no shard found", where=place, hint="give a folder of .tar files, or a/{000..099}.tar")
    if len(set(shards)) < len(shards):
        raise DataError("a shard is named twice", where=place, hint="name each shard once")
    return shards


def _braces(text: str) -> Iterator[str]:
    """What braces stand for: `a{8..10}` is a8, a9, a10; `a{08..10}` is a08, a09, a10; `{x,y}` is x, y."""
    match = _BRACES.search(text)
    if match is None:
        return iter([text])
    inside = match.group(1)
    choices: Sequence[str]
    if counted := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = counted.groups()
        if not int(first) <= int(last) < int(first) + MAX_SHARDS:
            raise DataError(f"{{{inside}}} counts {first} up to {last}", where=text, hint="write {000..099}")
        width = len(first) if first.startswith("0") else 0
        choices = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    elif "," in inside:
        choices = inside.split(",")
    else:
        raise DataError(f"{{{inside}}} is no pattern", where=text, hint="write {000..099} or {train,test}")
    head, tail = text[: match.start()], text[match.end() :]
    return itertools.chain.from_iterable(_braces(head + choice + tail) for choice in choices)


# --------------------------------------------------------------------------------------------------- one shard


_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


class Sample(NamedTuple):
    """An image of a shard. `data` is there where it was asked for; `beside` holds the label files' bytes."""

    name: str
    offset: int
    size: int
    time: float
    data: bytes | None
    beside: Mapping[str, bytes]


class _Header(tarfile.TarInfo):
    """tarfile takes any block that is no header for the end of the archive; here only the end mark is."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError:
            raise tarfile.ReadError("it ends without an end mark" if not buf else "a header is damaged") from None


def samples(
    file: IO[bytes], where: str, access: Access, *, image: str | None = None, read: bool = False, start: int = 0
) -> Iterator[Sample]:
    """The images of a shard from the `start`-th on, each with what lies beside it.

    Parameters
    ----------
    image : the extension of the images; None: the one among the data's members that is an image file's.
    read : whether the images' bytes are wanted.

    Raises
    ------
    DataError : no whole tar archive, names that lead outside, one datum with two images, members of absurd size.
    """
    key, count = "", 0
    sample: Sample | None = None
    beside: dict[str, bytes] = {}
    dotted: list[str] = []
    for tar, info in _members(file, where, access):
        if (parted := _parted(info.name)) is None:
            continue
        if parted[0] != key:
            if sample is not None:
                if count >= start:
                    yield sample
                count += 1
            else:
                _refuse_dotted(dotted, where)
            key, sample, beside, dotted = parted[0], None, {}, []
        extension = parted[1]
        if extension in LABELS:
            beside[extension] = _content(tar, info, where, MAX_LABEL)
        elif extension == image or (image is None and extension in ENDINGS):
            if sample is not None:
                raise DataError(
                    f"{sample.name} and {info.name} are two images of one datum", where=where,
                    hint=f"say which to take: data.image={extension}",
                )  # fmt: skip
            data = _content(tar, info, where, MAX_IMAGE) if read and count >= start else None
            sample = Sample(info.name, info.offset_data, info.size, info.mtime, data, beside)
        elif image is None and extension.rpartition(".")[2] in ENDINGS:
            dotted.append(info.name)
    if sample is None:
        _refuse_dotted(dotted, where)
    elif count >= start:
        yield sample


def _refuse_dotted(names: Sequence[str], where: str) -> None:
    """A datum whose only images have a further dot in their names would vanish.

    Raises
    ------
    DataError : there are such.
    """
    if names:
        last = names[0].rpartition("/")[2]
        raise DataError(
            f"{some(names)}: a datum's name ends at its first dot, so {last!r} has the ending "
            f"{last.partition('.')[2]!r} and would be left out",
            where=where, hint=f"rename them, or say that they are the images: data.image={last.partition('.')[2]}",
        )  # fmt: skip


def _members(file: IO[bytes], where: str, access: Access) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The plain files of an archive in their order. Links, devices and folders lead nowhere and are passed over."""
    try:
        with tarfile.open(fileobj=file, mode=access, tarinfo=_Header) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every one
                refuse_escape(info.name, where)
                if info.size < 0:
                    raise tarfile.ReadError("a member has a negative size")
                if info.isreg() and not info.issparse():
                    yield tar, info
    except _DAMAGE as error:
        if access == "r:" and _first_bytes(file, 2) == b"\x1f\x8b":
            raise DataError(
                "it is compressed, so its images cannot be read one by one", where=where,
                hint="unpack it with gunzip, or set data.use=webdataset-stream",
            ) from None  # fmt: skip
        raise _damaged(error, where) from None


def _damaged(error: Exception, where: str) -> DataError:
    return DataError(
        f"it is not a tar archive, or it is cut off: {error}", where=where, hint="copy or download it again"
    )


def _first_bytes(file: IO[bytes], count: int) -> bytes:
    file.seek(0)
    return file.read(count)


def _parted(name: str) -> tuple[str, str] | None:
    """(what its datum is called, the extension in lower case) of a member; None where it belongs to no datum."""
    name = spelled(name)
    if hidden(name):
        return None
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else None


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo, where: str, most: int) -> bytes:
    if info.size > most:
        raise DataError(
            f"the member {info.name} has {info.size / 1e6:.0f} MB", where=where,
            hint="such a file is never that large; do not use this archive",
        )  # fmt: skip
    try:
        member = tar.extractfile(info)
        data = b"" if member is None else member.read()
    except _DAMAGE as error:
        raise _damaged(error, where) from None
    if len(data) < info.size:
        raise _damaged(EOFError("unexpected end of data"), where)
    return data


# --------------------------------------------------------------------------------------------------- labels


def label_mode(sample: Sample, mode: str, where: str) -> str:
    """Where labels come from. auto: as the first datum has it, in `.cls` before "label" in `.json`, else none."""
    if mode != "auto":
        return mode
    if "cls" in sample.beside:
        return "cls"
    if "json" in sample.beside:
        content = _json(sample, where)
        if isinstance(content, dict) and "label" in content:
            return "json"
    return "none"


def label_of(sample: Sample, mode: str, where: str) -> int | None:
    """The class of a datum.

    Raises
    ------
    DataError : it has none, or none that is a whole number.
    """
    if mode == "none":
        return None
    if mode not in sample.beside:
        raise DataError(
            f"{sample.name} has no .{mode} beside it", where=where,
            hint="add it, or set data.labels=none to train without labels",
        )  # fmt: skip
    if mode == "json":
        content = _json(sample, where)
        value = content.get("label") if isinstance(content, dict) else None
    else:
        text = text_of(sample.beside["cls"], f"{where}/{sample.name}").strip()
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(
            f"the label of {sample.name} is {value!r}, not a class number", where=where,
            hint="store class numbers 0, 1, 2, ..., or set data.labels=none",
        )  # fmt: skip
    return value


def _json(sample: Sample, where: str) -> Any:
    return json_of(sample.beside["json"], f"{where}, the .json of {sample.name}", "mend it, or data.labels=none")


# --------------------------------------------------------------------------------------------------- an index


@dataclass(frozen=True)
class Index:
    """Where each image of local shards lies: (n,) arrays, and what identifies them all."""

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    digest: str  # of names, sizes, times, labels, and each image's last bytes


def indexed(shards: Sequence[str], image: str | None, labels: str, where: str) -> Index:
    """The index of local shards: made by one walk over their headers, kept in the cache from then on.

    Raises
    ------
    DataError : see `samples` and `label_of`.
    """
    try:
        states = [Path(shard).stat() for shard in shards]
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}", where=error.filename, hint="check data.path") from None
    seen = [[str(Path(shard).resolve()), s.st_size, s.st_mtime_ns] for shard, s in zip(shards, states, strict=True)]
    key = digest_of({"shards": seen, "image": image, "labels": labels, "format": cache.FORMAT})[:40]
    file = cache.folder(key) / "index.npz"
    if (known := _load(file)) is not None:
        return known
    index = _walked(shards, image, labels, where)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"shard": index.shard, "offset": index.offset, "size": index.size}
        arrays |= {"digest": np.array(index.digest)} | ({} if index.labels is None else {"labels": index.labels})
        with cache.replacing(file) as target:
            np.savez(target, **arrays)
    except OSError:
        pass  # without a cache the next start takes longer, no more
    return index


def _load(file: Path) -> Index | None:
    try:
        with np.load(file, allow_pickle=False) as members:
            labels = members["labels"] if "labels" in members.files else None
            return Index(members["shard"], members["offset"], members["size"], labels, str(members["digest"]))
    except (OSError, ValueError, KeyError, EOFError):
        return None  # never written or damaged: it is made anew


def _walked(shards: Sequence[str], image: str | None, labels: str, where: str) -> Index:
    sha = hashlib.sha256()
    counts: list[int] = []
    places: list[NDArray[np.int64]] = []  # (n, 3) offset, size, label of each shard
    for shard in shards:
        rows: list[tuple[int, int, int]] = []
        try:
            with Path(shard).open("rb") as file, Path(shard).open("rb") as tails:
                for sample in samples(file, shard, "r:", image=image):
                    labels = label_mode(sample, labels, shard)
                    label = label_of(sample, labels, shard)
                    tails.seek(sample.offset + max(0, sample.size - TAIL))
                    facts = (basename(shard), sample.name, sample.size, sample.time, label)
                    sha.update(repr(facts).encode("utf-8", "surrogateescape"))
                    sha.update(tails.read(min(TAIL, sample.size)))
                    rows.append((sample.offset, sample.size, -1 if label is None else label))
        except OSError as error:
            raise DataError(f"it cannot be read: {error.strerror}", where=shard, hint="check its permissions") from None
        counts.append(len(rows))
        places.append(np.array(rows, dtype=np.int64).reshape(-1, 3))
    table = np.concatenate(places)
    return Index(
        shard=np.repeat(np.arange(len(shards), dtype=np.int32), counts),
        offset=table[:, 0].copy(),
        size=table[:, 1].copy(),
        labels=None if labels in ("none", "auto") else checked_labels(table[:, 2], len(table), where=where),
        digest=sha.hexdigest(),
    )


def read_at(shard: str, offset: int, size: int) -> tuple[str, bytes]:
    """(name for people, bytes) of the member whose content begins at `offset`.

    Raises
    ------
    OSError
    """
    with Path(shard).open("rb") as file:
        file.seek(offset - tarfile.BLOCKSIZE)  # where its header lies, which begins with up to 100 bytes of its name
        content = file.read(tarfile.BLOCKSIZE + size)
    name = content[:100].split(b"\0", 1)[0].decode(errors="replace")
    return f"{shard}/{name}", content[tarfile.BLOCKSIZE :]
