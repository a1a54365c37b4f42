"""Networks: each says by its base class what it is, and by its signature what it reads."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from ganvas.errors import MissingCapability
from ganvas.types.data import Condition, DataSpec
from ganvas.types.named import Adjustable, Named


@dataclass(frozen=True)
class Example:
    """Arguments that a network can be called with: `given` by position, `condition` by name."""

    given: tuple[Tensor, ...]
    condition: Condition

    def __len__(self) -> int:
        return len((*self.given, *self.condition.values())[0])


@dataclass(frozen=True)
class LatentSpec:
    """One space that data can be made from: the shape of a point (without N) and its prior."""

    shape: tuple[int, ...]
    prior: Literal["normal", "uniform", "none"] = "normal"  # none: reached by mapping, never drawn


@dataclass(frozen=True)
class Latent:
    """N points of a latent space: `values` (N, *shape), and the name of the space they live in."""

    values: Tensor
    space: str = "z"

    def __len__(self) -> int:
        return len(self.values)


class Network(nn.Module, Adjustable, Named, ABC):
    """A network that a recipe can name.

    What it reads beside its data is its signature: `forward(self, x, label=None, text=None)` reads the conditions
    `label` and `text` where the data have them. A parameter without a default is a condition that the data must have.
    The first `given` parameters are the task's own business.

    Attributes
    ----------
    least_batch : how many data of one pass it compares.
    """

    given: ClassVar[int] = 1
    least_batch: int = 1

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any: ...

    @classmethod
    @functools.cache
    def reads(cls) -> Mapping[str, bool]:
        """The conditions in its signature, by name: whether it cannot do without."""
        parameters = list(inspect.signature(cls.forward).parameters.values())[1 + cls.given :]  # without self
        named = [
            parameter
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        return {parameter.name: parameter.default is parameter.empty for parameter in named}

    def stand_in(self, spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The arguments by position of an example: the data themselves, unless a kind of network says otherwise."""
        return (spec.modality.draw(n, spec.shape, generator),)

    def example(self, spec: DataSpec, n: int, generator: torch.Generator) -> Example:
        """Random arguments for n data, with which the network must be able to work."""
        names = [name for name in self.reads() if name in spec.conditions]
        condition = {name: spec.conditions[name].draw(n, generator) for name in names}
        return Example(self.stand_in(spec, n, generator), Condition(condition))

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        """What its answer to an example of n data should be and is not; empty where all is well."""
        return []

    def fade_real(self, real: Tensor) -> Tensor:
        """Real data (N, ...) as the network wants to see them now; a growing critic shows itself less sharp ones."""
        return real

    def adopted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state of another form of this network under this one's names; what it does not know is left as it is."""
        return state


def _misfit(what: str, output: Any, shape: tuple[int, ...]) -> list[str]:
    """Whether an output is a tensor of this shape, in words where it is not."""
    if not isinstance(output, Tensor):
        return [f"{what} is a {type(output).__name__}, and should be a tensor {shape}"]
    return [] if tuple(output.shape) == shape else [f"{what} is {tuple(output.shape)}, and should be {shape}"]


Nets = Mapping[str, Network]


class Maker(Network):
    """A network that data come out of.

    Attributes
    ----------
    conditional : whether it looks at what it is asked for.
    latents : the spaces that it can be driven from, first the one that is drawn from; empty where there are none.
    """

    conditional: bool = True
    latents: Mapping[str, LatentSpec] = MappingProxyType({})

    def make(self, latent: Latent, condition: Condition) -> Tensor:
        """Data (N, ...) of points of its first space, as they are asked for; differentiable."""
        data: Tensor = self(latent.values, **condition.of(self))
        return data

    def without(self, condition: Condition) -> Condition:
        """What stands for no condition, for N data: what guidance compares with, and what dropout trains.

        Conditions that it can be called without are left out, unless a network puts a value in their place, such as the
        number of a null class; `condition_dropout` needs such a value. Those that it must have stay as they are.
        """
        return condition.only(name for name, needed in self.reads().items() if needed)


class Generator(Maker):
    """A network that turns latents into data.

    Attributes
    ----------
    bounded : whether its data stay in [-1, 1]; sampling cuts them where they do not.
    codes : what the end of a latent is read as (InfoGAN); None: nothing.
    """

    bounded: bool = True
    codes: CodeShape | None = None

    if TYPE_CHECKING:

        def __call__(self, latent: Tensor, *args: Any, **condition: Any) -> Tensor: ...

    def stand_in(self, spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(n, *next(iter(self.latents.values())).shape, generator=generator),)

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        faults = _misfit("its data", output, (n, *spec.shape))
        if not faults and self.bounded and not spec.modality.categories and output.abs().max() > 1:
            faults = ["its data leave [-1, 1], and it does not say `bounded = False`"]
        return faults

    def scales(self, latent: Tensor, label: Tensor | None = None) -> Sequence[Tensor]:
        """Data (N, C, h, w) from small to whole, where smaller ones are made on the way; the last are its output."""
        return [self(latent, **Condition.labelled(label).of(self))]


class SpacedGenerator(Generator):
    """A generator that can be driven from each of its `latents`, in whose order one space leads to the next.

    Attributes
    ----------
    noisy : whether its layers add noise, so that a latent has many images.
    """

    noisy: bool = False

    @abstractmethod
    def to_space(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """The same points in a later space; UsageError where there is no way."""

    @abstractmethod
    def from_space(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        """Data (N, ...) of points in any of the spaces, differentiable in them."""

    def as_trained(self, latent: Latent, space: str, label: Tensor | None = None) -> Latent:
        """Points in another of its spaces as a pass of training makes them, with whatever training mixes there."""
        return self.to_space(latent, space, label)

    def noised(self, latent: Latent, label: Tensor | None = None, *, noise: Noise | torch.Generator) -> Tensor:
        """Data (N, ...) of points in any of the spaces with this noise; a generator is what random noise comes from."""
        return self.from_space(latent, label)

    @property
    def centre(self) -> Latent | None:
        """The mean of its mapped space, one point (1, *shape), which truncation goes towards; None: not known."""
        return None


Noise = Literal["random", "const", "none"]
"""What layers add to what the latent says: drawn anew, the network's own, or nothing."""


class Movable(SpacedGenerator):
    """A generator whose images can be moved at their source, before any of its layers have seen them."""

    @abstractmethod
    def moved(self, latent: Latent, move: Tensor, label: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) of points in any of the spaces, with their content moved.

        `move` (3, 3) says where a place (x, y, 1) goes, in shorter sides of the image from its middle, y down.
        """


class CodeShape(Protocol):
    """Which codes the end of a latent holds (InfoGAN)."""

    @property
    def discrete(self) -> tuple[int, ...]: ...  # categories of each

    @property
    def continuous(self) -> int: ...


@dataclass(frozen=True)
class StageOutput:
    """Features (N, C, h, w) after the first `stage` stages of a generator, and the conditions of all its stages."""

    features: Tensor
    stage: int
    conditions: Sequence[Tensor | None]


class StagedGenerator(Generator):
    """A generator that can be entered at any stage.

    `from_stage(to_stage(latent, label, stages=k))` is its output for every k.
    """

    @property
    @abstractmethod
    def stages(self) -> int: ...

    @abstractmethod
    def to_stage(self, latent: Tensor, label: Tensor | None = None, *, stages: int) -> StageOutput: ...

    @abstractmethod
    def from_stage(self, half: StageOutput) -> Tensor: ...


class Encoder(Network):
    """The way back from data to a generator's latents: points (N, *code_shape) of its latent space `space`."""

    space: str
    code_shape: tuple[int, ...]

    if TYPE_CHECKING:

        def __call__(self, data: Tensor, *args: Any, **condition: Any) -> Tensor: ...

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        return _misfit("its latents", output, (n, *self.code_shape))


class LatentCritic(Network):
    """A network that scores points (N, *latent_shape) of a latent space, not data: logits (N,)."""

    latent_shape: tuple[int, ...]

    if TYPE_CHECKING:

        def __call__(self, latent: Tensor, *args: Any, **condition: Any) -> Tensor: ...

    def stand_in(self, spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(n, *self.latent_shape, generator=generator),)

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        return _misfit("its logits", output, (n,))


class Denoiser(Maker):
    """A network that reads noisy data and how noisy they are: `forward(x, level, …)` -> what its path says it predicts.

    `level` is (N,) float32 in the path's own units. `sides` says how many predictions of the data's shape it makes
    along the first axis: 2 where it also predicts a variance (learned sigma).
    """

    given = 2
    sides: int = 1

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, level: Tensor, *args: Any, **condition: Any) -> Tensor: ...

    def make(self, latent: Latent, condition: Condition) -> Tensor:
        """Nothing is made in one call, whatever latents it may say that it has.

        Raises
        ------
        MissingCapability : always.
        """
        raise MissingCapability(
            f"{self.called()} takes noise away level by level, and makes no data of a latent in one call",
            hint="--sampler '{use: ddim, steps: 50}', or another that goes along the path; ganvas list samplers",
        )

    def stand_in(self, spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return torch.randn(n, *spec.shape, generator=generator), torch.rand(n, generator=generator)

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        return _misfit("its prediction", output, (n, self.sides * spec.shape[0], *spec.shape[1:]))


@dataclass(frozen=True)
class Reconstruction:
    """What an autoencoder makes of data: `data` (N, ...) again, and its own weighted `losses`, scalars by name.

    A tokenizer also gives the `tokens` (N, *token_shape) that it made them of.
    """

    data: Tensor
    tokens: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)


class Autoencoder(Network):
    """A network whose call gives data back: `forward(data, …)` -> Reconstruction."""

    if TYPE_CHECKING:

        def __call__(self, data: Tensor, *args: Any, **condition: Any) -> Reconstruction: ...

    @property
    def last_weight(self) -> nn.Parameter | None:
        """The weight of the layer that its data come out of, at which losses can be balanced; None: there is none."""
        return None

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        if not isinstance(output, Reconstruction):
            return [f"its answer is a {type(output).__name__}, and should be a Reconstruction"]
        return _misfit("its data", output.data, (n, *spec.shape))


class Tokenizer(Autoencoder):
    """Data to tokens (N, *token_shape), int64 in [0, vocabulary), and back. A call reconstructs the data.

    Attributes
    ----------
    vocabulary : how many tokens there are.
    token_shape : of a datum's tokens, such as (16, 16).
    """

    vocabulary: int
    token_shape: tuple[int, ...]

    @abstractmethod
    def encode(self, data: Tensor) -> Tensor:
        """Data (N, ...) -> tokens (N, *token_shape)."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (N, *token_shape) -> data (N, ...)."""

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        faults = super().faults(output, spec, n)
        if isinstance(output, Reconstruction):
            faults += _misfit("its tokens", output.tokens, (n, *self.token_shape))
        return faults


class TokenModel(Maker):
    """A network over sequences of tokens: `forward(tokens (N, L), …)` -> logits (N, L, outputs).

    Attributes
    ----------
    vocabulary : how many tokens it reads. Those from `outputs` on stand for no data: the first of them is the mask, or
        the start of a sequence.
    length : L, at most.
    outputs : how many tokens it can answer with; the first so many of its vocabulary.
    """

    vocabulary: int
    length: int
    outputs: int

    if TYPE_CHECKING:

        def __call__(self, tokens: Tensor, *args: Any, **condition: Any) -> Tensor: ...

    def following(self, tokens: Tensor, past: Any = None, **condition: Tensor) -> tuple[Tensor, Any]:
        """Logits (N, outputs) of what follows all of the tokens (N, l), and what it wants to be given back.

        One token after the other is added to `tokens`, and `past` is what the last call gave, None at first. A causal
        network that keeps keys and values there computes the new token alone; by default all are computed again.
        """
        return self(tokens, **condition)[:, -1], None

    def stand_in(self, spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randint(self.vocabulary, (n, self.length), generator=generator),)

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        return _misfit("its logits", output, (n, self.length, self.outputs))


class Translator(Maker):
    """A network that makes data of conditions alone: `forward(low)`, `forward(mel)`, `forward(text, text_mask)`."""

    given = 0

    def make(self, latent: Latent, condition: Condition) -> Tensor:
        data: Tensor = self(**condition.of(self))
        return data

    def stand_in(self, spec: DataSpec, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        return _misfit("its data", output, (n, *spec.shape))


class Predictor(Network):
    """A network that says something of data: `forward(x)` -> (N, *output_shape)."""

    output_shape: tuple[int, ...]

    def faults(self, output: Any, spec: DataSpec, n: int) -> list[str]:
        return _misfit("its answer", output, (n, *self.output_shape))


class Foldable(nn.Module, ABC):
    """A layer that works out of its weights, in each pass, what the pass does not change."""

    @abstractmethod
    def folded(self) -> nn.Module:
        """One for inference that does the same, where that has been worked out."""
