"""`ganvas train --profile`: where a step goes, while the run learns what it would have learnt."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ganvas import cli
from ganvas.files.files import read_tensors
from ganvas.training.trace import CLASSES, COPIES, ELEMENTS, LEARNING, MATRICES, PROFILED_STEPS, class_of, first_step

Ganvas = Callable[..., Any]
LAZY = "task.regularizers.r1.weight=1 task.regularizers.r1.every=3"
QUICK = f"train.steps=7 train.batch=8 train.log_every=1 task.critic_steps=2 {LAZY} --device cpu"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(a plain run, the same run with a profile, what people were told of the second one)"""
    folder = tmp_path_factory.mktemp("profiles")
    told = io.StringIO()
    for name, flags in (("plain", []), ("watched", ["--profile"])):
        with contextlib.redirect_stderr(told):
            words = ["train", "tiny/digits", "eval=", *QUICK.split(), "--out", str(folder / name), *flags]
            assert cli.run(words) == 0, told.getvalue()
    return folder / "plain", folder / "watched", told.getvalue()


def test_a_profile_changes_nothing_that_is_learnt(both: tuple[Path, Path, str]) -> None:
    plain, watched, _ = both
    assert not (plain / "profile").exists()
    assert (watched / "log.jsonl").read_bytes() == (plain / "log.jsonl").read_bytes()
    files = sorted(each.relative_to(plain) for each in plain.rglob("*.safetensors"))
    assert len(files) >= 2  # the model and a checkpoint: weights, averages, moments of Adam, counters
    for file in files:
        (tensors, head), (own, own_head) = (read_tensors(run / file) for run in (watched, plain))
        assert head == own_head and tensors.keys() == own.keys()
        assert all(torch.equal(tensor, own[name]) for name, tensor in tensors.items()), file


def test_the_trace_holds_the_steps_and_their_updates(both: tuple[Path, Path, str]) -> None:
    _, watched, _ = both
    names = [each.get("name") for each in json.loads((watched / "profile" / "trace.json").read_text())["traceEvents"]]
    assert names.count("ganvas step") == PROFILED_STEPS
    updates = [name for name in names if str(name).startswith("ganvas update ")]
    assert len(set(updates)) == PROFILED_STEPS * 3 + 1  # two of the critic and one of the generator; R1 once
    assert "aten::convolution" in names


def test_the_table_has_every_update_and_adds_up(both: tuple[Path, Path, str]) -> None:
    _, watched, told = both
    table = (watched / "profile" / "table.txt").read_text(encoding="utf-8")
    for name, times in (("discriminator: adversarial", 6), ("discriminator: r1", 1), ("generator: adversarial", 3)):
        assert re.search(rf"^{name}: \d+\.\d% of the time, {times} times", table, re.MULTILINE), name
    shares = [float(each) for each in re.findall(r"([\d.]+)% of the time", table)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    whole = table[table.index("all of it") : table.index("not arithmetic")]
    classes = {kind: float(re.search(rf"{kind}.* ([\d.]+)%", whole)[1]) for kind in CLASSES}  # type: ignore[index]
    assert sum(classes.values()) == pytest.approx(100, abs=0.3)
    other = float(re.search(r"not arithmetic of matrices: ([\d.]+)%", table)[1])  # type: ignore[index]
    assert other == pytest.approx(100 - classes[MATRICES], abs=0.2)
    assert "aten::mkldnn_convolution" in table and "calls a step" in table
    assert "not arithmetic of matrices" in told  # people are told the summary
    assert "calls a step" not in told


def test_a_run_shorter_than_the_profile_still_has_one(ganvas: Ganvas) -> None:
    said = ganvas("train tiny/digits eval= train.steps=2 train.batch=8 --device cpu --out short --profile")
    assert said.code == 0, said.err
    assert "1 steps under the profiler" in Path("short/profile/table.txt").read_text(encoding="utf-8")


def test_a_resumed_run_can_be_profiled(ganvas: Ganvas) -> None:
    assert ganvas("train tiny/digits eval= train.steps=4 train.batch=8 --device cpu --out run").code == 0
    said = ganvas("train --resume --allow-changes --out run train.steps=9 --device cpu --profile")
    assert said.code == 0, said.err
    assert "3 steps under the profiler" in said.err


def test_the_profile_begins_where_every_update_has_its_turn() -> None:
    assert first_step(0, 100, 1) == 1
    assert first_step(0, 100, 16) == 16
    assert first_step(15, 100, 16) == 16
    assert first_step(16, 100, 16) == 32
    assert first_step(0, 10, 16) == 1  # the run ends before: lazy updates are not seen
    assert first_step(0, 1, 1) == 0


def test_operators_are_told_apart() -> None:
    told = {
        "aten::mm": MATRICES, "aten::addmv_": MATRICES, "aten::convolution_backward": MATRICES,
        "aten::_scaled_dot_product_flash_attention_for_cpu": MATRICES, "aten::copy_": COPIES, "aten::_to_copy": COPIES,
        "aten::topk": ELEMENTS, "aten::native_batch_norm": ELEMENTS, "aten::randn": ELEMENTS,
        "aten::_foreach_lerp_": LEARNING, "aten::_fused_adam_": LEARNING,
    }  # fmt: skip
    assert {name: class_of(name) for name in told} == told
