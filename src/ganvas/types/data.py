"""Data: what a datum is, what it comes with, and sets of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ganvas.errors import BadValue, UsageError
from ganvas.types.census import Census
from ganvas.types.named import Named

if TYPE_CHECKING:
    from PIL.Image import Image

    from ganvas.types.networks import Network


class Modality(Named, ABC):
    """What kind of thing a datum is: how it is read from files, rounded as they round, shown and written.

    A concrete modality is a part on the shelf `modalities`; its keys are all that it knows, so that `node` and the part
    make each other.

    Attributes
    ----------
    axes : what the axes of a datum are called, without N.
    categories : of discrete data, int64 in [0, categories); 0: data are float32 in [-1, 1].
    rate : points of the time axis in a second (samples, frames); None without a time axis.
    suffixes : of the files that it writes, the usual one first.
    rows : data below each other on a sheet of samples.
    protocol : the shipped one by which data are scored where nobody names another.
    """

    axes: tuple[str, ...]
    categories: int = 0
    rate: float | None = None
    suffixes: ClassVar[tuple[str, ...]]
    rows: ClassVar[int] = 8
    protocol: ClassVar[str] = "raw"

    def node(self) -> dict[str, Any]:
        """The recipe node (`use` and keys) that builds it again; one with keys adds them."""
        return {"use": self.part_name}

    @abstractmethod
    def rounded(self, data: Tensor) -> Tensor:
        """Data (N, ...) as a file holds them, such as uint8 of images; any dtype, the same shape."""

    @abstractmethod
    def restored(self, rounded: Tensor) -> Tensor:
        """What a network is given for values that `rounded` gave."""

    @abstractmethod
    def show(self, data: Tensor, columns: int | None = None) -> Image:
        """One picture for a person of data (N, ...): a sheet of images, waveforms, film strips, lines of text."""

    @abstractmethod
    def read(self, file: Path, shape: tuple[int, ...]) -> Tensor:
        """The datum (*shape) in a file.

        Raises
        ------
        DataError : it is not such a file, or does not come to this shape.
        """

    @abstractmethod
    def write(self, data: Tensor, files: Sequence[Path]) -> None:
        """Write data (N, ...), one file each.

        Raises
        ------
        DataError : no file of this kind can hold them.
        """

    def reading(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Keys of the data set of the modality's name with which it reads files as such data (*shape)."""
        return {}

    def unlike(self, other: Modality) -> dict[str, tuple[Any, Any]]:
        """What differs so much that data of both cannot be compared: key of the nodes -> (this one's, the other's)."""
        if self.called() != other.called():
            return {"use": (self.called(), other.called())}
        one, two = self.node(), other.node()
        return {key: (one.get(key), two.get(key)) for key in {**one, **two} if one.get(key) != two.get(key)}

    def from_text(self, text: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """(the datum (*shape) that is written as this text, a mask (*shape) of what of it is not padding).

        Raises
        ------
        UsageError : data of this modality are not written as text, or it does not come to this shape.
        """
        raise UsageError(f"modality {self.called()!r} is no text", hint="give a file: --given")

    def arrays(self, data: Tensor) -> dict[str, np.ndarray]:
        """Data (N, ...) for an array file, by name."""
        return {"data": self.rounded(data).cpu().numpy()}

    def note(self, shape: tuple[int, ...]) -> str:
        """What a picture of such data leaves out, in a sentence; empty where it shows all."""
        return ""

    def player(self, data: Tensor) -> str:
        """HTML in which data (N, ...) can be heard, played or read; empty where the picture says it all."""
        return ""

    def draw(self, n: int, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Random data (n, *shape) of the right kind and range, which stand in for real ones."""
        if self.categories:
            return torch.randint(self.categories, (n, *shape), generator=generator)
        return torch.rand(n, *shape, generator=generator) * 2 - 1

    def limited(self, data: Tensor) -> Tensor:
        """Data (N, ...) cut to what they can be."""
        return data if self.categories else data.clamp(-1, 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Modality) and self.node() == other.node()

    def __hash__(self) -> int:
        return hash(repr(sorted(self.node().items(), key=str)))


@dataclass(frozen=True)
class ConditionSpec:
    """What one condition of a datum looks like.

    Attributes
    ----------
    shape : without N; () for a class label.
    categories : int64 in [0, categories); 0: float32.
    modality : how it is read, shown and written where it is a datum of its own (an image, a text); None: numbers alone.
    """

    shape: tuple[int, ...] = ()
    categories: int = 0
    modality: Modality | None = None

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Random values (n, *shape) that stand in for real ones."""
        if self.categories:
            return torch.randint(self.categories, (n, *self.shape), generator=generator)
        if self.modality is not None:
            return self.modality.draw(n, self.shape, generator)
        return torch.randn(n, *self.shape, generator=generator)


def label_of(num_classes: int) -> dict[str, ConditionSpec]:
    """The conditions of data with so many classes; none where there are none."""
    return {"label": ConditionSpec((), num_classes)} if num_classes else {}


@dataclass(frozen=True)
class DataSpec:
    """What one datum looks like, so that no network has to guess.

    Attributes
    ----------
    shape : without N; (C, H, W) for images.
    modality : what kind of thing it is.
    conditions : what each datum comes with, by the names under which networks read it.
    """

    shape: tuple[int, ...]
    modality: Modality
    conditions: Mapping[str, ConditionSpec] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """How many classes the data have; 0 without labels."""
        label = self.conditions.get("label")
        return label.categories if label is not None else 0

    def condition(self, name: str) -> ConditionSpec:
        """What one condition looks like. `data` is a datum itself, of which an autoencoder makes the like again."""
        if name == "data" and name not in self.conditions:
            return ConditionSpec(self.shape, self.modality.categories, self.modality)
        return self.conditions[name]

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        """Of images (C, H, W) and films (C, T, H, W).

        Raises
        ------
        BadValue : the data have none.
        """
        return self._side("height")

    @property
    def width(self) -> int:
        """Of images (C, H, W) and films (C, T, H, W).

        Raises
        ------
        BadValue : the data have none.
        """
        return self._side("width")

    def _side(self, axis: str) -> int:
        axes = self.modality.axes
        if axis not in axes or len(self.shape) != len(axes):
            raise BadValue(
                f"{self.modality.called()} data of {self.shape} ({', '.join(axes)}) have no {axis}",
                hint="give images, or choose a network for these data: ganvas list networks",
            )
        return self.shape[axes.index(axis)]

    def stand_in(self, n: int, generator: torch.Generator | None = None) -> Batch:
        """A batch of random data and conditions as this says they are."""
        condition = {name: spec.draw(n, generator) for name, spec in self.conditions.items()}
        return Batch(self.modality.draw(n, self.shape, generator), Condition(condition), torch.arange(n))


class Condition(Mapping[str, Tensor]):
    """What N data come with, by name: each value is (N, ...). Immutable."""

    def __init__(self, values: Mapping[str, Tensor] | None = None, **more: Tensor) -> None:
        self._values = {**(values or {}), **more}

    @classmethod
    def labelled(cls, label: Tensor | None) -> Condition:
        """Class labels (N,) alone, or nothing."""
        return cls() if label is None else cls(label=label)

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        """How many conditions there are, not how many data."""
        return len(self._values)

    # Tensors do not compare to one truth value, so neither do conditions.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Condition({', '.join(f'{name}: {tuple(value.shape)}' for name, value in self.items())})"

    @property
    def label(self) -> Tensor | None:
        """The class labels (N,) int64 among them."""
        return self._values.get("label")

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """The function's answers to every value."""
        return Condition({name: function(value) for name, value in self.items()})

    def rows(self, index: Tensor | slice) -> Condition:
        """Those of the data at `index`."""
        return self.map(lambda value: value[index])

    def of(self, net: Network) -> dict[str, Tensor]:
        """The keywords that this network reads."""
        return {name: self._values[name] for name in net.reads() if name in self._values}

    def slices(self) -> Callable[[int, int], Condition]:
        """A function that gives those of data `start` to `stop`."""
        return lambda start, stop: self.rows(slice(start, stop))

    def only(self, names: Iterable[str]) -> Condition:
        """Those of these names that there are."""
        return Condition({name: self._values[name] for name in names if name in self._values})

    def repeat_to(self, n: int) -> Condition:
        """Those of n data: these from the start as often as needed."""
        return self.map(lambda value: value.repeat(-(-n // len(value)), *[1] * (value.dim() - 1))[:n])

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Condition:
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))


NO_CONDITION = Condition()


@dataclass(frozen=True)
class Batch:
    """Data for one update.

    Attributes
    ----------
    data : (N, *spec.shape).
    condition : what they come with.
    index : (N,) int64, which data of the set they are; None where the set cannot say.
    """

    data: Tensor
    condition: Condition = NO_CONDITION
    index: Tensor | None = None

    @classmethod
    def labelled(cls, data: Tensor, label: Tensor | None, index: np.ndarray | None = None) -> Batch:
        """Data with class labels (N,), or with nothing."""
        return cls(data, Condition.labelled(label), None if index is None else torch.as_tensor(index))

    def __len__(self) -> int:
        return len(self.data)

    @property
    def label(self) -> Tensor | None:
        """The class labels (N,) among the conditions."""
        return self.condition.label

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The function's answers to every tensor in it."""
        index = None if self.index is None else function(self.index)
        return Batch(function(self.data), self.condition.map(function), index)

    def asked(self, names: Iterable[str]) -> Condition:
        """Those of these conditions that there are, for samples made of them; `data` are the data themselves."""
        return Condition(self.condition, data=self.data).only(names)

    def with_data(self, data: Tensor) -> Batch:
        """Other data (N, ...) in the place of these."""
        return replace(self, data=data)

    def with_condition(self, condition: Condition) -> Batch:
        """The same data with other conditions."""
        return replace(self, condition=condition)

    def split(self, pieces: int) -> list[Batch]:
        """At most so many parts of nearly equal size, none empty."""
        if pieces == 1:
            return [self]
        rows = torch.arange(len(self)).tensor_split(min(pieces, len(self)))
        return [self.map(lambda value, span=span: value[int(span[0]) : int(span[-1]) + 1]) for span in rows]  # type: ignore[misc]

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))


class Dataset(ABC):
    """Data ready to train on. Reading is by index, so that order is the engine's business alone.

    Attributes
    ----------
    spec : what a datum looks like.
    fingerprint : changes when any datum, condition or preparation changes.
    class_names : as many as spec.num_classes; empty without labels.
    flips : whether data are mirrored at random when they are read.
    census : what was found where they lie and what of it is used; None where they are made, not found.
    """

    spec: DataSpec
    fingerprint: str
    class_names: tuple[str, ...] = ()
    flips: bool = False
    census: Census | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """The data at `indices` (int64) in their order; `rng` decides random flips and crops."""

    def names(self, indices: np.ndarray) -> Sequence[str] | None:
        """The files that the data at `indices` come from, with `/` between folders; None where there are none."""
        return None

    def beside(self, name: str) -> bytes | None:
        """The content of a file that lies in the folder or archive of the data; None where there is no such file.

        Raises
        ------
        DataError : it is there and cannot be read.
        """
        return None

    def unflipped(self) -> Dataset:
        """The same data without random flips."""
        return self

    @classmethod
    def preview(cls, **keys: Any) -> DataSpec | None:
        """What these keys promise, without a look at any file; None where only the files can say.

        A key that is a data set comes as what that one promises, or None.
        """
        return None


class Stream(ABC):
    """Where one process stands in a data set that can only be read forward."""

    @abstractmethod
    def take(self, count: int, rng: np.random.Generator) -> Batch:
        """The next `count` data; `rng` decides random flips and crops."""


class StreamedDataset(ABC):
    """Data that cannot be read by index, as they come from far away or from one end to the other.

    The order belongs to the data set, which knows what lies together; it is a function of (seed, epoch, rank, world).
    """

    spec: DataSpec
    fingerprint: str
    class_names: tuple[str, ...] = ()
    census: Census | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def stream(self, *, seed: int, rank: int, world: int, position: int) -> Stream:
        """The share of process `rank` of `world`, from the `position`-th datum that this process reads; endless.

        The shares of an epoch hold every datum once. From any position the same data follow as without a break.
        """

    @classmethod
    def preview(cls, **keys: Any) -> DataSpec | None:
        """What these keys promise, without a look at any file; None where only the files can say."""
        return None

    @abstractmethod
    def walk(self, batch: int, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """The data in their own order, without random flips, `batch` at a time: batches first, first + step, …"""
