"""Networks that grow: a finer resolution is faded in beside what made or read images before (ProGAN, StyleGAN).

A network is built for one resolution and stays so for a run; the next run's network has one resolution more and takes
over the state of the one before. Its newest block comes in with a weight α that goes from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganvas.types import Network


def double(x: Tensor) -> Tensor:
    """Every pixel four times: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def halve(x: Tensor) -> Tensor:
    """Means of 2x2 pixels: (N, C, 2H, 2W) -> (N, C, H, W)."""
    return F.avg_pool2d(x, 2)


# Karras et al. 2018 (ProGAN), figure 2
class Fade(nn.Module):
    """α of (1 − α) old + α new; it is saved with the weights.

    Parameters
    ----------
    start : α in [0, 1] until `set` says otherwise.
    """

    alpha: Tensor

    def __init__(self, start: float) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.tensor(float(start)))
        self.grown = start == 1  # known without asking the device

    def set(self, value: float) -> None:
        """Move α; beyond [0, 1] it is cut."""
        value = min(max(value, 0.0), 1.0)
        self.alpha.fill_(value)
        self.grown = value == 1

    def forward(self, old: Callable[[], Tensor], new: Tensor) -> Tensor:
        """The mix of two maps of one shape; the old one is not made where nothing of it is left."""
        return new if self.grown else torch.lerp(old().to(new.dtype), new, self.alpha.to(new.dtype))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.grown = not self.alpha.is_meta and bool(self.alpha == 1)


class Growing(Network):
    """What networks share that grow by `blocks`, the last of which belongs to the finest resolution.

    The layer that makes or reads images is called `image_layer`; that of the resolution before has `_before` behind its
    name and is there only where there is a `fade`.
    """

    image_layer: str
    fade: Fade | None

    def knobs(self) -> dict[str, Callable[[float], None]]:
        """`fade` moves α."""
        return {} if self.fade is None else {"fade": self.fade.set}

    def adopted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a network with one block less as one of this network, whose newest layers stay as they are.

        Of one with as many blocks, only the fade and its layers may differ. Any other state comes back unchanged.
        """
        own_state = self.state_dict()
        now, before = f"{self.image_layer}.", f"{self.image_layer}_before."
        passing = {name: tensor for name, tensor in own_state.items() if name.startswith((before, "fade."))}
        lasting = {name: tensor for name, tensor in state.items() if not name.startswith((before, "fade."))}
        more = _blocks(own_state) - _blocks(state)
        if more == 0:
            return lasting | {name: state.get(name, tensor) for name, tensor in passing.items()}
        if more != 1:
            return dict(state)
        newest = (now, f"blocks.{_blocks(own_state) - 1}.")
        older = {name.replace(now, before, 1): tensor for name, tensor in lasting.items() if name.startswith(now)}
        return {
            **{name: tensor for name, tensor in lasting.items() if not name.startswith(now)},
            **{name: tensor for name, tensor in own_state.items() if name.startswith(newest)},
            **{name: older.get(name, tensor) for name, tensor in passing.items()},
        }


def _blocks(state: Mapping[str, Tensor]) -> int:
    """How many blocks a state has."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})
