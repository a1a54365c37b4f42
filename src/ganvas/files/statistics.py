"""Statistics files: the moments of a data set's features, kept so that nobody has to embed it again.

`.npz` is pytorch-fid's format, `mu` (D,) and `sigma` (D, D), which clean-fid and many repositories share; ours adds
`count` and one text `provenance.<key>` each. `.pt` is torch-fidelity's, a dictionary of the same names. Nothing that is
read can run code.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganvas.errors import DataError, UsageError
from ganvas.files.files import write_bytes
from ganvas.stats.moments import checked_moments
from ganvas.types import Moments

_PREFIX = "provenance."
_HINT = "a statistics file holds mu (D,) and sigma (D, D): pytorch-fid's .npz or torch-fidelity's .pt"
# What readers of archives say of a file that is none, or a broken one.
_UNREADABLE = (
    OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_statistics(path: Path | str) -> tuple[Moments, dict[str, str]]:
    """(moments, provenance) of a `.npz` or `.pt` file; files of others have the count 0, unknown, and no provenance.

    Raises
    ------
    DataError : there is no such file, it is cut short or something else, or what it holds are no moments.
    UsageError : another ending than .npz or .pt.
    """
    file = Path(path)
    read = _reader(file)
    if not file.is_file():
        raise DataError("there is no such file", where=str(file), hint=_HINT)
    try:
        content = read(file)
    except pickle.UnpicklingError:
        # Torch's own message tells how to load it with code and all.
        raise DataError("it is cut short, or holds more than numbers and texts", where=str(file), hint=_HINT) from None
    except _UNREADABLE as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"it is not a readable statistics file ({said})", where=str(file), hint=_HINT) from None
    missing = [name for name in ("mu", "sigma") if name not in content]
    if missing:
        held = ", ".join(sorted(map(str, content))) or "nothing"
        raise DataError(f"it has no {' and no '.join(missing)}; it holds {held}", where=str(file), hint=_HINT)
    count = np.asarray(content.get("count", 0))
    if count.shape != () or count.dtype.kind not in "iu":
        raise DataError(f"its count is {count!r}, not a whole number", where=str(file), hint=_HINT)
    moments = checked_moments(content["mu"], content["sigma"], int(count), where=str(file))
    texts = {str(name): np.asarray(value) for name, value in content.items() if str(name).startswith(_PREFIX)}
    provenance = {name.removeprefix(_PREFIX): str(text) for name, text in texts.items() if text.dtype.kind == "U"}
    return moments, provenance


def write_statistics(path: Path | str, moments: Moments, provenance: Mapping[str, str]) -> None:
    """Write moments, whole or not at all, as `.npz` or `.pt`, as the path says; folders must be there.

    Other tools read the file, too, and skip what they do not know of.

    Raises
    ------
    UsageError : another ending than .npz or .pt.
    CheckpointError : the disk is full or the place cannot be written; whatever was there is untouched.
    """
    file = Path(path)
    _reader(file)
    about: dict[str, Any] = {_PREFIX + key: str(value) for key, value in provenance.items()}
    buffer = io.BytesIO()
    if file.suffix == ".npz":
        arrays: dict[str, Any] = {name: np.array(value) for name, value in about.items()}
        np.savez(buffer, mu=moments.mean, sigma=moments.covariance, count=np.array(moments.count), **arrays)
    else:
        # torch-fidelity refuses to compare means of different types, and its own are float32.
        moments_ = {"mu": moments.mean.astype(np.float32), "sigma": moments.covariance}
        torch.save({**moments_, "count": moments.count, **about}, buffer)
    write_bytes(file, buffer.getvalue())


def _reader(file: Path) -> Any:
    readers = {".npz": _read_npz, ".pt": _read_pt}
    if file.suffix not in readers:
        raise UsageError(f"a statistics file ends in .npz or .pt, not {file.suffix!r}", where=str(file), hint=_HINT)
    return readers[file.suffix]


def _read_npz(file: Path) -> dict[str, Any]:
    loaded = np.load(file, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError("it is a single array")
    with loaded as opened:
        names = [name for name in opened.files if name in ("mu", "sigma", "count") or name.startswith(_PREFIX)]
        held = dict.fromkeys(opened.files)  # so that an error can tell what there is
        return {**held, **{name: opened[name] for name in names}}


def _read_pt(file: Path) -> dict[str, Any]:
    # Arrays are made of these and nothing else; the names are those of NumPy 1 and 2.
    rebuild: Any = np.zeros(0).__reduce__()[0]
    both = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8")]
    with torch.serialization.safe_globals([np.ndarray, np.dtype, *kinds, *both]):
        content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a dictionary")
    return {str(name): value for name, value in content.items()}
