"""What a computation costs: its FLOPs, the bytes of its weights, and what it keeps for the backward pass.

FLOPs are those of matrix products, convolutions and attention, where a multiplication and an addition count as two:
1 MAC (multiply-accumulate) = 2 FLOPs. Papers often print MACs under the name of FLOPs. Element-wise work, norms,
interpolation and optimizers are not counted: they are a few operations a number, and cost time by moving memory.

The formulas are those of `torch.utils.flop_counter`, counted as its `FlopCounterMode` does, with four differences:

- that mode follows modules by hooks, and they refuse `torch.autograd.grad`, which every gradient penalty calls;
- it counts the weight gradient of a grouped convolution once for every pair of groups, so that a depthwise one of 512
  channels weighs 512 times as much as it is;
- it does not know the attention that torch runs on CPUs;
- it leaves out products of a matrix with a vector, which spectral norm is made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

FLOPS_PER_MAC = 2

Formula = Callable[..., int]


# --------------------------------------------------------------------------------------------------- FLOPs


def _matrix_vector(matrix: Sequence[int], vector: Sequence[int], *_: Any, **__: Any) -> int:
    return FLOPS_PER_MAC * prod(matrix)


def _added_matrix_vector(added: Sequence[int], matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return FLOPS_PER_MAC * prod(matrix)


# Of Y = W * X, both gradients multiply as many pairs of numbers as Y does: each product w x of the forward pass is one
# of dY w towards dX, and one of dY x towards dW.
def _convolution_backward(
    grad_out: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],  # dX, dW, db
    **_: Any,
) -> int:
    places = prod((x if transposed else grad_out)[2:])  # where the kernel is laid
    return FLOPS_PER_MAC * grad_out[0] * places * prod(weight) * (bool(output_mask[0]) + bool(output_mask[1]))


@cache
def _formulas() -> Mapping[Any, Formula]:
    from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop, shape_wrapper

    aten = torch.ops.aten
    formulas: dict[Any, Formula] = {
        aten.mv: _matrix_vector, aten.addmv: _added_matrix_vector, aten.convolution_backward: _convolution_backward,
    }  # fmt: skip
    return {
        **flop_registry,
        **{operator: shape_wrapper(formula) for operator, formula in formulas.items()},  # type: ignore[no-untyped-call]
        aten._int_mm: flop_registry[aten.mm],
        aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
    }


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of everything that is computed within: forward, backward and gradients of gradients.

    Compiled code is not seen into; count eager code.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_operator: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return sum(self.by_operator.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = _formulas().get(func.overloadpacket)
        if formula is None:
            with self:  # without autograd, operators that are made of others arrive here whole
                taken_apart = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if taken_apart is NotImplemented else taken_apart
        out = func(*args, **kwargs)
        self.by_operator[func.overloadpacket.__name__] += formula(*args, **kwargs, out_val=out)
        return out


def flops(call: Callable[[], Any]) -> int:
    """The FLOPs of a call, all passes included."""
    with FlopCounter() as counter:
        call()
    count: int = counter.total
    return count


# --------------------------------------------------------------------------------------------------- bytes


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """The memory that tensors take together; what they share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def parameter_count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Memory of an optimizer's state; it has none before its first step."""
    return bytes_of(
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    )


class SavedForBackward:
    """Within, follows how much memory autograd holds for backward passes; `peak` is the most at one time, in bytes.

    It is the lasting part of what is commonly called activation memory, not the whole: what an operator needs while it
    runs, and gradients on their way back, come on top and are gone at once. `besides` (weights, the batch) is memory
    that is there anyway and does not count.
    """

    def __init__(self, besides: Iterable[Tensor] = ()) -> None:
        self.peak = 0
        self.now = 0
        self._besides = {held_already.untyped_storage().data_ptr() for held_already in besides}
        self._holders: Counter[int] = Counter()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Held(tensor, self), lambda held: held.tensor
        )

    def hold(self, storage: torch.UntypedStorage) -> None:
        if (place := storage.data_ptr()) in self._besides:
            return
        self._holders[place] += 1
        if self._holders[place] == 1:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def let_go(self, storage: torch.UntypedStorage) -> None:
        if (place := storage.data_ptr()) in self._besides:
            return
        self._holders[place] -= 1
        if self._holders[place] == 0:
            self.now -= storage.nbytes()

    def __enter__(self) -> SavedForBackward:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)


class _Held:
    """A tensor that autograd holds, until it lets go of it."""

    __slots__ = ("saved", "tensor")

    def __init__(self, tensor: Tensor, saved: SavedForBackward) -> None:
        self.tensor, self.saved = tensor, saved
        saved.hold(tensor.untyped_storage())

    def __del__(self) -> None:
        self.saved.let_go(self.tensor.untyped_storage())


# --------------------------------------------------------------------------------------------------- one network


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs, however it is used."""

    parameters: int
    parameter_bytes: int
    buffer_bytes: int

    @classmethod
    def of(cls, net: nn.Module) -> NetworkCost:
        return cls(parameter_count(net), bytes_of(net.parameters()), bytes_of(net.buffers()))
