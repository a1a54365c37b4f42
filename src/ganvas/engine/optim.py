"""One optimizer a role, one learning-rate schedule, clipping, and loss scaling where half precision needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganvas import parts
from ganvas.recipe.schema import OptimOptions
from ganvas.types import Adjustable, Knob

Place = Callable[[torch.optim.Optimizer, dict[str, Any]], dict[str, Any]]


class Optim(Adjustable):
    """Steps the networks that an update names.

    `frozen` holds, per role, the beginnings of the parameter names that never learn ("" for all of them).
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        node: Mapping[str, Any],
        *,
        frozen: Mapping[str, tuple[str, ...]],
        steps: int,
        scaler: torch.amp.GradScaler,
    ) -> None:
        shared_node, beside = parts.split(OptimOptions, node)
        options: OptimOptions = parts.build_section(OptimOptions, beside)
        self.schedule = options.schedule
        self.clip_norm = options.clip_norm
        self.replace_non_finite = options.non_finite == "replace"
        self.steps = steps
        self.scaler = scaler
        self.learning: dict[str, list[nn.Parameter]] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.base_lr: dict[str, float] = {}
        for role, net in nets.items():
            self.learning[role] = [
                parameter
                for name, parameter in net.named_parameters()
                if not any(name.startswith(start) for start in frozen.get(role, ()))
            ]
            net.requires_grad_(False)  # an update turns its own networks on
            if self.learning[role]:
                role_node = {**shared_node, **options.roles.get(role, {})}
                self.optimizers[role] = parts.build("optimizer", role_node)(self.learning[role])
                self.base_lr[role] = self.optimizers[role].param_groups[0]["lr"]

    def begin(self, step: int) -> None:
        """Set the learning rates of this step."""
        factor = self.schedule(step, self.steps)
        for role, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.base_lr[role] * factor

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, roles: Iterable[str], *, all_move: bool = False) -> None:
        """Apply and clear the gradients of these roles.

        Parameters
        ----------
        all_move : a parameter without a gradient has one of zeros, so that the optimizer's moments of it go on.
        """
        learners = [role for role in roles if role in self.optimizers]
        for role in learners:
            if all_move:
                for parameter in self.learning[role]:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
            if self.clip_norm is not None or self.replace_non_finite:
                self.scaler.unscale_(self.optimizers[role])
            if self.replace_non_finite:
                for parameter in self.learning[role]:
                    if parameter.grad is not None:
                        parameter.grad.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.learning[role], self.clip_norm)
            self.scaler.step(self.optimizers[role])
            self.optimizers[role].zero_grad(set_to_none=True)
        if learners:
            self.scaler.update()

    def knobs(self) -> dict[str, Knob]:
        """The optimizers' numbers besides the rate, which the schedule sets: `weight_decay`, `betas.1`, ..."""
        knobs: dict[str, Knob] = {}
        for key in {key for optimizer in self.optimizers.values() for key in optimizer.defaults} - {"lr"}:
            if not all(key in optimizer.defaults for optimizer in self.optimizers.values()):
                continue
            value = next(iter(self.optimizers.values())).defaults[key]
            if isinstance(value, tuple):
                knobs |= {f"{key}.{i}": self.setter(key, i) for i in range(len(value))}
            elif isinstance(value, float):
                knobs[key] = self.setter(key, None)
        return dict(sorted(knobs.items()))

    def setter(self, key: str, place: int | None) -> Knob:
        def turn(value: float) -> None:
            for optimizer in self.optimizers.values():
                for group in optimizer.param_groups:
                    changed = value if place is None else (*group[key][:place], value, *group[key][place + 1 :])
                    group[key] = changed

        return turn

    def rates(self) -> dict[str, float]:
        return {f"lr.{role}": optimizer.param_groups[0]["lr"] for role, optimizer in self.optimizers.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "scaler": self.scaler.state_dict(),
            "roles": {role: optimizer.state_dict() for role, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any], place: Place = lambda optimizer, saved: saved) -> None:
        """`place` lays an optimizer's saved state where its parameters lie."""
        self.scaler.load_state_dict(state["scaler"])
        for role, optimizer in self.optimizers.items():
            optimizer.load_state_dict(place(optimizer, state["roles"][role]))
            for parameter, moments in optimizer.state.items():
                for name, value in moments.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        # Fused optimizers walk through memory: moments must lie in it as their parameter does.
                        moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
