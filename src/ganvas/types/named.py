"""What all parts may say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

Knob = Callable[[float], None]
"""Sets a number that a part was built with."""


class Named:
    """A part that knows its name on the shelf; `parts` fills `part_name` in where one is registered."""

    part_name: ClassVar[str] = ""

    @classmethod
    def called(cls) -> str:
        """Its name for people: that on the shelf, else the class's."""
        return cls.part_name or cls.__name__


class Adjustable:
    """Has numbers that may move while a run goes on, by their paths in the recipe from this part on.

    A knob is set before every step, also before the first after a resume, so it need not be saved.
    """

    def knobs(self) -> Mapping[str, Knob]:
        return {}
