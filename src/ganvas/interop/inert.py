"""What is left of the objects in a pickle: names, records, tensors and arrays that can do nothing.

The builders at the end are the only functions that a pickle can have called; see `unpickle`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

MOST_DIMENSIONS = 16
LARGEST_SIZE = 1 << 48
LARGEST_KEY = 1 << 60  # whole numbers beyond it can be chosen so that a dict of them takes for ever
HINT = "give the file that its authors publish; a damaged one has to be fetched again"

STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}  # fmt: skip
DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
        "complex128",
    )
}  # fmt: skip
_ARRAY_KINDS = "biufc?SU"  # of arrays that hold numbers or texts, not objects


class Refused(Exception):
    """Why a file is not read on; `CheckpointError` tells it to the user."""


@dataclass
class Budget:
    """How many items and bytes may be copied; a few instructions could otherwise multiply a file without end."""

    left: int

    def spend(self, count: int) -> None:
        """Raise Refused where more is copied than there can be a reason for."""
        self.left -= count
        if self.left < 0:
            raise Refused("it multiplies its content, as no checkpoint does")


@dataclass(frozen=True)
class Name:
    """Something that a pickle names. It is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What is left of an object: the name of its class, what it was made of, and its state. It can do nothing."""

    cls: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    persistent: bool = False  # its source code was in the file

    def __repr__(self) -> str:
        return f"Record({self.cls})"


@dataclass(eq=False)
class Storage:
    """Numbers in a row, not yet read; `bytes_of` gives all of them."""

    dtype: torch.dtype
    count: int
    bytes_of: Callable[[], memoryview | bytes] | None = None
    tensor: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def read(self) -> Tensor:
        """(count,) of `dtype`, read once.

        Raises
        ------
        Refused : there are not as many bytes as there should be.
        """
        if self.tensor is None:
            if self.bytes_of is None:
                raise Refused("a tensor's numbers are not in it")
            content = self.bytes_of()
            if len(content) != self.nbytes:
                raise Refused(f"a tensor of {self.count} numbers has {len(content)} bytes")
            empty = self.count == 0
            self.tensor = (
                torch.empty(0, dtype=self.dtype) if empty else torch.frombuffer(bytearray(content), dtype=self.dtype)
            )
        return self.tensor


@dataclass(eq=False)
class TensorView:
    """A tensor that has not been read: its shape is known, its numbers are still in the file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    @property
    def count(self) -> int:
        return prod(self.shape)

    def read(self) -> Tensor:
        """The tensor itself, which shares its numbers with others of the same storage.

        Raises
        ------
        Refused : its numbers are not in the file.
        """
        return torch.as_strided(self.storage.read(), self.shape, self.stride, self.offset)


@dataclass(eq=False)
class Array:
    """A NumPy array or number, which gets its content after it is made."""

    value: np.ndarray[Any, Any] | None = None


# ---------------------------------------------------------------------------------------------------- containers


def keys_of(values: Sequence[Any]) -> list[Any]:
    """The values, all of which can be looked up quickly."""
    for value in values:
        fine = value is None or isinstance(value, str | bytes | bool | Name | Record | torch.dtype)
        if not fine and not (isinstance(value, int) and abs(value) < LARGEST_KEY):
            raise Refused(f"a table has a {type(value).__name__} as a key")
    return list(values)


def pairs_of(pairs: Sequence[Any]) -> dict[Any, Any]:
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise Refused("a table is made of something that are no pairs")
    keys_of([pair[0] for pair in pairs])
    return dict(pairs)


# ---------------------------------------------------------------------------------------------------- builders


class Caller(Protocol):
    """The interpreter, as far as builders need it."""

    def spend(self, count: int) -> None:
        """Count what is copied."""
        ...

    def call(self, function: Any, arguments: Any) -> Any:
        """What a pickle's call of a name makes."""
        ...

    def payload(self, content: memoryview) -> Any:
        """What a file within the file holds."""
        ...


def _table(made_by: Caller, pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, dict):
        return pairs_of(_sequence(made_by, pairs))
    made_by.spend(len(pairs))
    return dict(pairs)


def _sequence(made_by: Caller, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise Refused("it makes a container of something that is none")
    made_by.spend(len(value))
    return list(value)


def _whole(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MOST_DIMENSIONS:
        raise Refused(f"a tensor's {what} is no short row of numbers")
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48 for value in values):
        raise Refused(f"a tensor's {what} is absurd")
    return tuple(values)


def _tensor(_: Caller, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> TensorView:
    if not isinstance(storage, Storage):
        raise Refused("a tensor is made of something that is no storage")
    shape, stride = _whole(shape, "shape"), _whole(stride, "stride")
    (offset,) = _whole((offset,), "place")
    if len(shape) != len(stride):
        raise Refused("a tensor's shape and stride do not belong together")
    count = prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if count else offset - 1
    if last >= storage.count or count > storage.count:
        raise Refused(f"a tensor of shape {shape} claims more numbers than the {storage.count} it is made of")
    return TensorView(storage, offset, shape, stride)


def _tensor_v3(
    made_by: Caller,
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> TensorView:
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise Refused("a tensor is made of something that is no storage")
    typed = Storage(dtype, storage.count * storage.dtype.itemsize // dtype.itemsize, storage.bytes_of)
    return _tensor(made_by, typed, offset, shape, stride)


def _parameter(_: Caller, data: Any, *rest: Any) -> TensorView:
    if not isinstance(data, TensorView):
        raise Refused("a parameter is made of something that is no tensor")
    return data


def _payload(made_by: Caller, content: Any) -> Storage:
    if not isinstance(content, bytes | bytearray):
        raise Refused("a payload is no row of bytes")
    storage = made_by.payload(memoryview(content))
    if not isinstance(storage, Storage):
        raise Refused("a payload holds something else than numbers")
    return storage


def _persistent(_: Caller, meta: Any) -> Record:
    """NVIDIA's objects with their source code, which is left where it is."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise Refused("a persistent object has no class name")
    state = meta.get("state")
    if not isinstance(state, dict):
        raise Refused("a persistent object has no state")
    return Record(meta["class_name"], state=state, persistent=True)


def _reconstructed(made_by: Caller, cls: Any, base: Any, state: Any) -> Any:
    """Objects of Python 2's protocols: `cls.__new__`, and a state that belongs to a base class."""
    if str(cls) == "dnnlib.util.EasyDict":
        return _table(made_by, state or ())
    return made_by.call(cls, ())


def _bytes(made_by: Caller, text: Any, codec: Any = "latin1") -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise Refused("it decodes a text in an unusual way")
    made_by.spend(len(text))
    return text.encode("latin-1")


def _bytearray(made_by: Caller, content: Any = b"", *codec: Any) -> bytearray:
    if isinstance(content, str):
        return bytearray(_bytes(made_by, content, *codec))
    if not isinstance(content, bytes | bytearray):
        raise Refused("a row of bytes is made of something else")
    made_by.spend(len(content))
    return bytearray(content)


@dataclass(eq=False)
class DTypeRecord:
    """A NumPy number type whose byte order comes later."""

    dtype: np.dtype[Any]

    def order(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(entry is not None for entry in state[2:5]):
            raise Refused("an array has a structured type")
        if state[1] not in ("<", ">", "|", "="):
            raise Refused("an array has an unknown byte order")
        self.dtype = self.dtype.newbyteorder(state[1])


def _dtype(_: Caller, code: Any, *rest: Any) -> DTypeRecord:
    text = code.decode("ascii") if isinstance(code, bytes) else code
    if not isinstance(text, str) or len(text) > 8 or text[:1] not in _ARRAY_KINDS:
        raise Refused(f"an array has the type {str(text)[:20]!r}, which is none of numbers")
    dtype = np.dtype(text)
    if dtype.hasobject or dtype.itemsize > 1 << 16:
        raise Refused("an array holds objects")
    return DTypeRecord(dtype)


def _number(_: Caller, dtype: Any, content: Any = b"") -> Array:
    if not isinstance(dtype, DTypeRecord) or not isinstance(content, bytes | bytearray):
        raise Refused("a number is made of something that is none")
    return Array(np.frombuffer(content, dtype.dtype, count=1).reshape(()).copy())


def fill_array(made_by: Caller, target: Array, state: Any) -> None:
    """(version, shape, dtype, whether columns come first, bytes) -> the array's content."""
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], DTypeRecord):
        raise Refused("an array's content is damaged")
    _, shape, dtype, columns_first, content = state
    if isinstance(content, str):
        content = _bytes(made_by, content)
    if not isinstance(content, bytes | bytearray):
        raise Refused("an array holds objects")
    made_by.spend(len(content))
    sizes = _whole(shape, "shape")
    values = np.frombuffer(content, dtype.dtype)
    if values.size != prod(sizes):
        raise Refused("an array's shape and content do not belong together")
    target.value = values.reshape(sizes, order="F" if columns_first else "C").copy()


def _from_buffer(made_by: Caller, content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Arrays of pickle's protocol 5."""
    array = Array()
    fill_array(made_by, array, (1, shape, dtype, order == "F", content))
    return array


BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _table,
    "collections.defaultdict": lambda made_by, factory=None: {},
    "dnnlib.util.EasyDict": _table,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.storage._load_from_bytes": _payload,
    "torch.Size": lambda made_by, sizes=(): _whole(sizes, "shape"),
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "_codecs.encode": _bytes,
    "numpy.dtype": _dtype,
    "numpy.ndarray": lambda made_by, *_: Array(),
}
"""What a pickle may call, and what is called instead."""
for _core in ("core", "_core"):
    BUILDERS[f"numpy.{_core}.multiarray._reconstruct"] = lambda made_by, *_: Array()
    BUILDERS[f"numpy.{_core}.multiarray.scalar"] = _number
    BUILDERS[f"numpy.{_core}.numeric._frombuffer"] = _from_buffer
for _module in ("copyreg", "copy_reg"):
    BUILDERS[f"{_module}._reconstructor"] = _reconstructed
for _module in ("builtins", "__builtin__"):
    BUILDERS |= {
        f"{_module}.set": lambda made_by, values=(): set(keys_of(_sequence(made_by, values))),
        f"{_module}.frozenset": lambda made_by, values=(): frozenset(keys_of(_sequence(made_by, values))),
        f"{_module}.list": lambda made_by, values=(): _sequence(made_by, values),
        f"{_module}.tuple": lambda made_by, values=(): tuple(_sequence(made_by, values)),
        f"{_module}.dict": _table,
        f"{_module}.object": lambda made_by: Record("object"),
        f"{_module}.bytearray": _bytearray,
        f"{_module}.bytes": lambda made_by, *content: bytes(_bytearray(made_by, *content)),
    }
