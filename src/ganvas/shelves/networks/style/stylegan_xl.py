"""The generator of StyleGAN-XL (Sauer et al. 2022, "Scaling StyleGAN to Large Diverse Datasets"), grown by stages.

It computes what the authors' `networks_stylegan3_resetting` does on the same weights: StyleGAN3's layers, a small z, a
class embedding and means of w for every class. A stage cuts the critically sampled layers off what was trained before
and adds new ones for a larger image; everything older is frozen. Written from the paper and from what the released
networks compute.

The critics are those of Projected GAN (`projected-gan-discriminator`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from ganvas.errors import BadValue, CheckpointError
from ganvas.files.files import model_file, read_weights
from ganvas.nn.equalized import EqualizedLinear
from ganvas.nn.mapping import pixel_norm
from ganvas.nn.projection import freeze
from ganvas.nn.statistics import Follower
from ganvas.parts import image_spec, network
from ganvas.shelves.networks.style.stylegan3 import (
    USUAL_BANDS,
    AliasFreeGenerator,
    Band,
    BandOptions,
    Count,
    Decay,
    Positive,
    Step,
    Synthesis,
    SynthesisOptions,
    check_layout,
    grow,
    steps_of,
)
from ganvas.types import DataSpec

Factor = Literal[2, 4, 8, 16]

ROLE = "generator"  # of the network in the model that `stem` names


@dataclass(frozen=True)
class EmbeddedMappingOptions:
    """The keys of a recipe that belong to the mapping network; see `ClassMapping`."""

    layers: Count = 2
    embed_dim: Count = 320
    lr_multiplier: Positive = 0.01


USUAL_MAPPING = EmbeddedMappingOptions()


# Sauer et al. 2022, section 3.1 (z), 3.3 (embedding), and 4.1 (truncation)
class ClassMapping(Follower):
    """From z and a projected class embedding of its length to w, with a running mean of w for every class.

    Parameters
    ----------
    classes : K; 0: no label is looked at, and there is one mean.
    beta : decay of the means, a datum.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, *, classes: int, options: EmbeddedMappingOptions, beta: float) -> None:
        super().__init__()
        self.classes, self.beta = classes, beta
        self.embed = nn.Embedding(classes, options.embed_dim) if classes else None
        self.embed_proj = EqualizedLinear(options.embed_dim, z_dim, activate=True) if classes else None
        widths = [z_dim * (2 if classes else 1), *[w_dim] * options.layers]
        self.layers: Sequence[EqualizedLinear] = nn.ModuleList(  # type: ignore[assignment]
            EqualizedLinear(a, b, lr_multiplier=options.lr_multiplier, activate=True) for a, b in pairwise(widths)
        )
        self.register_buffer("w_avg", torch.zeros(*((classes,) if classes else ()), w_dim))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """z (N, z_dim) and weights of the classes (N, K) -> w (N, w_dim), in the precision of the weights."""
        weight = self.layers[0].weight
        with torch.autocast(weight.device.type, enabled=False):
            x = pixel_norm(z.to(weight.dtype))
            if self.embed is not None and self.embed_proj is not None:
                assert condition is not None
                embedded = condition.to(weight.dtype) @ self.embed.weight  # (N, D)
                x = torch.cat([x, pixel_norm(self.embed_proj(embedded))], 1)  # (N, 2 z_dim)
            for layer in self.layers:
                x = layer(x)
        return x

    @torch.no_grad()
    def track(self, w: Tensor, condition: Tensor | None) -> None:
        """Move the means of the classes that a batch w (N, w_dim) holds, datum by datum; without classes the one."""
        if not self.following:
            return
        w = w.detach().to(self.w_avg.dtype)
        if condition is None:
            self.w_avg.copy_(w.mean(0).lerp(self.w_avg, self.beta))
            return
        label = condition.argmax(1)
        same = (label[:, None] == label).to(w.dtype)  # (N, N)
        later = same.triu(1).sum(1)  # how often the class comes again: each datum after it fades it by beta
        once = torch.zeros_like(self.w_avg).index_add_(0, label, (1 - self.beta) * self.beta ** later[:, None] * w)
        times = torch.bincount(label, minlength=self.classes)[:, None]
        self.w_avg.mul_(self.beta**times).add_(once)

    def truncate(self, w: Tensor, psi: float, cutoff: int | None, condition: Tensor | None) -> Tensor:
        """Points nearer to the mean of their class: (N, w_dim) or (N, L, w_dim) -> the same shape.

        Parameters
        ----------
        psi : 1 leaves w as it is, 0 gives the mean.
        cutoff : with (N, L, w_dim), only the first so many of the L layers; None: all.
        """
        mean = self.w_avg if condition is None else condition.to(self.w_avg) @ self.w_avg  # (w_dim,) or (N, w_dim)
        if w.dim() == 3 and mean.dim() == 2:
            mean = mean[:, None]
        near = mean.expand_as(w).lerp(w, psi)
        if cutoff is None or w.dim() == 2:
            return near
        return torch.cat([near[:, :cutoff], w[:, cutoff:]], 1)


def staged_steps(
    spec: DataSpec, layers: int, stages: Sequence[tuple[int, int]], options: SynthesisOptions
) -> tuple[list[Step], int]:
    """All layers of a network that was grown to images of `spec`, and how many of them are older than the last stage.

    Parameters
    ----------
    layers : of the stem.
    stages : factor and layers of each.

    Raises
    ------
    BadValue : sides that the stages' factors do not divide, too small a first image, too few layers.
    """
    enlargement = prod(factor for factor, _ in stages)
    if spec.height % enlargement or spec.width % enlargement:
        raise BadValue(
            f"images of {spec.height}x{spec.width} cannot come from ones {enlargement} times smaller", key="stages",
            hint=f"data.size={16 * enlargement}",
        )  # fmt: skip
    bands = options.bands
    now = image_spec((spec.channels, spec.height // enlargement, spec.width // enlargement))
    check_layout(now, layers, bands)
    steps = steps_of(grow((bands.first_cutoff, bands.first_stopband), now, options, layers), bands.critical)
    older = 0
    for factor, more in stages:
        steps = [step for step in steps if not step.critical]  # the layer to image channels is one of them
        older = len(steps)
        last: Band = steps[-1].after
        now = image_spec((spec.channels, now.height * factor, now.width * factor))
        check_layout(now, more, bands)
        grown = grow((last.cutoff, last.cutoff + last.half_width), now, options, more, last)
        steps += steps_of(grown, bands.critical)
    return steps, older


@network(
    "stylegan-xl-generator",
    system="stylegan-xl",
    paper="Sauer et al. 2022 (StyleGAN-XL), section 3",
    tiny={
        "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "layers": 4, "margin": 2,
        "mapping": {"layers": 2, "embed_dim": 6}, "stages": (), "stem": None,
    },
)  # fmt: skip
class StyleGANXLGenerator(AliasFreeGenerator):
    """StyleGAN3-T with a small z and class embeddings, enlarged by stages of which only the last one learns.

    The first image has 16 or more pixels on each side, and the stages multiply them. A run without stages trains the
    stem; one with a stage more, and `stem:` the run before it, trains that stage: mapping network, input and older
    layers are taken over without the critically sampled ones, and never change again.

    Spaces: z (z_dim,), drawn; w (w_dim,); w+ (L, w_dim). `truncate` moves w towards the mean of its class.

    Parameters
    ----------
    spec : what to make, after all stages.
    z_dim, w_dim : length of z, drawn from N(0, 1), and of w.
    channel_base, channel_max : a layer of cutoff f has channel_base / 2f channels, at most channel_max.
    layers : of the stem, without its input and the layer to image channels; published: 10 for 16 pixels.
    stages : the factor by which each stage enlarges both sides, the last stage being trained.
    stage_layers : of each stage, without the layer to image channels; one number for all, or one for each.
    stem : run folder or `model.safetensors` that the older layers come from. It is read once and saved with the model;
        without it they are random.
    kernel : side of the convolutions' kernels.
    radial : filter without a preferred direction where the band allows.
    margin : pixels that maps extend beyond the image on each side.
    conditioning : "embedding" lets the mapping network see the class; None ignores labels.
    mapping : layers and learning rate of the mapping network, and the length of the class embedding.
    average_decay : of the means of w, a datum of the class.
    magnitude_decay : of the layers' mean squares, a training pass; 1 leaves them at 1, as the authors do.
    output_scale : of the image.
    clamp : outputs of layers are limited to [−clamp, clamp], which half precision needs; published: 256.
    bands : how cutoff frequencies grow, and the filters' lengths.

    Raises
    ------
    BadValue : images that are too small or cannot come from the stages, labels asked for and not there.
    CheckpointError : the stem cannot be read or does not fit.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: Count = 64,
        w_dim: Count = 512,
        channel_base: Count = 65536,
        channel_max: Count = 1024,
        layers: Count = 10,
        stages: tuple[Factor, ...] = (),
        stage_layers: Count | tuple[Count, ...] = 7,
        stem: Path | None = None,
        kernel: Count = 3,
        radial: bool = False,
        margin: Annotated[int, Ge(0)] = 10,
        conditioning: Literal["embedding"] | None = None,
        mapping: EmbeddedMappingOptions = USUAL_MAPPING,
        average_decay: Decay = 0.998,
        magnitude_decay: Annotated[float, Ge(0), Le(1)] = 1.0,
        output_scale: Positive = 0.25,
        clamp: Annotated[float, Gt(0)] | None = None,
        bands: BandOptions = USUAL_BANDS,
    ) -> None:
        options = SynthesisOptions(
            channel_base, channel_max, kernel, radial, margin, output_scale, clamp, magnitude_decay, bands
        )
        added = (stage_layers,) * len(stages) if isinstance(stage_layers, int) else stage_layers
        if len(added) != len(stages):
            raise BadValue(
                f"there are {len(stages)} stages, and layers for {len(added)}",
                key="stage_layers",
                hint="stage_layers=7",
            )
        steps, older = staged_steps(spec, layers, list(zip(stages, added, strict=True)), options)
        super().__init__(spec, z_dim, w_dim, conditioning, Synthesis(w_dim, steps, options))
        self.mapping = ClassMapping(z_dim, w_dim, classes=self.classes, options=mapping, beta=average_decay)
        self.older = older
        self.stem = stem
        self.filled = stem is None
        if stem is not None and not stages:
            raise BadValue("a stem is taken over by a stage, and there are none", key="stem", hint="stages=[2]")
        if stages:
            for part in (self.mapping, self.synthesis.input, *self.synthesis.layers[:older]):
                freeze(part)
            for layer in self.synthesis.layers[:older]:
                layer.magnitude_decay = 1.0
        if stem is not None and stem.exists():  # gone is all right for a saved model, which brings the tensors along
            self.take_over(stem)

    def take_over(self, stem: Path) -> None:
        """Set everything that is frozen from the generator of another model.

        Raises
        ------
        CheckpointError : it cannot be read, or has other names or shapes.
        """
        tensors = read_weights(model_file(stem))
        frozen = {name: tensor for name, tensor in self.state_dict().items() if self.is_frozen(name)}
        taken = {name: tensors[f"{ROLE}.{name}"] for name in frozen if f"{ROLE}.{name}" in tensors}
        differing = sorted(name for name in frozen if name not in taken or taken[name].shape != frozen[name].shape)
        if differing:
            raise CheckpointError(
                f"its {ROLE} is no stem of this one: {', '.join(differing[:3])} are missing or of another shape",
                where=str(stem), hint="give this network the keys that the stem was trained with",
            )  # fmt: skip
        self.load_state_dict({**self.state_dict(), **taken})

    def is_frozen(self, name: str) -> bool:
        """Whether a tensor of this name belongs to what was trained before the last stage."""
        if not self.older:
            return False
        starts = ("mapping.", "synthesis.input.", *(f"synthesis.layers.{i}." for i in range(self.older)))
        return name.startswith(starts)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.filled = True

    def map(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """z (N, z_dim) -> w (N, w_dim).

        Raises
        ------
        BadValue : the stem is neither there nor saved with the model.
        """
        if not self.filled:
            raise BadValue(f"there is no model at {self.stem}", key="stem", hint="give the run of the stage before")
        return super().map(z, label)

    def track(self, w: Tensor, label: Tensor | None) -> None:
        if not self.older:
            self.mapping.track(w, self.condition(label))

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None, label: Tensor | None = None) -> Tensor:
        return self.mapping.truncate(w, psi, cutoff, self.condition(label))
