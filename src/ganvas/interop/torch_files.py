"""Files with tensors in them, of PyTorch and of plain pickle, read without running anything that is in them.

Understood are PyTorch's zip files, their predecessor, and bare pickles with payloads of either in them. Sizes that a
file claims are believed only where its bytes bear them out.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganvas.errors import CheckpointError
from ganvas.files.reading import content_of
from ganvas.interop.inert import HINT, LARGEST_SIZE, STORAGES, Budget, Name, Refused, Storage, TensorView
from ganvas.interop.unpickle import INERT, Interpreter

COPIES = 16  # that all builders together may make of a file
LEAST_BUDGET = 1 << 20
MOST_NESTED = 4  # payloads within payloads
MAGIC = 0x1950A86A20F9469CFC6C  # with which the predecessor of PyTorch's zip files begins
PROTOCOL = 1001  # of that format


_LARGEST_FILE = 64 << 30  # bytes: more than any published generator


def read_checkpoint(file: Path, *, also_inert: Sequence[str] = ()) -> Any:
    """What a file holds: plain containers and numbers, `TensorView`s, `Array`s and inert `Record`s.

    Parameters
    ----------
    also_inert : further beginnings of names whose objects become records.

    Raises
    ------
    CheckpointError : there is no such file, it is no checkpoint, it is cut short, or it asks for anything else.
    """
    data = content_of(file, limit=_LARGEST_FILE)
    try:
        budget = Budget(COPIES * len(data) + LEAST_BUDGET)
        return _Reader((*INERT, *also_inert), budget).read(memoryview(data))
    except Refused as error:
        raise CheckpointError(f"it is refused: {error}", where=str(file), hint=HINT) from None


def read_tensors(table: Mapping[str, TensorView]) -> dict[str, Tensor]:
    """The tensors of a table, those of half precision as float32; they may share memory.

    Raises
    ------
    CheckpointError : they are much larger than the numbers that they are made of, or those are not there.
    """
    held = {id(view.storage): view.storage.nbytes for view in table.values()}
    claimed = sum(view.count * view.dtype.itemsize for view in table.values())
    if claimed > 2 * sum(held.values()):
        raise CheckpointError("it is refused: its tensors are made of the same few numbers", hint=HINT)
    try:
        tensors = {name: view.read() for name, view in table.items()}
    except Refused as error:
        raise CheckpointError(f"it is refused: {error}", hint=HINT) from None
    small = (torch.float16, torch.bfloat16)
    return {name: tensor.float() if tensor.dtype in small else tensor for name, tensor in tensors.items()}


class _Reader:
    """Tells the formats apart, and reads files within the file as well."""

    def __init__(self, inert: Sequence[str], budget: Budget) -> None:
        self.inert = inert
        self.budget = budget
        self.depth = 0

    def read(self, data: memoryview) -> Any:
        start = bytes(data[:512])
        if start[:4] == b"PK\x03\x04":
            return self.read_zip(data)
        if start[257:262] == b"ustar":
            raise Refused("it is a tar archive; PyTorch's format before 2017 is not read")
        if start[8:9] == b"{" and start[:1] != b"\x80":
            raise Refused("it is a safetensors file, not an official checkpoint")
        if not start.strip():
            raise Refused("it is empty")
        stream = io.BytesIO(data)
        first = self.unpickle(stream)
        return self.read_legacy(stream, data) if type(first) is int and first == MAGIC else first

    def payload(self, data: memoryview) -> Any:
        """A file within the file."""
        self.budget.spend(len(data))
        self.depth += 1
        if self.depth > MOST_NESTED:
            raise Refused("there are payloads within payloads within payloads")
        content = self.read(data)
        self.depth -= 1
        return content

    def unpickle(self, stream: io.BytesIO, storage: Callable[[Any], Storage] | None = None) -> Any:
        return Interpreter(self.inert, self.budget, self.payload, storage).run(stream)

    # ------------------------------------------------------------------ zip

    def read_zip(self, data: memoryview) -> Any:
        """PyTorch's files since 2020: a pickle, and a member for each row of numbers."""
        archive, entries = _opened(data)
        pickled = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickled) != 1:
            raise Refused("it is a zip file, but none of PyTorch's")
        top = pickled[0].removesuffix("data.pkl")
        if any(name.startswith(f"{top}code/") for name in entries) or f"{top}constants.pkl" in entries:
            raise Refused("it is a TorchScript archive, which holds a program")
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries.values()):
            raise Refused("it is a compressed or encrypted zip file, which PyTorch does not write")
        if sum(entry.file_size for entry in entries.values()) > len(data):
            raise Refused("its parts are larger than the whole")

        def member(name: str) -> bytes:
            try:
                return archive.read(entries[name])
            except (
                zipfile.BadZipFile,
                zlib.error,
                RuntimeError,
                NotImplementedError,
                EOFError,
                OSError,
                ValueError,
            ) as error:
                raise Refused(f"{name} is damaged ({error})") from None

        if f"{top}byteorder" in entries and member(f"{top}byteorder").strip() != b"little":
            raise Refused("its numbers are big-endian")
        storages: dict[str, Storage] = {}

        def storage(identity: Any) -> Storage:
            dtype, key, count = _storage_identity(identity)
            name = f"{top}data/{key}"
            if name not in entries:
                raise Refused(f"a tensor's numbers, {name}, are not in it")
            size = entries[name].file_size
            if size != count * dtype.itemsize:
                raise Refused(f"a tensor claims {count} numbers, but {name} has {size} bytes")
            return storages.setdefault(key, Storage(dtype, count, lambda: member(name)))

        return self.unpickle(io.BytesIO(member(pickled[0])), storage)

    # ------------------------------------------------------------------ its predecessor

    def read_legacy(self, stream: io.BytesIO, data: memoryview) -> Any:
        """What follows the magic number: protocol, machine, content, keys of storages, and their numbers in a row."""
        if self.unpickle(stream) != PROTOCOL:
            raise Refused("it is of an unknown version of PyTorch's old format")
        machine = self.unpickle(stream)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise Refused("its numbers are big-endian, or it is damaged")
        storages: dict[str, Storage] = {}

        def storage_of(identity: Any) -> Storage:
            dtype, key, count = _storage_identity(identity)
            storage = storages.setdefault(key, Storage(dtype, count))
            if (storage.dtype, storage.count) != (dtype, count):
                raise Refused("a tensor's numbers are of two kinds")
            return storage

        content = self.unpickle(stream, storage_of)
        keys = self.unpickle(stream)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
            raise Refused("its tensors and their numbers do not belong together")
        at = stream.tell()
        for key in keys:
            storage = storages[key]
            start, end = at + 8, at + 8 + storage.nbytes  # the count, then the numbers
            if end > len(data) or struct.unpack("<q", data[at:start])[0] != storage.count:
                raise Refused(
                    f"a tensor claims {storage.count} numbers, which are not there: it is cut short or damaged"
                )
            storage.bytes_of = partial(_piece, data, start, end)
            at = end
        return content


def _piece(data: memoryview, start: int, end: int) -> memoryview:
    return data[start:end]


def _opened(data: memoryview) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """A zip file and its members."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError) as error:
        raise Refused(f"it is a zip file that is damaged or cut short ({error})") from None
    return archive, entries


def _storage_identity(identity: Any) -> tuple[torch.dtype, str, int]:
    """(dtype, key, count) of a reference to numbers that stand elsewhere in the file."""
    if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
        raise Refused("it refers to something outside itself that is no tensor")
    kind, key, _, count = identity[1:5]
    if len(identity) > 5 and identity[5] is not None:
        raise Refused("it refers to a part of a storage, as PyTorch did before 2018")
    if not isinstance(kind, Name) or kind.name not in STORAGES or not isinstance(key, str):
        raise Refused(f"it refers to numbers of an unknown kind, {str(kind)[:80]}")
    if not isinstance(count, int) or not 0 <= count < LARGEST_SIZE:
        raise Refused("a tensor claims an absurd number of numbers")
    return STORAGES[kind.name], key, count
