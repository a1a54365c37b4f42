"""Where a training step goes: some steps of a run under torch's profiler, as a trace and as a table.

Nothing that is learnt depends on it: the profiler watches, and the run goes on as it would have.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ganvas.errors import CheckpointError
from ganvas.files.files import full_disk, write_bytes

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

    from ganvas.engine.trainer import Hooks

PROFILED_STEPS = 3

MATRICES = "matrix products, convolutions, attention"
COPIES = "copies and changes of layout or precision"
LEARNING = "optimizer and averages"
ELEMENTS = "element-wise, norms, sums, random numbers"
PYTHON = "between operators: Python, autograd's bookkeeping"
CLASSES = (MATRICES, ELEMENTS, COPIES, LEARNING, PYTHON)

_STEP, _UPDATE = "ganvas step", "ganvas update "
_BACKWARD = "autograd::engine::evaluate_function"
_MATRICES = {
    "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution", "_convolution", "mkldnn_convolution",
    "cudnn_convolution", "convolution_backward", "slow_conv2d_forward", "_conv_depthwise2d", "conv_depthwise3d",
}  # fmt: skip
_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention")
_COPIES = {
    "copy", "_to_copy", "to", "clone", "contiguous", "cat", "stack", "fill", "zero", "zeros", "zeros_like", "empty",
    "empty_like", "empty_strided", "new_empty", "repeat", "index_select", "_local_scalar_dense", "item",
    "_foreach_copy", "constant_pad_nd",
}  # fmt: skip
_OPTIMIZER = "Optimizer."


class StepProfile:
    """Profiles `PROFILED_STEPS` steps of a run, and writes what it saw when they are over.

    Parameters
    ----------
    folder : the run's; `profile/trace.json` and `profile/table.txt` are written there.
    first : the first step to profile. The one before it should have warmed everything up.
    tell : is handed the summary.
    """

    def __init__(self, folder: Path, first: int, tell: Callable[[str], None]) -> None:
        self.folder = folder / "profile"
        self.first = first
        self.tell = tell
        self.names: list[str] = []  # of the updates, as they came
        self.steps = 0
        self.profiler: Any = None

    @property
    def running(self) -> bool:
        return self.profiler is not None

    def hooks(self, others: Hooks) -> Hooks:
        """The same hooks, with this profile around steps and updates."""
        return dataclasses.replace(others, around_step=self.around_step, around_update=self.around_update)

    def around_step(self, step: int, run: Callable[[], dict[str, float]]) -> dict[str, float]:
        if not self.first <= step < self.first + PROFILED_STEPS:
            return run()
        if not self.running:
            self.profiler = _profiler()
            self.profiler.__enter__()
        with torch.profiler.record_function(_STEP):
            values = run()
        self.steps += 1
        if self.steps == PROFILED_STEPS:
            self.finish()
        return values

    def around_update(self, step: int, run: Callable[[], dict[str, float]]) -> dict[str, float]:
        if not self.running:
            return run()
        with torch.profiler.record_function(f"{_UPDATE}{len(self.names)}"):
            losses = run()
        role = next(iter(losses)).partition(".")[0]
        self.names.append(f"{role}: {', '.join(loss.partition('.')[2] for loss in losses)}")
        return losses

    def finish(self) -> None:
        """Write what was seen, if anything was; a run that ends early calls it, too."""
        if not self.running:
            return
        profiler, self.profiler = self.profiler, None
        profiler.__exit__(None, None, None)
        if not self.steps:
            return
        try:
            self.folder.mkdir(exist_ok=True)
            profiler.export_chrome_trace(str(self.folder / "trace.json"))
        except OSError as error:
            raise full_disk(error, self.folder) from None
        if not (self.folder / "trace.json").is_file():  # the profiler says nothing where it cannot write
            raise CheckpointError("cannot be written", where=str(self.folder / "trace.json"), hint="make room")
        seen = Seen.of(profiler.events(), self.names, self.steps)
        pages = [seen.summary(), seen.operators()]
        if torch.cuda.is_available():
            pages.append(profiler.key_averages().table(sort_by="self_device_time_total", row_limit=60))
        write_bytes(self.folder / "table.txt", ("\n\n".join(pages) + "\n").encode())
        self.tell(seen.summary())


def first_step(start: int, steps: int, every: int) -> int:
    """The step to profile from, in a run from `start` to `steps` whose laziest update comes each `every` steps.

    One step warms up; then comes the first in which every update has its turn, where the run goes so far.
    """
    warm = start + 1
    due = -(-warm // every) * every
    return due if due < steps else min(warm, steps - 1)


def _profiler() -> Any:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    return torch.profiler.profile(activities=activities)


# --------------------------------------------------------------------------------------------------- what was seen


def class_of(operator: str) -> str:
    """The class of an operator by the name that the profiler gives it."""
    name = operator.removeprefix("aten::").rstrip("_")  # in place is all the same
    if name in _MATRICES or name.startswith(_ATTENTION):
        return MATRICES
    if name in _COPIES or name.startswith("Memcpy"):
        return COPIES
    return LEARNING if name.startswith(("_foreach_", "_fused_")) else ELEMENTS


@dataclasses.dataclass(frozen=True)
class Seen:
    """Milliseconds of some steps: by update and class, and by operator. Self time, so that nothing counts twice."""

    steps: int
    by_update: Mapping[str, Mapping[str, float]]  # of all steps together
    backward: Mapping[str, float]
    runs: Mapping[str, int]
    by_operator: Mapping[str, tuple[float, int]]  # (self time, calls)

    @classmethod
    def of(cls, events: list[FunctionEvent], names: list[str], steps: int) -> Seen:
        by_update: dict[str, Counter[str]] = defaultdict(Counter)
        backward: Counter[str] = Counter()
        operators: dict[str, tuple[float, int]] = {}
        outside = "outside of updates"
        for event in events:
            if event.device_type.name != "CPU":
                continue
            update, learning, engine_above = outside, False, False
            above: FunctionEvent | None = event
            while above is not None:
                if above.name.startswith(_UPDATE):
                    update = names[int(above.name.removeprefix(_UPDATE))]
                learning = learning or above.name.startswith(_OPTIMIZER)
                engine_above = engine_above or (above is not event and above.name.startswith(_BACKWARD))
                above = above.cpu_parent
            ms = event.self_cpu_time_total / 1000
            ours = event.name.startswith((_STEP, _UPDATE))
            if not learning and (ours or event.name.startswith(_BACKWARD) or "::" not in event.name):
                kind = PYTHON  # ours, or a node of autograd's graph
            else:
                kind = LEARNING if learning else class_of(event.name)
                total, calls = operators.get(event.name, (0.0, 0))
                operators[event.name] = (total + ms, calls + 1)
            by_update[update][kind] += ms
            if event.name.startswith(_BACKWARD) and not engine_above:
                backward[update] += event.cpu_time_total / 1000
        runs = Counter(names)
        order = [*dict.fromkeys(names), outside]
        return cls(steps, {name: by_update[name] for name in order if name in by_update}, backward, runs, operators)

    def summary(self) -> str:
        """The table of updates and classes."""
        total = sum(sum(times.values()) for times in self.by_update.values())
        lines = [
            f"{self.steps} steps under the profiler, which itself costs time; {total / self.steps:,.1f} ms each",
            "",
        ]
        for name, times in self.by_update.items():
            spent, runs = sum(times.values()), self.runs.get(name)
            once = f", {runs} times, {spent / runs:,.1f} ms each" if runs else ""
            back = f"; backward {self.backward[name] / spent:.0%}" if self.backward.get(name) else ""
            lines.append(f"{name}: {spent / total:.1%} of the time{once}{back}")
            lines += [
                f"    {kind:52}{times[kind]:>12,.1f} ms {times[kind] / spent:>6.1%}" for kind in CLASSES if times[kind]
            ]
        sums = {kind: sum(times[kind] for times in self.by_update.values()) for kind in CLASSES}
        lines += ["", f"all of it{'':47}{total:>12,.1f} ms"]
        lines += [f"    {kind:52}{ms:>12,.1f} ms {ms / total:>6.1%}" for kind, ms in sums.items() if ms]
        lines.append(f"not arithmetic of matrices: {1 - sums[MATRICES] / total:.1%}")
        return "\n".join(lines)

    def operators(self) -> str:
        """Every operator by its self time."""
        total = sum(ms for ms, _ in self.by_operator.values()) or 1.0
        lines = [f"{'operator':52}{'self ms a step':>16}{'share':>8}{'calls a step':>14}"]
        for name, (ms, calls) in sorted(self.by_operator.items(), key=lambda item: -item[1][0]):
            lines.append(f"{name:52}{ms / self.steps:>16,.3f}{ms / total:>8.1%}{calls / self.steps:>14,.1f}")
        return "\n".join(lines)
