"""Rows and sample sheets for Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ganvas.errors import MissingExtra
from ganvas.parts import sink
from ganvas.recipe import yaml12
from ganvas.types import Sink


@sink("wandb")
class WandB(Sink):
    """A Weights & Biases run, kept offline in `RUN/wandb` until `wandb sync` sends it, or sent at once.

    Nothing is written or sent before the first row. A run that is resumed goes on as a new one there.

    Parameters
    ----------
    project : where the run is filed.
    mode : `online` needs an account and `wandb login`.

    Raises
    ------
    MissingExtra : the package wandb is not installed.
    """

    def __init__(
        self, folder: Path, *, project: str = "ganvas", mode: Literal["offline", "online"] = "offline"
    ) -> None:
        try:  # by name: a folder `wandb/` of earlier runs imports as an empty package
            from wandb import Image, init
        except ImportError as error:
            raise MissingExtra(
                f"sink 'wandb' needs the package wandb ({error})", where="sinks.wandb",
                hint='pip install "ganvas[wandb]" -c constraints.txt, or drop it: sinks.wandb=~',
            ) from None  # fmt: skip
        self._init, self._image = init, Image
        self._folder, self._project, self._mode = folder, project, mode
        self._run: Any = None

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """The values of a row, grouped by what stands before their first dot."""
        grouped = {name.replace(".", "/", 1): value for name, value in values.items() if name != "step"}
        self._opened().log(grouped, step=step)

    def images(self, step: int, path: str) -> None:
        """A picture file under `samples`."""
        self._opened().log({"samples": self._image(path)}, step=step)

    def close(self) -> None:
        """Finish the run; harmless where nothing was written."""
        if self._run is not None:
            self._run.finish()

    def _opened(self) -> Any:
        if self._run is None:
            settings = self._folder / "resolved.yaml"
            config = yaml12.read(settings.read_text(encoding="utf-8"), str(settings))[0] if settings.is_file() else None
            self._run = self._init(
                project=self._project, mode=self._mode, dir=str(self._folder), name=self._folder.name, config=config
            )
        return self._run
