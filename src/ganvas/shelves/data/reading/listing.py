"""Which members of a folder or archive are data, and what their labels are."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError
from ganvas.shelves.data.reading.names import by_spelling, classes_in, json_of, one_label_each, some, spelled
from ganvas.shelves.data.reading.store import checked_labels, require_two


@dataclass(frozen=True)
class Kind:
    """What is looked for: `word` for one of them, and the endings of their files, the usual one first."""

    word: str
    suffixes: tuple[str, ...]

    @property
    def endings(self) -> str:
        """The endings as people list them."""
        return f"{', '.join(self.suffixes[:-1])} or {self.suffixes[-1]}"


IMAGES = Kind("image", (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
LABEL_FILE = "dataset.json"
SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})

_DRIVE = re.compile(r"[A-Za-z]:")

OnCorrupt = Literal["stop", "skip"]

LabelMode = Literal["auto", "none", "folders", "json"]
"""auto: `dataset.json` where there is one, else class folders where all images lie in two or more, else none."""


@dataclass(frozen=True)
class Listing:
    """The data of a folder or archive in sorted order, with their labels."""

    names: tuple[str, ...]  # as they lie in their place
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    ignored: int  # files that are no such data
    others: Mapping[str, int] = field(default_factory=dict)  # ending -> so many of those files
    absent: tuple[str, ...] = ()  # that the label file names and that are not there

    def left_out(self, chosen: int) -> dict[str, int]:
        """Reason -> how many files are not read, of which `chosen` data are."""
        hidden_ones = self.ignored - sum(self.others.values())
        counts = {
            **dict(sorted(self.others.items())), "hidden": hidden_ones, "named and missing": len(self.absent),
            "beyond data.limit": len(self.names) - chosen,
        }  # fmt: skip
        return {reason: count for reason, count in counts.items() if count}


def hidden(name: str) -> bool:
    """Whether any step of the path starts with a dot, or is the shadow folder that macOS puts into archives."""
    return any(step.startswith(".") or step == "__MACOSX" for step in name.split("/"))


def refuse_escape(name: str, where: str) -> None:
    """Nothing is unpacked, but an archive with such a name was made to harm, or will harm another tool.

    Raises
    ------
    DataError : a member's name leads outside.
    """
    steps = name.replace("\\", "/").split("/")
    if ".." in steps or steps[0] == "" or _DRIVE.match(name):
        raise DataError(
            f"the member {name!r} points outside of the archive",
            where=where,
            hint="do not use this archive, or pack it again with plain relative names",
        )


def list_images(
    files: Iterable[str],
    folders: Iterable[str],
    read: Callable[[str], bytes],
    labels: LabelMode,
    *,
    where: str,
    splits_key: str,
    kind: Kind = IMAGES,
    corrupt: OnCorrupt = "stop",
) -> Listing:
    """Sort out what was found.

    Parameters
    ----------
    files, folders : paths below the root with `/` between steps. Folders matter where they are empty.
    read : the bytes of one of `files`; asked only for `dataset.json`.
    splits_key : the recipe key that chooses a sub-folder, for the hint where folders are splits.
    kind : what is looked for.
    corrupt : whether data that `dataset.json` names and that are not there stop, or are left out with a warning.

    Raises
    ------
    DataError : none or only one of them, or labels that do not fit them.
    """
    files = list(files)
    folders = {spelled(folder) for folder in folders if not hidden(folder)}
    actual = by_spelling((name for name in files if not hidden(name)), where, "file")
    visible = list(actual)
    names = sorted(name for name in visible if PurePosixPath(name).suffix.lower() in kind.suffixes)
    if not names:
        seen = Counter(PurePosixPath(name).suffix.lower() or "no extension" for name in visible)
        what = ", ".join(f"{count} {suffix}" for suffix, count in seen.most_common(4))
        raise DataError(
            f"no {kind.word} found among {len(visible)} files ({what})"
            if visible
            else f"it is empty: no {kind.word} found",
            where=where,
            hint=f"{kind.word}s are {kind.endings} files",
        )
    require_two(len(names), where=where, word=kind.word)
    for name in names:
        folders.update(str(parent) for parent in PurePosixPath(name).parents if str(parent) != ".")
    base = _base(names, folders)
    label_files = [name for name in dict.fromkeys((LABEL_FILE, base + LABEL_FILE)) if name in actual]
    others = Counter(
        PurePosixPath(name).suffix.lower() or "no extension" for name in {*visible} - {*names} - {*label_files}
    )

    def listing(values: NDArray[np.int64] | None, classes: tuple[str, ...] = (), absent: Sequence[str] = ()) -> Listing:
        ignored = len(files) - len(names) - len(label_files)
        return Listing(tuple(actual[name] for name in names), values, classes, ignored, others, tuple(absent))

    if labels in ("auto", "json"):
        for name in label_files:
            place = f"{where}/{name}"
            by_name = _from_json(read(actual[name]), place)
            if by_name is None:
                continue
            values, absent = _looked_up(by_name, names, name.removesuffix(LABEL_FILE), place, kind.word, corrupt)
            return listing(*classes_in(values), absent)
        if labels == "json":
            problem = f"{label_files[0]} holds no labels" if label_files else f"there is no {LABEL_FILE}"
            raise DataError(problem, where=where, hint="set data.labels=none to train without labels")
        if label_files:
            labels = "none"  # the file says that there are none
    if labels == "none":
        return listing(None)
    if labels == "folders" and base and not any("/" in name[len(base) :] for name in names):
        base = base[: base.rstrip("/").rfind("/") + 1]  # not a wrapping: the only class
    classes = _class_folders(names, folders, base, labels, where, splits_key, kind.word)
    if not classes:
        return listing(None)
    number = {name: label for label, name in enumerate(classes)}
    values = np.array([number[name[len(base) :].split("/", 1)[0]] for name in names], dtype=np.int64)
    return listing(values, classes)


def _base(names: Sequence[str], folders: set[str]) -> str:
    """The folder in which images or several folders first appear: archives often wrap all in one. Ends in `/`."""
    base = ""
    while not any("/" not in name[len(base) :] for name in names):
        below = {path[len(base) :].split("/", 1)[0] for path in folders if path.startswith(base) and path != base[:-1]}
        if len(below) != 1:
            break
        base += below.pop() + "/"
    return base


def _class_folders(
    names: Sequence[str], folders: set[str], base: str, labels: LabelMode, where: str, splits_key: str, word: str
) -> tuple[str, ...]:
    """The sorted names of the class folders; none where images lie flat."""
    relative = [name[len(base) :] for name in names]
    loose = [name for name in relative if "/" not in name]
    filled = {name.split("/", 1)[0] for name in relative if "/" in name}
    if len(loose) == len(names):
        if labels == "folders":
            raise DataError(
                f"the {word}s do not lie in class folders",
                where=where,
                hint="put each class into its own folder, or set data.labels=none",
            )
        return ()
    if loose:
        raise DataError(
            f"{len(loose)} {word}s, such as {base + loose[0]}, lie beside {len(filled)} folders of {word}s: "
            "are the folders classes?",
            where=where,
            hint="move them into class folders, or set data.labels=none",
        )
    below = {path[len(base) :].split("/", 1)[0] for path in folders if path.startswith(base) and path != base[:-1]}
    if empty := sorted(below - filled):
        raise DataError(
            f"the class folder {base + empty[0]} has no {word}s",
            where=where,
            hint="remove it or fill it, or set data.labels=none",
        )
    if labels == "auto" and {folder.lower() for folder in filled} <= SPLIT_NAMES:
        raise DataError(
            f"the folders {', '.join(sorted(filled))} look like splits, not classes",
            where=where,
            hint=f"choose one, for example {splits_key}{base}{sorted(filled)[-1]}, or set data.labels=folders",
        )
    return tuple(sorted(filled))


def _from_json(content: bytes, place: str) -> dict[str, object] | None:
    """Labels by name from StyleGAN's `{"labels": [["00000/img0.png", 3], ...]}`; None for `{"labels": null}`.

    Raises
    ------
    DataError : it has another form, or two labels for one name.
    """
    form = 'it must be {"labels": [["folder/image.png", 3], ...]} or {"labels": null}'
    whole = json_of(content, place, form)
    if not isinstance(whole, dict) or "labels" not in whole:
        raise DataError("it has no entry 'labels'", where=place, hint=form)
    pairs = whole["labels"]
    if pairs is None:
        return None
    try:
        return one_label_each(((str(file), label) for file, label in pairs), place)
    except (TypeError, ValueError):
        raise DataError("its labels are not pairs of a file and a number", where=place, hint=form) from None


def _looked_up(
    by_name: Mapping[str, object], names: Sequence[str], prefix: str, place: str, word: str, corrupt: OnCorrupt
) -> tuple[NDArray[np.int64], list[str]]:
    """(the labels of these names, the names that have a label and are not there).

    Raises
    ------
    DataError : a datum without a label, or a label without its datum unless `corrupt` is skip.
    """
    if missing := [name for name in names if name.removeprefix(prefix) not in by_name]:
        raise DataError(
            f"{len(missing)} {word}s have no label, such as {missing[0]}",
            where=place,
            hint="add them, or set data.labels=none",
        )
    there = {name.removeprefix(prefix) for name in names}
    absent = sorted(name for name in by_name if name not in there)
    if absent:
        problem = f"it names {len(absent)} {word}{'s' * (len(absent) > 1)} that are missing: {some(absent)}"
        if corrupt == "stop":
            raise DataError(problem, where=place, hint="restore them, or set data.corrupt=skip to leave them out")
        warnings.warn(f"{place}: {problem}; left out", stacklevel=3)
    return checked_labels([by_name[name.removeprefix(prefix)] for name in names], len(names), where=place), absent
