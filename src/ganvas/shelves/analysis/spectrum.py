"""The radially averaged power spectrum of real and generated images."""

from __future__ import annotations

import numpy as np

from ganvas.parts import analysis
from ganvas.shelves.metrics.power_spectrum import mean_spectrum
from ganvas.types import Analysis, Chart, Evidence, Panel


@analysis("spectrum", paper="Durall et al. 2020, section 3")
class Spectrum(Analysis):
    """Mean power over each ring of frequencies, real against generated.

    Up-sampling layers leave too much or too little at the highest frequencies, where a detector looks first.
    """

    needs = frozenset({"images"})
    modalities = ("image",)

    def __call__(self, evidence: Evidence) -> Panel:
        assert evidence.real.images is not None and evidence.fake.images is not None
        real, fake = mean_spectrum(evidence.real.images), mean_spectrum(evidence.fake.images)
        frequency = np.linspace(0, 0.5, len(real))
        last = slice(-max(1, len(real) // 4), None)
        ratio = float(fake[last].mean() / max(real[last].mean(), 1e-12))
        text = (
            f"In the highest quarter of frequencies, samples have {ratio:.2f} times the power of real images. Decibels "
            "against the strongest frequency of the real images."
        )
        top = max(real.max(), 1e-12)
        series = {
            name: (frequency, 10 * np.log10(np.maximum(power / top, 1e-12)))
            for name, power in (("real", real), ("generated", fake))
        }
        chart = Chart("Power by frequency", "lines", series, "cycles per pixel", "dB")
        return Panel("Spectrum", text, charts=(chart,))
