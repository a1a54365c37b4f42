"""Files are read as torch.load reads them, with nothing of it; what is cut short or something else is refused."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_files import SAVES
from safetensors.torch import save_file
from torch import nn

from ganvas.errors import CheckpointError
from ganvas.interop.inert import Array, Record, TensorView
from ganvas.interop.torch_files import read_checkpoint, read_tensors

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def plain(value: Any) -> Any:
    """What was read, with its tensors and arrays."""
    if isinstance(value, TensorView):
        return read_tensors({"": value})[""]
    if isinstance(value, Array):
        return value.value
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return type(value)(plain(each) for each in value) if isinstance(value, list | tuple) else value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        other = other.detach()
        other = other.float() if other.dtype in (torch.float16, torch.bfloat16) else other
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def content() -> dict[str, Any]:
    whole = torch.arange(24.0).view(4, 6)
    state = {str(dtype): (torch.rand(3, 2) * 3).to(dtype) for dtype in DTYPES}
    state |= {"view": whole[1:3, ::2], "turned": whole.T, "empty": torch.empty(0, 3), "number": torch.tensor(2.5)}
    return {
        "g": OrderedDict(state),
        "learnt": nn.Parameter(torch.ones(2)),
        "epoch": 3,
        "name": "é",
        "list": [1, (2.0, None)],
    }


@pytest.mark.parametrize("form", SAVES)
def test_as_torch_load_reads_it(form: str, tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    SAVES[form](content(), file)
    assert same(plain(read_checkpoint(file)), torch.load(file, weights_only=True))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_bare_pickles_of_all_protocols(protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "c.pkl"
    arrays = {"array": np.arange(6.0).reshape(2, 3), "columns": np.asfortranarray(np.ones((2, 3), "f4"))}
    kept = content()
    file.write_bytes(pickle.dumps({**kept, "arrays": arrays, "fid": np.float64(3.5)}, protocol))
    found = plain(read_checkpoint(file))
    assert all(np.array_equal(found["arrays"][key], arrays[key]) for key in arrays)
    assert found.pop("fid") == 3.5
    del found["arrays"]
    assert same(found, kept)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(value=json_like, protocol=st.integers(0, 5))
def test_plain_values_come_back(value: Any, protocol: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("p") / "c.pkl"
    file.write_bytes(pickle.dumps({"value": value}, protocol))
    assert read_checkpoint(file) == {"value": value}


def test_objects_become_records(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    torch.save({"net": nn.Linear(2, 3), "args": argparse.Namespace(size=32), "place": Path("/tmp")}, file)
    found = read_checkpoint(file)
    assert found["net"].cls == "torch.nn.modules.linear.Linear"
    assert isinstance(found["net"], Record) and found["net"].state["in_features"] == 2
    assert found["args"].state == {"size": 32}
    assert isinstance(found["place"], Record)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_file_cut_short_anywhere_is_refused(form: str, tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    if form == "bare":
        file.write_bytes(pickle.dumps(content()))
    else:
        SAVES[form](content(), file)
    whole = file.read_bytes()
    for length in sorted({0, 1, 2, 10, 100, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 60)}):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(file)
        assert str(file) in caught.value.where and caught.value.hint


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_changed_byte_is_refused_or_harmless(form: str, tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    if form == "bare":
        file.write_bytes(pickle.dumps(content()))
    else:
        SAVES[form](content(), file)
    whole, dice = file.read_bytes(), random.Random(1)
    for _ in range(300):
        changed = bytearray(whole)
        changed[dice.randrange(len(whole))] = dice.randrange(256)
        file.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            plain(read_checkpoint(file))


FOREIGN = {
    "text": b"hello, this is no checkpoint at all",
    "html": b"<!DOCTYPE html><html>404</html>",
    "noise": random.Random(0).randbytes(5000),
    "zeros": bytes(1000),
    "another zip": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    file.write_bytes(FOREIGN[kind])
    with pytest.raises(CheckpointError, match="it is refused"):
        read_checkpoint(file)


def test_other_formats_are_named(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    save_file({"w": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="safetensors"):
        read_checkpoint(file)
    script = tmp_path / "c.ts"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), script)
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(script)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "nowhere")
