"""Rows and sample sheets as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ganvas.errors import MissingExtra
from ganvas.parts import sink
from ganvas.types import Sink


@sink("tensorboard")
class TensorBoard(Sink):
    """Event files in `RUN/tensorboard`; look at them with `tensorboard --logdir RUN`.

    Nothing is written before the first row. A run that is resumed hides what an earlier one wrote beyond that step.

    Raises
    ------
    MissingExtra : the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:  # imported, not looked for: a package that is there but broken must be told of before training, too
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra(
                f"sink 'tensorboard' needs the package tensorboard ({error})", where="sinks.tensorboard",
                hint='pip install "ganvas[tensorboard]" -c constraints.txt, or drop it: sinks.tensorboard=~',
            ) from None  # fmt: skip
        self._open = SummaryWriter
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """The values of a row as scalars, grouped by what stands before their first dot."""
        for name, value in values.items():
            if name != "step":
                self._at(step).add_scalar(name.replace(".", "/", 1), value, step)

    def images(self, step: int, path: str) -> None:
        """A picture file under `samples`."""
        with Image.open(path) as image:
            clear = image.mode in ("LA", "PA", "RGBA")
            pixels = np.asarray(image.convert("RGBA" if clear else "RGB"))  # (H, W, C)
        self._at(step).add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left; harmless where nothing was written."""
        if self._writer is not None:
            self._writer.close()

    def _at(self, step: int) -> Any:
        if self._writer is None:
            self._writer = self._open(str(self._folder), purge_step=step)
        return self._writer
