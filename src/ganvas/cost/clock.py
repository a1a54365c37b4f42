"""How long a computation takes, and what the machine could do at best.

Both clocks are read. The wall clock is what a user waits for; processor time is what the process itself worked, summed
up over its threads, and other processes disturb it far less. A rate of arithmetic is taken from processor time a
thread on CPUs, and from the wall clock on devices that compute beside the processor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from torch.nn import functional as F

from ganvas.cost.flops import FLOPS_PER_MAC

_MATRIX, _MATRIX_OF_ACCELERATORS = 1024, 8192  # side; larger ones were no faster on one CPU thread
_MAPS, _MAPS_OF_ACCELERATORS = (16, 256, 16, 16), (64, 256, 64, 64)  # N, C, H, W of the measured 3x3 convolution
_ROUNDS = 5

Result = TypeVar("Result")


@dataclass(frozen=True)
class Times:
    """Seconds of several calls, by the wall clock and of the processor over all threads."""

    clock: tuple[float, ...]
    processor: tuple[float, ...]

    @property
    def clock_median(self) -> float:
        return median(self.clock)

    @property
    def clock_p95(self) -> float:
        """The 95th percentile, the smallest time that 95 % of the calls kept to."""
        return sorted(self.clock)[max(0, -(-95 * len(self.clock) // 100) - 1)]

    @property
    def processor_median(self) -> float:
        return median(self.processor)

    def working(self, device: torch.device) -> float:
        """Median seconds that the arithmetic had: of processor time a thread on CPUs, else of the wall clock."""
        if device.type != "cpu":
            return self.clock_median
        return self.processor_median / torch.get_num_threads()


class Stopwatch:
    """Reads both clocks; on a device that works beside the processor it waits for the device first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.readings: list[tuple[float, float]] = []

    def now(self) -> tuple[float, float]:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter(), time.process_time()

    def time(self, call: Callable[[], Result]) -> Result:
        """What the call returns; how long it took is noted."""
        clock, processor = self.now()
        result = call()
        after, worked = self.now()
        self.readings.append((after - clock, worked - processor))
        return result

    @property
    def times(self) -> Times:
        clock, processor = zip(*self.readings, strict=True)
        return Times(clock, processor)


def times(call: Callable[[], Any], *, repeats: int, warm_up: int = 1, device: torch.device) -> Times:
    """How long each of so many calls takes, after calls that are not counted."""
    for _ in range(warm_up):
        call()
    watch = Stopwatch(device)
    for _ in range(repeats):
        watch.time(call)
    return watch.times


# --------------------------------------------------------------------------------------------------- the ceiling


@dataclass(frozen=True)
class Ceiling:
    """What this machine does at best with the threads that torch has now, in GFLOP/s (2 a multiply-accumulate)."""

    dtype: str
    threads: int
    matmul_gflops: float
    conv_gflops: float

    @property
    def gflops(self) -> float:
        return max(self.matmul_gflops, self.conv_gflops)


def ceiling(device: torch.device, dtype: torch.dtype = torch.float32) -> Ceiling:
    """Measure it: the best of some large square matrix products and 3x3 convolutions, in under 2 seconds on a CPU.

    The best and not the median: whatever else the machine does can only slow it down.
    """
    on_cpu = device.type == "cpu"
    side = _MATRIX if on_cpu else _MATRIX_OF_ACCELERATORS
    N, C, H, W = _MAPS if on_cpu else _MAPS_OF_ACCELERATORS
    with torch.inference_mode():
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        x = torch.randn(N, C, H, W, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(C, C, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
        matmul = _best(lambda: a @ b, FLOPS_PER_MAC * side**3, device)
        conv = _best(lambda: F.conv2d(x, kernel, padding=1), FLOPS_PER_MAC * 9 * N * C * C * H * W, device)
    return Ceiling(str(dtype).removeprefix("torch."), torch.get_num_threads(), matmul, conv)


def _best(call: Callable[[], Any], flops: int, device: torch.device) -> float:
    taken = times(call, repeats=_ROUNDS, warm_up=2, device=device)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    seconds = min(taken.processor) / threads if device.type == "cpu" else min(taken.clock)
    return flops / seconds / 1e9


# --------------------------------------------------------------------------------------------------- memory


def peak_resident_bytes() -> int:
    """The most memory that this process ever had, libraries included; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """The memory that this process has now; where the system does not say, the most that it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_resident_bytes()
    import resource

    return pages * resource.getpagesize()


def clock(seconds: float) -> str:
    """`1:05`, `2:03:04`, and days in front where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
