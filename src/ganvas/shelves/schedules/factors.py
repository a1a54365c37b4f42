"""Schedules of the learning rate and of other numbers: the factor at `step` of `steps`.

Each is a pure function, so resume needs no state.
"""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Le

from ganvas.parts import schedule

Steps = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]


def _warm(step: int, warmup_steps: int) -> float:
    """Linear from 1/warmup_steps to 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _progress(step: int, steps: int, start: float, end: float) -> float:
    """0 until `start` (a share of all steps), then linearly to 1 at `end`, and 1 from there on."""
    begin = start * steps
    return min(1.0, max(0.0, (step - begin) / max(1.0, end * steps - begin)))


@schedule("constant")
def constant(step: int, steps: int, *, warmup_steps: Steps = 0) -> float:
    """The same rate throughout, after an optional warm-up."""
    return _warm(step, warmup_steps)


@schedule("linear")
def linear(
    step: int, steps: int, *, warmup_steps: Steps = 0, start: Share = 0.0, end: Share = 1.0, final: Share = 0.0
) -> float:
    """Straight down to `final` times the rate, between the shares `start` and `end` of all steps."""
    return _warm(step, warmup_steps) * (1 - (1 - final) * _progress(step, steps, start, end))


@schedule("cosine", paper="Loshchilov & Hutter 2017, eq. 5")
def cosine(
    step: int, steps: int, *, warmup_steps: Steps = 0, start: Share = 0.0, end: Share = 1.0, final: Share = 0.0
) -> float:
    """Half a cosine down to `final` times the rate, between the shares `start` and `end` of all steps."""
    falling = 0.5 * (1 + math.cos(math.pi * _progress(step, steps, start, end)))
    return _warm(step, warmup_steps) * (final + (1 - final) * falling)


@schedule("rsqrt", paper="Zhai et al. 2022, section 3.5", system="scaling-vit")
def rsqrt(step: int, steps: int, *, warmup_steps: Steps = 0, cooldown_steps: Steps = 0) -> float:
    """Down with the square root of the step after the warm-up, at last linearly to 0: one run, many lengths.

    The factor of the t-th step is √(w / t) from t = w on, w the warm-up; what it is does not depend on `steps` before
    the cool-down. So a checkpoint from before it is a prefix of runs of any length: resume it with other `train.steps`.

    Parameters
    ----------
    cooldown_steps : the last ones, over which the factor is also multiplied by what falls from 1 to exactly 0 at the
        end, as in the authors' code.
    """
    rising, w = _warm(step, warmup_steps), max(1, warmup_steps)
    cooling = min(1.0, (steps - step) / cooldown_steps) if cooldown_steps else 1.0
    return rising * math.sqrt(w / max(step + 1, w)) * max(0.0, cooling)
