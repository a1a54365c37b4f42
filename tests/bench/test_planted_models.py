"""Models with a planted fault: eval and inspect name it, and the Fréchet distance alone does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ganvas import cli

PLANTED = '''\
"""Generators that do not generate."""

from typing import Literal

import numpy as np
import torch
from torch import nn

from ganvas import parts
from ganvas.parts import network
from ganvas.types import Generator, LatentSpec


@network("planted-generator", tiny={})
class Planted(Generator):
    """Digits off the shelf: the training ones, held-out ones of two classes, or noise."""

    conditional = False

    def __init__(self, spec, *, fault: Literal["memorises", "drops modes", "makes noise"] = "memorises"):
        super().__init__()
        self.latents = {"z": LatentSpec((4,), "normal")}
        split = "train" if fault == "memorises" else "test"
        digits = parts.build("dataset", {"use": "digits", "split": split})
        batch = digits.batch(np.arange(len(digits)), np.random.default_rng(0))
        kept = batch.data if fault == "memorises" else batch.data[batch.label < 2]
        self.register_buffer("kept", kept)
        self.blur = 0.0 if fault == "memorises" else 0.1  # fresh ones are like the held-out ones, not the same
        self.noise = fault == "makes noise"
        self.idle = nn.Parameter(torch.zeros(()))  # something to train

    def forward(self, latent, label=None):
        place = torch.special.ndtr(latent[:, 0].double())  # (N,), uniform
        images = self.kept[(place * len(self.kept)).long().clamp(max=len(self.kept) - 1)]
        grain = latent[:, 1:2, None, None] * 37 + torch.arange(64).view(1, 1, 8, 8)
        grain = (torch.sin(grain * 12.9898) * 43758.5453).frac()  # (N, 1, 8, 8) in (-1, 1), as if drawn
        images = grain if self.noise else images + self.blur * grain
        return images.clamp(-1, 1) + 0 * self.idle
'''
RECIPE = """
data: {use: digits, split: train}
networks:
  generator: {use: planted-generator, fault: FAULT}
  discriminator: {use: sngan-discriminator, width: 8}
task: {use: adversarial}
train: {steps: 1, batch: 8, log_every: 1, checkpoint_every: 1}
eval: {protocol: digits}
"""
SAYS = {
    "memorises": "100% of the samples are copies of training images",
    "drops modes": "modes are missing",
    "makes noise": "the samples do not look like the data",
}
MEANT = {"memorises": "duplicates_of_training", "drops modes": "recall", "makes noise": "precision"}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANVAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "planted.py").write_text(PLANTED)
    return tmp_path


def ganvas(*words: str) -> None:
    assert cli.run([*words, "--parts", "planted.py"]) == 0


@pytest.mark.parametrize("fault", SAYS)
def test_the_fault_is_named(fault: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "planted.yaml").write_text(RECIPE.replace("FAULT", fault))
    ganvas("train", "planted.yaml", "--out", "run")
    capsys.readouterr()
    ganvas("eval", "run", "--json")
    shown = capsys.readouterr()
    assert f"alarm: {SAYS[fault]}" in shown.err
    rows = {row["metric"]: row for row in json.loads(shown.out)}
    told = {name for name, row in rows.items() if row["alarm"]}
    assert MEANT[fault] in told
    assert ("duplicates_of_training" in told) <= (fault != "makes noise")  # a hundred digits over and over are repeats
    ganvas("inspect", "run", "--with", "neighbours")
    report = (work / "run" / "report.html").read_text(encoding="utf-8")
    assert SAYS[fault] in report and 'role="alert"' in report
    for other in set(SAYS) - {fault}:
        assert SAYS[other] not in report
