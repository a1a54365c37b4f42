"""The trained model: frozen weights that sample, and that everything else measures, edits and exports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganvas import parts
from ganvas.errors import DataError, MissingCapability, UsageError
from ganvas.model import draws
from ganvas.model.capabilities import (
    Capability,
    HasCritic,
    HasEncoder,
    HasLatents,
    HasMaker,
    HasPredictor,
    HasTokenizer,
)
from ganvas.model.conditions import Label, Rows, Wish, class_numbers, condition_of, fitted
from ganvas.model.draws import BLOCK
from ganvas.recipe.check import check_node
from ganvas.recipe.trained import read_trained, spec_as_plain
from ganvas.runtime.devices import derive_seed, settle_kernels
from ganvas.types import (
    Condition,
    Critic,
    DataSpec,
    Encoder,
    Generator,
    Latent,
    LatentSpec,
    Maker,
    Nets,
    Sampler,
    SpacedGenerator,
    Tokenizer,
    read_by_maker,
)


class Model:
    """A trained system in eval mode, on one device.

    Attributes
    ----------
    recipe : the resolved recipe that it was made by.
    spec : what its data look like, and what they come with.
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

    def first(self, capability: type[Capability]) -> Any:
        """The network behind a capability; of several, as student and teacher are, the role `generator`.

        Raises
        ------
        MissingCapability : there is none.
        """
        self.require(capability)
        roles = sorted(self.nets, key=lambda role: role != "generator")
        return next(net for net in (self.nets[role] for role in roles) if isinstance(net, capability.kind))

    @property
    def maker(self) -> Maker:
        """The network that data come out of."""
        maker: Maker = self.first(HasMaker)
        return maker

    @property
    def generator(self) -> Generator | None:
        """The network that is driven by latents; None where it is another kind that makes data."""
        maker = self.first(HasMaker) if HasMaker.present(self) else None
        return maker if isinstance(maker, Generator) else None

    @property
    def critic(self) -> Critic:
        """The network that scores data."""
        critic: Critic = self.first(HasCritic)
        return critic

    @property
    def encoder(self) -> Encoder:
        """The network that turns data into latents."""
        encoder: Encoder = self.first(HasEncoder)
        return encoder

    @property
    def tokenizer(self) -> Tokenizer:
        """The network that turns data into tokens and back."""
        tokenizer: Tokenizer = self.first(HasTokenizer)
        return tokenizer

    def wanted(self, sampler: Sampler | str | Mapping[str, Any] | None = None) -> Mapping[str, bool]:
        """The conditions that samples can be made for, by name, and whether they must be given; see `Sampler.reads`.

        `sampler` is one in place of the recipe's.
        """
        if isinstance(sampler, Sampler):
            return sampler.reads(self)
        if sampler is None and "sampler" not in self.recipe:  # networks without a recipe to sample by
            return read_by_maker(self)
        return self.sampler(sampler).reads(self)

    @property
    def reads(self) -> tuple[str, ...]:
        """The conditions that can be asked for, by name: none where its maker does not look at any."""
        return tuple(self.wanted())

    @property
    def num_classes(self) -> int:
        """How many classes can be asked for: none where the maker does not look at labels."""
        return self.spec.num_classes if "label" in self.reads else 0

    @property
    def latents(self) -> Mapping[str, LatentSpec]:
        """Its latent spaces, the one that is drawn from first."""
        return self.maker.latents if HasMaker.present(self) else {}

    def require(self, *capabilities: type[Capability]) -> None:
        """Raise MissingCapability unless the model has all of these."""
        for capability in capabilities:
            if not capability.present(self):
                raise MissingCapability(
                    f"this needs {capability.name}; the model has {capability.instead(self)}",
                    hint="ganvas list networks",
                )

    # ------------------------------------------------------------------ sampling

    def draw(self, n: int, *, seed: int, space: str | None = None, label: Wish = None) -> Latent:
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
            labels = self.labels(n, seed=seed) if label is None else condition_of(label).label
            with torch.no_grad():
                return self.generator.to_space(self.draw(n, seed=seed, space=first), space, labels)
        return Latent(self.noise(self.latents[space], n, seed=seed), space)

    def noise(self, spec: LatentSpec, n: int, *, seed: int) -> Tensor:
        """n points (n, *shape) of a prior; point i depends on (seed, i) alone."""
        return draws.noise(spec, n, seed=seed).to(self.device)

    def statistics(self, space: str, *, n: int = 10_000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """(mean, standard deviation), (*shape) each, of n points of a space; see `draw`."""
        values = self.draw(n, seed=seed, space=space).values
        return values.mean(0), values.std(0)

    def labels(self, n: int, *, seed: int, label: Label | None = None) -> Tensor | None:
        """(n,) int64 class labels: the given one or ones, by number or name, else uniform ones.

        A uniform label depends on (seed, its number) alone. A model without classes has None.

        Raises
        ------
        UsageError : a label where there are no classes, out of range, or as many labels as there are not samples.
        """
        classes = self.num_classes
        if label is None:
            return draws.labels(n, classes, seed=seed).to(self.device) if classes else None
        return class_numbers(label, n, classes, self.class_names).to(self.device)

    def conditions(
        self,
        n: int,
        *,
        seed: int,
        label: Label | None = None,
        condition: Wish = None,
        sampler: Sampler | str | Mapping[str, Any] | None = None,
    ) -> Condition:
        """Everything that n samples are made for: (n, ...) each. Labels that are not given are drawn, see `labels`.

        `sampler` is one in place of the recipe's, which may read other conditions.

        Raises
        ------
        UsageError : a condition is missing that the model cannot do without, or one that it does not read is given, or
            it is not of its kind, or there are as many values as there are not samples.
        """
        if isinstance(condition, Tensor) and condition.dim() != 1:
            raise UsageError(
                f"a tensor {tuple(condition.shape)} by itself is not class labels (N,)",
                hint="say which condition it is: condition={name: tensor}",
            )
        given = condition_of(condition)
        if label is not None and "label" in given:
            raise UsageError("label and condition's label are both given", hint="leave one of them out")
        needs = self.wanted(sampler)
        values: dict[str, Tensor] = {}
        for name, value in given.items():
            if name == "label":
                continue
            if name not in needs:
                reads = f"; it reads {', '.join(needs)}" if needs else ""
                raise UsageError(f"this model does not read a condition {name!r}{reads}", hint="leave it out")
            values[name] = fitted(name, value, self.spec.condition(name), n).to(self.device)
        labels = self.labels(n, seed=seed, label=given.label if label is None else label)
        if labels is not None:
            values["label"] = labels
        for name, needed in needs.items():
            if needed and name not in values:
                raise UsageError(
                    f"this model makes data of a {name!r} {self.spec.condition(name).shape}, and none is given",
                    hint="ganvas sample RUN --given FOLDER; in Python: sample(n, condition={name: tensor})",
                )
        return Condition(values)

    def synthesize(self, latent: Latent, condition: Wish = None) -> Tensor:
        """Data (N, ...) for these latents; N is not cut into batches.

        Differentiable in latents that ask for a gradient; the weights are frozen, so nothing else builds a graph.
        """
        if latent.space not in self.latents:
            self.require(HasLatents)
            raise MissingCapability(
                f"there is no latent space {latent.space!r}; the model has {', '.join(self.latents)}"
            )
        values = Latent(latent.values.to(self.device), latent.space)
        asked = condition_of(condition)
        if latent.space != next(iter(self.latents)):
            if not isinstance(self.generator, SpacedGenerator):
                raise MissingCapability(f"nothing can be made of points of {latent.space!r}")
            return self.generator.from_space(values, asked.label).float()
        return self.maker.make(values, asked).float()

    def score(self, data: Tensor, condition: Wish = None) -> Tensor:
        """The critic's logits (N,) of data (N, ...).

        Raises
        ------
        MissingCapability : the model has no critic.
        """
        logits: Tensor = self.critic(data.to(self.device), **condition_of(condition).of(self.critic)).logits
        return logits

    def encode(self, data: Tensor) -> Latent:
        """The latents, or the tokens, of data (N, ...), of which `synthesize` or `decode` makes the like again.

        They are points of the encoder's space, or of the space "tokens"; N is not cut into batches. Differentiable in
        data that ask for a gradient, unless they become tokens.

        Raises
        ------
        MissingCapability : the model has neither an encoder nor a tokenizer.
        DataError : the data are not of the model's shape.
        """
        if tuple(data.shape[1:]) != self.spec.shape:
            raise DataError(
                f"data of {tuple(data.shape)} for a model of (N, {', '.join(map(str, self.spec.shape))})",
                hint="resize them first",
            )
        if not HasEncoder.present(self) and HasTokenizer.present(self):
            return Latent(self.tokenizer.encode(data.to(self.device)), "tokens")
        return Latent(self.encoder(data.to(self.device)).float(), self.encoder.space)

    def decode(self, tokens: Latent | Tensor) -> Tensor:
        """The data (N, ...) of tokens (N, *token_shape).

        Raises
        ------
        MissingCapability : the model has no tokenizer.
        """
        values = tokens.values if isinstance(tokens, Latent) else tokens
        return self.tokenizer.decode(values.to(self.device)).float()

    def predict(self, data: Tensor) -> Tensor:
        """What its predictor says of data (N, ...).

        Raises
        ------
        MissingCapability : the model has none.
        """
        said: Tensor = self.first(HasPredictor)(data.to(self.device))
        return said

    def transform(
        self, given: Tensor | Condition | Mapping[str, Tensor], *, seed: int = 0, batch: int = BLOCK
    ) -> Tensor:
        """One datum (N, ...) for each of N conditions, on the CPU; a tensor is the one condition that the model needs.

        Raises
        ------
        UsageError : the model makes its data of no condition, or of several and only one is given.
        """
        if isinstance(given, Tensor):
            needs = self.wanted()
            names = [name for name, must in needs.items() if must] or [name for name in needs if name != "label"]
            if len(names) != 1:
                reads = ", ".join(self.reads) or "nothing"
                raise UsageError(
                    f"this model reads {reads}, not one thing to transform", hint="give a condition by name"
                )
            given = Condition({names[0]: given})
        asked = condition_of(given)
        n = len(next(iter(asked.values()))) if len(asked) else 0
        return self.sample(n, seed=seed, condition=asked, batch=batch)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: Label | None = None,
        condition: Wish = None,
        truncation: float | None = None,
        sampler: str | Mapping[str, Any] | None = None,
        batch: int = BLOCK,
    ) -> Tensor:
        """n data, (n, *spec.shape) on the CPU; images are float32 in [-1, 1].

        Parameters
        ----------
        seed : the same seed gives the same data, also within a larger n; `batch` changes nothing beyond the last bits
            of float rounding.
        label : a class by number or name, or one a sample; None draws classes uniformly.
        condition : what the samples are made for, by name: (n, ...) or (1, ...) each.
        truncation : short for the sampler `truncated` with this threshold.
        sampler : the name of a sampler, or its recipe node; None takes the recipe's.
        """
        if truncation is not None and sampler is not None:
            raise UsageError(
                "truncation and sampler are both given", hint="give the sampler its threshold: {use: truncated, …}"
            )
        if truncation is not None:
            sampler = {"use": "truncated", "threshold": truncation}
        done = list(self.stream(n, seed=seed, label=label, condition=condition, sampler=sampler, batch=batch))
        return torch.cat(done) if done else torch.empty(0, *self.spec.shape)

    def stream(
        self,
        n: int,
        *,
        seed: int = 0,
        label: Label | None = None,
        condition: Wish | Rows = None,
        sampler: str | Mapping[str, Any] | None = None,
        batch: int = BLOCK,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Tensor]:
        """What `sample` gives, in pieces of `batch`, so that 50,000 data need not lie in memory at once.

        `condition` may be a function that gives the conditions of samples from one number to another. `share` (i, k)
        gives the pieces i, i + k, i + 2k, … alone, so that k processes can divide the work.
        """
        if n < 0 or batch < 1:
            raise UsageError(f"{n} samples in batches of {batch}", hint="n is at least 0, batch at least 1")
        draw = self.sampler(sampler)
        if callable(condition):
            rows = condition
        else:
            rows = self.conditions(n, seed=seed, label=label, condition=condition, sampler=draw).slices()

        begin = draw.start(self)
        return self._pieces(n, BLOCK if draw.stochastic else batch, seed, draw, begin, rows, share)

    def _pieces(
        self, n: int, batch: int, seed: int, draw: Sampler, begin: LatentSpec | None, rows: Rows, share: tuple[int, int]
    ) -> Iterator[Tensor]:
        drawn = -(-n // BLOCK) * BLOCK if draw.stochastic else n  # whole blocks, each with a generator of its own
        space = next((name for name, spec in self.latents.items() if spec is begin), "noise")
        values = torch.empty(drawn, 0, device=self.device) if begin is None else self.noise(begin, drawn, seed=seed)
        first, step = share
        for at in range(first * batch, drawn, step * batch):
            stop = min(at + batch, drawn)
            condition = rows(at, min(stop, n)).to(self.device)
            condition = condition.map(
                lambda value, many=stop - at: torch.cat([value, value[-1:].expand(many - len(value), *value.shape[1:])])  # type: ignore[misc]
            )
            generator = torch.Generator(self.device).manual_seed(derive_seed(seed, at, "sampler"))
            with torch.no_grad():  # not inference mode: a sampler may turn gradients on for its own steps
                data = draw(self, Latent(values[at:stop], space), condition, generator)
            data = data.detach().cpu()
            if not bool(data.isfinite().all()):  # before anything cuts or rounds them to what a file can hold
                raise DataError(
                    f"samples from number {at} on hold NaN or infinite values", where=f"sampler {type(draw).__name__}",
                    hint="the model has diverged, or the sampler leads it too far: take an earlier checkpoint, "
                    "or another --sampler",
                )  # fmt: skip
            yield self.spec.modality.limited(data)[: n - at]

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
        trained = read_trained(Path(path))
        return cls(
            trained.recipe, trained.spec, trained.nets,
            class_names=trained.class_names, step=trained.step, device=device,
        )  # fmt: skip


def model_header(recipe: Mapping[str, Any], spec: DataSpec, class_names: Sequence[str], step: int) -> dict[str, str]:
    """The metadata that makes a safetensors file a model that loads alone."""
    networks = {role: {**node, "from": None, "freeze": None} for role, node in recipe["networks"].items()}
    content = {
        "format": 2, "recipe": {**recipe, "networks": networks}, "class_names": list(class_names), "step": step,
        "spec": spec_as_plain(spec),
    }  # fmt: skip
    return {"ganvas": json.dumps(content)}


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """A trained model from a run folder or one `model.safetensors`; see `Model.load`."""
    return Model.load(path, device=device)
