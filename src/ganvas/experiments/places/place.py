"""What a place is, and how it is named on the command line with its options."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ganvas.errors import MissingExtra, RecipeError, UsageError, nearest
from ganvas.experiments.places.work import Ended, Work
from ganvas.recipe import yaml12
from ganvas.recipe.check import check_section
from ganvas.recipe.yaml12 import KeyPath, Mark

PLACES: Mapping[str, str] = {  # name -> module with `from_options`
    "local": "ganvas.experiments.places.local",
    "ray": "ganvas.experiments.places.ray",
    "slurm": "ganvas.experiments.places.slurm",
}


class Place(ABC):
    """Somewhere trainings run. It starts them and says how they ended; it tries nothing again.

    Attributes
    ----------
    jobs : trainings at a time that it wants to be given; None: as many as there are, it queues them itself.
    threads : of torch in each training.
    device : where each computes.
    """

    jobs: int | None
    threads: int
    device: str

    @abstractmethod
    def start(self, work: Work) -> None:
        """Begin a training, or queue it."""

    @abstractmethod
    def ended(self, seconds: float) -> list[tuple[Work, Ended]]:
        """What has ended since the last call; waits up to so long where nothing has."""

    @abstractmethod
    def stop(self) -> None:
        """Ask what runs to save its state and end, and drop what has not begun; `ended` tells when it is so."""

    @abstractmethod
    def close(self) -> None:
        """End what is left at once, and let go of workers; nothing stays behind."""


@dataclass(frozen=True)
class Call:
    """What the command line says beside a place's own options."""

    out: Path  # the study's folder
    jobs: int | None  # trainings at a time
    threads: int | None  # of torch in each
    retries: int


def place_named(name: str, settings: Sequence[str], call: Call) -> Place:
    """A place by its name with its options as KEY=VALUE, a value being YAML. Nothing is started yet.

    Raises
    ------
    UsageError, RecipeError : there is no such place or option, or a value that cannot be.
    MissingExtra : its package is not installed.
    """
    if name not in PLACES:
        raise UsageError(
            f"there is no place {name!r} to train at.{nearest(name, PLACES)}", where="--on",
            hint=f"there are {', '.join(PLACES)}",
        )  # fmt: skip
    return cast("Place", importlib.import_module(PLACES[name]).from_options(settings, call))


def read_options(section: type, settings: Sequence[str], place: str) -> dict[str, Any]:
    """KEY=VALUE words, checked against a dataclass and filled.

    Raises
    ------
    UsageError : not of this form.
    RecipeError : an unknown key, or a value of another type or outside its range.
    """
    given: dict[str, Any] = {}
    marks: dict[KeyPath, Mark] = {}
    for word in settings:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise UsageError(f"{word!r} is no option", where="--with", hint="write KEY=VALUE")
        where = f"--with {word}"
        try:
            given[key] = yaml12.read(text, where)[0]
        except RecipeError as error:
            error.where = where
            raise
        marks[(key,)] = Mark(where)
    return check_section(section, given, marks, f"--on {place}")


def missing(place: str, package: str, error: ImportError) -> MissingExtra:
    return MissingExtra(
        f"--on {place} needs the package {package} ({error})", where="ganvas bench",
        hint=f'pip install "ganvas[{place}]" -c constraints.txt, or train on this machine: --on local',
    )  # fmt: skip
