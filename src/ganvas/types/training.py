"""Training: tasks and their updates, and the parts that take part in them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt
from torch import Tensor, nn

from ganvas.types.critics import Scores
from ganvas.types.data import Batch, Condition, DataSpec
from ganvas.types.named import Adjustable, Named
from ganvas.types.networks import Latent, Nets, Network

Side = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class Role:
    """A place for a network in a task, or in one of its terms.

    Attributes
    ----------
    kinds : the network is one of these.
    optional : whether a recipe may leave it out.
    frozen : it is given, not taught: its recipe has `from:` or brings its own weights, and the engine freezes it.
    """

    kinds: tuple[type[Network], ...]
    optional: bool = False
    frozen: bool = False

    @property
    def words(self) -> str:
        """What may stand there, such as "generator or latent critic"."""
        return " or ".join(re.sub(r"\B(?=[A-Z])", " ", kind.__name__).lower() for kind in self.kinds)


@dataclass(frozen=True)
class Facts:
    """What a task may know of the data that it will be trained on."""

    spec: DataSpec
    count: int = 0  # how many there are
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """One optimizer step. A task is a list of these; the engine needs no more."""

    nets: tuple[str, ...]  # roles that learn
    losses: Callable[[Batch, int], dict[str, Tensor]]  # (batch, step) -> named, weighted scalars; the engine sums them
    repeat: int = 1  # critic steps
    every: int = 1  # lazy terms: run each `every` steps with gain x every
    after: Callable[[Batch], None] | None = None  # weight clipping, ... ; it is given the batch of the update
    again: bool = False  # it learns from the batch of the update before it in the step, not from a new one


class Task(Adjustable, Named, ABC):
    """What is trained against what. A part is built with (nets, facts) and its keys.

    Attributes
    ----------
    roles : networks by role; beside them there are those that its terms bring.
    averaged : networks whose moving average is the result.
    sampler : the sampler part that draws from the result when the recipe names none.
    """

    roles: ClassVar[Mapping[str, Role]]
    averaged: ClassVar[tuple[str, ...]] = ()
    sampler: ClassVar[str]

    @abstractmethod
    def updates(self) -> Iterable[Update]: ...

    @property
    def least_batch(self) -> int:
        """The fewest data of one pass that every part can work with."""
        return 1

    def readings(self) -> Mapping[str, float]:
        """Numbers for the log beside its losses, read whenever a row is written.

        They are functions of what is saved, so that a resumed run writes the same rows.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Whatever exact resume needs, besides networks and optimizers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class Hook(Adjustable, Named):
    """A part that takes part in a task's updates. Each method does nothing unless it is overridden.

    A task calls the hooks of all its parts; it does not ask which of them do something.

    Attributes
    ----------
    roles : networks that this part brings to the task's, such as a frozen teacher.
    least_batch : how many data of one pass it compares.
    """

    roles: ClassVar[Mapping[str, Role]] = MappingProxyType({})
    least_batch: int = 1

    def move_latent(self, latent: Latent, score: Callable[[Latent], Tensor], *, differentiable: bool) -> Latent:
        """Latents moved before both networks see their data.

        `score` gives the critic's logits (N,) of latents; where `differentiable`, the move itself is learnt through.
        """
        return latent

    def mix_real(self, real: Tensor, fake: Callable[[], Tensor]) -> Tensor:
        """Real data (N, ...) as the critic's update sees them, some perhaps others; `fake` generates N anew."""
        return real

    def observe(self, turn: Turn) -> None:
        """Learn from a critic's update once its losses are known, as adaptive augmentation does."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers between updates, which exact resume needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Go on from what `state_dict` gave."""


@dataclass(eq=False)
class Turn:
    """What objectives and regularizers may read of the present update.

    `critic(data, condition)` scores data as the task does, augmentation included. `fake` and the scores are computed
    when first asked for: a penalty that reads only real data never pays for a generator pass. In a critic update `fake`
    carries no gradient.
    """

    nets: Nets
    step: int
    real: Tensor
    condition: Condition
    latent: Latent
    fake_condition: Condition
    critic: Callable[[Tensor, Condition], Scores] = field(repr=False)
    generate: Callable[[Latent, Condition], Tensor] = field(repr=False)

    @property
    def label(self) -> Tensor | None:
        """Class labels (N,) of the real data."""
        return self.condition.label

    @property
    def fake_label(self) -> Tensor | None:
        """Class labels (N,) that the generated data were asked for."""
        return self.fake_condition.label

    @cached_property
    def fake(self) -> Tensor:
        return self.generate(self.latent, self.fake_condition)

    @cached_property
    def real_scores(self) -> Scores:
        return self.critic(self.real, self.condition)

    @cached_property
    def fake_scores(self) -> Scores:
        return self.critic(self.fake, self.fake_condition)


class Objective(Hook, ABC):
    """An adversarial pair. Logits are (N,); both methods see both sides, as relativistic losses need.

    Attributes
    ----------
    reads_real : whether `generator` looks at the real side; where it does not, no pass is made for it and
        `real_logits` there is empty.
    by_head : whether it adds nothing, so that the critic's head brings the whole loss.
    selects_of : the objective out of whose generator loss it leaves some data; None: it is a loss of its own.
    """

    reads_real: bool = True
    by_head: bool = False
    selects_of: Objective | None = None

    @abstractmethod
    def critic(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The critic's loss, a scalar."""

    @abstractmethod
    def generator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The generator's loss, a scalar."""


@dataclass(frozen=True)
class Term:
    """How much and how often a regularizer counts: keys of the recipe, not of the regularizer."""

    weight: float = 1.0
    every: Annotated[int, Gt(0)] = 1  # lazy: run each `every` steps with gain x every


class Regularizer(Hook, ABC):
    """One unweighted scalar. How much and how often it counts belongs to the recipe.

    Attributes
    ----------
    side : whose update it belongs to.
    per_datum : whether it takes the critic's slope at single data, which batch norm would mix.
    """

    side: Side
    per_datum: bool = False

    def belongs_to(self, side: Side) -> bool:
        """Whether it joins the losses of this side."""
        return self.side == side

    @abstractmethod
    def __call__(self, turn: Turn) -> Tensor: ...


class Constraint(Hook, ABC):
    """What stands among the regularizers and acts on the weights after each update instead of adding a term."""

    side: Side

    @abstractmethod
    def apply(self, net: nn.Module) -> None: ...


class Gauge(Hook, ABC):
    """What stands among the regularizers and teaches nothing: numbers of a network for the log, by name."""

    side: Side

    @abstractmethod
    def readings(self, net: nn.Module) -> Mapping[str, float]: ...


class Augment(Hook, ABC):
    """A differentiable change of (N, ...) data that real and fake ones go through alike.

    Attributes
    ----------
    tells_level : whether `with_level` says how much was done, which the critic's head then has to read.
    """

    tells_level: bool = False

    @abstractmethod
    def __call__(self, data: Tensor) -> Tensor: ...

    def with_level(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """The data, and how much was done to each, (N,), 0 for nothing."""
        return self(data), data.new_zeros(len(data))


class Schedule(ABC):
    """A number's way through a run: the factor at `step` of `steps`, a pure function."""

    @abstractmethod
    def __call__(self, step: int, steps: int) -> float: ...


class Path(Named, ABC):
    """From data to noise: how much of each there is at a level, and what a network says there (diffusion, flows).

    Noisy data are x_t = alpha x + sigma noise. Levels are in the path's own units, which the network reads, and rise
    with the noise. Samplers see `levels`, `at` and `denoised` alone, so that each of them works along every path.

    Attributes
    ----------
    sides : predictions of the data's shape that the network makes along the first axis: 2 where there is also a
        variance. The methods below are given all of them.
    """

    sides: int = 1

    @abstractmethod
    def draw_level(self, n: int, like: Tensor) -> Tensor:
        """Levels (N,) float32 of a training batch, drawn at random on the device of `like`."""

    @abstractmethod
    def at(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma), each of the shape, type and device of `level`, which may be float64."""

    @abstractmethod
    def levels(self, steps: int) -> Tensor:
        """`steps` + 1 levels (float64, on the CPU) from the noisiest to the clean end, where sigma is 0.

        Raises
        ------
        BadValue : the path has not so many.
        """

    @abstractmethod
    def target(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What the network is to predict, (N, ...)."""

    @abstractmethod
    def denoised(self, prediction: Tensor, x_t: Tensor, level: Tensor) -> Tensor:
        """The clean data (N, ...) that a prediction stands for."""

    def losses(self, prediction: Tensor, x: Tensor, noise: Tensor, x_t: Tensor, level: Tensor) -> dict[str, Tensor]:
        """Terms of a training batch by name; the mean squared error to `target` unless overridden."""
        return {"mse": (prediction - self.target(x, noise, level)).square().mean()}

    def variance_share(self, prediction: Tensor) -> Tensor | None:
        """Where the network puts a step's log-variance, (N, ...): 0 the least, 1 the largest; None: it does not say."""
        return None

    def scales(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) as `at` gives them, (N, 1, ...), to be multiplied with data of the shape of `like`."""
        alpha, sigma = self.at(level)
        shape = (-1, *[1] * (like.dim() - 1))
        return alpha.to(like.dtype).view(shape), sigma.to(like.dtype).view(shape)

    def noisy(self, x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """x_t, (N, ...)."""
        alpha, sigma = self.scales(level, x)
        return alpha * x + sigma * noise


class Sink(ABC):
    """A place besides log.jsonl where rows and pictures go."""

    @abstractmethod
    def row(self, step: int, values: Mapping[str, float]) -> None: ...

    @abstractmethod
    def images(self, step: int, path: str) -> None: ...

    def close(self) -> None:
        """Nothing more comes."""
