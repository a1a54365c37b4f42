"""Where sampled images go: one grid, a folder of pictures, or an array file."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ganvas.errors import UsageError
from ganvas.files import pictures
from ganvas.files.files import full_disk, write_bytes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Target:
    """A place for images, looked at before any is made."""

    path: Path
    form: Literal["grid", "folder", "array"]

    @classmethod
    def of(cls, out: str | None, run: str, seed: int) -> Target:
        """What `--out` means: `.png` a grid, `.npz` an array, no suffix a folder.

        Raises
        ------
        UsageError : another suffix, a folder that is not empty, or a place that cannot be.
        """
        if out is None:
            folder = Path(run) if Path(run).is_dir() else Path(run).parent
            return cls(folder / "samples" / f"seed-{seed}.png", "grid")
        path = Path(out)
        forms: dict[str, Literal["grid", "array", "folder"]] = {".png": "grid", ".npz": "array", "": "folder"}
        form = "folder" if out.endswith(("/", os.sep)) or path.is_dir() else forms.get(path.suffix.lower())
        if form is None:
            raise UsageError(
                f"{out} is no place for images",
                where="--out",
                hint="FILE.png for a grid, FILE.npz for arrays, FOLDER/ for PNGs",
            )
        if form == "folder" and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{out} is there already", where="--out", hint="give a new or empty folder")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent}", where="--out", hint="make it first")
        return cls(path, form)

    def write(self, images: Tensor, labels: Sequence[int] | None, *, columns: int | None) -> None:
        """Write (N, C, H, W) images in [-1, 1], whole or not at all."""
        if self.form == "grid":
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise full_disk(error, self.path) from None
            pictures.save(pictures.sheet(images, columns), self.path)
        elif self.form == "array":
            self.write_array(images, labels)
        else:
            self.write_folder(images, labels)

    def write_array(self, images: Tensor, labels: Sequence[int] | None) -> None:
        points = images.dim() == 2
        arrays = {"points": images.numpy()} if points else {"images": pictures.to_uint8(images)}  # (N, H, W, C)
        if labels is not None:
            arrays["labels"] = np.asarray(labels, dtype=np.int64)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(self.path, buffer.getvalue())

    def write_folder(self, images: Tensor, labels: Sequence[int] | None) -> None:
        """One PNG an image, in a sub-folder per class where there are classes, so that the folder trains again."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            for number, pixels in enumerate(pictures.to_uint8(images)):
                folder = temporary if labels is None else temporary / f"{labels[number]:03d}"
                folder.mkdir(parents=True, exist_ok=True)
                pictures.picture(pixels).save(folder / f"{number:06d}.png")
            if self.path.exists():
                self.path.rmdir()
            temporary.rename(self.path)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise full_disk(error, self.path) from None
