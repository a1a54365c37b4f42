"""Audio: sound files byte by byte, and the modality that rounds, shows, plays, reads and writes sound."""

from __future__ import annotations

import base64
import io
import re
import struct
import wave
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ganvas import parts
from ganvas.errors import DataError, MissingExtra
from ganvas.files import audio as files

RATE = 8000


def riff(body: bytes, *, tag: int = 1, channels: int = 1, bits: int = 16, rate: int = RATE, length: int = -1) -> bytes:
    """A WAV file around these samples; `length` is what its header says of them."""
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(body) if length < 0 else length) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tone(samples: int = 800, channels: int = 1) -> torch.Tensor:
    """(1, channels, samples): a rising sine, its second channel softer."""
    time = torch.arange(samples) / RATE
    wave_ = (2 * torch.pi * (300 * time + 500 * time**2)).sin()
    return torch.stack([wave_ * 0.8 / (1 + i) for i in range(channels)])[None]


@pytest.mark.parametrize(
    ("tag", "bits", "body"),
    [
        (1, 8, bytes([0, 64, 128, 192])),
        (1, 16, struct.pack("<4h", -32768, -16384, 0, 16384)),
        (1, 24, b"".join(struct.pack("<i", v << 8)[1:] for v in (-(1 << 23), -(1 << 22), 0, 1 << 22))),
        (1, 32, struct.pack("<4i", -(1 << 31), -(1 << 30), 0, 1 << 30)),
        (3, 32, struct.pack("<4f", -1, -0.5, 0, 0.5)),
        (3, 64, struct.pack("<4d", -1, -0.5, 0, 0.5)),
    ],
)
def test_every_sample_format_gives_the_same_sound(tag: int, bits: int, body: bytes) -> None:
    sound = files.decode(riff(body, tag=tag, bits=bits), "a.wav")
    assert sound.rate == RATE
    np.testing.assert_array_equal(sound.values, [[-1, -0.5, 0, 0.5]])


def test_channels_lie_between_each_other() -> None:
    sound = files.decode(riff(struct.pack("<4h", 1, 2, 3, 4), channels=2), "a.wav")
    np.testing.assert_array_equal(sound.values * 32768, [[1, 3], [2, 4]])


def test_what_is_written_is_a_wav_file_for_others_and_comes_back() -> None:
    values = np.array([[0, 1, -32768, 32767], [5, 6, 7, 8]], dtype=np.int16)
    content = files.wav(values, RATE)
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (2, 2, RATE, 4)
    np.testing.assert_array_equal(files.decode(content, "a.wav").values * 32768, values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\x89PNG....", "begins like no WAV"),
        (riff(b""), "holds no sample"),
        (riff(bytes(10), length=4000), "cut off: 10 of 4,000 bytes"),
        (riff(bytes(100))[:12], "does not say how its samples are stored"),
        (riff(bytes(100))[:30], "its header is cut off"),
        (riff(bytes(100))[:60], "cut off"),
        (riff(bytes(4), tag=2, bits=4), "format 2 with 4 bits"),
        (riff(bytes(4), channels=0), "0 channels"),
        (riff(bytes(4), rate=0), "at 0 Hz"),
        (riff(struct.pack("<f", float("nan")), tag=3, bits=32), "no numbers"),
        (b"RIFF" + bytes(4) + b"AVI " + bytes(20), "no WAVE file"),
    ],
)
def test_damaged_files_say_what_is_wrong_and_where(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        files.read(file)
    assert reason in caught.value.problem
    assert caught.value.where == str(file) and caught.value.hint


def test_a_length_that_a_pipe_did_not_know_is_taken_from_the_file() -> None:
    sound = files.decode(riff(struct.pack("<2h", 1, 2), length=0xFFFFFFFF), "a.wav")
    assert sound.values.shape == (1, 2)


@pytest.fixture
def soundfile() -> ModuleType:
    return pytest.importorskip("soundfile", reason="FLAC needs the package soundfile, which is not installed")


def test_flac_holds_what_wav_holds(soundfile: ModuleType, tmp_path: Path) -> None:
    values = parts.modality_of({"use": "audio", "rate": RATE}).rounded(tone(channels=2))[0].numpy()
    files.write(tmp_path / "a.flac", values, RATE)
    sound = files.read(tmp_path / "a.flac")
    assert sound.rate == RATE
    np.testing.assert_array_equal(sound.values * 32768, values)
    other, rate = soundfile.read(io.BytesIO(files.wav(values, RATE)), dtype="float32", always_2d=True)
    assert rate == RATE
    np.testing.assert_array_equal(other.T, sound.values)  # libsndfile scales as we do
    half = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "b.flac").write_bytes(half[: len(half) // 2])
    with pytest.raises(DataError):
        files.read(tmp_path / "b.flac")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(MissingExtra, match="soundfile") as caught:
        files.write(tmp_path / "a.flac", np.zeros((1, 4), np.int16), RATE)
    assert "ganvas[audio]" in caught.value.hint
    (tmp_path / "b.flac").write_bytes(b"fLaC" + bytes(20))
    with pytest.raises(MissingExtra):
        files.read(tmp_path / "b.flac")


# --------------------------------------------------------------------------------------------------- the modality


def test_rounding_is_that_of_the_file(tmp_path: Path) -> None:
    audio = parts.modality_of({"use": "audio", "rate": RATE})
    assert audio.node() == {"use": "audio", "rate": RATE}
    assert audio == parts.modality_of({"use": "audio", "rate": RATE}) != parts.modality_of("audio")
    data = torch.cat([tone(), torch.full((1, 1, 800), 1.5)])
    rounded = audio.rounded(data)
    assert rounded.dtype == torch.int16 and rounded.max() == 32767
    out = [tmp_path / "a.wav", tmp_path / "b.wav"]
    audio.write(data, out)
    for restored, file in zip(audio.restored(rounded), out, strict=True):
        assert torch.equal(audio.read(file, (1, 800)), restored)
    assert torch.equal(audio.rounded(audio.restored(rounded)), rounded)
    assert (audio.restored(rounded)[0] - data[0]).abs().max() <= 0.5 / 32768


def test_another_rate_or_length_is_refused_with_both(tmp_path: Path) -> None:
    audio = parts.modality_of({"use": "audio", "rate": RATE})
    audio.write(tone(), [tmp_path / "a.wav"])
    with pytest.raises(DataError, match="8000 samples a second, not 16000"):
        parts.modality_of({"use": "audio", "rate": 16000}).read(tmp_path / "a.wav", (1, 800))
    with pytest.raises(DataError, match="1 channels of 800 samples, not 2 of 400"):
        audio.read(tmp_path / "a.wav", (2, 400))
    with pytest.raises(DataError, match="no sound file can hold 65 channels"):
        audio.write(torch.zeros(1, 65, 8), [tmp_path / "b.wav"])


def test_the_sheet_shows_loudness_and_pitch() -> None:
    audio = parts.modality_of({"use": "audio", "rate": RATE})
    time = torch.arange(4000) / RATE
    low, high = ((2 * torch.pi * f * time).sin() for f in (200, 3000))
    late = low * (time > 0.25)
    sheet = np.asarray(audio.show(torch.stack([low, high, late])[:, None], columns=3), dtype=int)
    assert sheet.shape == (128, 3 * 208 - 8, 3)
    cells = [sheet[:, i * 208 : i * 208 + 200] for i in range(3)]
    light = [cell[56:].sum(2).astype(float) for cell in cells]  # (72, 200) of each spectrogram
    height = [float((each.mean(1) * np.arange(72)).sum() / each.mean(1).sum()) for each in light]
    assert height[0] > height[1] + 10  # low frequencies lie lower, which is a larger row
    assert light[2][:, 120:].sum() > 2 * light[2][:, :80].sum()  # nothing is heard in the first half
    ink = (cells[2][:56] == (38, 70, 140)).all(2).sum(0)  # pixels of the curve in each column
    assert ink[:80].max() == 1 and ink[120:].min() > 20


def test_each_sound_has_a_player_with_its_own_file() -> None:
    audio = parts.modality_of({"use": "audio", "rate": RATE})
    data = torch.cat([tone(), -tone()])
    sources = re.findall(r'<audio controls[^>]* src="data:audio/wav;base64,([^"]+)"></audio>', audio.player(data))
    assert len(sources) == 2
    heard = [files.decode(base64.b64decode(each), "x").values * 32768 for each in sources]
    np.testing.assert_array_equal(np.stack(heard), audio.rounded(data).numpy())
    assert "The first 24 of 30" in audio.player(tone().expand(30, 1, 800))
