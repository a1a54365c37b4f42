"""A folder of image files."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from ganvas.errors import DataError
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading.listing import LabelMode, OnCorrupt, list_images
from ganvas.shelves.data.reading.names import spelled
from ganvas.shelves.data.reading.options import AS_THEY_ARE, ImageOptions
from ganvas.shelves.data.reading.pixels import Corrupt, Decoded, decoded
from ganvas.shelves.data.reading.prepare import Source, cores, prepare
from ganvas.shelves.data.reading.store import StoredImages, digest_of, subset
from ganvas.shelves.data.reading.tree import files_below, is_dangling, read_file
from ganvas.types import DataSpec


@dataset("folder", tiny={"limit": 64, "size": 32})
class Folder(StoredImages):
    """Images in a folder: flat, in class folders, or with StyleGAN's dataset.json.

    PNG, JPEG, WebP, BMP and TIFF files in sorted order; hidden files and other files are ignored. Class names are the
    sorted names of the class folders.

    Parameters
    ----------
    path : the folder.
    labels : where labels come from. auto: dataset.json where there is one, else class folders, else none.
    corrupt : what happens at an image that cannot be read: stop there, or skip it with a warning.
    images : see `ImageOptions`.

    Raises
    ------
    DataError : no such folder, fewer than two images, a class without images, mixed sizes without `size`, a corrupt
        image.
    """

    def __init__(
        self,
        *,
        path: Path,
        labels: LabelMode = "auto",
        corrupt: OnCorrupt = "stop",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        root = Path(path).expanduser()
        where = str(path)
        if not root.exists():
            raise DataError("there is no such folder", where=where, hint="check data.path")
        if not root.is_dir():
            use = (
                "zip" if root.suffix.lower() == ".zip" else "arrays" if root.suffix.lower() in (".npy", ".npz") else ""
            )
            hint = f"for this file, set data.use={use}" if use else "give the folder that holds the images"
            raise DataError("this is a file, not a folder", where=where, hint=hint)
        files, folders = files_below(root, where)
        listing = list_images(
            files,
            folders,
            lambda name: read_file(root, name, where),
            labels,
            where=where,
            splits_key=f"data.path={path}/",
            corrupt=corrupt,
        )
        chosen = subset(len(listing.names), listing.labels, images.limit)
        names = [listing.names[number] for number in chosen]
        chosen_labels = None if listing.labels is None else listing.labels[chosen]

        def digest(name: str) -> tuple[str, int]:
            try:
                data = (root / name).read_bytes()
            except OSError:
                return "", 0  # it is told with all others that cannot be read
            return hashlib.sha256(data).hexdigest(), len(data)

        with ThreadPoolExecutor(cores()) as pool:
            digests = list(pool.map(digest, names, chunksize=64))
        facts = {
            "content": digest_of(
                {"files": [[spelled(name), digest] for name, (digest, _) in zip(names, digests, strict=True)]}
            ),
            "labels": None if chosen_labels is None else chosen_labels.tolist(),
            "class_names": listing.class_names,
            "left_out": listing.left_out(len(names)),
        }

        def picture(number: int) -> Decoded:
            file = root / names[number]
            try:
                data = file.read_bytes()
            except OSError as error:
                reason = "it is missing: a link to nowhere" if is_dangling(file) else error.strerror or str(error)
                raise Corrupt(reason) from None
            return decoded(data)

        source = Source(
            where, names, picture, chosen_labels, listing.class_names, listing.ignored,
            left_out=listing.left_out(len(names)),
        )  # fmt: skip
        prepared = prepare(facts, images, lambda: source, weight=sum(size for _, size in digests), corrupt=corrupt)
        del facts["left_out"]  # it decides what is told of the data, not what they are
        fingerprint = digest_of({**facts, **dataclasses.asdict(images), "corrupt": corrupt})
        self._root, self._where = root, where
        super().__init__(prepared, fingerprint, flip=images.flip)

    def beside(self, name: str) -> bytes | None:
        """The content of a file of this folder."""
        return read_file(self._root, name, self._where) if (self._root / name).is_file() else None

    @classmethod
    def preview(cls, *, labels: LabelMode = "auto", images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        return image_spec(images.promised(3, 32, 32), num_classes=0 if labels == "none" else 2)
