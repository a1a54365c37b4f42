"""Sound files: WAV by itself, FLAC and OGG through the optional package soundfile.

Between a file and a tensor sound is (channels, samples) float32 in [-1, 1]. A 16-bit number v stands for v / 32768, as
in libsndfile, so that what a file holds comes back as it was.
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganvas.errors import DataError, MissingExtra
from ganvas.files.files import write_bytes
from ganvas.files.reading import content_of

SUFFIXES = (".wav", ".flac", ".ogg")
FULL_SCALE = 32768
"""The 16-bit number that would stand for 1; the largest that a file can hold is one less."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # format tags of RIFF files
_UNKNOWN_LENGTH = 0xFFFFFFFF  # what writers into a pipe say of a chunk whose end they do not know yet
_MOST_CHANNELS = 64


class Unreadable(Exception):
    """Bytes that are no usable sound; the text is the reason. Whoever knows the file's name makes it a DataError."""


@dataclass(frozen=True)
class Sound:
    """`values` (channels, samples) float32 in [-1, 1], `rate` samples of each channel in a second."""

    values: NDArray[np.float32]
    rate: int


def read(file: Path) -> Sound:
    """The sound in a WAV, FLAC or OGG file.

    Raises
    ------
    DataError : it cannot be read, is damaged, cut off or empty.
    MissingExtra : it is FLAC or OGG and soundfile is not installed.
    """
    try:
        return decode(content_of(file, error=DataError), str(file))
    except Unreadable as reason:
        raise DataError(
            f"it is no sound that can be read: {reason}", where=str(file), hint="give a whole WAV, FLAC or OGG file"
        ) from None


def decode(content: bytes, where: str) -> Sound:
    """The sound in the bytes of a file, whose kind is seen from its first bytes; `where` is the file's name.

    Raises
    ------
    Unreadable : they are damaged, cut off, empty or of another kind.
    MissingExtra : they are FLAC or OGG and soundfile is not installed.
    """
    if not content:
        raise Unreadable("it is empty")
    if content[:4] == b"RIFF":
        sound = _wav(content)
    elif content[:4] in (b"fLaC", b"OggS"):
        sound = _by_soundfile(content, where)
    else:
        raise Unreadable("it begins like no WAV, FLAC or OGG file")
    if not sound.values.shape[1]:
        raise Unreadable("it holds no sample")
    if not np.isfinite(sound.values).all():
        raise Unreadable("it holds values that are no numbers")
    return sound


def wav(values: NDArray[np.int16], rate: int) -> bytes:
    """A 16-bit WAV file of (channels, samples)."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(values))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(values.T).astype("<i2").tobytes())
    return buffer.getvalue()


def write(file: Path, values: NDArray[np.int16], rate: int) -> None:
    """Write (channels, samples) with 16 bits a sample: WAV, or FLAC or OGG where the file's name ends so.

    Raises
    ------
    DataError : another ending, or more channels than such a file holds.
    MissingExtra : FLAC or OGG, and soundfile is not installed.
    """
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"no sound file ends in {suffix or 'nothing'}", where=str(file), hint="FILE.wav or FILE.flac")
    if not 1 <= len(values) <= _MOST_CHANNELS:
        raise DataError(f"no sound file can hold {len(values)} channels", where=str(file), hint="write --out FILE.npz")
    if suffix == ".wav":
        write_bytes(file, wav(values, rate))
        return
    soundfile = _soundfile(str(file))
    buffer = io.BytesIO()
    kind = {".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}[suffix]
    try:
        soundfile.write(buffer, values.T, rate, format=kind[0], subtype=kind[1])
    except (RuntimeError, ValueError) as error:  # such as a rate or a number of channels that the format has not
        raise DataError(f"it cannot hold this sound: {error}", where=str(file), hint="write FILE.wav") from None
    write_bytes(file, buffer.getvalue())


# --------------------------------------------------------------------------------------------------- WAV


def _wav(content: bytes) -> Sound:
    """A RIFF WAVE file: PCM of 8, 16, 24 or 32 bits, or float of 32 or 64."""
    if content[8:12] != b"WAVE":
        raise Unreadable("it is a RIFF file, but no WAVE file")
    form: tuple[int, int, int, int] | None = None
    for name, start, length in _chunks(content):
        body = content[start : start + length]
        if name == b"fmt ":
            form = _form(body)
        elif name == b"data":
            if form is None:
                raise Unreadable("its samples come before their format")
            if length != _UNKNOWN_LENGTH and len(body) < length:
                raise Unreadable(f"it is cut off: {len(body):,} of {length:,} bytes of sound are there")
            return _samples(body, *form)
    raise Unreadable("it is cut off before its first sample" if form else "it does not say how its samples are stored")


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte, declared length) of each chunk; its bytes may end before."""
    at = 12
    while at + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, at)
        yield name, at + 8, length
        at += 8 + length + length % 2


def _form(body: bytes) -> tuple[int, int, int, int]:
    """(format tag, channels, rate, bits)."""
    if len(body) < 16:
        raise Unreadable("its header is cut off")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:  # the tag proper begins a longer identifier
        (tag,) = struct.unpack_from("<H", body, 24)
    if not 1 <= channels <= _MOST_CHANNELS or not rate:
        raise Unreadable(f"its header says {channels} channels at {rate} Hz")
    if (tag, bits) not in ((_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)):
        raise Unreadable(f"its samples are stored as format {tag} with {bits} bits, which is neither PCM nor float")
    return tag, channels, rate, bits


def _samples(body: bytes, tag: int, channels: int, rate: int, bits: int) -> Sound:
    width = bits // 8
    samples = body[: len(body) // (width * channels) * width * channels]
    values: NDArray[np.float32]
    if tag == _FLOAT:
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as no number
            values = np.frombuffer(samples, dtype=f"<f{width}").astype(np.float32).clip(-1, 1)
    elif bits == 8:
        values = ((np.frombuffer(samples, dtype=np.uint8).astype(np.float32) - 128) / 128).astype(np.float32)
    elif bits == 24:
        padded = np.zeros((len(samples) // 3, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(samples, dtype=np.uint8).reshape(-1, 3)  # the high bytes of 32 bits
        values = (padded.reshape(-1).view("<i4") / np.float64(2**31)).astype(np.float32)
    else:
        values = (np.frombuffer(samples, dtype=f"<i{width}") / 2.0 ** (bits - 1)).astype(np.float32)
    return Sound(np.ascontiguousarray(values.reshape(-1, channels).T), rate)


# --------------------------------------------------------------------------------------------------- FLAC and OGG


def _by_soundfile(content: bytes, where: str) -> Sound:
    soundfile = _soundfile(where)
    try:
        values, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)  # (samples, channels)
        promised = soundfile.info(io.BytesIO(content)).frames
    except (RuntimeError, ValueError, TypeError) as error:
        raise Unreadable(str(error).splitlines()[0]) from None
    if content[:4] == b"fLaC" and len(values) < promised:
        raise Unreadable(f"it is cut off: {len(values):,} of {promised:,} samples are there")
    return Sound(np.ascontiguousarray(np.clip(values, -1, 1).T, dtype=np.float32), int(rate))


def _soundfile(where: str) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the library behind it is not there
        raise MissingExtra(
            f"FLAC and OGG files need the package soundfile ({str(error).splitlines()[0]})",
            where=where,
            hint='pip install "ganvas[audio]" -c constraints.txt, or give WAV files',
        ) from None
    return soundfile
