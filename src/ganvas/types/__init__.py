"""The words that parts, engine and models share. Shapes and protocols, no logic.

Images are `(N, C, H, W)` float32 in [-1, 1]; any number of channels, H and W may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor, nn

Nets = Mapping[str, nn.Module]
Side = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class DataSpec:
    """What one datum looks like, so that no network has to guess.

    `shape` is (C, H, W) for images; `num_classes` is 0 where there are no labels.
    """

    shape: tuple[int, ...]
    num_classes: int = 0
    modality: str = "image"
    sample_rate: int | None = None

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]


@dataclass(frozen=True)
class Batch:
    """Real data for one update: `data` (N, *spec.shape) in [-1, 1], `label` (N,) int64 or None."""

    data: Tensor
    label: Tensor | None = None

    def __len__(self) -> int:
        return len(self.data)


class Dataset(Protocol):
    """Data ready to train on. Reading is by index, so that order is the engine's business alone."""

    spec: DataSpec
    fingerprint: str  # changes when any datum, label or preparation changes
    class_names: tuple[str, ...]  # as many as spec.num_classes; empty without labels

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """The data at `indices` (int64) in their order; `rng` decides random flips and crops."""
        ...


class Stream(Protocol):
    """Where one process stands in a data set that can only be read forward."""

    def take(self, count: int, rng: np.random.Generator) -> Batch:
        """The next `count` data; `rng` decides random flips and crops."""
        ...


@runtime_checkable
class StreamedDataset(Protocol):
    """Data that cannot be read by index, as they come from far away or from one end to the other.

    The order belongs to the data set, which knows what lies together; it is a function of (seed, epoch, rank, world).
    """

    spec: DataSpec
    fingerprint: str
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def stream(self, *, seed: int, rank: int, world: int, position: int) -> Stream:
        """The share of process `rank` of `world`, from the `position`-th datum that this process reads; endless.

        The shares of an epoch hold every datum once. From any position the same data follow as without a break.
        """
        ...

    def walk(self, batch: int, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """The data in their own order, without random flips, `batch` at a time: batches first, first + step, …"""
        ...


@dataclass(frozen=True)
class LatentSpec:
    """One space that a generator can be driven from: the shape of a point (without N) and its prior."""

    shape: tuple[int, ...]
    prior: Literal["normal", "uniform", "none"] = "normal"  # none: reached by mapping, never drawn


@dataclass(frozen=True)
class Latent:
    """N points of a latent space: `values` (N, *shape), and the name of the space they live in."""

    values: Tensor
    space: str = "z"

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Scores:
    """What a critic says of N data: `logits` (N,), its last `features` (N, D), and what its head adds by name.

    A critic that judges data piece by piece gives the logits of all P pieces as `pieces` (N, P), and their means as
    `logits`.
    """

    logits: Tensor
    features: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    pieces: Tensor | None = None

    @property
    def judged(self) -> Tensor:
        """What objectives act on: the logits (N,), or (N * P,) those of all pieces."""
        return self.logits if self.pieces is None else self.pieces.flatten()


class CriticHead(Protocol):
    """How labels reach a critic: the last layer, and the loss terms that come with it (often none).

    Terms are weighted already. They may read everything of the turn, and the objective that acts on the logit.
    """

    def __call__(self, features: Tensor, label: Tensor | None) -> Scores: ...

    def check(self, objective: Objective) -> None:
        """Raise BadValue where this objective cannot go with this head."""
        ...

    def critic_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]: ...

    def generator_losses(self, turn: Turn, objective: Objective) -> dict[str, Tensor]: ...

    def after_step(self) -> None:
        """What happens to the head's weights after each of the critic's updates."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A network that turns latents into data.

    `latents` names its spaces, first the one that is drawn from; `conditional` says whether it looks at the label. One
    that says `bounded = False` may leave [-1, 1]; sampling cuts its images.
    """

    latents: Mapping[str, LatentSpec]
    conditional: bool

    def __call__(self, latent: Tensor, label: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class SpacedGenerator(Generator, Protocol):
    """A generator that can be driven from each of its `latents`, in whose order one space leads to the next."""

    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """The same points in a later space; UsageError where there is no way."""
        ...

    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        """Data (N, ...) of points in any of the spaces, differentiable in them."""
        ...


@runtime_checkable
class Centred(SpacedGenerator, Protocol):
    """A generator that knows the mean of its mapped space, which truncation goes towards."""

    @property
    def centre(self) -> Latent: ...  # one point (1, *shape) of a space that is mapped to


Noise = Literal["random", "const", "none"]
"""What layers add to what the latent says: drawn anew, the network's own, or nothing."""


@runtime_checkable
class Noisy(SpacedGenerator, Protocol):
    """A generator whose layers add noise, so that a latent has many images."""

    def noised(self, latent: Latent, label: Tensor | None = None, *, noise: Noise | torch.Generator) -> Tensor:
        """Data (N, ...) of points in any of the spaces with this noise; a generator is what random noise comes from."""
        ...


@runtime_checkable
class Adopting(Protocol):
    """A network that can begin with the weights of another form of itself."""

    def adopted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The other form's state under this network's names; what it does not know is left as it is."""
        ...


@runtime_checkable
class Foldable(Protocol):
    """A network or layer that works out of its weights, in each pass, what the pass does not change."""

    def folded(self) -> nn.Module:
        """One for inference that does the same, where that has been worked out."""
        ...


@runtime_checkable
class Movable(Generator, Protocol):
    """A generator whose images can be moved at their source, before any of its layers have seen them."""

    def moved(self, latent: Latent, move: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces, with their content moved.

        `move` (3, 3) says where a place (x, y, 1) goes, in shorter sides of the image from its middle, y down.
        """
        ...


class CodeShape(Protocol):
    """Which codes the end of a latent holds (InfoGAN)."""

    @property
    def discrete(self) -> tuple[int, ...]: ...  # categories of each

    @property
    def continuous(self) -> int: ...


@runtime_checkable
class Coded(Protocol):
    """A generator that reads the end of its latent as codes, or could: None is for no codes."""

    @property
    def codes(self) -> CodeShape | None: ...


@dataclass(frozen=True)
class Halfway:
    """Data half made: the map (N, C, h, w) after so many of a generator's stages, and what the stages are told."""

    map: Tensor
    stages: int
    told: Sequence[Tensor | None]


@runtime_checkable
class Staged(Generator, Protocol):
    """A generator that can be entered half-way: `back(front(latent, label, stages=k))` is its output for every k."""

    @property
    def stages(self) -> int: ...

    def front(self, latent: Tensor, label: Tensor | None = None, *, stages: int) -> Halfway: ...

    def back(self, half: Halfway) -> Tensor: ...


@runtime_checkable
class Critic(Protocol):
    """A network that scores data. `head` is its conditioning part."""

    head: CriticHead

    def __call__(self, data: Tensor, label: Tensor | None = None) -> Scores: ...


@runtime_checkable
class Fading(Critic, Protocol):
    """A critic to which real data are shown less sharp while its finest resolution, and a generator's, fade in."""

    def fade_real(self, real: Tensor) -> Tensor:
        """Data (N, ...) of the same shape."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """The way back from data to a generator's latents: points (N, *code_shape) of its latent space `space`."""

    space: str
    code_shape: tuple[int, ...]

    def __call__(self, data: Tensor) -> Tensor: ...


@runtime_checkable
class LatentCritic(Protocol):
    """A network that scores points (N, *latent_shape) of a latent space, not data: logits (N,)."""

    latent_shape: tuple[int, ...]

    def __call__(self, latent: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Update:
    """One optimizer step. A task is a list of these; the engine needs no more."""

    nets: tuple[str, ...]  # roles that learn
    losses: Callable[[Batch, int], dict[str, Tensor]]  # (batch, step) -> named, weighted scalars; the engine sums them
    repeat: int = 1  # critic steps
    every: int = 1  # lazy terms: run each `every` steps with gain x every
    after: Callable[[], None] | None = None  # weight clipping, ...


class Task(Protocol):
    """What is trained against what."""

    roles: tuple[str, ...]  # networks that must be there
    averaged: tuple[str, ...]  # networks whose moving average is the result
    sampler: str  # the sampler part that draws from the result when the recipe names none

    def updates(self) -> Iterable[Update]: ...

    def state_dict(self) -> dict[str, Any]: ...  # whatever exact resume needs

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Knob = Callable[[float], None]
"""Sets a number that a part was built with."""


@runtime_checkable
class Adjustable(Protocol):
    """Has numbers that may move while a run goes on, by their paths in the recipe from this part on.

    A knob is set before every step, also before the first after a resume, so it need not be saved.
    """

    def knobs(self) -> Mapping[str, Knob]: ...


@runtime_checkable
class Metered(Protocol):
    """A task with numbers for the log beside its losses, read whenever a row is written.

    They are functions of what is saved, so that a resumed run writes the same rows.
    """

    def readings(self) -> Mapping[str, float]: ...


@runtime_checkable
class Batchwise(Protocol):
    """A part, or a task of such parts, that compares the data of one pass and needs so many of them."""

    @property
    def least_batch(self) -> int: ...


@runtime_checkable
class Stateful(Protocol):
    """A part that remembers something between updates, which exact resume needs."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass(eq=False)
class Turn:
    """What objectives and regularizers may read of the present update.

    `critic(data, label)` scores data as the task does, augmentation included. `fake` and the scores are computed when
    first asked for: a penalty that reads only real data never pays for a generator pass. In a critic update `fake`
    carries no gradient.
    """

    nets: Nets
    step: int
    real: Tensor
    label: Tensor | None
    latent: Latent
    fake_label: Tensor | None
    critic: Callable[[Tensor, Tensor | None], Scores] = field(repr=False)
    generate: Callable[[Latent, Tensor | None], Tensor] = field(repr=False)

    @cached_property
    def fake(self) -> Tensor:
        return self.generate(self.latent, self.fake_label)

    @cached_property
    def real_scores(self) -> Scores:
        return self.critic(self.real, self.label)

    @cached_property
    def fake_scores(self) -> Scores:
        return self.critic(self.fake, self.fake_label)


class Objective(Protocol):
    """An adversarial pair. Logits are (N,); both methods see both sides, as relativistic losses need.

    `reads_real` says whether `generator` looks at the real side; where it does not, no pass is made for it and
    `real_logits` there is empty.
    """

    reads_real: bool

    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor: ...

    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor: ...


@runtime_checkable
class Selecting(Objective, Protocol):
    """An objective that leaves generated data out of another one's generator loss; `of` is that one."""

    of: Objective


@dataclass(frozen=True)
class Term:
    """How much and how often a regularizer counts: keys of the recipe, not of the regularizer."""

    weight: float = 1.0
    every: Annotated[int, Gt(0)] = 1  # lazy: run each `every` steps with gain x every


class Regularizer(Protocol):
    """One unweighted scalar. How much and how often it counts belongs to the recipe."""

    side: Side

    def __call__(self, turn: Turn) -> Tensor: ...


@runtime_checkable
class Constraint(Protocol):
    """A regularizer that acts on the weights after each update instead of adding a term."""

    side: Side

    def apply(self, net: nn.Module) -> None: ...


@runtime_checkable
class Gauge(Protocol):
    """A regularizer that teaches nothing: numbers of a network for the log, by name."""

    side: Side

    def readings(self, net: nn.Module) -> Mapping[str, float]: ...


@runtime_checkable
class LatentMover(Protocol):
    """A regularizer that moves latents before both networks see their images.

    `score` gives the critic's logits (N,) of latents; where `differentiable`, the move itself is learnt through.
    """

    def move(self, latent: Latent, score: Callable[[Latent], Tensor], *, differentiable: bool) -> Latent: ...


class Augment(Protocol):
    """A differentiable change of (N, C, H, W) images that real and fake ones go through alike."""

    def __call__(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class Observer(Protocol):
    """A part that learns from each critic update once its losses are known, as adaptive augmentation does."""

    def observe(self, turn: Turn) -> None: ...


@runtime_checkable
class RealMixer(Augment, Protocol):
    """An augmentation that shows the critic other data in place of some real ones; `fake` generates as many anew."""

    def mix_real(self, real: Tensor, fake: Callable[[], Tensor]) -> Tensor: ...


@runtime_checkable
class LevelAugment(Augment, Protocol):
    """An augmentation that the critic is told about: the images, and how much was done to each, (N,), 0 for nothing."""

    def with_level(self, images: Tensor) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class LevelHead(Protocol):
    """A critic's head that can be told how much was done to the data; without being told, it takes them as clean."""

    def at_level(self, scores: Scores, level: Tensor) -> Scores: ...


class Extractor(Protocol):
    """A frozen network that turns images in [-1, 1] of any size and channel count into features."""

    name: str
    provenance: Mapping[str, str]  # weights' sha256, layer, resizer, source: stamped on every score
    classes: int  # how many classes its logits know; 0: no logits

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (N, D) float32, logits (N, classes) or None)."""
        ...


@runtime_checkable
class DifferentiableExtractor(Extractor, Protocol):
    """An extractor that something can be taught by."""

    def differentiable(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """As a call, but of images (N, C, H, W) that are not rounded to 8 bits, and with gradients to them."""
        ...


@dataclass(frozen=True)
class Moments:
    """What a Gaussian fitted to features is made of: `mean` (D,), unbiased `covariance` (D, D), float64, `count` N."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


@dataclass(frozen=True)
class EvidenceSet:
    """One set of images as metrics see it; all tensors on the CPU, None where nobody asked for them.

    `images` is (N, C, H, W) uint8: every image is rounded to 8 bits before anything else, so that a model scores like
    the files that it writes.
    """

    features: Tensor | None = None  # (N, D) float32
    logits: Tensor | None = None  # (N, K)
    label: Tensor | None = None  # (N,) int64
    images: Tensor | None = None
    moments: Moments | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything metrics may look at, sampled and embedded once for all of them.

    `training` is what the model was trained on, where a metric asks for it; `real` is what it is compared with.
    """

    real: EvidenceSet
    fake: EvidenceSet
    training: EvidenceSet | None = None
    model: Subject | None = None  # None where images are scored, not a model
    extractor: Extractor | None = None
    seed: int = 0  # the sampling seed; whatever a metric draws from the model itself follows it


class Metric(Protocol):
    """A pure function of evidence.

    `needs` names what it reads: "features", "logits", "label", "images" or "moments" of both sides; "real:logits",
    "fake:label", "training:features" and so on of one set; "model"; "extractor"; "pairs" where the i-th image of one
    side belongs to the i-th of the other. What is named is never None: a metric whose labels, pairs, model or training
    data are not there is left out, with a note.
    """

    needs: frozenset[str]
    lower_is_better: Mapping[str, bool]  # per value that it returns
    limits: Mapping[str, tuple[float, float]]  # what each value can be; intervals are cut there

    def __call__(self, evidence: Evidence) -> dict[str, float]: ...


@runtime_checkable
class Alarm(Protocol):
    """A metric that says in words when its values mean that something is wrong with the images."""

    def alarm(self, values: Mapping[str, float]) -> str:
        """One sentence for the user; empty where nothing is wrong."""
        ...


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows: `images` (N, C, H, W) uint8, `columns` in a row, and what a reader has to know."""

    caption: str
    images: Tensor
    columns: int


@dataclass(frozen=True)
class Chart:
    """Curves (x, y), points (x, y) or the values of histograms (x alone), by the name of their series."""

    caption: str
    kind: Literal["lines", "points", "histogram"]
    series: Mapping[str, tuple[np.ndarray, ...]]  # each array (n,)
    x: str = ""  # what the axes say, with units
    y: str = ""


@dataclass(frozen=True)
class Panel:
    """One section of `ganvas inspect`: what there is to see and what it means."""

    title: str
    text: str
    sheets: tuple[Sheet, ...] = ()
    charts: tuple[Chart, ...] = ()


class Analysis(Protocol):
    """A look at a model and its data that ends in pictures. `needs` is as a metric's."""

    needs: frozenset[str]

    def __call__(self, evidence: Evidence) -> Panel | None:
        """The section, or None where there is nothing to show."""
        ...


class Synthesizer(Protocol):
    """What a sampler needs of a trained model."""

    nets: Nets

    @property
    def generator(self) -> Generator | None: ...

    @property
    def critic(self) -> Critic: ...

    @property
    def num_classes(self) -> int: ...

    def synthesize(self, latent: Latent, label: Tensor | None = None) -> Tensor: ...


class Subject(Synthesizer, Protocol):
    """What a metric may do with a trained model."""

    spec: DataSpec

    @property
    def latents(self) -> Mapping[str, LatentSpec]: ...

    def draw(self, n: int, *, seed: int, space: str | None = None, label: Tensor | None = None) -> Latent: ...

    def labels(self, n: int, *, seed: int, label: int | Sequence[int] | Tensor | None = None) -> Tensor | None: ...


class Sampler(Protocol):
    """Draws data from a trained model, as many as there are latents.

    `latent` is prior noise. A `stochastic` sampler needs more of it, from `generator`; it is given whole blocks of
    fixed size, so that its results do not depend on how many images are asked for.
    """

    stochastic: bool

    def __call__(
        self, model: Synthesizer, latent: Latent, label: Tensor | None, generator: torch.Generator
    ) -> Tensor: ...


class Schedule(Protocol):
    """A learning rate's course: the factor at `step` of `steps`, a pure function."""

    def __call__(self, step: int, steps: int) -> float: ...


class Sink(Protocol):
    """A place besides log.jsonl where rows and pictures go."""

    def row(self, step: int, values: Mapping[str, float]) -> None: ...

    def images(self, step: int, path: str) -> None: ...

    def close(self) -> None: ...
