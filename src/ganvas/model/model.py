"""The trained model: frozen weights that sample, and that everything else measures, edits and exports."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganvas import parts
from ganvas.errors import DataError, MissingCapability, UsageError
from ganvas.recipe.check import check_node
from ganvas.recipe.trained import read_trained
from ganvas.runtime.devices import derive_seed, settle_kernels
from ganvas.types import Critic, DataSpec, Encoder, Generator, Latent, LatentSpec, Nets, Sampler, SpacedGenerator

BLOCK = 64  # latents and labels are drawn in blocks, so that image i is the same whatever n is


class Capability(ABC):
    """Something that a model may or may not be able to do. Subclasses say how to tell."""

    name = ""

    @classmethod
    @abstractmethod
    def present(cls, model: Model) -> bool:
        """Whether the model has it."""

    @classmethod
    def instead(cls, model: Model) -> str:
        """What the model has got, for the error."""
        return ", ".join(model.nets)


class HasLatents(Capability):
    """A generator with latent spaces to draw from."""

    name = "latent spaces"

    @classmethod
    def present(cls, model: Model) -> bool:
        return bool(model.latents)


class HasCritic(Capability):
    """A network that scores data."""

    name = "a critic"

    @classmethod
    def present(cls, model: Model) -> bool:
        return any(isinstance(net, Critic) for net in model.nets.values())


class HasEncoder(Capability):
    """A network that turns data into latents."""

    name = "an encoder"

    @classmethod
    def present(cls, model: Model) -> bool:
        return any(isinstance(net, Encoder) for net in model.nets.values())


class Model:
    """A trained system in eval mode, on one device.

    Attributes
    ----------
    recipe : the resolved recipe that it was made by.
    spec : shape (C, H, W) and number of classes of its data.
    nets : its networks by role.
    class_names : as in its data; empty without labels.
    step : the training step of its weights.
    """

    def __init__(
        self,
        recipe: Mapping[str, Any],
        spec: DataSpec,
        nets: Nets,
        *,
        class_names: Sequence[str] = (),
        step: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.recipe = recipe
        self.spec = spec
        self.device = torch.device(device)
        self.nets: Nets = {role: net.to(self.device).eval().requires_grad_(False) for role, net in nets.items()}
        self.class_names = tuple(class_names)
        self.step = step

    # ------------------------------------------------------------------ what it can

    @property
    def generator(self) -> Generator | None:
        """The network that is driven by latents; of several, as student and teacher are, the role `generator`."""
        roles = sorted(self.nets, key=lambda role: role != "generator")
        return next((net for net in (self.nets[role] for role in roles) if isinstance(net, Generator)), None)

    @property
    def critic(self) -> Critic:
        """The network that scores data.

        Raises
        ------
        MissingCapability : there is none.
        """
        self.require(HasCritic)
        return next(net for net in self.nets.values() if isinstance(net, Critic))

    @property
    def encoder(self) -> Encoder:
        """The network that turns data into latents.

        Raises
        ------
        MissingCapability : there is none.
        """
        self.require(HasEncoder)
        return next(net for net in self.nets.values() if isinstance(net, Encoder))

    @property
    def num_classes(self) -> int:
        """How many classes can be asked for: none where the generator does not look at labels."""
        return self.spec.num_classes if self.generator is not None and self.generator.conditional else 0

    @property
    def latents(self) -> Mapping[str, LatentSpec]:
        """Its latent spaces, the one that is drawn from first."""
        return self.generator.latents if self.generator is not None else {}

    def require(self, *capabilities: type[Capability]) -> None:
        """Raise MissingCapability unless the model has all of these."""
        for capability in capabilities:
            if not capability.present(self):
                raise MissingCapability(
                    f"this needs {capability.name}; the model has {capability.instead(self)}",
                    hint="ganvas list networks says what other networks bring",
                )

    # ------------------------------------------------------------------ sampling

    def draw(self, n: int, *, seed: int, space: str | None = None, label: Tensor | None = None) -> Latent:
        """n latents of a space: values (n, *shape). Point i depends on (seed, i) alone.

        They are drawn from the space's prior; in a space without one, such as w, they are where the generator takes
        points of its first space, with `label` (n,), or with the labels that `labels` gives for the seed.

        Raises
        ------
        MissingCapability : no latent space, or none of this name that can be reached.
        """
        self.require(HasLatents)
        first = next(iter(self.latents))
        space = space or first
        mapped = space in self.latents and self.latents[space].prior == "none"
        if space not in self.latents or (mapped and not isinstance(self.generator, SpacedGenerator)):
            raise MissingCapability(
                f"there is no latent space {space!r} to draw from; the model has {', '.join(self.latents)}"
            )
        if mapped:
            assert isinstance(self.generator, SpacedGenerator)
            own = self.labels(n, seed=seed) if label is None else label
            with torch.no_grad():
                return self.generator.to_space(self.draw(n, seed=seed, space=first), space, own)
        spec = self.latents[space]
        blocks = []
        for block in range(-(-n // BLOCK)):
            generator = torch.Generator().manual_seed(derive_seed(seed, block))
            if spec.prior == "uniform":
                blocks.append(torch.rand(BLOCK, *spec.shape, generator=generator) * 2 - 1)
            else:
                blocks.append(torch.randn(BLOCK, *spec.shape, generator=generator))
        values = torch.cat(blocks)[:n] if blocks else torch.empty(0, *spec.shape)
        return Latent(values.to(self.device), space)

    def statistics(self, space: str, *, n: int = 10_000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """(mean, standard deviation), (*shape) each, of n points of a space; see `draw`."""
        values = self.draw(n, seed=seed, space=space).values
        return values.mean(0), values.std(0)

    def labels(self, n: int, *, seed: int, label: int | Sequence[int] | Tensor | None = None) -> Tensor | None:
        """(n,) int64 class labels: the given one or ones, else uniform ones; None for a model without classes.

        A uniform label depends on (seed, its number) alone.

        Raises
        ------
        UsageError : a label where there are no classes, out of range, or as many labels as there are not samples.
        """
        classes = self.num_classes
        if label is None:
            if not classes:
                return None
            blocks = -(-n // BLOCK)
            drawn = [
                torch.randint(
                    classes, (BLOCK,), generator=torch.Generator().manual_seed(derive_seed(seed, block, "label"))
                )
                for block in range(blocks)
            ]
            return torch.cat(drawn)[:n].to(self.device) if drawn else torch.empty(0, dtype=torch.int64)
        if not classes:
            raise UsageError(f"label {label!r}: this model knows no classes", hint="leave the label out")
        try:
            wanted = torch.as_tensor(label).reshape(-1)
            if len(wanted) and (wanted.is_floating_point() or wanted.dtype == torch.bool):
                raise TypeError(wanted.dtype)
            wanted = wanted.long()
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"label {label!r} is no class number", hint=f"give 0 to {classes - 1}") from None
        if len(wanted) not in (1, n):
            raise UsageError(f"{len(wanted)} labels for {n} samples", hint="give one label, or one for each sample")
        outside = wanted[(wanted < 0) | (wanted >= classes)]
        if len(outside):
            raise UsageError(
                f"label {int(outside[0])} is outside 0 to {classes - 1}",
                hint="its classes are " + ", ".join(f"{i} {name}" for i, name in enumerate(self.class_names[:20])),
            )
        return wanted.expand(n).to(self.device)

    def synthesize(self, latent: Latent, label: Tensor | None = None) -> Tensor:
        """Data (N, C, H, W) in [-1, 1] for these latents; N is not cut into batches.

        Differentiable in latents that ask for a gradient; the weights are frozen, so nothing else builds a graph.
        """
        self.require(HasLatents)
        assert self.generator is not None
        if latent.space not in self.latents:
            raise MissingCapability(
                f"there is no latent space {latent.space!r}; the model has {', '.join(self.latents)}"
            )
        values = latent.values.to(self.device)
        if latent.space != next(iter(self.latents)):
            if not isinstance(self.generator, SpacedGenerator):
                raise MissingCapability(f"nothing can be made of points of {latent.space!r}")
            return self.generator.from_space(Latent(values, latent.space), label).float()
        return self.generator(values, label).float()

    def encode(self, data: Tensor) -> Latent:
        """The latents of data (N, C, H, W) in [-1, 1], such that `synthesize` makes the like of them again.

        They are points of the encoder's space; N is not cut into batches. Differentiable in data that ask for a
        gradient.

        Raises
        ------
        MissingCapability : the model has no encoder.
        DataError : the data are not of the model's shape.
        """
        encoder = self.encoder
        if tuple(data.shape[1:]) != self.spec.shape:
            raise DataError(
                f"data of {tuple(data.shape)} for a model of (N, {', '.join(map(str, self.spec.shape))})",
                hint="resize them first",
            )
        return Latent(encoder(data.to(self.device)).float(), encoder.space)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: int | Sequence[int] | Tensor | None = None,
        truncation: float | None = None,
        sampler: str | Mapping[str, Any] | None = None,
        batch: int = BLOCK,
    ) -> Tensor:
        """n data, (n, C, H, W) float32 in [-1, 1] on the CPU.

        Parameters
        ----------
        seed : the same seed gives the same images, also within a larger n; `batch` changes nothing beyond the last bits
            of float rounding.
        label : a class, or one a sample; None draws classes uniformly.
        truncation : short for the sampler `truncated` with this threshold.
        sampler : the name of a sampler, or its recipe node; None takes the recipe's.
        """
        if truncation is not None and sampler is not None:
            raise UsageError(
                "truncation and sampler are both given", hint="give the sampler its threshold: {use: truncated, …}"
            )
        if truncation is not None:
            sampler = {"use": "truncated", "threshold": truncation}
        done = list(self.stream(n, seed=seed, label=label, sampler=sampler, batch=batch))
        return torch.cat(done) if done else torch.empty(0, *self.spec.shape)

    def stream(
        self,
        n: int,
        *,
        seed: int = 0,
        label: int | Sequence[int] | Tensor | None = None,
        sampler: str | Mapping[str, Any] | None = None,
        batch: int = BLOCK,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Tensor]:
        """What `sample` gives, in pieces of `batch`, so that 50,000 images need not lie in memory at once.

        `share` (i, k) gives the pieces i, i + k, i + 2k, … alone, so that k processes can divide the work.
        """
        if n < 0 or batch < 1:
            raise UsageError(f"{n} samples in batches of {batch}", hint="n is at least 0, batch at least 1")
        draw = self.sampler(sampler)
        labels = self.labels(n, seed=seed, label=label)
        if draw.stochastic:  # whole blocks, each with a generator of its own
            batch, drawn = BLOCK, -(-n // BLOCK) * BLOCK
            labels = None if labels is None else torch.cat([labels, labels[-1:].expand(drawn - n)])
        else:
            drawn = n
        latent = self.draw(drawn, seed=seed)
        return self._pieces(n, drawn, batch, seed, draw, latent, labels, share)

    def _pieces(
        self, n: int, drawn: int, batch: int, seed: int, draw: Sampler, latent: Latent, labels: Tensor | None,
        share: tuple[int, int],
    ) -> Iterator[Tensor]:  # fmt: skip
        first, step = share
        for start in range(first * batch, drawn, step * batch):
            piece = slice(start, start + batch)
            generator = torch.Generator(self.device).manual_seed(derive_seed(seed, start, "sampler"))
            own = None if labels is None else labels[piece]
            with torch.no_grad():  # not inference mode: a sampler may turn gradients on for its own steps
                images = draw(self, Latent(latent.values[piece], latent.space), own, generator)
            if len(self.spec.shape) == 3:
                images = images.clamp(-1, 1)  # not every generator ends in a tanh
            yield images.detach().cpu()[: n - start]

    def sampler(self, wish: str | Mapping[str, Any] | None = None) -> Sampler:
        """The sampler part that is wished for, else the recipe's; keys are checked as in a recipe."""
        node = self.recipe["sampler"] if wish is None else check_node("sampler", wish)
        sampler: Sampler = parts.build("sampler", node)
        return sampler

    # ------------------------------------------------------------------ files

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> Model:
        """A model from a run folder or its `model.safetensors`; no data set is needed and no code in it can run.

        Raises
        ------
        CheckpointError : missing, corrupt, or not a model of ours.
        UnknownPart : made with parts that are not on the shelves (give their file with `--parts`).
        """
        settle_kernels()
        found = read_trained(Path(path))
        return cls(
            found.recipe, found.spec, found.nets,
            class_names=found.class_names, step=found.step, device=device,
        )  # fmt: skip


def model_header(recipe: Mapping[str, Any], spec: DataSpec, class_names: Sequence[str], step: int) -> dict[str, str]:
    """The metadata that makes a safetensors file a model that loads alone."""
    networks = {role: {**node, "from": None, "freeze": None} for role, node in recipe["networks"].items()}
    content = {
        "format": 1, "recipe": {**recipe, "networks": networks}, "class_names": list(class_names), "step": step,
        "spec": dataclasses.asdict(spec),
    }  # fmt: skip
    return {"ganvas": json.dumps(content)}


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """A trained model from a run folder or one `model.safetensors`; see `Model.load`."""
    return Model.load(path, device=device)
