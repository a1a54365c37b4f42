"""What a denoiser predicts while it samples: the path that it was trained along, and classifier-free guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from ganvas import parts
from ganvas.errors import MissingCapability
from ganvas.parts import Slot
from ganvas.types import Condition, Denoiser, Path, Synthesizer


def path_of(model: Synthesizer) -> Path:
    """The path that a model was trained along: the task's key that names a part of that kind.

    Raises
    ------
    MissingCapability : its task has none.
    """
    task = model.recipe["task"]
    for key, field in parts.find("task", task["use"]).fields().items():
        if isinstance(field.marker, Slot) and field.marker.kind == "path" and task.get(key):
            path: Path = parts.build("path", task[key])
            return path
    raise MissingCapability(
        f"this needs a model that was trained along a path of noise; the task of this one is {task['use']!r}",
        hint="ganvas list samplers",
    )


def denoiser_of(model: Synthesizer) -> Denoiser:
    """The network that takes noise away.

    Raises
    ------
    MissingCapability : the model makes its data in another way.
    """
    net = model.maker
    if not isinstance(net, Denoiser):
        raise MissingCapability(
            f"this needs a denoiser; the model has {', '.join(model.nets)}", hint="ganvas list samplers"
        )
    return net


def both_predictions(net: Denoiser, x_t: Tensor, level: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """What a denoiser predicts for a condition, and what for none: (N, ...) each, in one call of 2N where that can be.

    It cannot where the network marks "none" by leaving a condition out.
    """
    asked, nothing = condition.of(net), net.without(condition).of(net)
    if asked.keys() == nothing.keys():
        both = {name: torch.cat([value, nothing[name]]) for name, value in asked.items()}
        first, second = net(torch.cat([x_t, x_t]), torch.cat([level, level]), **both).chunk(2)
        return first, second
    return net(x_t, level, **asked), net(x_t, level, **nothing)


# Ho & Salimans 2022, eq. 6, with their 1 + w as the strength
def guided(conditional: Tensor, unconditional: Tensor, strength: float, channels: int | None) -> Tensor:
    """The prediction moved away from the unconditional one: 0 is that, 1 the conditional one.

    Parameters
    ----------
    channels : only the first so many are moved, the others stay the conditional ones; None: all of them.
    """
    moved = unconditional[:, :channels] + strength * (conditional[:, :channels] - unconditional[:, :channels])
    return moved if channels is None else torch.cat([moved, conditional[:, channels:]], dim=1)
