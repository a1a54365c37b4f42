"""What metrics ask of a model before they walk through its latent spaces."""

from __future__ import annotations

from ganvas.errors import UsageError
from ganvas.types import LatentSpec, Subject


def space_of(model: Subject, name: str | None) -> tuple[str, LatentSpec]:
    """The latent space of this name, or the one that the model is drawn from.

    Raises
    ------
    UsageError : the model has none of this name, or none at all.
    """
    spaces = model.latents
    if not spaces:
        raise UsageError("this model has no latent spaces", hint="leave the metric out")
    chosen = next(iter(spaces)) if name is None else name
    if chosen not in spaces:
        raise UsageError(f"there is no latent space {chosen!r}", hint=f"the model has {', '.join(spaces)}")
    return chosen, spaces[chosen]
