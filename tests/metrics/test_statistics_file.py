"""Statistics files: round trips, the formats of others, and files that are no statistics."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ganvas.errors import CheckpointError, DataError, UsageError
from ganvas.files.statistics import read_statistics, write_statistics
from ganvas.stats.moments import moments_of
from ganvas.types import Moments

ABOUT = {"extractor": "inception", "resizer": "clean", "sha256": "0f", "note": "é, ü"}


@pytest.fixture
def moments() -> Moments:
    return moments_of(np.random.default_rng(0).normal(size=(50, 4)))


def test_ours_comes_back_whole_and_others_can_read_it(tmp_path: Path, moments: Moments) -> None:
    write_statistics(tmp_path / "own.npz", moments, ABOUT)
    found, about = read_statistics(tmp_path / "own.npz")
    assert np.array_equal(found.mean, moments.mean) and np.array_equal(found.covariance, moments.covariance)
    assert found.count == 50 and about == ABOUT
    with np.load(tmp_path / "own.npz", allow_pickle=False) as opened:  # as pytorch-fid does
        assert np.array_equal(opened["mu"], moments.mean) and np.array_equal(opened["sigma"], moments.covariance)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["own.npz"]


def test_the_format_of_torch_fidelity(tmp_path: Path, moments: Moments) -> None:
    write_statistics(tmp_path / "own.pt", moments, ABOUT)
    content = torch.load(tmp_path / "own.pt", weights_only=False)
    # Its features are float32, so are its means, and it refuses to compare other types.
    assert content["mu"].dtype == np.float32 and content["sigma"].dtype == np.float64
    found, about = read_statistics(tmp_path / "own.pt")
    assert found.mean.dtype == np.float64 and found.count == 50 and about == ABOUT
    np.testing.assert_allclose(found.mean, moments.mean, rtol=1e-6)
    assert np.array_equal(found.covariance, moments.covariance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_others_have_no_count(tmp_path: Path, moments: Moments, dtype: type) -> None:
    mu, sigma = moments.mean.astype(dtype), moments.covariance.astype(dtype)
    np.savez(tmp_path / "pytorch-fid.npz", mu=mu, sigma=sigma)
    np.savez_compressed(tmp_path / "adm.npz", mu=mu, sigma=sigma, mu_s=np.zeros(3), arr_0=np.zeros((2, 4, 4, 3), "u1"))
    torch.save({"mu": mu, "sigma": sigma}, tmp_path / "torch-fidelity.pt")
    torch.save({"mu": torch.from_numpy(mu), "sigma": torch.from_numpy(sigma)}, tmp_path / "tensors.pt")
    for file in tmp_path.iterdir():
        found, about = read_statistics(file)
        assert found.mean.dtype == found.covariance.dtype == np.float64
        assert np.array_equal(found.mean, mu.astype(np.float64)) and found.count == 0 and not about


class Opens:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_nothing_that_is_read_runs(tmp_path: Path, moments: Moments) -> None:
    trap = tmp_path / "trap"
    torch.save({"mu": Opens(trap), "sigma": moments.covariance}, tmp_path / "a.pt")
    np.savez(tmp_path / "b.npz", mu=np.array(Opens(trap), dtype=object), sigma=moments.covariance, allow_pickle=True)
    for name in ("a.pt", "b.npz"):
        with pytest.raises(DataError):
            read_statistics(tmp_path / name)
        assert not trap.exists()


def test_errors_name_the_fault(tmp_path: Path, moments: Moments) -> None:
    mu, sigma = moments.mean, moments.covariance
    skewed, holed, shaped = sigma.copy(), sigma.copy(), sigma[:3]
    skewed[0, 1] += 1
    holed[1, 1] = np.nan
    cases = {
        "not symmetric": {"mu": mu, "sigma": skewed},
        "NaN": {"mu": mu, "sigma": holed},
        "infinite": {"mu": mu * np.inf, "sigma": sigma},
        r"\(3, 4\) are not \(D,\) and \(D, D\)": {"mu": mu, "sigma": shaped},
        r"shape \(1, 4\)": {"mu": mu[None], "sigma": sigma},
        "negative variance": {"mu": mu, "sigma": -sigma},
        "complex128 values": {"mu": mu, "sigma": sigma + 0j},
        "no sigma; it holds feats, mu": {"mu": mu, "feats": sigma},
        "no mu and no sigma; it holds arr_0": {"arr_0": mu},
        "1 samples have no covariance": {"mu": mu, "sigma": sigma, "count": np.array(1)},
        "not a whole number": {"mu": mu, "sigma": sigma, "count": np.array([2, 3])},
    }
    file = tmp_path / "case.npz"
    for problem, arrays in cases.items():
        np.savez(file, **arrays)
        with pytest.raises(DataError, match=problem) as caught:
            read_statistics(file)
        assert caught.value.where == str(file) and caught.value.hint


@pytest.mark.parametrize("ending", [".npz", ".pt"])
def test_files_cut_short_or_something_else(tmp_path: Path, moments: Moments, ending: str) -> None:
    file = tmp_path / f"own{ending}"
    write_statistics(file, moments, ABOUT)
    whole = file.read_bytes()
    for content in (b"", b"PK", b"not an archive" * 9, whole[: len(whole) // 2], whole[:-9], whole[40:]):
        file.write_bytes(content)
        with pytest.raises(DataError):
            read_statistics(file)
    if ending == ".npz":
        middle = whole.index(moments.covariance.tobytes()[:16])
        file.write_bytes(whole[:middle] + b"\x01" * 16 + whole[middle + 16 :])
        with pytest.raises(DataError, match="CRC"):
            read_statistics(file)
    with pytest.raises(DataError, match="no such file"):
        read_statistics(tmp_path / f"none{ending}")


def test_other_things_than_dictionaries_and_other_endings(tmp_path: Path, moments: Moments) -> None:
    np.save(tmp_path / "array", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(DataError, match="single array"):
        read_statistics(tmp_path / "array.npz")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(DataError, match="a list, not a dictionary"):
        read_statistics(tmp_path / "list.pt")
    with pytest.raises(UsageError, match=r"ends in \.npz or \.pt, not '\.pkl'"):
        read_statistics(tmp_path / "x.pkl")
    with pytest.raises(UsageError, match="not ''"):
        write_statistics(tmp_path / "x", moments, {})


def test_a_place_that_cannot_be_written_keeps_what_was_there(tmp_path: Path, moments: Moments) -> None:
    with pytest.raises(CheckpointError):
        write_statistics(tmp_path / "missing" / "own.npz", moments, {})
