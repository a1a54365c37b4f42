"""Log-mel spectra of sound: what an ear and most networks for speech look at.

The mel scale is HTK's (Young et al., "The HTK Book", eq. 5.13, after O'Shaughnessy 1987): 2595 log10(1 + f / 700).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_FLOOR = 1e-5  # of a magnitude, before the logarithm: -100 dB of a full-scale tone's


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Frequencies in Hz on the mel scale."""
    return 2595 * torch.log10(1 + hertz / 700)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The way back."""
    return 700 * (10 ** (mel / 2595) - 1)


def mel_filters(rate: float, window: int, bands: int) -> Tensor:
    """Triangular filters (bands, window // 2 + 1) over the bins of a spectrum, float64, each with a peak of 1.

    Their centres lie at equal distances on the mel scale between 0 Hz and rate / 2 (HTK Book, section 5.4). A triangle
    that is narrower than the distance of two bins, as the lowest are where the window is short, keeps the bin that is
    nearest to its centre, so that no band is empty.
    """
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    top = hertz_to_mel(torch.tensor(rate / 2, dtype=torch.float64))
    edges = mel_to_hertz(torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    nearest = (bins - centre).abs().argmin(1)  # (bands,)
    empty = filters.amax(1) == 0
    filters[empty, nearest[empty]] = 1
    return filters


@functools.lru_cache(maxsize=16)
def _filters(rate: float, window: int, bands: int) -> Tensor:
    return mel_filters(rate, window, bands).float()


def log_mel(sound: Tensor, rate: float, *, window: int, hop: int, bands: int) -> Tensor:
    """Natural logarithms (N, bands, frames) of the mel-weighted magnitudes of sound (N, samples) float in [-1, 1].

    Frames of `window` samples under a Hann window, one every `hop`, centred on their place; the ends are padded with
    silence. Magnitudes are scaled so that a full-scale tone in the middle of a bin comes to 1.
    """
    hann = torch.hann_window(window, device=sound.device)
    padded = torch.nn.functional.pad(sound, (window // 2, window // 2))
    spectrum = torch.stft(padded, window, hop, window=hann, center=False, return_complex=True)  # (N, bins, frames)
    magnitude = spectrum.abs() * (2 / hann.sum())
    mel = _filters(rate, window, bands).to(sound.device) @ magnitude
    return mel.clamp(min=_FLOOR).log()
