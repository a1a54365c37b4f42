"""SIGKILL at random moments, then resume: the same bits as a run that was left alone."""

from __future__ import annotations

import copy
import subprocess
import sys
from types import ModuleType

import pytest
import torch


def run_script(killing: ModuleType, kills: int, seed: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(killing.__file__), "--kills", str(kills), "--seed", str(seed)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_killed_run_resumes_bit_exactly(killing: ModuleType) -> None:
    done = run_script(killing, kills=1, seed=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kills, 1 bit-exact resumes" in done.stdout


@pytest.mark.slow
def test_six_kills_six_bit_exact_resumes(killing: ModuleType) -> None:
    done = run_script(killing, kills=6, seed=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 kills, 6 bit-exact resumes" in done.stdout


def test_comparison_sees_one_changed_bit(killing: ModuleType) -> None:
    one = {"model/w": torch.tensor([0.0, 1.0]), "log.jsonl": b"{}\n", "checkpoint/step": 3}
    for name, changed in (("model/w", torch.tensor([-0.0, 1.0])), ("log.jsonl", b"{ }\n"), ("checkpoint/step", 4)):
        other = {**copy.deepcopy(one), name: changed}
        assert killing.differences(one, other) == [name]
    assert killing.differences(one, {**one, "model/extra": 1}) == ["model/extra"]
    assert killing.differences(one, copy.deepcopy(one)) == []
