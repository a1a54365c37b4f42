"""What was found where data lie, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_SHOWN = 6  # entries of each list on the line


@dataclass(frozen=True)
class Census:
    """How many data were found, used and left out, and what they are like.

    Attributes
    ----------
    found, used : data in all, and those that are read.
    left_out : reason -> how many.
    sizes : width x height of images, or the like -> how many of those that were looked at.
    modes : colour mode or the like -> how many of those that were looked at.
    classes : name -> how many of the used ones.
    notes : sentences about what is unlike what people expect, such as pages that are not read.
    word : what one datum is called.
    """

    found: int
    used: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    word: str = "image"

    def line(self) -> str:
        """All of it but the notes, in one line."""
        head = f"{self.found} {self.word}{'s' * (self.found != 1)} found, {self.used} used"
        out = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)
        classes = f"{len(self.classes)} class{'es' * (len(self.classes) != 1)}: {_listed(self.classes)}"
        pieces = [
            f"left out: {out}" if out else "",
            f"sizes: {_listed(self.sizes)}" if self.sizes else "",
            f"modes: {_listed(self.modes)}" if self.modes else "",
            classes if self.classes else "no classes",
        ]
        return "; ".join([head, *(piece for piece in pieces if piece)])


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")
