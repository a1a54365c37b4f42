"""A zip archive of image files, read in place."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np

from ganvas.errors import DataError
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading.archive import digest_of_file, open_members, refuse_bomb
from ganvas.shelves.data.reading.listing import LabelMode, OnCorrupt, list_images
from ganvas.shelves.data.reading.options import AS_THEY_ARE, ImageOptions
from ganvas.shelves.data.reading.pixels import Corrupt, Decoded, decoded
from ganvas.shelves.data.reading.prepare import Source, prepare
from ganvas.shelves.data.reading.store import StoredImages, digest_of, subset
from ganvas.types import DataSpec


@dataset("zip", tiny={"limit": 64, "size": 32})
class Zip(StoredImages):
    """Images in a zip archive, read without unpacking it.

    The archive is laid out like the `folder` data set: flat, in class folders, or with a dataset.json.

    Parameters
    ----------
    path : the archive.
    folder : only what lies in this folder of the archive, for example train.
    labels : where labels come from. auto: dataset.json where there is one, else class folders, else none.
    corrupt : what happens at an image that cannot be read: stop there, or skip it with a warning.
    images : see `ImageOptions`.

    Raises
    ------
    DataError : not a whole zip archive, an encrypted one, members that point outside or would unpack to an absurd
        size, and all that `folder` raises.
    """

    def __init__(
        self,
        *,
        path: Path,
        folder: str | None = None,
        labels: LabelMode = "auto",
        corrupt: OnCorrupt = "stop",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        file, where = Path(path).expanduser(), str(path)
        facts = {"content": digest_of_file(file, where), "folder": (folder or "").strip("/"), "labels": labels}
        with contextlib.ExitStack() as stack:
            prepared = prepare(
                facts,
                images,
                lambda: _open(file, where, str(facts["folder"]), labels, images, stack, corrupt),
                weight=file.stat().st_size,
                corrupt=corrupt,
            )
        fingerprint = digest_of({**facts, **dataclasses.asdict(images), "corrupt": corrupt})
        self._place = file, where, str(facts["folder"])
        super().__init__(prepared, fingerprint, flip=images.flip)

    def beside(self, name: str) -> bytes | None:
        """The content of a member of the archive, or of the folder in it."""
        with contextlib.ExitStack() as stack:
            members = open_members(*self._place, stack)
            if name not in members.files:
                return None
            try:
                return members.read(name)
            except Corrupt as reason:
                raise DataError(
                    f"it cannot be read: {reason}", where=f"{members.where}/{name}", hint="pack the archive again"
                ) from None

    @classmethod
    def preview(cls, *, labels: LabelMode = "auto", images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        return image_spec(images.promised(3, 32, 32), num_classes=0 if labels == "none" else 2)


def _open(
    file: Path,
    where: str,
    folder: str,
    labels: LabelMode,
    options: ImageOptions,
    stack: contextlib.ExitStack,
    corrupt: OnCorrupt,
) -> Source:
    """The images of the archive; it stays open until the stack unwinds."""
    members = open_members(file, where, folder, stack)
    listing = list_images(
        members.files, members.folders, members.read_labels, labels, where=members.where,
        splits_key=f"data.folder={folder}/" if folder else "data.folder=", corrupt=corrupt,
    )  # fmt: skip
    chosen = subset(len(listing.names), listing.labels, options.limit)
    names = [listing.names[number] for number in chosen]
    for name in names:
        refuse_bomb(members.files[name], where)
    chosen_labels = None if listing.labels is None else np.asarray(listing.labels[chosen])

    def picture(number: int) -> Decoded:
        return decoded(members.read(names[number]))

    return Source(
        members.where, names, picture, chosen_labels, listing.class_names, listing.ignored,
        left_out=listing.left_out(len(names)),
    )  # fmt: skip
