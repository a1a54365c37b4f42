"""Files of a run: written whole or not at all, and read without running anything that is in them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganvas.errors import CheckpointError, InUse
from ganvas.files.reading import content_of, rows_of

try:
    import fcntl
except ImportError:  # Windows has no flock; runs are not held there
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor


def full_disk(error: OSError, file: Path) -> CheckpointError:
    """What to tell a user whose disk is full or read-only."""
    return CheckpointError(
        f"cannot be written: {error.strerror or error}",
        where=str(file),
        hint="nothing that was there is lost; make room and go on with --resume",
    )


def write_bytes(file: Path, content: bytes) -> None:
    """Write under a temporary name in the same folder, then rename.

    Raises
    ------
    CheckpointError : the disk is full or the place cannot be written; whatever was there is untouched.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise full_disk(error, file) from None


def sweep(folder: Path) -> None:
    """Remove what a process that was killed left half-written in a folder or below."""
    for leftover in list(folder.rglob(".*.tmp")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a folder where there is none, and hold it against other processes; a killed one lets go by itself.

    Raises
    ------
    InUse : another process holds it.
    CheckpointError : it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise full_disk(error, folder) from None
    if fcntl is None:
        yield  # type: ignore[unreachable]
        return
    try:
        handle = _lock(folder)
    except BlockingIOError:
        raise InUse(
            "another process is training into it", where=str(folder), hint="wait for it, or give another --out"
        ) from None
    try:
        yield
    finally:
        os.close(handle)


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the folder now."""
    if fcntl is None or not folder.is_dir():
        return False
    try:
        os.close(_lock(folder))
    except BlockingIOError:
        return True
    return False


def _lock(folder: Path) -> int:
    """A handle that holds the folder until it is closed; BlockingIOError where another one does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError as error:
        os.close(handle)
        if error.errno != errno.EBADF:
            raise
    # NFS locks for writing only what is open for writing, and a folder cannot be.
    handle = os.open(folder / ".claim", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


# --------------------------------------------------------------------------------------------------- rows of JSON


def append_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a JSON-lines file, whole ones only.

    Raises
    ------
    CheckpointError : the disk is full; a row that was cut short is taken back.
    """
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    try:
        with file.open("ab", buffering=0) as stream:  # a buffer would write the failed rows again when it is closed
            end = stream.tell()
            if end and (half := unfinished(file)):
                os.truncate(file, end := end - half)
            try:
                unwritten = memoryview(text)
                while unwritten:
                    unwritten = unwritten[stream.write(unwritten) :]
            except OSError:
                os.truncate(file, end)
                raise
    except OSError as error:
        raise full_disk(error, file) from None


def unfinished(file: Path) -> int:
    """How many bytes a kill left after the last whole row."""
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read() == b"\n":
            return 0
    content = content_of(file)
    return len(content) - (content.rfind(b"\n") + 1)


def read_rows(file: Path, *keys: str) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a last one that a kill cut short is left out. See `rows_of`."""
    return rows_of(file, *keys)


def cut_after(file: Path, step: int) -> None:
    """Drop the rows after `step`, which a resumed run will write again."""
    if not file.is_file():
        return
    rows = [json.dumps(row) + "\n" for row in read_rows(file) if row.get("step", 0) <= step]
    write_bytes(file, "".join(rows).encode())


# --------------------------------------------------------------------------------------------------- tensors


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, then rename it.

    Raises
    ------
    CheckpointError : the disk is full or the place cannot be written; whatever was there is untouched.
    """
    from safetensors.torch import save

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(file, save(on_cpu, dict(metadata)))


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file.

    Raises
    ------
    CheckpointError : missing, cut short or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot be read: {error}", where=str(file), hint="copy it again, or train again"
        ) from None


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each of them finite.

    Raises
    ------
    CheckpointError : missing, cut short or something else, or a weight is NaN or infinite.
    """
    tensors, _ = read_tensors(file)
    unusable = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if unusable:
        raise CheckpointError(
            f"{len(unusable)} of its {len(tensors)} weights hold NaN or infinite values, first {unusable[0]}",
            where=str(file), hint="its training diverged, or the file is damaged: take an earlier one, or train again",
        )  # fmt: skip
    return tensors


# --------------------------------------------------------------------------------------------------- model files


def model_file(path: Path) -> Path:
    """The model.safetensors that a run folder or a file path means.

    Raises
    ------
    CheckpointError : there is none.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"there is no model at {path}", where=str(path),
            hint="a model is a run folder with a model.safetensors in it, or that file itself",
        )  # fmt: skip
    return file


def model_metadata(path: Path) -> dict[str, Any]:
    """{"recipe": resolved recipe, "spec": …, "step": …} from the head of a model file; no weights are read.

    Raises
    ------
    CheckpointError : missing, corrupt, or not one of ours.
    """
    file = model_file(path)
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 2 <= size <= min(100_000_000, file.stat().st_size - 8):
                raise ValueError("its header is cut short")
            head = json.loads(stream.read(size))
        content = dict(json.loads(head["__metadata__"]["ganvas"]))
        if not isinstance(content["recipe"]["networks"], dict):
            raise TypeError("its recipe has no networks")
        return content
    except KeyError:
        raise CheckpointError(
            "it holds weights, but not a Ganvas model",
            where=str(file),
            hint="give a model.safetensors that ganvas train wrote",
        ) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"it is not a readable model file ({error})", where=str(file), hint="copy it again, or train again"
        ) from None
