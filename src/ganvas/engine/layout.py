"""How weights lie over the processes that train together, and what keeps those processes alike.

`Replicated`: every rank has all weights; gradients are averaged before the optimizer's step. `Sharded`: every rank
keeps a share of the weights, their averages and the optimizer's state, and has all of them only while an update runs.
Both give what one process gives at the same batch, to rounding. With one process `Replicated` does nothing at all.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ganvas.nn.synced_norm import synchronise
from ganvas.runtime import ranks

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

_BUCKET = 25 * 2**20  # bytes of gradients that travel at once


class Replicated:
    """Every rank has everything."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def spread(self, nets: Mapping[str, nn.Module]) -> None:
        """Make networks, alike on all ranks, ready to be trained together."""
        if ranks.world() > 1:
            for net in nets.values():
                synchronise(net)

    def spread_averages(self, nets: Mapping[str, nn.Module]) -> None:
        """The same for their averaged copies, which are never in training."""

    @contextlib.contextmanager
    def all_weights(self, nets: Mapping[str, nn.Module]) -> Iterator[None]:
        """While it lasts, every rank has all weights of these networks. They may be changed, alike on all ranks."""
        yield

    def learning(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """What the networks compute with in place of what the optimizer steps."""
        return list(parameters)

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients over the ranks. One that is missing on some ranks is zero there."""
        if ranks.world() == 1:
            return
        for bucket in _buckets(self.present(parameters)):
            grads = [_gradient(parameter) for parameter in bucket]
            flat = ranks.mean_over_ranks(torch.cat([grad.reshape(-1) for grad in grads]))
            pieces = torch.split(flat, [grad.numel() for grad in grads])
            torch._foreach_copy_(grads, [piece.view_as(grad) for piece, grad in zip(pieces, grads, strict=True)])

    def present(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Those that have a gradient on any rank; all others keep none, and so are not stepped."""
        has_grad = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=self.device)
        counts = ranks.sum_over_ranks(has_grad).tolist()
        return [parameter for parameter, count in zip(parameters, counts, strict=True) if count]

    def settle(self, nets: Mapping[str, nn.Module]) -> None:
        """Average the networks' own running statistics, each of which has seen one rank's share."""
        if ranks.world() == 1:
            return
        moving = [
            buffer for net in nets.values() for buffer in net.buffers() if buffer.is_floating_point() and buffer.numel()
        ]
        for dtype in sorted({buffer.dtype for buffer in moving}, key=str):
            alike = [buffer for buffer in moving if buffer.dtype == dtype]
            flat = ranks.mean_over_ranks(torch.cat([buffer.reshape(-1) for buffer in alike]))
            pieces = torch.split(flat, [buffer.numel() for buffer in alike])
            torch._foreach_copy_(alike, [piece.view_as(buffer) for piece, buffer in zip(pieces, alike, strict=True)])

    def full(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A network's state with every tensor whole. All ranks ask together."""
        return dict(state)

    def place(self, net: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
        """A network's saved state, lying as the network does."""
        return dict(state)

    def place_moments(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's saved state, lying as its parameters do."""
        return state


class Sharded(Replicated):
    """Every rank keeps one piece of each weight, cut along its first dimension (fully_shard, FSDP2).

    Hooks of fully_shard would bring weights together for calls of `forward` alone, and give gradients away in the midst
    of a penalty's graph. So an update asks for all weights before it begins, and gives them back when it is done.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        from torch.distributed.device_mesh import init_device_mesh

        self.mesh = init_device_mesh(device.type, (ranks.world(),))
        self.partner: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # id of a rank's piece -> it, the whole weight

    def spread(self, nets: Mapping[str, nn.Module]) -> None:
        super().spread(nets)
        self.spread_averages(nets)

    def spread_averages(self, nets: Mapping[str, nn.Module]) -> None:
        from torch.distributed.fsdp import fully_shard

        for net in nets.values():
            for parameter in net.parameters():
                parameter.data = parameter.data.contiguous()  # rows of a channels-last kernel cannot be cut apart
            # Scalars cannot be cut; every rank has them.
            scalars = {parameter for parameter in net.parameters() if not parameter.dim()}
            sharded = fully_shard(net, mesh=self.mesh, reshard_after_forward=False, ignored_params=scalars)
            sharded.set_requires_gradient_sync(False)
            sharded.set_reshard_after_backward(False)

    @contextlib.contextmanager
    def all_weights(self, nets: Mapping[str, nn.Module]) -> Iterator[None]:
        pieces = {role: dict(net.named_parameters()) for role, net in nets.items()}
        for role, net in nets.items():
            cast("FSDPModule", net).unshard()
            for name, parameter in net.named_parameters():
                piece = pieces[role][name]
                self.partner[id(piece)] = (piece, parameter)
        try:
            yield
            self.keep_changes()
        finally:
            for net in nets.values():
                cast("FSDPModule", net).reshard()
            self.partner = {}

    @torch.no_grad()
    def keep_changes(self) -> None:
        """Weights that were changed by hand, such as clipped ones, go back into this rank's pieces."""
        from torch.distributed.tensor import DTensor, Replicate

        for piece, weight in self.partner.values():
            if local(piece) is not piece:
                changed = DTensor.from_local(weight.data, self.mesh, [Replicate()], run_check=False)
                piece.data.copy_(changed.redistribute(placements=cast("DTensor", piece).placements))

    def learning(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        return [self.partner[id(parameter)][1] for parameter in parameters]

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        from torch.distributed.tensor import DTensor, Partial

        super().reduce([parameter for parameter in parameters if local(parameter) is parameter])
        cut = [parameter for parameter in parameters if local(parameter) is not parameter]
        pairs = {id(parameter): piece for piece, parameter in zip(cut, self.learning(cut), strict=True)}
        for parameter in self.present(self.learning(cut)):
            piece: Any = pairs[id(parameter)]
            gradient = DTensor.from_local(_gradient(parameter), self.mesh, [Partial("avg")], run_check=False)
            piece.grad = gradient.redistribute(placements=piece.placements)
            parameter.grad = None

    def full(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: _full(value) for name, value in state.items()}

    def place(self, net: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
        current = net.state_dict()
        return {name: self.like(value, current[name]) if name in current else value for name, value in state.items()}

    def place_moments(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments = {
            key: {
                name: self.like(value, parameters[int(key)]) if isinstance(value, Tensor) and value.dim() else value
                for name, value in tensors.items()
            }
            for key, tensors in state["state"].items()
        }
        return {**state, "state": moments}

    def like(self, value: Any, target: Tensor) -> Any:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if isinstance(target, DTensor) and not isinstance(value, DTensor):
            return distribute_tensor(value.to(self.device), self.mesh, target.placements, src_data_rank=None)
        return value


def _full(value: Tensor) -> Tensor:
    full: Tensor = value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]
    return full


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one dtype each, up to the size that travels at once."""
    waiting: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        bucket = waiting.setdefault(parameter.dtype, [])
        bucket.append(parameter)
        if sum(member.numel() * member.element_size() for member in bucket) >= _BUCKET:
            yield waiting.pop(parameter.dtype)
    yield from waiting.values()


def local(tensor: Tensor) -> Tensor:
    """The values of a tensor that lie on this rank."""
    piece: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return piece


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank has a piece of the tensor alone."""
    # Not imported where nothing is sharded: it takes a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)
