"""What transformer networks ask of sizes and widths, and how they refuse what does not fit."""

from __future__ import annotations

from ganvas.errors import BadValue
from ganvas.types import DataSpec


def divided(spec: DataSpec, by: int, *, key: str) -> tuple[int, int]:
    """(h, w): the sides of the images divided by `by`.

    Parameters
    ----------
    spec : what the data look like.
    by : what must divide both sides.
    key : the recipe key that asks for it, for the message.

    Raises
    ------
    BadValue : the data are no images, or `by` does not divide a side.
    """
    if len(spec.shape) != 3:
        raise BadValue(f"this network makes or reads images (C, H, W), not {spec.shape}", hint="data.size=32")
    if spec.height % by or spec.width % by:
        raise BadValue(
            f"{by} must divide both sides of the images, and these have {spec.height}x{spec.width}",
            key=key,
            hint=f"data.size={by * max(1, round(min(spec.height, spec.width) / by))}",
        )
    return spec.height // by, spec.width // by


def require_heads(heads: int, width: int) -> None:
    """Refuse heads that do not share a width evenly.

    Raises
    ------
    BadValue : they do not.
    """
    if width % heads:
        fitting = max(n for n in range(1, heads + 1) if width % n == 0)
        raise BadValue(f"{heads} heads cannot share {width} channels evenly", key="heads", hint=f"heads={fitting}")


def stages(value: int | tuple[int, ...], n: int, key: str) -> tuple[int, ...]:
    """One value for each of `n` stages.

    Parameters
    ----------
    value : one for all, or a list.
    n : how many stages there are.
    key : the recipe key that the value comes from, for the message.

    Raises
    ------
    BadValue : a list of another length.
    """
    values = (value,) * n if isinstance(value, int) else value
    if len(values) != n:
        raise BadValue(f"{len(values)} values for {n} stages", key=key, hint=f"{key}={values[0] if values else 4}")
    return values
