"""WaveGAN: the sizes of the paper's tables, phase shuffle in closed form, and a run that is inspected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ganvas
from ganvas import cli, parts
from ganvas.errors import BadValue
from ganvas.parts import data_spec
from ganvas.shelves.networks.audio.wavegan import WaveGANDiscriminator, WaveGANGenerator, phase_shuffled
from ganvas.types import DataSpec, label_of


def sound(samples: int, channels: int = 1, classes: int = 0) -> DataSpec:
    return data_spec({"use": "audio", "rate": 16000}, (channels, samples), label_of(classes))


def count(net: torch.nn.Module) -> int:
    return sum(each.numel() for each in net.parameters())


# Donahue et al. 2019, tables 3 and 4, with c = 1 and d = 64: a dense layer (100, 256d), five transposed convolutions
# (25, in, out) with biases; five convolutions and a dense layer (256d, 1).
def test_networks_have_the_sizes_of_the_tables() -> None:
    d = 64
    with torch.device("meta"):
        made, critic = WaveGANGenerator(sound(16384)), WaveGANDiscriminator(sound(16384))
    pairs = [(16 * d, 8 * d), (8 * d, 4 * d), (4 * d, 2 * d), (2 * d, d), (d, 1)]
    assert count(made) == 101 * 256 * d + sum(25 * a * b + b for a, b in pairs)
    assert count(critic) == sum(25 * a * b + a for a, b in pairs) + 256 * d + 1
    assert made.first == (16 * d, 16)
    assert made.latents["z"].prior == "uniform"  # U(-1, 1)


@pytest.mark.parametrize(
    ("samples", "layers", "shortest"), [(64, 1, 16), (8192, 4, 32), (16384, 5, 16), (65536, 6, 16)]
)
def test_each_layer_makes_sound_four_times_longer(samples: int, layers: int, shortest: int) -> None:
    net = WaveGANGenerator(sound(samples, channels=2, classes=3), width=1, z_dim=4, conditioning="concat")
    assert (len(net.ups), net.first[1]) == (layers, shortest)
    made = net(torch.rand(2, 4), torch.tensor([0, 2]))
    assert made.shape == (2, 2, samples)
    critic = WaveGANDiscriminator(sound(samples, channels=2, classes=3), width=1, conditioning="projection")
    assert critic(made, torch.tensor([0, 2])).features.shape == (2, 2 ** (layers - 1) * shortest)


def test_lengths_that_cannot_be_divided_say_the_next_that_can() -> None:
    with pytest.raises(BadValue, match="8000 samples cannot be made 4 times shorter 4 times") as caught:
        WaveGANGenerator(sound(8000))
    assert caught.value.hint == "data.samples=8192"
    with pytest.raises(BadValue, match="too short"):
        WaveGANDiscriminator(sound(60))
    with pytest.raises(BadValue, match="is for sound"):
        WaveGANGenerator(parts.image_spec((1, 8, 8)))
    with pytest.raises(BadValue, match="no classes"):
        WaveGANGenerator(sound(64), conditioning="concat")


# Section 3.3: each map is moved by a draw from U{-n, ..., n}, missing samples are filled in by reflection
def test_phase_shuffle_moves_and_reflects() -> None:
    torch.manual_seed(0)
    row = torch.arange(8.0)
    moved = phase_shuffled(row.expand(200, 3, 8), 2)
    known = {
        -2: [2, 3, 4, 5, 6, 7, 6, 5], -1: [1, 2, 3, 4, 5, 6, 7, 6], 0: [0, 1, 2, 3, 4, 5, 6, 7],
        1: [1, 0, 1, 2, 3, 4, 5, 6], 2: [2, 1, 0, 1, 2, 3, 4, 5],
    }  # fmt: skip
    assert (moved == moved[:, :1]).all()  # all maps of a datum alike
    shifts = [next(k for k, wanted in known.items() if each.tolist() == wanted) for each in moved[:, 0]]
    assert all(20 < shifts.count(k) < 60 for k in known)  # about 40 of 200 each
    assert torch.equal(phase_shuffled(moved, 0), moved)


def test_the_critic_shuffles_only_while_it_learns() -> None:
    torch.manual_seed(0)
    critic, data = WaveGANDiscriminator(sound(1024), width=2), torch.rand(3, 1, 1024) * 2 - 1
    assert not torch.equal(critic(data).logits, critic(data).logits)
    critic.eval()
    assert torch.equal(critic(data).logits, critic(data).logits)


def test_a_run_is_inspected_with_players(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    ganvas.train("tiny/tones-wavegan", "data.count=32", "train.steps=2", "train.checkpoint_every=2", "eval=~", out=run)
    protocol = tmp_path / "quick.yaml"
    protocol.write_text("extractor: log-mel\nmetrics: {frechet-distance: {}}\nsamples: 32\nseeds: [0]\nhalves: 0\n")
    command = ["inspect", str(run), "--protocol", str(protocol), "--with", "samples", "--with", "classes"]
    assert cli.run([*command, "--with", "spectrum"]) == 0
    said = capsys.readouterr()
    assert "spectrum is left out: it looks at image data, and these are audio" in said.out + said.err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count('<audio controls preload="none"') == 10 + 10 + 24  # samples, real ones, the classes' sheet
    assert page.count("data:audio/wav;base64,") == 44
