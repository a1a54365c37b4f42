"""Data sets of Hugging Face: Arrow tables on the disk by index, Parquet files as a stream.

Only tables are read. Scripts and pickles that once came with data sets are neither fetched nor run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from ganvas.errors import BadValue, DataError, MissingExtra, nearest
from ganvas.parts import Flat, dataset, image_spec
from ganvas.shelves.data.reading import remote
from ganvas.shelves.data.reading.by_index import EncodedImages
from ganvas.shelves.data.reading.encoded import Encoded, spread
from ganvas.shelves.data.reading.listing import OnCorrupt
from ganvas.shelves.data.reading.names import classes_in
from ganvas.shelves.data.reading.options import AS_THEY_ARE, PIXELS_AS_THEY_ARE, ImageOptions, PixelOptions
from ganvas.shelves.data.reading.shards import expand
from ganvas.shelves.data.reading.store import checked_labels, digest_of
from ganvas.shelves.data.reading.stream import StreamedImages
from ganvas.types import DataSpec

CONNECTIONS = 8  # at once, while the ends of Parquet files are read
ROWS = 16  # of a Parquet file that are unpacked at once
BUFFER_BYTES = 1 << 20


@dataset("huggingface")
class HuggingFace(EncodedImages):
    """Images in a Hugging Face data set: saved to disk, in Parquet or Arrow files, or from the hub.

    The table is mapped, not loaded. Parquet files and sets from the hub are first turned into Arrow files in the cache
    of the package datasets, which takes their size on the disk once.

    Parameters
    ----------
    path : a folder that save_to_disk wrote, a folder or pattern of .parquet or .arrow files, or a name on the hub such
        as ylecun/mnist.
    config : the configuration, where the hub has several.
    split : such as train or test; None: train, or the only one.
    image : the column of images; None: the only one.
    labels : auto: the only column of class labels, else the one called label, else none. Or none, or a column's name.
    corrupt : what happens at an image that cannot be read: stop there, or take the next one in its place, with a
        warning.
    images : see `ImageOptions`; form and channels are settled by a look at 64 images.

    Raises
    ------
    MissingExtra : the package datasets is not installed.
    DataError : no such data, split or column, labels that are no class numbers, mixed sizes without `size`, a corrupt
        image.
    """

    def __init__(
        self,
        *,
        path: str,
        config: str | None = None,
        split: str | None = None,
        image: str | None = None,
        labels: str = "auto",
        corrupt: OnCorrupt = "stop",
        images: Annotated[ImageOptions, Flat()] = AS_THEY_ARE,
    ) -> None:
        datasets = _package("huggingface")
        with _understood(path):
            table = _table(datasets, path, config, split)
        columns = Columns(datasets, table.features, image, labels, where=path)
        self._image, self._where = columns.image, path
        if isinstance(table.features[self._image], datasets.Image):
            table = table.cast_column(self._image, datasets.Image(decode=False))
        self._table = table.select_columns([self._image])
        values = None
        if columns.label is not None:
            column = table.select_columns([columns.label]).with_format("arrow")[:].column(0)
            values = checked_labels(column.to_numpy(), len(table), where=f"{path}, column {columns.label}")
        numbered, names = classes_in(values)
        if columns.class_names:
            numbered, names = values, columns.class_names
        facts = {
            "rows": len(table), "columns": [columns.image, columns.label], "names": columns.class_names,
            "labels": None if values is None else hashlib.sha256(values.tobytes()).hexdigest(),
            "images": [_digest(encoded) for encoded in self._encoded_of(spread(len(table)), None)],
        }  # fmt: skip
        self._begin(numbered, names, facts, images, count=len(table), where=path, corrupt=corrupt)

    @classmethod
    def preview(cls, *, labels: str = "auto", images: ImageOptions = AS_THEY_ARE, **_: object) -> DataSpec:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        return image_spec(images.promised(3, 32, 32), num_classes=0 if labels == "none" else 2)

    def _encoded(self, rows: NDArray[np.int64]) -> Sequence[Encoded]:
        return self._encoded_of(rows, self._labels)

    def _encoded_of(self, rows: NDArray[np.int64], labels: NDArray[np.int64] | None) -> list[Encoded]:
        values = self._table[rows.tolist()][self._image]
        row_labels = [None] * len(rows) if labels is None else labels[rows].tolist()
        where = self._where
        return [
            _encoded(f"{where}, row {row}", value, label)
            for row, value, label in zip(rows, values, row_labels, strict=True)
        ]  # fmt: skip


@dataset("huggingface-stream")
class HuggingFaceStream(StreamedImages):
    """Images in Parquet files of Hugging Face, read from one end to the other without a copy on the disk.

    Each file is a shard. Order is a function of (seed, epoch, rank): files are permuted and dealt out to the processes,
    then images are shuffled in blocks. How many images a file holds is written at its end.

    Parameters
    ----------
    path : a folder of .parquet files, a pattern such as data/{000..099}.parquet or data/train-*.parquet, an http(s)
        address with the same braces, or a name on the hub such as ILSVRC/imagenet-1k.
    config : the configuration, where the hub has several.
    split : such as train or test, on the hub; None: train, or the only one.
    image : the column of images; None: the only one.
    labels : auto: the only column of class labels, else none. Or none, or a column's name.
    classes : how many classes the labels have, where the column does not say so itself.
    block : so many images are shuffled among each other. They are held as they lie in the files, and as many more that
        are read ahead.
    corrupt : what happens at an image that cannot be read: stop there, or take the next one of its block in its place,
        with a warning.
    images : see `PixelOptions`; form and channels are settled by a look at the first 64 images.

    Raises
    ------
    MissingExtra : the package datasets is not installed.
    DataError : no such data, split or column, a damaged file, a label that is no class, mixed sizes without `size`, a
        corrupt image.
    BadValue : labels in a column that does not say how many classes there are, without `classes`.
    """

    def __init__(
        self,
        *,
        path: str,
        config: str | None = None,
        split: str | None = None,
        image: str | None = None,
        labels: str = "auto",
        classes: Annotated[int, Ge(2)] | None = None,
        block: Annotated[int, Ge(1)] = 1000,
        corrupt: OnCorrupt = "stop",
        images: Annotated[PixelOptions, Flat()] = PIXELS_AS_THEY_ARE,
    ) -> None:
        datasets = _package("huggingface-stream")
        with _understood(path):
            files = _parquet_files(datasets, path, config, split)
        shards = _ParquetShards(datasets, files, image, labels, classes, where=path)
        facts = {
            "shards": [[remote.basename(name), count] for name, count in zip(files, shards.counts, strict=True)],
            "columns": [shards.columns.image, shards.columns.label], "names": shards.class_names,
            "corrupt": corrupt, "block": block,
        }  # fmt: skip
        super().__init__(
            shards, images, where=path, class_names=shards.class_names, block=block, corrupt=corrupt,
            fingerprint=digest_of({**facts, **dataclasses.asdict(images)}),
        )  # fmt: skip

    @classmethod
    def preview(
        cls,
        *,
        labels: str = "auto",
        classes: int | None = None,
        images: PixelOptions = PIXELS_AS_THEY_ARE,
        **_: object,
    ) -> DataSpec:
        """What these keys promise without a look at any file; two classes stand for an unknown number."""
        return image_spec(images.promised(3, 32, 32), num_classes=0 if labels == "none" else classes or 2)


# --------------------------------------------------------------------------------------------------- columns


class Columns:
    """Which columns of a table are the images and their labels.

    Attributes
    ----------
    image, label : columns; `label` is None where there are no labels.
    class_names : as the label column has them, empty where it does not say.

    Raises
    ------
    DataError : no such column, none of images or several.
    """

    def __init__(self, datasets: Any, features: Any, image: str | None, labels: str, *, where: str) -> None:
        columns = dict(features)
        if image is None:
            of_images = [name for name, kind in columns.items() if _of_images(datasets, kind)]
            if len(of_images) != 1:
                raise DataError(
                    f"columns of images: {', '.join(of_images) or 'none'} among {', '.join(columns)}", where=where,
                    hint="say which: data.image=COLUMN" if of_images else "give a data set that holds image files",
                )  # fmt: skip
            image = of_images[0]
        for name in (image, *([] if labels in ("auto", "none") else [labels])):
            if name not in columns:
                raise DataError(
                    f"there is no column {name!r}.{nearest(name, columns)}", where=where,
                    hint=f"its columns: {', '.join(columns)}",
                )  # fmt: skip
        if not _of_images(datasets, columns[image]):
            raise DataError(f"the column {image!r} holds no image files", where=where, hint="set data.image=COLUMN")
        self.image = image
        self.label: str | None = None if labels in ("auto", "none") else labels
        if labels == "auto":
            classes = [name for name, kind in columns.items() if isinstance(kind, datasets.ClassLabel)]
            self.label = classes[0] if len(classes) == 1 else "label" if "label" in columns else None
            if len(classes) > 1 and self.label is None:
                raise DataError(
                    f"several columns of classes: {', '.join(classes)}", where=where,
                    hint="say which: data.labels=COLUMN, or data.labels=none",
                )  # fmt: skip
        kind = columns.get(self.label)
        self.class_names: tuple[str, ...] = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else ()


def _of_images(datasets: Any, kind: Any) -> bool:
    """Whether a column holds image files: as such, as bytes, or as the pair of bytes and path that stands for them."""
    if isinstance(kind, datasets.Value):
        return kind.dtype in ("binary", "large_binary")
    return isinstance(kind, datasets.Image) or (isinstance(kind, dict) and "bytes" in kind)


def _encoded(name: str, value: Any, label: int | None) -> Encoded:
    data = value.get("bytes") if isinstance(value, dict) else value
    return Encoded(name, data, label, "" if data is not None else "the table holds no bytes of it")


def _digest(image: Encoded) -> str:
    return hashlib.sha256(image.data or b"").hexdigest()


# --------------------------------------------------------------------------------------------------- what is there


def _package(part: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            f"data set {part!r} needs the package datasets ({error})", where="data",
            hint='pip install "ganvas[datasets]" -c constraints.txt',
        ) from None  # fmt: skip
    return datasets


@contextmanager
def _understood(path: str) -> Iterator[None]:
    """Whatever the package raises where data are not as it hopes, as an error that its user can mend."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # it has no error of its own: anything from OSError to ArrowInvalid and ImportError
        inner = error.__cause__ or error  # "an error occurred" is said of one that knows more
        said = (str(inner).splitlines() or [""])[0] or type(inner).__name__
        raise DataError(
            f"it cannot be read: {said}", where=path, hint="check data.path; a hub name needs the network once"
        ) from None


def _table(datasets: Any, path: str, config: str | None, split: str | None) -> Any:
    """The one table that is meant."""
    root = Path(path).expanduser()
    if root.is_dir() and ((root / "state.json").is_file() or (root / "dataset_dict.json").is_file()):
        table = datasets.load_from_disk(str(root))
    elif files := _local_files(path, (".arrow", ".parquet")):
        if files[0].endswith(".arrow"):
            return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])
        return datasets.load_dataset("parquet", data_files=files, split="train")
    else:
        table = datasets.load_dataset(_hub_name(path), config)
    if not isinstance(table, dict):
        return table
    return table[_split(list(table), split, path)]


def _split(known: Sequence[str], split: str | None, path: str) -> str:
    if split is None:
        split = "train" if len(known) > 1 else known[0]
    if split not in known:
        raise DataError(f"there is no split {split!r}", where=path, hint=f"data.split is one of {', '.join(known)}")
    return split


def _local_files(path: str, endings: tuple[str, ...]) -> list[str]:
    """The files of a folder or pattern, all of one kind; empty where there is nothing at that path."""
    root = Path(path).expanduser()
    if root.is_dir():
        files = sorted(str(file) for file in root.rglob("*") if file.suffix in endings)
        if not files:
            raise DataError(f"no {' or '.join(endings)} file in it", where=path, hint="check data.path")
    elif path.endswith(endings):
        files = expand(path)
    else:
        return []
    if len({Path(file).suffix for file in files}) > 1:
        raise DataError("it holds .arrow and .parquet files", where=path, hint=f"name one kind: {path}/*.parquet")
    return files


def _hub_name(path: str) -> str:
    """A name that is looked up on the hub; never a path, whose folder might hold anything."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) or Path(path).exists():
        raise DataError("there is nothing of this kind", where=path, hint="check data.path")
    return path


def _parquet_files(datasets: Any, path: str, config: str | None, split: str | None) -> list[str]:
    if files := _local_files(path, (".parquet",)):
        return files
    known = datasets.load_dataset_builder(_hub_name(path), config).config.data_files
    listed = [str(file) for file in known[_split(list(known), split, path)]]
    if other := [file for file in listed if not file.endswith(".parquet")]:
        raise DataError(
            f"{other[0]} is no Parquet file", where=path, hint="download it with data.use=huggingface instead"
        )
    return listed


# --------------------------------------------------------------------------------------------------- Parquet


class _ParquetShards:
    """Parquet files as `StreamedImages` reads them."""

    def __init__(
        self, datasets: Any, files: Sequence[str], image: str | None, labels: str, classes: int | None, *, where: str
    ) -> None:
        self.names = files
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            self.counts: Sequence[int] = list(pool.map(_rows, files))
        with _opened(files[0]) as table:
            features = datasets.Features.from_arrow_schema(table.schema_arrow)
        self.columns = Columns(datasets, features, image, labels, where=where)
        self.class_names = self.columns.class_names
        if self.columns.label is not None and not self.class_names:
            if classes is None:
                raise BadValue(
                    f"the column {self.columns.label!r} does not say how many classes there are", key="classes",
                    hint="set data.classes, or data.labels=none",
                )  # fmt: skip
            self.class_names = tuple(map(str, range(classes)))
        elif classes not in (None, len(self.class_names)):
            raise BadValue(f"the labels have {len(self.class_names)} classes", key="classes", hint="leave it out")

    def read(self, shard: int, start: int) -> Iterator[Encoded]:
        where, row = self.names[shard], start
        image, label = self.columns.image, self.columns.label
        with _opened(where) as table:
            groups: list[int] = []
            skipped = start
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if not groups and skipped >= rows:
                    skipped -= rows  # a whole group before the place is not even fetched
                else:
                    groups.append(group)
            read_columns = [image] if label is None else [image, label]
            for batch in table.iter_batches(ROWS, row_groups=groups, columns=read_columns) if groups else ():
                remaining = batch.slice(skipped)
                skipped -= len(batch) - len(remaining)
                values = remaining.column(image).to_pylist()
                labels = [None] * len(values) if label is None else remaining.column(label).to_pylist()
                for value, number in zip(values, labels, strict=True):
                    yield _encoded(f"{where}, row {row}", value, self._class(number, where, row))
                    row += 1

    def _class(self, number: Any, where: str, row: int) -> int | None:
        if self.columns.label is None:
            return None
        if not isinstance(number, int) or not 0 <= number < len(self.class_names):
            raise DataError(
                f"the label of row {row} is {number!r}, none of {len(self.class_names)} classes", where=where,
                hint="set data.classes to more, or data.labels=none",
            )  # fmt: skip
        return number


def _rows(name: str) -> int:
    with _opened(name) as table:
        return int(table.metadata.num_rows)


@contextmanager
def _opened(name: str) -> Iterator[Any]:
    """A Parquet file of a disk, an http(s) address or the hub.

    Raises
    ------
    DataError : also while it is read.
    """
    import pyarrow.parquet

    damage = (OSError, pyarrow.ArrowException)
    try:
        with contextlib.ExitStack() as stack:
            file: Any = Path(name)
            if name.startswith("hf://"):
                from huggingface_hub import HfFileSystem

                file = stack.enter_context(HfFileSystem().open(name, "rb"))
            elif remote.is_url(name):
                file = stack.enter_context(remote.RemoteFile(name))
            # Buffered: a column of images is otherwise fetched by whole groups of rows, hundreds of megabytes each.
            yield stack.enter_context(
                pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False, memory_map=False)
            )
    except MemoryError:  # Arrow's own is an ArrowException, too
        raise
    except damage as error:
        said = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"it is no Parquet file, or it is cut off: {said}", where=name, hint="copy or download it again"
        ) from None
