"""Overfitting seen by inversion: does a generator rebuild what it was trained on better than what it never saw?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from ganvas.errors import DataError, UsageError
from ganvas.parts import metric
from ganvas.shelves.metrics.arrays import Double
from ganvas.shelves.metrics.images import images_of, stack
from ganvas.types import Condition, Evidence, EvidenceSet, Latent, Metric, Subject

BATCH = 64  # images that are recovered at once
MEMORY = 10  # steps whose curvature is remembered
HALVINGS = 12  # of a step that does not lower the error enough
ARMIJO = 1e-4  # share of the promised decrease that a step must keep


@metric("latent-recovery", system="latent-recovery", paper="Webster et al. 2019")
class LatentRecovery(Metric):
    """Webster's test for overfitting: the generator is inverted on training and on held-out images.

    For each image y a latent z with least mean squared error |G(z) - y|^2 is searched by L-BFGS from a random start.
    `recovery_gap` = |m_held - m_train| / m_held with the medians m of both sets' errors (images in [-1, 1]), from 0;
    `recovery_p`, in [0, 1], is the p-value of the two-sample Kolmogorov-Smirnov test: below 0.05 with
    `recovery_training` < `recovery_held_out` the generator knows its training data. It looks at the model alone, not at
    samples; GANs trained on enough data have no gap, models with a reconstruction loss on few images have a clear one.

    The reference must be data that the model was not trained on.

    Parameters
    ----------
    count : images a set; as many of both.
    iterations : steps of L-BFGS an image.
    restarts : random starts an image, of which the best counts.
    """

    needs = frozenset({"training:images", "real:images", "model"})
    modalities = ("image",)
    lower_is_better: Mapping[str, bool] = {
        "recovery_gap": True,
        "recovery_p": False,
        "recovery_training": True,
        "recovery_held_out": True,
    }
    limits: Mapping[str, tuple[float, float]] = {
        "recovery_gap": (0, math.inf),
        "recovery_p": (0, 1),
        "recovery_training": (0, math.inf),
        "recovery_held_out": (0, math.inf),
    }

    def __init__(
        self,
        *,
        count: Annotated[int, Gt(1)] = 128,
        iterations: Annotated[int, Gt(0)] = 50,
        restarts: Annotated[int, Gt(0)] = 1,
    ) -> None:
        self.count = count
        self.iterations = iterations
        self.restarts = restarts

    def __call__(self, evidence: Evidence) -> dict[str, float]:
        model = evidence.model
        if model is None:
            raise UsageError("the evidence holds no model, and latents are recovered from one")
        sides = [(evidence.training, "training"), (evidence.real, "real")]
        count = min(self.count, *(len(images_of(side, name)) for side, name in sides))
        errors = [self._errors(model, side, name, count) for side, name in sides]
        statistics = recovery_statistics(*errors)
        return {
            "recovery_gap": statistics.gap,
            "recovery_p": statistics.p_value,
            "recovery_training": statistics.median_training,
            "recovery_held_out": statistics.median_held_out,
        }

    def _errors(self, model: Subject, side: EvidenceSet | None, name: str, count: int) -> Double:
        images = stack(images_of(side, name)[:count], name).float() / 127.5 - 1
        label = side.label if side is not None else None
        if not model.num_classes:
            label = None
        elif label is None:
            label = model.labels(count, seed=0)
        recovered = recover(
            model, images, None if label is None else label[:count], iterations=self.iterations, restarts=self.restarts
        )
        return recovered.error.double().cpu().numpy()


@dataclass(frozen=True)
class Recovery:
    """Latents (N, *shape) of the least error that was found, and that error (N,): mean squares over an image."""

    latent: Tensor
    error: Tensor


@dataclass(frozen=True)
class RecoveryStatistics:
    """What two sets of recovery errors say.

    Medians are the lower of the two middle values, as in the authors' code.
    `gap` = |median_held_out - median_training| / median_held_out; `p_value` of the two-sample Kolmogorov-Smirnov test;
    `attack_accuracy`: share of training images among as many smallest errors, 0.5 by chance.
    """

    median_training: float
    median_held_out: float
    gap: float
    p_value: float
    attack_accuracy: float


def recovery_statistics(training: npt.ArrayLike, held_out: npt.ArrayLike) -> RecoveryStatistics:
    """The statistics of recovery errors (N,) of training and (M,) of held-out images.

    Raises
    ------
    UsageError : an empty set.
    DataError : negative errors, NaN or infinity.
    """
    from scipy.stats import ks_2samp

    e_training, e_held_out = (np.asarray(side, dtype=np.float64).ravel() for side in (training, held_out))
    if not (e_training.size and e_held_out.size):
        raise UsageError(f"{e_training.size} training and {e_held_out.size} held-out errors", hint="give some of both")
    together = np.concatenate([e_training, e_held_out])
    if not (np.isfinite(together).all() and (together >= 0).all()):
        raise DataError("recovery errors are negative or not finite", hint="the generator's images may not be finite")
    m_training, m_held_out = (float(np.sort(errors)[(len(errors) - 1) // 2]) for errors in (e_training, e_held_out))
    gap = abs(m_held_out - m_training) / m_held_out if m_held_out else float(m_training > 0)
    smallest = np.argsort(together, kind="stable")[: len(e_training)]
    return RecoveryStatistics(
        m_training,
        m_held_out,
        gap,
        float(ks_2samp(e_training, e_held_out).pvalue),
        float((smallest < len(e_training)).mean()),
    )


def recover(
    model: Subject,
    images: Tensor,
    label: Tensor | None = None,
    *,
    iterations: int = 50,
    restarts: int = 1,
    seed: int = 0,
    phi: Callable[[Tensor], Tensor] | None = None,
) -> Recovery:
    """z* = argmin_z mean |phi(G(z)) - phi(y)|^2 for each of images (N, C, H, W) in [-1, 1].

    The images do not influence each other. Where the model's images have another size, they are averaged to that of
    `images`.

    Parameters
    ----------
    label : classes (N,) for a conditional model.
    restarts : random starts from the prior an image, of which the best counts.
    phi : what is compared of an image, differentiable and image by image: a mask for inpainting, downsampling for
        super-resolution; None: the image itself.
    """
    latents, errors = [], []
    for start in range(0, len(images), BATCH):
        piece = slice(start, start + BATCH)
        best: Recovery | None = None
        for restart in range(restarts):
            begin = model.draw(len(images), seed=seed + restart)
            error_of = _errors_of(model, begin.space, images[piece], None if label is None else label[piece], phi)
            recovery = minimise(error_of, begin.values[piece], iterations)
            best = recovery if best is None else _better(best, recovery)
        assert best is not None
        latents.append(best.latent)
        errors.append(best.error)
    return Recovery(torch.cat(latents), torch.cat(errors))


def _errors_of(
    model: Subject, space: str, images: Tensor, label: Tensor | None, phi: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Tensor]:
    look = phi or (lambda features: features)

    def error_of(z: Tensor) -> Tensor:
        rendered = model.synthesize(Latent(z, space), Condition.labelled(label))  # (N, C, h, w)
        if rendered.shape[2:] != images.shape[2:]:
            rendered = F.adaptive_avg_pool2d(rendered, (images.shape[2], images.shape[3]))
        return (look(rendered) - look(images.to(rendered.device))).square().flatten(1).mean(1)

    return error_of


def minimise(error_of: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Recovery:
    """L-BFGS on N separate problems at once: points (N, *shape) with their own curvature and step lengths.

    `error_of` gives errors (N,) of points (N, *shape); the i-th depends on the i-th point alone. Steps are halved until
    they lower the error as Armijo's rule asks (Nocedal and Wright 2006, algorithms 7.4 and 3.1), so no error rises.
    """
    shape = start.shape
    x = start.detach().flatten(1).clone()  # (N, D)
    f, g = _with_gradient(error_of, x, shape)
    S: list[Tensor] = []
    Y: list[Tensor] = []
    afresh = torch.ones_like(f, dtype=torch.bool)  # (N,) along the gradient: at first, and after a step that failed
    for _ in range(iterations):
        d = -_times_inverse_hessian(g, S, Y)
        afresh |= (d * g).sum(1) >= 0  # rounding can turn a direction uphill; that of steepest descent never is
        d = torch.where(afresh[:, None], -g, d)
        slope = (d * g).sum(1)
        length = torch.where(afresh, (1 / g.abs().sum(1).clamp(min=1e-12)).clamp(max=1), 1)
        moved, accepted = x, torch.zeros_like(afresh)
        for _ in range(HALVINGS):
            trial = torch.where(accepted[:, None], moved, x + length[:, None] * d)
            with torch.no_grad():
                enough = error_of(trial.view(shape)) <= f + ARMIJO * length * slope
            accepted = accepted | enough
            moved = torch.where(accepted[:, None], trial, x)
            if bool(accepted.all()):
                break
            length = torch.where(accepted, length, length / 2)
        new_f, new_g = _with_gradient(error_of, moved, shape)
        S.append(moved - x)
        Y.append(new_g - g)
        del S[:-MEMORY], Y[:-MEMORY]
        x, f, g, afresh = moved, new_f, new_g, ~accepted
    return Recovery(x.view(shape), f)


def _with_gradient(error_of: Callable[[Tensor], Tensor], x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = x.detach().view(shape).requires_grad_()
        f = error_of(point)
        (g,) = torch.autograd.grad(f.sum(), point)
    return f.detach(), g.detach().flatten(1)


def _times_inverse_hessian(g: Tensor, S: list[Tensor], Y: list[Tensor]) -> Tensor:
    """H g for each row, from its steps S and gradient changes Y, oldest first; a pair without curvature is skipped."""
    q = g.clone()
    products = [(s * y).sum(1) for s, y in zip(S, Y, strict=True)]
    useful = [sy > 1e-10 * (y * y).sum(1) for sy, y in zip(products, Y, strict=True)]
    rho = [torch.where(ok, 1 / torch.where(ok, sy, 1), 0) for sy, ok in zip(products, useful, strict=True)]
    alpha = [torch.zeros_like(g[:, 0]) for _ in S]
    scale = torch.ones_like(g[:, 0])
    for i in reversed(range(len(S))):
        alpha[i] = rho[i] * (S[i] * q).sum(1)
        q = q - alpha[i][:, None] * Y[i]
    for sy, ok, y in zip(products, useful, Y, strict=True):  # the newest useful pair sets the scale
        scale = torch.where(ok, sy / (y * y).sum(1).clamp(min=1e-30), scale)
    r = scale[:, None] * q
    for i in range(len(S)):
        beta = rho[i] * (Y[i] * r).sum(1)
        r = r + (alpha[i] - beta)[:, None] * S[i]
    return r


def _better(one: Recovery, other: Recovery) -> Recovery:
    wins = other.error < one.error
    shape = (-1, *[1] * (one.latent.ndim - 1))
    return Recovery(torch.where(wins.view(shape), other.latent, one.latent), torch.minimum(one.error, other.error))
