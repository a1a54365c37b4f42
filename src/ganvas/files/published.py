"""Published weights: where they are looked for, how they are read, and what is said where they are missing.

A file is taken from the given path, else from `$GANVAS_WEIGHTS` (default `$GANVAS_CACHE/weights`, which is
`~/.cache/ganvas/weights`), else from the folder where `torch.hub` keeps its files, else from the Hugging Face Hub or
what was fetched from it before. Nothing in a file is run: safetensors hold numbers only, and PyTorch's own files are
read by `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from ganvas.errors import CheckpointError, MissingExtra
from ganvas.files.files import read_tensors

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[\w.]+$")  # torch.hub's habit: the hash begins like this
_WRAPPINGS = ("state_dict", "model")  # under which official files keep the tensors
_CHUNK = 1 << 20


@dataclass(frozen=True)
class GivenWeights:
    """The keys by which a user says which weights are meant.

    Parameters
    ----------
    weights : a .safetensors file, or a PyTorch file of tensors alone; None: the usual places, then the Hub.
    sha256 : the file's hash or the beginning of it; another file is refused.
    """

    weights: Path | None = None
    sha256: Annotated[str, MinLen(8)] | None = None


USUAL = GivenWeights()
"""Nothing given: the usual places."""


@dataclass(frozen=True)
class Published:
    """A file of weights as its authors publish it.

    Parameters
    ----------
    files : names that it goes by in the usual places; the first is the one that errors tell.
    url : where a browser gets it.
    hub : (repository, file) on the Hugging Face Hub; None where it is not there.
    """

    files: tuple[str, ...]
    url: str
    hub: tuple[str, str] | None = None


@dataclass(frozen=True)
class WeightsFile:
    """A file that was found: its path, its sha256 and where it was found."""

    path: Path
    sha256: str
    source: str


def folder() -> Path:
    """Where users put weights."""
    if chosen := os.environ.get("GANVAS_WEIGHTS"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("GANVAS_CACHE") or Path.home() / ".cache" / "ganvas").expanduser() / "weights"


def find(published: Published, given: GivenWeights, *, part: str) -> WeightsFile:
    """The file of these weights, its hash checked where a hash is known; `part` is who asks.

    Raises
    ------
    CheckpointError : there is none in any place, or it is not the file that it should be.
    """
    if given.weights is not None:
        file = given.weights.expanduser()
        if not file.is_file():
            raise CheckpointError(
                f"there are no weights at {given.weights}", where=f"{part}.weights", hint=_remedy(published)
            )
        return _checked(file, given.sha256, str(given.weights))
    for place in (folder(), Path(torch.hub.get_dir()) / "checkpoints"):
        for name in published.files:
            if (place / name).is_file():
                return _checked(place / name, given.sha256, name)
    reason = ""
    if published.hub is not None:
        fetched, reason = _from_hub(*published.hub)
        if fetched is not None:
            return _checked(fetched, given.sha256, "/".join(published.hub))
    raise CheckpointError(
        f"the weights {published.files[0]} are not on this machine{reason}", where=part, hint=_remedy(published)
    )


def _remedy(published: Published) -> str:
    return f"get {published.url} and put it at {folder() / published.files[0]}, or give its path as `weights:`"


def _from_hub(repository: str, file: str) -> tuple[Path | None, str]:
    """(the file, "") from the Hub or what was fetched before, or (None, why not)."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        return None, ", and the package huggingface_hub that could fetch them is not there"
    try:
        return Path(hf_hub_download(repository, file)), ""
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such file, no permission, a full disk
        return None, f", and the Hub does not give them ({type(error).__name__}: {str(error).splitlines()[0][:120]})"


def sha256_of(*files: Path) -> str:
    """The hash of a file, or of several as one."""
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}", where=str(file)) from None
    return digest.hexdigest()


def check_sha256(sha256: str, expected: str | None, where: Path) -> None:
    """Refuse a file that is not the expected one.

    Raises
    ------
    CheckpointError : the hash `sha256` does not begin with `expected`.
    """
    if expected is not None and not sha256.startswith(expected.lower()):
        raise CheckpointError(
            f"its sha256 is {sha256}, which does not begin with {expected}", where=str(where),
            hint="it was cut off or changed, or is another file: get it again",
        )  # fmt: skip


def _checked(file: Path, expected: str | None, source: str) -> WeightsFile:
    sha256 = sha256_of(file)
    in_name = _HASH_IN_NAME.search(file.name)
    check_sha256(sha256, in_name[1] if in_name else None, file)
    check_sha256(sha256, expected, file)
    return WeightsFile(file, sha256, source)


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, float ones as float32.

    What official files wrap around them is taken off: an outer `state_dict` or `model`, and `module.` before each name.

    Raises
    ------
    CheckpointError : missing, damaged, or holding anything but tensors.
    """
    state = read_tensors(file)[0] if file.suffix == ".safetensors" else _read_torch(file)
    return {
        name.removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in state.items()
    }


def _read_torch(file: Path) -> Mapping[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise whatever the objects in it raise
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(
            f"it is refused: {said}", where=str(file), hint="it is damaged, or holds more than tensors: get it again"
        ) from None
    for key in _WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(
            "it holds no table of named tensors", where=str(file), hint="give the file of weights that is documented"
        )
    return content


def load_extra(module: str, *, package: str, extra: str, part: str) -> ModuleType:
    """A module of an optional package. Imported, not looked for: one that is there but broken is told of, too.

    Raises
    ------
    MissingExtra : the package is not installed, or does not work with this PyTorch.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise missing_extra(error, package=package, extra=extra, part=part) from None


def missing_extra(error: Exception, *, package: str, extra: str, part: str) -> MissingExtra:
    """What to tell a user whose optional package is absent or broken."""
    said = str(error).splitlines()[0]
    hint = f'pip install "ganvas[{extra}]" -c constraints.txt'
    if "torchvision" in said:
        hint += "; the torchvision that comes with it must be a build for this PyTorch"
    return MissingExtra(f"extractor {part!r} needs the package {package} ({said})", where=part, hint=hint)
