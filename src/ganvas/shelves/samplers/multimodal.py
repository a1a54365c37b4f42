"""Truncation towards one of many centres (Mokady et al. 2022, "Self-Distilled StyleGAN")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ganvas.errors import BadValue, UsageError
from ganvas.parts import Slot, sampler
from ganvas.types import Condition, Extractor, Latent, Sampler, SpacedGenerator, Synthesizer

_MAPPED = "w"
_BATCH = 64  # images at once


@dataclass(frozen=True)
class Modes:
    """K kinds of images that a generator makes: where they lie in a latent space, and how their images look.

    `centres` (K, *shape), the mean latent of each kind; `looks` (K, D), the mean features of its images.
    """

    centres: Tensor
    looks: Tensor

    def nearest(self, features: Tensor) -> Tensor:
        """The centres (N, *shape) of the kinds that images with features (N, D) belong to."""
        return self.centres[torch.cdist(features, self.looks).argmin(1)]


@sampler("multimodal-truncated", paper="Mokady et al. 2022 (Self-Distilled StyleGAN)", system="self-distilled-stylegan")
class MultimodalTruncated(Sampler):
    """Truncation towards the centre of the image's own kind, w′ = c_k + ψ (w − c_k), so that small ψ keeps variety.

    Kinds are clusters of generated images by k-means on their features; c_k is the mean latent of a cluster, and an
    image is of the kind whose mean features are nearest. They are found anew for each sampling, from `samples` images,
    whose features are held in memory together; published are some 64 clusters of tens of thousands and LPIPS.

    Parameters
    ----------
    psi : 1 leaves w as it is, 0 gives the centre; above 1 it is exaggerated.
    clusters : how many kinds; 1 is truncation towards the mean.
    samples : images that are clustered.
    space : the latent space in which it is done. None: w where the generator has it, else the one that is drawn.
    extractor : whose features tell kinds apart; `lpips` as published.
    seed : chooses the images and the start of k-means.

    Raises
    ------
    BadValue : fewer samples than clusters.
    UsageError : the generator cannot be driven from that space.
    """

    stochastic = False

    def __init__(
        self,
        *,
        psi: Annotated[float, Ge(0)] = 0.7,
        clusters: Annotated[int, Gt(0)] = 16,
        samples: Annotated[int, Gt(0)] = 1024,
        space: str | None = None,
        extractor: Annotated[Extractor, Slot("extractor")] = "random-net",  # type: ignore[assignment]
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        if samples < clusters:
            raise BadValue(
                f"{samples} samples make no {clusters} clusters", key="samples", hint=f"samples={32 * clusters}"
            )
        self.psi = psi
        self.clusters = clusters
        self.samples = samples
        self.space = space
        self.extractor = extractor
        self.seed = seed
        self.modes: Modes | None = None  # found once, for all that is sampled together

    def __call__(self, model: Synthesizer, start: Latent, condition: Condition, rng: torch.Generator) -> Tensor:
        mapped = self.mapped(model, start, condition)
        images = model.synthesize(mapped, condition)
        if self.psi == 1:
            return images
        if self.modes is None:
            self.modes = self.find(model, start)
        centres = self.modes.nearest(self.extractor(images.clamp(-1, 1))[0])
        return model.synthesize(Latent(centres + self.psi * (mapped.values - centres), mapped.space), condition)

    def mapped(self, model: Synthesizer, latent: Latent, condition: Condition) -> Latent:
        """The same points in the space where they are truncated."""
        network = model.generator
        assert network is not None
        space = self.space or (_MAPPED if _MAPPED in network.latents else latent.space)
        if space == latent.space:
            return latent
        if not isinstance(network, SpacedGenerator) or space not in network.latents:
            raise UsageError(
                f"this generator cannot be driven from {space!r}", hint="leave space out of multimodal-truncated"
            )
        return network.to_space(latent, space, condition.label)

    def find(self, model: Synthesizer, like: Latent) -> Modes:
        """Kinds among images of `samples` latents from the space and on the device of `like`, classes uniform."""
        network = model.generator
        assert network is not None
        device = like.values.device
        random = torch.Generator(device).manual_seed(self.seed)
        uniform = network.latents[like.space].prior == "uniform"
        points, features = [], []
        for start in range(0, self.samples, _BATCH):
            n = min(_BATCH, self.samples - start)
            if uniform:
                z = torch.rand(n, *like.values.shape[1:], generator=random, device=device) * 2 - 1
            else:
                z = torch.randn(n, *like.values.shape[1:], generator=random, device=device)
            classes = model.num_classes
            label = torch.randint(classes, (n,), generator=random, device=device) if classes else None
            condition = Condition.labelled(label)
            point = self.mapped(model, Latent(z, like.space), condition)
            points.append(point.values)
            features.append(self.extractor(model.synthesize(point, condition).clamp(-1, 1))[0])
        return modes_of(torch.cat(points), torch.cat(features), self.clusters, seed=self.seed)


def modes_of(points: Tensor, features: Tensor, clusters: int, *, seed: int = 0) -> Modes:
    """Kinds of images with latents (N, *shape) and features (N, D), by k-means on the features."""
    from sklearn.cluster import KMeans

    fitted = KMeans(clusters, n_init=1, random_state=seed).fit(features.cpu().numpy())
    kind = torch.from_numpy(fitted.labels_).long().to(points.device)  # (N,)
    count = torch.bincount(kind, minlength=clusters)
    filled = count > 0  # fewer different images than clusters leave some of them empty

    def means(values: Tensor) -> Tensor:
        flat = values.double().flatten(1)
        sums = torch.zeros(clusters, flat.shape[1], dtype=flat.dtype, device=flat.device).index_add_(0, kind, flat)
        return (sums[filled] / count[filled, None]).to(values.dtype).view(-1, *values.shape[1:])

    return Modes(means(points), means(features))
