"""The data that a path or a name means, opened with changes in a recipe's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganvas.errors import UsageError
from ganvas.evaluation.evaluate import node_at
from ganvas.evaluation.judge import unflipped
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.types import Dataset, StreamedDataset


def data_at(place: str, changes: Sequence[str] = ()) -> tuple[dict[str, Any], Dataset | StreamedDataset]:
    """(the checked node, the data set without random flips) of a path, a data set's name or its recipe node.

    Parameters
    ----------
    changes : `data.KEY=VALUE`, as a recipe is changed.

    Raises
    ------
    UsageError : there is nothing of the kind, or a change of something else.
    RecipeError, DataError : as in training.
    """
    node: Any = node_at(place, None, "ganvas data")
    if foreign := [change for change in changes if not change.startswith("data.")]:
        raise UsageError(f"{foreign[0]!r} changes no key of the data", where="ganvas data", hint="write data.size=64")
    if changes:
        node = check_node("dataset", Recipe({"data": node}).override(*changes).data["data"])
    return node, unflipped(node)
