"""Where samples go: one picture for people, a file each, or an array file."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from ganvas.errors import UsageError
from ganvas.files import pictures
from ganvas.files.files import full_disk, write_bytes
from ganvas.report.sheets import sheet

if TYPE_CHECKING:
    from torch import Tensor

    from ganvas.types import Modality

Form = Literal["sheet", "folder", "array", "file"]


@dataclass(frozen=True)
class Target:
    """A place for samples, looked at before any is made."""

    path: Path
    form: Form

    @classmethod
    def of(cls, out: str | None, run: str, seed: int) -> Target:
        """What `--out` means: `.png` a picture of all, `.npz` an array, no suffix a folder, another one a single datum.

        Without it, a picture in the run's folder; in the working directory where that cannot be written.

        Raises
        ------
        UsageError : a folder that is not empty, or a place that cannot be.
        """
        if out is None:
            folder = Path(run) if Path(run).is_dir() else Path(run).parent
            if not os.access(folder, os.W_OK):  # a colleague's run, or one on a disk that is mounted to be read
                return cls(Path(f"{folder.resolve().name}-seed-{seed}.png"), "sheet")
            return cls(folder / "samples" / f"seed-{seed}.png", "sheet")
        path = Path(out)
        forms: dict[str, Form] = {".png": "sheet", ".npz": "array", "": "folder"}
        folder_like = out.endswith(("/", os.sep)) or path.is_dir()
        form: Form = "folder" if folder_like else forms.get(path.suffix.lower(), "file")
        if form == "folder" and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{out} is there already", where="--out", hint="give a new or empty folder")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent}", where="--out", hint="make it first")
        return cls(path, form)

    def check(self, modality: Modality, n: int) -> None:
        """Refuse a file that data of this modality are not written to, before any is made.

        Raises
        ------
        UsageError : another suffix, or several data for one file.
        """
        if self.form != "file":
            return
        if self.path.suffix.lower() not in modality.suffixes:
            raise UsageError(
                f"{self.path} is no place for data of modality {modality.called()!r}", where="--out",
                hint=f"FILE.png for a picture, FILE.npz for arrays, FOLDER/ for files ({', '.join(modality.suffixes)})",
            )  # fmt: skip
        if n != 1:
            raise UsageError(f"{n} samples are no single file", where="--out", hint="--n 1, or --out FOLDER/")

    def write(
        self,
        data: Tensor,
        modality: Modality,
        *,
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        names: Sequence[str] | None = None,
        columns: int | None = None,
        inputs: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """Write data (N, ...), whole or not at all.

        Parameters
        ----------
        labels, class_names : in a folder each class has a sub-folder of its name, so that the folder trains again.
        names : of the files in a folder, without ending; numbers where there are none.
        columns : of a picture.
        inputs : what they were made of, (N, ...) each by name, for rows above theirs in a picture.
        """
        if self.form == "sheet":
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise full_disk(error, self.path) from None
            pictures.save(sheet(data, inputs, modality, columns), self.path)
        elif self.form == "array":
            arrays = dict(modality.arrays(data))
            if labels is not None:
                arrays["labels"] = np.asarray(labels, dtype=np.int64)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
            write_bytes(self.path, buffer.getvalue())
        elif self.form == "file":
            self._write_file(data, modality)
        else:
            self._write_folder(data, modality, labels, class_names, names)

    def _write_file(self, data: Tensor, modality: Modality) -> None:
        temporary = self.path.with_name(f".{os.getpid()}.tmp{self.path.suffix}")
        try:
            modality.write(data, [temporary])
            temporary.replace(self.path)
        except OSError as error:
            raise full_disk(error, self.path) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _write_folder(
        self,
        data: Tensor,
        modality: Modality,
        labels: Sequence[int] | None,
        class_names: Sequence[str],
        names: Sequence[str] | None,
    ) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        folders = folder_names(class_names)
        files = []
        for number in range(len(data)):
            place = temporary if labels is None else temporary / folders.get(labels[number], f"{labels[number]:03d}")
            files.append(place / f"{names[number] if names else f'{number:06d}'}{modality.suffixes[0]}")
        try:
            for folder in {file.parent for file in files}:
                folder.mkdir(parents=True, exist_ok=True)
            modality.write(data, files)
            if self.path.exists():
                self.path.rmdir()
            temporary.rename(self.path)
        except OSError as error:
            raise full_disk(error, self.path) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def folder_names(class_names: Sequence[str]) -> dict[int, str]:
    """Class number -> the name of its folder; numbers alone where two names would share a folder or cannot be one."""
    safe = [re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name).strip(". ") for name in class_names]
    distinct = len({name.casefold() for name in safe}) == len(safe) and all(safe)
    return dict(enumerate(safe)) if distinct else {}
