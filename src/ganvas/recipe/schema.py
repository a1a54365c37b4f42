"""What a recipe may hold: its sections and their keys, with their types and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from ganvas.parts import Slot, Slots
from ganvas.recipe.trained import Weights

Positive = Annotated[int, Gt(0)]

RENAMED = {"courses": "schedules"}
"""Keys of version 0.1, and what they are called now."""


@dataclass(frozen=True)
class Train:
    """How long, how much at once, how exactly."""

    steps: Positive = 10_000
    batch: Positive = 64
    seed: Annotated[int, Ge(0)] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the forward passes; weights and penalties stay float32
    accumulate: Positive = 1  # micro-batches that a batch is cut into
    parallel: Literal["replicated", "sharded"] = "replicated"  # how weights lie where several processes train
    compile: bool = False
    channels_last: bool = False
    log_every: Positive = 50  # steps
    checkpoint_every: Positive = 1000  # steps
    sample_every: Positive | None = None  # steps; None: with each checkpoint
    keep: Positive = 2  # checkpoints, besides the best


@dataclass(frozen=True)
class Ema:
    """Moving average of the weights, `decay` per step; it starts, and may ramp up, after so many real images."""

    decay: Annotated[float, Ge(0), Le(1)] = 0.999
    half_life_images: Annotated[float, Gt(0)] | None = None  # in place of `decay`, whatever the batch
    buffers: Literal["average", "copy"] = "average"  # statistics of normalisation layers
    start_images: Annotated[int, Ge(0)] = 0
    start_steps: Annotated[int, Ge(0)] | None = None  # in place of `start_images`, whatever the batch
    rampup_ratio: Annotated[float, Gt(0)] | None = None  # half-life is at most this share of the images seen so far


@dataclass(frozen=True)
class Eval:
    """Scores while training: the protocol's name or path, each `every` steps (None: at the end alone)."""

    protocol: str
    every: Positive | None = None


@dataclass(frozen=True)
class OptimOptions:
    """What stands beside the optimizer's own keys."""

    schedule: Annotated[Any, Slot("schedule")] = "constant"
    clip_norm: Annotated[float, Gt(0)] | None = None  # global L2 norm of one role's gradient
    non_finite: Literal["keep", "replace"] = "keep"  # gradients; replaced: NaN by 0, infinities by ±1e5, as StyleGAN2
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # role -> the optimizer's keys for it alone


@dataclass(frozen=True)
class Span:
    """Between which values a number moves; the schedule beside them says when."""

    from_: float
    to: float


@dataclass(frozen=True)
class Schema:
    """A whole recipe."""

    data: Annotated[Any, Slot("dataset")]
    networks: Annotated[Mapping[str, Any], Slots("network", Weights, keys="role")]
    task: Annotated[Any, Slot("task")]
    optim: Annotated[Any, Slot("optimizer", OptimOptions)] = "adam"
    ema: Ema | None = None
    schedules: Annotated[Mapping[str, Any], Slots("schedule", Span, keys="path")] = field(default_factory=dict)
    train: Train = Train()
    eval: Eval | None = None
    sampler: Annotated[Any, Slot("sampler")] | None = None
    sinks: Annotated[Mapping[str, Any], Slots("sink")] = field(default_factory=dict)
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> changes; trained first, in order
    system: str | None = None  # catalogue id
    source: str | None = None  # whose numbers these are: an entry of recipes/sources.yaml
    differs: Mapping[str, str] = field(default_factory=dict)  # path -> why this number is not the source's
    summary: str | None = None  # one line for `ganvas list recipes`
