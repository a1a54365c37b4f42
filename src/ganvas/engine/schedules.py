"""Numbers other than the learning rate that move while a run goes on: a path in the recipe, and a schedule.

Parts offer what can be moved as `knobs`; a schedule turns one of them at the beginning of every step. Its value is a
pure function of the step, so resume needs no state.
"""

from __future__ import annotations

from collections.abc import Mapping

from ganvas.engine.ema import Averages
from ganvas.engine.optim import Optim
from ganvas.errors import BadValue, nearest
from ganvas.parts import Entry
from ganvas.types import Adjustable, Knob, Network, Task


def knobs_of(nets: Mapping[str, Network], task: Task, optim: Optim, averages: Averages | None) -> dict[str, Knob]:
    """Everything that can be moved, by its path in the recipe."""

    owners: dict[str, Adjustable] = {"task": task, "optim": optim}
    if averages is not None:
        owners["ema"] = averages
    owners |= {f"networks.{role}": net for role, net in nets.items()}
    return {f"{start}.{name}": knob for start, owner in owners.items() for name, knob in owner.knobs().items()}


class Schedules:
    """What moves in a run.

    Raises
    ------
    BadValue : a path at which nothing can be moved; says which is nearest, and which there are.
    """

    def __init__(self, entries: Mapping[str, Entry], knobs: Mapping[str, Knob], steps: int) -> None:
        for path in entries:
            if path not in knobs:
                raise BadValue(
                    f"nothing can be moved at {path!r}.{nearest(path, knobs)}", where=f"schedules.{path}",
                    hint=f"there are {', '.join(knobs)}" if knobs else "this recipe has nothing that can be moved",
                )  # fmt: skip
        self.entries = entries
        self.knobs = knobs
        self.steps = steps

    def values(self, step: int) -> dict[str, float]:
        """path -> to + (from − to) · factor(step)."""
        return {
            path: entry.extra.to + (entry.extra.from_ - entry.extra.to) * entry.part(step, self.steps)
            for path, entry in self.entries.items()
        }

    def begin(self, step: int) -> None:
        """Set everything to where it is at this step."""
        for path, value in self.values(step).items():
            self.knobs[path](value)
