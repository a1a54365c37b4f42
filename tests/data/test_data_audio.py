"""Recordings from folders and archives, and drawn tones."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganvas import parts
from ganvas.errors import DataError
from ganvas.files import audio as files
from ganvas.recipe.check import check_node
from ganvas.types import Dataset

RATE = 8000


def sound(samples: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, (channels, samples)).astype(np.int16)


def opened(**keys: Any) -> Dataset:
    return parts.build("dataset", check_node("dataset", {"use": "audio", **keys}))


def refused(problem: str, **keys: Any) -> DataError:
    with pytest.raises(DataError, match=problem) as caught:
        opened(**keys)
    assert caught.value.hint and caught.value.where
    return caught.value


def everything(data: Dataset) -> np.ndarray:
    return (data.batch(np.arange(len(data)), np.random.default_rng(0)).data.numpy() * 32768).astype(int)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four recordings of unlike length, two of digit 3 and one each of 0 and 10."""
    place = tmp_path / "sounds"
    place.mkdir()
    for seed, (name, samples) in enumerate((("3_a_0", 90), ("3_b_0", 100), ("0_a_0", 70), ("10_a_0", 110))):
        files.write(place / f"{name}.wav", sound(samples, seed), RATE)
    return place


def test_labels_are_what_names_begin_with(folder: Path) -> None:
    data = opened(path=str(folder), labels="prefix")
    assert data.class_names == ("0", "10", "3")
    assert data.spec.shape == (1, 110) and data.spec.modality.node() == {"use": "audio", "rate": RATE}
    batch = data.batch(np.arange(4), np.random.default_rng(0))
    assert batch.label.tolist() == [0, 1, 2, 2]  # sorted by name: 0_a, 10_a, 3_a, 3_b
    assert list(data.names(np.array([1, 3]))) == ["10_a_0.wav", "3_b_0.wav"]
    files.write(folder / "nolabel.wav", sound(10), RATE)
    refused("1 recording is named without a label and `_`: nolabel.wav", path=str(folder), labels="prefix")


def test_short_ones_are_padded_and_long_ones_cut(folder: Path) -> None:
    whole, cut = everything(opened(path=str(folder))), everything(opened(path=str(folder), samples=80))
    assert cut.shape == (4, 1, 80)
    np.testing.assert_array_equal(whole[0, 0, :70], sound(70, 2)[0])
    assert (whole[0, 0, 70:] == 0).all()
    np.testing.assert_array_equal(cut, whole[:, :, :80])


def test_an_archive_and_a_folder_give_the_same_data(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"inner/{file.name}")
    packed = opened(path=str(tmp_path / "a.zip"), folder="inner", labels="prefix")
    loose = opened(path=str(folder), labels="prefix")
    assert packed.fingerprint == loose.fingerprint
    np.testing.assert_array_equal(everything(packed), everything(loose))
    assert opened(path=str(folder)).fingerprint != loose.fingerprint  # without labels
    assert opened(path=str(folder), labels="prefix", samples=80).fingerprint != loose.fingerprint


def test_class_folders(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for i in range(2):
            files.write(folder / name / f"{i}.wav", sound(50, i), RATE)
    for file in folder.glob("*.wav"):
        file.unlink()
    data = opened(path=str(folder))
    assert data.class_names == ("cat", "dog")
    assert data.batch(np.arange(4), np.random.default_rng(0)).label.tolist() == [0, 0, 1, 1]
    assert len(opened(path=str(folder), limit=2)) == 2


def test_rates_must_agree_or_are_made_to(folder: Path) -> None:
    time = np.arange(4000) / 16000
    tone = (16000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)[None]
    files.write(folder / "9_a_0.wav", tone, 16000)
    assert "data.rate=8000" in refused("several rates", path=str(folder)).hint
    data = opened(path=str(folder), rate=8000)
    assert data.spec.shape == (1, 2000)
    made = everything(data)[-1, 0]
    wanted = 16000 * np.sin(2 * np.pi * 440 * np.arange(2000) / 8000)
    assert np.abs(made - wanted)[50:-50].max() < 200  # the same tone at half of the rate


def test_channels_are_averaged_or_doubled(tmp_path: Path) -> None:
    for i in range(2):
        files.write(tmp_path / f"{i}.wav", sound(40, i, channels=2), RATE)
    stereo, mono = everything(opened(path=str(tmp_path), channels=2)), everything(opened(path=str(tmp_path)))
    assert stereo.shape == (2, 2, 40) and mono.shape == (2, 1, 40)
    assert np.abs(stereo.mean(1) - mono[:, 0]).max() <= 1
    files.write(tmp_path / "0.wav", sound(40), RATE)
    files.write(tmp_path / "1.wav", sound(40), RATE)
    doubled = everything(opened(path=str(tmp_path), channels=2))
    np.testing.assert_array_equal(doubled[:, 0], doubled[:, 1])


def test_peak_brings_all_to_one_loudness(folder: Path) -> None:
    files.write(folder / "5_a_0.wav", sound(60) // 100, RATE)
    files.write(folder / "6_a_0.wav", sound(60) * 0, RATE)
    loudest = np.abs(everything(opened(path=str(folder), peak=0.5))).max(2)[:, 0]
    assert loudest.tolist() == [16384] * 5 + [0]


def test_what_is_damaged_or_no_sound_is_named(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "1_a_0.wav").write_bytes(b"RIFF")
    (folder / "2_a_0.wav").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 file in .* is no sound: notes\.txt"):
        problem = refused("2 recordings are damaged", path=str(folder)).problem
    assert "1_a_0.wav (" in problem and "2_a_0.wav (it is empty)" in problem
    (folder / "notes.txt").unlink()
    with pytest.warns(UserWarning, match=r"2 recordings are damaged: 1_a_0\.wav .* left out of"):
        data = opened(path=str(folder), corrupt="skip", labels="prefix")
    assert len(data) == 4 and data.skipped == ("1_a_0.wav", "2_a_0.wav")
    assert data.batch(np.arange(4), np.random.default_rng(0)).label.max() < len(data.class_names)


def test_places_without_sound(tmp_path: Path) -> None:
    refused("there is no such file", path=str(tmp_path / "absent.zip"))
    refused("it is empty: no sound found", path=str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"x")
    assert ".wav" in refused(r"no sound found among 1 files \(1 .png\)", path=str(tmp_path)).hint
    (tmp_path / "a.zip").write_bytes(b"PK")
    refused("it is not a zip archive", path=str(tmp_path / "a.zip"))
    files.write(tmp_path / "a.wav", sound(10), RATE)
    refused("only one sound", path=str(tmp_path))


# --------------------------------------------------------------------------------------------------- tones


def test_a_tone_has_the_frequency_that_it_says() -> None:
    data = parts.build("dataset", {"use": "tones", "count": 40, "samples": 4000})
    batch = data.batch(np.arange(40), np.random.default_rng(0))
    spectra = np.abs(np.fft.rfft(batch.data[:, 0].numpy(), axis=1))
    strongest = spectra[:, 1:].argmax(1) * RATE / 4000 + RATE / 4000
    for kind in (0, 1, 2):
        rows = batch.label.numpy() == kind
        assert np.abs(strongest[rows] - data.frequencies[rows]).max() <= 2.5  # the width of a bin is 2 Hz
    chirps = batch.label.numpy() == 3
    late = np.abs(np.fft.rfft(batch.data[chirps, 0, -500:].numpy(), axis=1))
    assert np.abs(late.argmax(1) * RATE / 500 / data.frequencies[chirps] - 1.94).max() < 0.2  # near its double at last


def test_no_warning_where_nothing_is_wrong(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(path=str(folder))
