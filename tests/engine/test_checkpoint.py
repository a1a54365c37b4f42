"""Exact state on disk: any tree comes back, the right ones are kept, and nothing foreign is run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.engine.checkpoint import STATE, Checkpoints, pack, unpack
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.errors import CheckpointError
from ganvas.files.files import write_tensors

DTYPES = [torch.float32, torch.float64, torch.int64, torch.bfloat16, torch.bool, torch.uint8]
tensors = st.builds(
    lambda rows, columns, dtype: torch.arange(rows * columns).reshape(rows, columns).to(dtype).squeeze(0),
    st.integers(0, 3), st.integers(0, 3), st.sampled_from(DTYPES),
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(max_size=5)
trees = st.recursive(
    tensors | scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def alike(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    return repr(one) == repr(other)


@given(tree=trees)
def test_trees_come_back_through_json(tree: Any) -> None:
    found, skeleton = pack(tree)
    assert alike(unpack(found, json.loads(json.dumps(skeleton))), tree)


@given(tree=st.dictionaries(st.text(max_size=4), trees, max_size=3))
@settings(max_examples=25)
def test_states_come_back_through_a_file(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    checkpoints = Checkpoints(tmp_path_factory.mktemp("state"), keep=1)
    checkpoints.save(1, tree, None)
    assert alike(checkpoints.load(1), tree)


def test_words_that_look_like_markers_come_back() -> None:
    tree = {"@tensor": "0", "a": {"@map": [["b", 1]]}, "c": [{"@tuple": []}]}
    found, skeleton = pack(tree)
    assert unpack(found, json.loads(json.dumps(skeleton))) == tree


def test_pack_copies(tmp_path: Path) -> None:
    weight = torch.zeros(2)
    found, _ = pack({"w": weight})
    weight += 1
    assert torch.equal(found["0"], torch.zeros(2))


def test_objects_do_not_go_into_a_state() -> None:
    with pytest.raises(TypeError, match="not PosixPath"):
        pack({"where": PosixPath("x")})


# --------------------------------------------------------------------------------------------------- which are kept


def test_the_last_n_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step, best in ((10, 10), (20, 10), (30, 10), (40, 40), (50, 40), (60, 40), (70, 40)):
        checkpoints.save(step, {"step": step}, best)
    assert checkpoints.steps() == [40, 60, 70]


def test_best_is_by_the_smallest_score_and_survives(make_trainer: Callable[..., Trainer]) -> None:
    scores = {1: 5.0, 2: 3.0, 3: 4.0, 4: 3.5, 5: 9.0, 6: 8.0}
    hooks = Hooks(score=lambda step, state: scores[step])
    trainer = make_trainer(hooks=hooks, score_every=1, steps=6, checkpoint_every=1, keep=1)
    trainer.run()
    assert trainer.best == (2, 3.0)
    assert trainer.checkpoints.steps() == [2, 6]


def test_steps_are_numbers_not_names(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    for step in (9_999_999, 10_000_000):
        checkpoints.save(step, {}, None)
    (tmp_path / "step-mine").mkdir()
    (tmp_path / "step-0000005").mkdir()  # no state in it: a removal that was cut short
    assert checkpoints.steps() == [9_999_999, 10_000_000]
    checkpoints.sweep()
    assert not (tmp_path / "step-0000005").exists()


def test_same_step_again_replaces_its_state(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, {"try": 1}, None)
    checkpoints.save(1, {"try": 2}, None)
    assert checkpoints.load(1) == {"try": 2}
    assert [each.name for each in tmp_path.iterdir()] == ["step-0000001"]


# --------------------------------------------------------------------------------------------------- what is refused


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import sys; sys.bomb_went_off = True",)


def foreign_files() -> dict[str, Callable[[Path], Any]]:
    def header(**metadata: str) -> Callable[[Path], Any]:
        return lambda file: write_tensors(file, {"0": torch.zeros(2)}, metadata)

    return {
        "pickle": lambda file: file.write_bytes(pickle.dumps(Bomb())),
        "torch-save": lambda file: torch.save(Bomb(), file),
        "empty": lambda file: file.write_bytes(b""),
        "text": lambda file: file.write_text("not a checkpoint, by any means"),
        "other-safetensors": header(),
        "other-format": header(format="pt", tree="{}"),
        "no-tree": header(format="ganvas-state-1"),
        "tree-is-a-list": header(format="ganvas-state-1", tree="[1]"),
        "tree-misses-a-tensor": header(format="ganvas-state-1", tree='{"@map": [["a", {"@tensor": "7"}]]}'),
        "tree-is-no-json": header(format="ganvas-state-1", tree="{"),
    }


@pytest.mark.parametrize("kind", foreign_files())
def test_foreign_file_is_refused_and_not_run(kind: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.path(1).mkdir()
    foreign_files()[kind](checkpoints.path(1) / STATE)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(1)
    assert caught.value.hint
    assert str(checkpoints.path(1)) in caught.value.where
    assert not hasattr(__import__("sys"), "bomb_went_off")


def test_a_state_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"w": torch.arange(8.0), "deep": {"n": 3}}, None)
    file = checkpoints.path(1) / STATE
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            checkpoints.load(1)
