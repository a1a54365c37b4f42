"""A folder or zip archive of recordings."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.files import audio as files
from ganvas.parts import dataset
from ganvas.shelves.data.reading.archive import digest_of_file, open_members
from ganvas.shelves.data.reading.listing import LABEL_FILE, Kind, LabelMode, Listing, OnCorrupt, hidden, list_images
from ganvas.shelves.data.reading.names import counted
from ganvas.shelves.data.reading.pixels import Corrupt
from ganvas.shelves.data.reading.sounds import StoredSounds, at_peak, fitted, resampled, sixteen_bit, sound_spec
from ganvas.shelves.data.reading.store import require_two, subset
from ganvas.shelves.data.reading.tree import files_below, read_file
from ganvas.types import Census, DataSpec

_KIND = Kind("sound", files.SUFFIXES)
_NAMED = 5  # files that an error or a warning lists

Labels = LabelMode | Literal["prefix"]


@dataclass(frozen=True)
class _Place:
    """Recordings by name before they are brought to one form; `read` raises `Corrupt`."""

    where: str
    listing: Listing
    ignored: tuple[str, ...]  # visible files that are no recordings
    read: Callable[[str], bytes]


@dataset("audio", tiny={"limit": 64})
class Recordings(StoredSounds):
    """Recordings in a folder or a zip archive: flat, in class folders, or with a dataset.json.

    WAV files, and FLAC and OGG with the extra `audio`, in sorted order; hidden files are ignored, others are named in a
    warning. All are held in memory, 16 bits a sample.

    Parameters
    ----------
    path : the folder or the .zip file.
    folder : only what lies in this folder of it, for example train.
    rate : samples in a second, Hz, to which all are resampled; None: that of the files, which must agree.
    samples : the length of each; shorter ones are followed by silence, the end of longer ones is cut off. None: that of
        the longest.
    channels : 1 averages the channels of a file, 2 doubles a single one.
    peak : the largest magnitude of each after it was made louder or softer; None leaves it as it is.
    labels : where labels come from. prefix: the part of the file's name before its first `_`, as in 3_george_7.wav;
        folders: class folders; auto: dataset.json where there is one, else class folders, else none.
    corrupt : what happens at a file that cannot be read: stop there, or skip it with a warning.
    limit : at most so many: a fixed choice, as even over the classes as can be. None: all.

    Raises
    ------
    DataError : no such place, fewer than two recordings, damaged ones, rates that do not agree, no label in a name.
    MissingExtra : FLAC or OGG files, and the package soundfile is not installed.
    """

    def __init__(
        self,
        *,
        path: Path,
        folder: str | None = None,
        rate: Annotated[int, Gt(0)] | None = None,
        samples: Annotated[int, Gt(0)] | None = None,
        channels: Literal[1, 2] = 1,
        peak: Annotated[float, Gt(0), Le(1)] | None = None,
        labels: Labels = "auto",
        corrupt: OnCorrupt = "stop",
        limit: Annotated[int, Ge(2)] | None = None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            place = _look(Path(path), folder, labels, stack, corrupt)
            listing = _by_prefix(place) if labels == "prefix" else place.listing
            chosen = subset(len(listing.names), listing.labels, limit)
            names = [listing.names[number] for number in chosen]
            sounds, damaged = _decode(place, names, channels)
        if place.ignored:
            warnings.warn(f"{_counted(place.ignored, 'file', f'in {place.where} ')} no sound: {_some(place.ignored)}")
        if damaged:
            said = (
                f"{_counted(list(damaged), 'recording')} damaged: {_some([f'{n} ({r})' for n, r in damaged.items()])}"
            )
            if corrupt == "stop":
                raise DataError(said, where=place.where, hint="repair or remove them, or set data.corrupt=skip")
            warnings.warn(f"{said}; left out of {place.where}")
        usable = [name for name in names if name in sounds]
        require_two(len(usable), where=place.where, word=_KIND.word)
        common = rate or _common_rate({name: sounds[name].rate for name in usable}, place.where)
        values = [resampled(sounds[name].values, sounds[name].rate, common) for name in usable]
        length = samples or max(sound.shape[1] for sound in values)
        stored = np.stack([sixteen_bit(at_peak(fitted(sound, length), peak)) for sound in values])
        sound_labels = None
        if listing.labels is not None:
            sound_labels = listing.labels[chosen][[name in sounds for name in names]]
        self.skipped = tuple(damaged)
        self.ignored = place.ignored
        left_out = {**listing.left_out(len(names)), "corrupt": len(damaged)}
        self.census = Census(
            found=len(usable) + sum(left_out.values()), used=len(usable), left_out=left_out,
            classes=counted(sound_labels, listing.class_names), word=_KIND.word,
        )  # fmt: skip
        super().__init__(stored, common, sound_labels, listing.class_names, usable)

    @classmethod
    def preview(
        cls,
        *,
        rate: int | None = None,
        samples: int | None = None,
        channels: int = 1,
        labels: Labels = "auto",
        **_: object,
    ) -> DataSpec | None:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        if rate is None or samples is None:
            return None
        return sound_spec(channels, samples, rate, 0 if labels == "none" else 2)


# --------------------------------------------------------------------------------------------------- finding


def _look(path: Path, folder: str | None, labels: Labels, stack: contextlib.ExitStack, corrupt: OnCorrupt) -> _Place:
    """The recordings of a folder or archive; an archive stays open until the stack unwinds."""
    inner = (folder or "").strip("/")
    mode: LabelMode = "none" if labels == "prefix" else labels
    if path.expanduser().is_dir():
        return _look_below(path, inner, mode, corrupt)
    digest_of_file(path.expanduser(), str(path))  # says what is wrong where it is no file that can be read
    members = open_members(path.expanduser(), str(path), inner, stack)
    listing = list_images(
        members.files, members.folders, members.read_labels, mode, where=members.where,
        splits_key=f"data.folder={inner}/" if inner else "data.folder=", kind=_KIND, corrupt=corrupt,
    )  # fmt: skip
    return _Place(members.where, listing, _others(members.files, listing), members.read)


def _look_below(path: Path, inner: str, mode: LabelMode, corrupt: OnCorrupt) -> _Place:
    root, where = path.expanduser() / inner, str(path / inner)
    if not root.is_dir():
        raise DataError("there is no such folder", where=where, hint="check data.folder")

    def read(name: str) -> bytes:
        try:
            return (root / name).read_bytes()
        except OSError as error:
            raise Corrupt(error.strerror or str(error)) from None

    names, folders = files_below(root, where)
    listing = list_images(
        names, folders, lambda name: read_file(root, name, where), mode, where=where,
        splits_key=f"data.path={path}/", kind=_KIND, corrupt=corrupt,
    )  # fmt: skip
    return _Place(where, listing, _others(names, listing), read)


def _others(names: Iterable[str], listing: Listing) -> tuple[str, ...]:
    """Visible files that are neither recordings nor labels."""
    used = {*listing.names, LABEL_FILE}
    return tuple(sorted(name for name in names if not hidden(name) and name not in used))


def _by_prefix(place: _Place) -> Listing:
    """The same files, each with the label that its name begins with; classes are in sorted order."""
    prefixes = [PurePosixPath(name).name.partition("_") for name in place.listing.names]
    without = [
        name for name, (start, mark, _) in zip(place.listing.names, prefixes, strict=True) if not (start and mark)
    ]
    if without:
        raise DataError(
            f"{_counted(without, 'recording')} named without a label and `_`: {_some(without)}", where=place.where,
            hint="name them as in 3_george_7.wav, or set data.labels=none",
        )  # fmt: skip
    classes = sorted({start for start, _, _ in prefixes})
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[start] for start, _, _ in prefixes], dtype=np.int64)
    return Listing(place.listing.names, labels, tuple(classes), place.listing.ignored)


# --------------------------------------------------------------------------------------------------- reading


def _decode(place: _Place, names: Sequence[str], channels: int) -> tuple[dict[str, files.Sound], dict[str, str]]:
    """(recordings by name, reasons of those that cannot be read by name)."""
    sounds: dict[str, files.Sound] = {}
    damaged: dict[str, str] = {}
    for name in names:
        try:
            sound = files.decode(place.read(name), f"{place.where}/{name}")
            sounds[name] = files.Sound(_with_channels(sound.values, channels), sound.rate)
        except (files.Unreadable, Corrupt) as reason:
            damaged[name] = str(reason)
    return sounds, damaged


def _with_channels(values: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    if len(values) == channels:
        return values
    if channels == 1:
        mono: NDArray[np.float32] = values.mean(0, keepdims=True)
        return mono
    if len(values) == 1:
        return values.repeat(channels, 0)
    raise files.Unreadable(f"its {len(values)} channels cannot become {channels}")


def _common_rate(rates: dict[str, int], where: str) -> int:
    counts = Counter(rates.values())
    if len(counts) > 1:
        said = ", ".join(f"{count} at {rate} Hz" for rate, count in counts.most_common(4))
        raise DataError(
            f"the recordings have several rates ({said})", where=where, hint=f"data.rate={counts.most_common(1)[0][0]}"
        )
    return next(iter(counts))


def _counted(names: Sequence[str], word: str, place: str = "") -> str:
    return f"1 {word} {place}is" if len(names) == 1 else f"{len(names)} {word}s {place}are"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
