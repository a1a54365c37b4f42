"""A folder or zip archive of films."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from ganvas.errors import DataError
from ganvas.files import video as files
from ganvas.parts import Flat, dataset
from ganvas.shelves.data.reading.archive import digest_of_file, open_members
from ganvas.shelves.data.reading.films import Film, StoredFilms, film_spec, span_of
from ganvas.shelves.data.reading.listing import (
    IMAGES,
    LABEL_FILE,
    Kind,
    LabelMode,
    Listing,
    OnCorrupt,
    hidden,
    list_images,
)
from ganvas.shelves.data.reading.names import counted
from ganvas.shelves.data.reading.options import PIXELS_AS_THEY_ARE, PixelOptions
from ganvas.shelves.data.reading.pixels import Corrupt, decode, quantise, recolour, refit
from ganvas.shelves.data.reading.store import require_two, subset
from ganvas.shelves.data.reading.tree import files_below, read_file
from ganvas.types import Census, DataSpec

_FILMS = Kind("film", files.SUFFIXES)
_NAMED = 5  # files that an error or a warning lists
_RATE = 25.0  # of frames that come as pictures


@dataclass(frozen=True)
class _Place:
    """A folder or archive: its files by name, its folders, and the bytes of a file; `read` raises `Corrupt`."""

    where: str
    names: Sequence[str]
    folders: Sequence[str]
    read: Callable[[str], bytes]
    read_labels: Callable[[str], bytes]
    splits_key: str


@dataset("video", tiny={"limit": 16, "frames": 4, "size": 16})
class Films(StoredFilms):
    """Films in a folder or a zip archive: GIF and MP4 files, or a folder of pictures for each film.

    Films lie flat, in class folders, or beside a dataset.json that names the files (or folders of pictures). Where
    there is a GIF or MP4 file, pictures are not looked at; else every folder that holds pictures is one film, its
    frames in the order of their names, where 10 comes after 9. MP4 needs the extra `video`. Grey GIFs are exact; colour
    GIFs and MP4 have lost something when they were made. All is held in memory, 8 bits a value.

    Parameters
    ----------
    path : the folder or the .zip file.
    folder : only what lies in this folder of it, for example train.
    frames : of a clip, the datum.
    stride : a clip takes each so-many-th frame of its film.
    start : "first" begins each clip at the film's first frame; "random" anywhere, anew whenever it is read. Scores are
        always taken of the first.
    rate : frames of the film in a second; None: as the first film says, or 25 for pictures.
    labels : where labels come from. auto: dataset.json where there is one, else class folders, else none.
    corrupt : what happens at a film that cannot be read or is too short for a clip: stop there, or skip it with a
        warning.
    limit : at most so many films: a fixed choice, as even over the classes as can be. None: all.
    pixels : see `PixelOptions`.

    Raises
    ------
    DataError : no such place, fewer than two films, damaged or too short ones, several sizes and none asked for.
    MissingExtra : MP4 files, and the package av is not installed.
    """

    def __init__(
        self,
        *,
        path: Path,
        folder: str | None = None,
        frames: Annotated[int, Gt(0)] = 16,
        stride: Annotated[int, Gt(0)] = 1,
        start: Literal["first", "random"] = "first",
        rate: Annotated[float, Gt(0)] | None = None,
        labels: LabelMode = "auto",
        corrupt: OnCorrupt = "stop",
        limit: Annotated[int, Ge(2)] | None = None,
        pixels: Annotated[PixelOptions, Flat()] = PIXELS_AS_THEY_ARE,
    ) -> None:
        with contextlib.ExitStack() as stack:
            place = _open(Path(path), folder, stack)
            listing, pictures = _list(place, labels, corrupt)
            chosen = subset(len(listing.names), listing.labels, limit)
            names = [listing.names[number] for number in chosen]
            films, rates, unusable = _read_all(place, names, pictures, pixels, span_of(frames, stride))
        if unusable:
            said = _some([f"{name} ({reason})" for name, reason in unusable.items()])
            if corrupt == "stop":
                raise DataError(
                    f"films cannot be used: {said}", where=place.where,
                    hint="remove them, lower data.frames or data.stride, or set data.corrupt=skip",
                )  # fmt: skip
            warnings.warn(f"films left out of {place.where}: {said}")
        usable = [name for name in names if name in films]
        require_two(len(usable), where=place.where, word=_FILMS.word)
        film_labels = None
        if listing.labels is not None:
            film_labels = listing.labels[chosen][[name in films for name in names]]
        self.skipped = tuple(unusable)
        left_out = {**listing.left_out(len(names)), "corrupt": len(unusable)}
        self.census = Census(
            found=len(usable) + sum(left_out.values()), used=len(usable), left_out=left_out,
            classes=counted(film_labels, listing.class_names), word=_FILMS.word,
        )  # fmt: skip
        shown = (rate or rates[usable[0]]) / stride
        super().__init__(
            _alike({name: films[name] for name in usable}, pixels, place.where), film_labels, listing.class_names,
            frames=frames, stride=stride, rate=round(shown, 6), anywhere=start == "random", flip=pixels.flip,
            files=usable,
        )  # fmt: skip

    @classmethod
    def preview(
        cls,
        *,
        frames: int = 16,
        stride: int = 1,
        rate: float | None = None,
        labels: LabelMode = "auto",
        pixels: PixelOptions = PIXELS_AS_THEY_ARE,
        **_: object,
    ) -> DataSpec | None:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        if pixels.size is None:
            return None
        C, H, W = pixels.promised(3, 0, 0)
        return film_spec((C, frames, H, W), (rate or _RATE) / stride, 0 if labels == "none" else 2)


# --------------------------------------------------------------------------------------------------- finding


def _open(path: Path, folder: str | None, stack: contextlib.ExitStack) -> _Place:
    """What lies in a folder or archive; an archive stays open until the stack unwinds."""
    root, inner = path.expanduser(), (folder or "").strip("/")
    if not root.is_dir():
        digest_of_file(root, str(path))  # says what is wrong where it is no file that can be read
        members = open_members(root, str(path), inner, stack)
        key = f"data.folder={inner}/" if inner else "data.folder="
        return _Place(members.where, list(members.files), members.folders, members.read, members.read_labels, key)
    below, where = root / inner, str(path / inner)
    if not below.is_dir():
        raise DataError("there is no such folder", where=where, hint="check data.folder")

    def read(name: str) -> bytes:
        try:
            return (below / name).read_bytes()
        except OSError as error:
            raise Corrupt(error.strerror or str(error)) from None

    names, folders = files_below(below, where)
    return _Place(where, names, folders, read, lambda name: read_file(below, name, where), f"data.path={path}/")


def _list(place: _Place, labels: LabelMode, corrupt: OnCorrupt) -> tuple[Listing, dict[str, list[str]]]:
    """(the films, their pictures by film where they do not come as files)."""
    visible = [name for name in place.names if not hidden(name)]
    kind, listed, pictures = _FILMS, list(place.names), _by_folder(visible)
    if any(_suffix(name) in files.SUFFIXES for name in visible):
        pictures = {}
    elif pictures:
        listed = [*pictures, *(name for name in visible if PurePosixPath(name).name == LABEL_FILE)]
        kind = Kind("film", tuple({_suffix(name) for name in pictures}))  # a folder's name may hold a dot
    folders = [name for name in place.folders if name not in pictures]
    listing = list_images(
        listed,
        folders,
        place.read_labels,
        labels,
        where=place.where,
        splits_key=place.splits_key,
        kind=kind,
        corrupt=corrupt,
    )
    return listing, pictures


def _by_folder(names: Sequence[str]) -> dict[str, list[str]]:
    """folder -> its pictures in their order; those that lie in no folder are no film."""
    pictures: dict[str, list[str]] = {}
    for name in sorted(names, key=_natural):
        folder = str(PurePosixPath(name).parent)
        if _suffix(name) in IMAGES.suffixes and folder != ".":
            pictures.setdefault(folder, []).append(name)
    return pictures


def _natural(name: str) -> list[tuple[int, str]]:
    """What sorts 10 after 9."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"([0-9]+)", name)]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


# --------------------------------------------------------------------------------------------------- reading


def _read_all(
    place: _Place, names: Sequence[str], pictures: dict[str, list[str]], pixels: PixelOptions, span: int
) -> tuple[dict[str, Film], dict[str, float], dict[str, str]]:
    """(films by name, their rates by name, the reasons of those that cannot be used by name)."""
    films: dict[str, Film] = {}
    rates: dict[str, float] = {}
    unusable: dict[str, str] = {}
    for name in names:
        try:
            if name in pictures:
                film, rate = _from_pictures(place, pictures[name], pixels), _RATE
            else:
                decoded = files.decode(place.read(name), f"{place.where}/{name}")
                grey = (decoded.frames == decoded.frames[..., :1]).all()
                frames = decoded.frames[..., :1] if grey else decoded.frames
                film, rate = np.stack([_formed(frame, pixels) for frame in frames]), decoded.rate
            if len(film) < span:
                raise Corrupt(f"{len(film)} frames, and a clip needs {span}")
        except (Corrupt, files.Unreadable) as reason:
            unusable[name] = str(reason)
            continue
        films[name], rates[name] = film, rate
    return films, rates, unusable


def _from_pictures(place: _Place, names: Sequence[str], pixels: PixelOptions) -> Film:
    frames = [_formed(decode(place.read(name)), pixels) for name in names]
    if len({frame.shape for frame in frames}) > 1:
        raise Corrupt("its pictures have several sizes or colours; set data.size and data.channels")
    return np.stack(frames)


def _formed(frame: np.ndarray, pixels: PixelOptions) -> np.ndarray:
    """A frame (H, W, C) in the colours and size that are asked for, uint8."""
    if pixels.channels is not None:
        frame = recolour(frame, pixels.channels)
    if pixels.height_width is not None:
        frame = refit(frame, pixels.height_width, pixels.fit)
    return quantise(frame)


def _alike(films: dict[str, Film], pixels: PixelOptions, where: str) -> list[Film]:
    """Films of one size and as many channels, the richest form among them.

    Raises
    ------
    DataError : they have several sizes.
    """
    channels = max(film.shape[3] for film in films.values())
    (first, one), *others = films.items()
    for name, film in others:
        if film.shape[1:3] != one.shape[1:3]:
            raise DataError(
                f"the films have different sizes: {first} is {one.shape[2]}x{one.shape[1]} (width x height), {name} is "
                f"{film.shape[2]}x{film.shape[1]}",
                where=where, hint="set a size for all, for example data.size=64",
            )  # fmt: skip
    return [recolour(film, channels) for film in films.values()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
