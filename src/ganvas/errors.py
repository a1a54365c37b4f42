"""Everything that can go wrong by a user's hand, as one small tree.

::

    GanvasError
    ├── RecipeError            a recipe that cannot be built (one or many problems)
    │   ├── UnknownPart        a `use:` that names nothing on its shelf
    │   ├── UnknownKey         a key that the part or section does not have
    │   ├── BadValue           a value of the wrong type or outside its range
    │   └── RoleMissing        a task whose networks are not all there
    ├── MissingCapability      a model asked for something it has not got
    ├── ResumeMismatch         a run that would be continued with another recipe
    ├── CheckpointError        a checkpoint or model file that cannot be read
    ├── DataError              images, archives and folders that cannot be used
    ├── DivergenceError        a loss that is no longer a number
    ├── UsageError             arguments that make no sense together
    │   └── InUse              a folder that another process is training into
    ├── WorkerLost             a training whose workers are killed again and again
    └── MissingExtra           an optional dependency that is not installed

Each error says where it is (`where`), what is wrong (`problem`) and what to do next (`hint`).
The command line prints exactly that and leaves with exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class GanvasError(Exception):
    """A mistake that its user can mend.

    Parameters
    ----------
    problem : what is wrong, with the offending value.
    where : file:line:column and key, a path, or a command; empty where there is no place.
    hint : the next thing to type or to change.
    """

    already_reported = False  # another process, of those that train together, tells it

    def __init__(self, problem: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{type(self).__name__}: {self.where}\n  " if self.where else f"{type(self).__name__}: "
        tail = f"\n  {self.hint}" if self.hint else ""
        return f"{head}{self.problem}{tail}"


class RecipeError(GanvasError):
    """A recipe that cannot be built. `problems` holds every single one of them."""

    def __init__(self, problem: str, *, where: str = "", hint: str = "", problems: Sequence[RecipeError] = ()) -> None:
        super().__init__(problem, where=where, hint=hint)
        self.problems: tuple[RecipeError, ...] = tuple(problems) or (self,)

    def __str__(self) -> str:
        if self.problems == (self,):
            return super().__str__()
        return "\n".join(str(problem) for problem in self.problems)

    @classmethod
    def of(cls, problems: Sequence[RecipeError]) -> RecipeError:
        """The one problem itself, or an error that holds them all."""
        if len(problems) == 1:
            return problems[0]
        return cls(f"{len(problems)} problems", problems=problems)


class UnknownPart(RecipeError):
    """A `use:` that names nothing on its shelf."""


class UnknownKey(RecipeError):
    """A key that the part or section does not have."""


class BadValue(RecipeError):
    """A value of the wrong type, outside its range, or impossible beside the others.

    A part raises it while it is built and names its own parameter in `key`; the builder adds the place.
    """

    def __init__(self, problem: str, *, where: str = "", hint: str = "", key: str = "") -> None:
        super().__init__(problem, where=where, hint=hint)
        self.key = key


class RoleMissing(RecipeError):
    """A task whose networks are not all in the recipe."""


class MissingCapability(GanvasError):
    """A model asked for something that it has not got."""


class ResumeMismatch(GanvasError):
    """A run that would be continued with another recipe, other data or from nothing."""


class CheckpointError(GanvasError):
    """A checkpoint or model file that cannot be read or written."""


class DataError(GanvasError):
    """Images, archives and folders that cannot be used."""


class DivergenceError(GanvasError):
    """A loss that is no longer a number."""


class UsageError(GanvasError):
    """Arguments that make no sense, alone or together."""


class InUse(UsageError):
    """A folder that another process is training into."""


class WorkerLost(GanvasError):
    """A training whose workers are killed, or lost with their machines, again and again."""


class MissingExtra(GanvasError):
    """An optional dependency that is not installed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest known word, or nothing when none is close."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
