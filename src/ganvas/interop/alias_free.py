"""The arguments of StyleGAN3's and StyleGAN-XL's generators, from a state dict that came without them.

The names of the layers tell sizes and channels, and the bands of Karras et al. 2021, appendix G, are tried on them with
the published cutoffs: first f_c 2 and f_t 2^2.1, last f_t 2^0.3 f_c, two critical layers. A network of other bands is
refused: by its sizes and channels here, or else by its filters, which the importers compare with their own. Nothing
shows the scale of the output, the limit of features and the learning rate of the mapping network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, log2
from typing import Any

from ganvas.interop.registry import NoImporter

CRITICAL = 2  # layers at the end of the whole band; with the one to image channels, a stage cuts off one more
FIRST = (2.0, 2**2.1)  # cutoff and stopband
LAST_STOPBAND = 2**0.3  # of the cutoff
OVERSAMPLING = 2
FACTORS = (2, 4, 8, 16)  # of StyleGAN-XL's stages
SMALLEST = 16  # pixels, of a stem
MOST_LAYERS, WIDEST = 100, 1 << 16  # beyond, nothing is tried

GIVE = "give the pickle that it is from"

Shapes = Mapping[str, tuple[int, ...]]
Stages = tuple[tuple[int, int], ...]  # factor and layers of each


@dataclass(frozen=True)
class Layer:
    """What an official name such as L3_36_512 says: its number, the side of its output, and the channels of that."""

    number: int
    side: int
    channels: int


@dataclass(frozen=True)
class Band:
    """Samples, cutoff and stopband in cycles, per side of the image."""

    rate: int
    cutoff: float
    stopband: float


@dataclass(frozen=True)
class Guess:
    """Arguments that give these layers: of the stem, and the factor and layers of each stage."""

    side: int  # of the stem's image
    layers: int
    stages: Stages
    margin: int
    channel_base: int
    channel_max: int


def arguments(shapes: Shapes) -> dict[str, Any]:
    """Those of the class, or of StyleGAN-XL's stem beside those of the stages on it.

    Raises
    ------
    NoImporter : the layers are not those of the usual bands, or tensors are missing that would tell.
    """
    layers = layers_of(shapes)
    guess = next(guesses(layers), None)
    if guess is None:
        raise NoImporter(
            f"the layers of this state dict ({', '.join(name_of(each) for each in layers[:MOST_LAYERS])}) are those of"
            f" no network with the usual bands; {GIVE}"
        )
    first = f"synthesis.{name_of(layers[0])}"
    missing = [key for key in ("mapping.w_avg", "mapping.fc0.weight", f"{first}.up_filter") if not shapes.get(key)]
    if missing:
        raise NoImporter(f"this state dict lacks {', '.join(missing)}, which would tell its sizes; {GIVE}")
    down = shapes.get(f"{first}.down_filter", ())
    table = shapes.get("mapping.embed.weight", ())
    means = shapes["mapping.w_avg"]  # (w_dim,), in StyleGAN-XL (classes, w_dim)
    inputs = shapes["mapping.fc0.weight"][1]
    xl = "mapping.embed_proj.weight" in shapes
    if xl:
        classes = means[0] if len(means) == 2 else 0
        z_dim = inputs // 2 if classes else inputs
    else:
        classes = table[1] if table else 0
        z_dim = inputs - (table[0] if table else 0)
    kwargs: dict[str, Any] = {
        "z_dim": z_dim,
        "c_dim": classes,
        "w_dim": means[-1],
        "img_resolution": guess.side,
        "img_channels": layers[-1].channels,
        "num_layers": guess.layers,
        "channel_base": guess.channel_base,
        "channel_max": guess.channel_max,
        "conv_kernel": shapes[f"{first}.weight"][-1],
        "use_radial_filters": len(down) == 2,
        "margin_size": guess.margin,
        "filter_size": shapes[f"{first}.up_filter"][0] // OVERSAMPLING,
    }
    for factor, more in guess.stages:
        kwargs = {"stem": kwargs, "superres": {"up_factor": factor, "head_layers": more}}
    return kwargs


def layers_of(shapes: Shapes) -> list[Layer]:
    numbers = {match.groups() for key in shapes if (match := re.match(r"synthesis\.L(\d+)_(\d+)_(\d+)\.", key))}
    return sorted((Layer(*map(int, triple)) for triple in numbers), key=lambda layer: layer.number)


def name_of(layer: Layer) -> str:
    return f"L{layer.number}_{layer.side}_{layer.channels}"


def guesses(layers: Sequence[Layer]) -> Iterator[Guess]:
    """All arguments that give these layers, with stages of equal layers first.

    A gap in their numbers is where the first stage was put on; those after it leave none.
    """
    widest = max((max(layer.side, layer.channels) for layer in layers), default=0)
    least = min((min(layer.side, layer.channels) for layer in layers), default=0)
    if not (0 < len(layers) <= MOST_LAYERS and least and widest <= WIDEST and layers[0].number == 0):
        return
    gap = next((i for i in range(1, len(layers)) if layers[i].number != layers[i - 1].number + 1), None)
    full_side = layers[-1].side
    candidates = []
    for side in [full_side] if gap is None else [full_side // factor for factor in (2**i for i in range(1, 20))]:
        if side < SMALLEST:
            break
        count = len(layers) - 1 if gap is None else gap + CRITICAL
        if count <= CRITICAL:
            return
        start = grown(Band(0, *FIRST), side, count)
        margin, odd = divmod(layers[0].side - start[0].rate, 2)
        if odd or margin < 0:
            continue
        grown_ = [((), start)] if gap is None else staged(layers, side, margin, start[:gap])
        for stages, bands in grown_:
            widths = base_of([band.cutoff for band in bands[:-1]], [layer.channels for layer in layers[:-1]])
            if fits(bands, layers, margin, last=True) and widths is not None:
                candidates.append(Guess(side, count, stages, margin, *widths))
    yield from sorted(candidates, key=lambda guess: len({more for _, more in guess.stages}))


def staged(
    layers: Sequence[Layer], side: int, margin: int, bands: Sequence[Band]
) -> Iterator[tuple[Stages, list[Band]]]:
    """The stages that give the rest of the layers on bands that are there, and all bands."""
    remaining = len(layers) - len(bands)
    if not fits(bands, layers, margin):
        return
    for factor in FACTORS:
        now = side * factor
        if now > layers[-1].side:
            return
        if now == layers[-1].side and remaining - 1 > CRITICAL:
            yield ((factor, remaining - 1),), [*bands, *grown(bands[-1], now, remaining - 1, stage=True)]
        for more in range(CRITICAL + 1, remaining + CRITICAL if now < layers[-1].side else 0):
            added = grown(bands[-1], now, more, stage=True)[: more - CRITICAL]
            for stages, every in staged(layers, now, margin, [*bands, *added]):
                yield ((factor, more), *stages), every


# Karras et al. 2021, appendix G, and Sauer et al. 2022, section 3.1
def grown(first: Band, side: int, count: int, *, stage: bool = False) -> list[Band]:
    """The bands after each of `count` layers and the one to image channels; a stage begins in the band before it."""
    last = side / 2
    bands = []
    for i in range(count + 1):
        share = min(i / (count - CRITICAL), 1.0)
        cutoff = first.cutoff * (last / first.cutoff) ** share
        stopband = first.stopband * (last * LAST_STOPBAND / first.stopband) ** share
        rate = 2 ** ceil(log2(min(2 * stopband, side)))
        bands.append(Band(rate, cutoff, max(stopband, rate / 2)))
    return [first, *bands[1:]] if stage else bands


def fits(bands: Sequence[Band], layers: Sequence[Layer], margin: int, *, last: bool = False) -> bool:
    """Whether so many layers have the sides of these bands; the last two of all have no margin."""
    sides = [band.rate + 2 * margin for band in bands]
    if last:
        sides[-2:] = [layers[-1].side] * 2
    return sides == [layer.side for layer in layers[: len(bands)]] and (not last or len(bands) == len(layers))


def base_of(cutoffs: Sequence[float], channels: Sequence[int]) -> tuple[int, int] | None:
    """`channel_base` and `channel_max` for which round(min(base / 2f, max)) are these channels; None: none are."""
    most = max(channels)
    low, high = 0.0, inf
    for cutoff, width in zip(cutoffs, channels, strict=True):
        low = max(low, 2 * cutoff * (width - 0.5))
        high = min(high, 2 * cutoff * (width + 0.5) if width < most else inf)
    base = 2 ** ceil(log2(low))
    if base >= high:  # no power of two
        base = ceil((low + high) / 2)
    fits = all(max(1, round(min(base / 2 / f, most))) == width for f, width in zip(cutoffs, channels, strict=True))
    return (base, most) if fits else None
