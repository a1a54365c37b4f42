"""How exactly numbers are computed: autocast, determinism, and randomness as a function of progress."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from ganvas.runtime.devices import derive_seed

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_deterministic(device: torch.device) -> None:
    """Ask for deterministic algorithms where the default ones are not (CUDA; the CPU's are)."""
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def seed_from(*progress: int | str) -> int:
    """Seed every generator from (seed, rank, step, ...); the 63-bit seed that was used.

    Randomness is a function of progress, so resume is exact and nothing that happens between steps can disturb it.
    """
    seed = derive_seed(*progress)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    return seed


@contextlib.contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Forward passes in the given precision; weights, penalties and optimizer state stay float32."""
    if precision == "fp32":
        yield
    else:
        with torch.autocast(device.type, dtype=_DTYPES[precision]):
            yield
