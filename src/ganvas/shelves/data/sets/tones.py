"""Drawn tones whose kind and frequency are known."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from ganvas.parts import dataset
from ganvas.shelves.data.reading.sounds import StoredSounds, sixteen_bit, sound_spec
from ganvas.types import DataSpec

KINDS = ("sine", "square", "saw", "chirp")
_TEST_SEED = 1_000_003  # added for the test split: far from the seeds that people choose
_LOWEST, _HIGHEST = 1 / 64, 1 / 16  # of the rate: 125 to 500 Hz at 8 kHz


@dataset("tones", tiny={"count": 64, "samples": 256})
class Tones(StoredSounds):
    """Sine, square and saw waves and rising chirps of known frequency and loudness; the kind is the label.

    Each tone dies away to a tenth of its first loudness. Frequencies are drawn evenly on a logarithmic scale from 1/64
    to 1/16 of the rate, phases evenly, loudness from 0.3 to 0.9. A chirp's frequency doubles on its way.

    Parameters
    ----------
    count : how many.
    samples : the length of each.
    rate : samples in a second, Hz.
    seed : chooses frequency, phase and loudness.
    split : test has the same distribution, drawn independently.

    Attributes
    ----------
    frequencies : (N,) Hz, a chirp's at its start.
    """

    def __init__(
        self,
        *,
        count: Annotated[int, Ge(2)] = 2000,
        samples: Annotated[int, Gt(0)] = 4096,
        rate: Annotated[int, Gt(0)] = 8000,
        seed: Annotated[int, Ge(0)] = 0,
        split: Literal["train", "test"] = "train",
    ) -> None:
        rng = np.random.Generator(np.random.PCG64(seed + (_TEST_SEED if split == "test" else 0)))
        share = rng.random((3, count))
        labels = np.arange(count, dtype=np.int64) % len(KINDS)
        per_sample = _LOWEST * (_HIGHEST / _LOWEST) ** share[0]  # (N,) periods in a sample
        self.frequencies = per_sample * rate
        time = np.arange(samples)
        fading = 10.0 ** (-time / samples)
        values = np.empty((count, 1, samples), dtype=np.int16)
        for i in range(count):
            periods = per_sample[i] * time + share[1, i]
            if KINDS[labels[i]] == "chirp":
                periods += per_sample[i] * time**2 / (2 * samples)  # the integral of f (1 + t / T)
            wave = (0.3 + 0.6 * share[2, i]) * fading * _wave(KINDS[labels[i]], periods)
            values[i, 0] = sixteen_bit(wave.astype(np.float32))
        super().__init__(values, rate, labels, KINDS)

    @classmethod
    def preview(cls, *, samples: int = 4096, rate: int = 8000, **_: object) -> DataSpec:
        """What these keys promise."""
        return sound_spec(1, samples, rate, len(KINDS))


def _wave(kind: str, periods: np.ndarray) -> np.ndarray:
    """Values in [-1, 1] after so many periods, without a limit to the band."""
    if kind == "square":
        return np.where(periods % 1 < 0.5, 1.0, -1.0)
    if kind == "saw":
        return 2 * (periods % 1) - 1
    wave: np.ndarray = np.sin(2 * np.pi * periods)
    return wave
