"""State dicts of StyleGAN3 and StyleGAN-XL that come without the arguments of their constructors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from official_files import golden
from torch import Tensor

import ganvas
from ganvas.interop.alias_free import Guess, Layer, guesses
from ganvas.interop.checkpoints import Found, import_checkpoint
from ganvas.interop.registry import NoImporter, import_network
from ganvas.parts import image_spec
from ganvas.shelves.networks.style.stylegan3 import USUAL_BANDS, SynthesisOptions
from ganvas.shelves.networks.style.stylegan_xl import staged_steps

CASES = {
    "stylegan3_t_g": "stylegan3",
    "stylegan3_r_g": "stylegan3",
    "stylegan_xl_stem": "stylegan-xl",
    "stylegan_xl_superres": "stylegan-xl",
}


def imported(state: dict[str, Tensor], family: str, folder: Path, **options: Any) -> Found:
    torch.save(state, folder / "state.pt")
    return import_checkpoint(folder / "state.pt", family, options)


@pytest.mark.parametrize(("name", "family"), CASES.items())
def test_a_state_dict_alone_is_the_same_network(name: str, family: str, tmp_path: Path) -> None:
    """As with the arguments; tests/parity shows that those give the official images."""
    case = golden(name)
    ours = imported(dict(case.state), family, tmp_path)
    theirs = import_network(case)
    assert ours.imported["generator"].node == theirs.node
    assert ours.spec == theirs.spec
    state = ours.imported["generator"].net.state_dict()
    assert all(torch.equal(state[key], value) for key, value in theirs.net.state_dict().items())
    ours.save(tmp_path / "model.safetensors")
    assert ganvas.load(tmp_path / "model.safetensors").sample(2, seed=0).shape == (2, *theirs.spec.shape)


@pytest.mark.parametrize(("name", "family"), CASES.items())
def test_filters_of_other_bands_are_refused(name: str, family: str, tmp_path: Path) -> None:
    """Sizes and channels may be the same; the filters tell."""
    state = dict(golden(name).state)
    key = next(key for key in sorted(state) if key.endswith("down_filter") and "L1_" in key)
    state[key] = state[key] + 0.01 * state[key].abs().max()
    with pytest.raises(NoImporter, match=r"its down_filter is of another band"):
        imported(state, family, tmp_path)


def test_layers_of_other_bands_are_refused(tmp_path: Path) -> None:
    state = {key.replace("L4_24_16", "L4_28_16"): value for key, value in golden("stylegan3_t_g").state.items()}
    with pytest.raises(NoImporter, match="usual bands; give the pickle"):
        imported(state, "stylegan3", tmp_path)
    with pytest.raises(NoImporter, match="usual bands"):
        imported({key.replace("L0_24_20", "L0_0_0"): value for key, value in state.items()}, "stylegan3", tmp_path)


@pytest.mark.parametrize("name", ["stylegan3_t_g", "stylegan_xl_superres"])
def test_what_nothing_shows_can_be_said(name: str, tmp_path: Path) -> None:
    state = dict(golden(name).state)
    usual = imported(state, CASES[name], tmp_path).imported["generator"].node
    node = imported(state, CASES[name], tmp_path, output_scale=1.0, conv_clamp=7).imported["generator"].node
    assert (usual["output_scale"], usual["clamp"]) == (0.25, 256)
    assert (node["output_scale"], node["clamp"]) == (1.0, 7)


def layers(side: int, count: int, stages: list[tuple[int, int]], base: int, most: int) -> list[Layer]:
    """What the official names say of a network, from our own; the first stage leaves a gap in their numbers."""
    options = SynthesisOptions(base, most, 3, False, 10, 0.25, None, 1.0, USUAL_BANDS)
    steps, _ = staged_steps(image_spec((3, side, side)), count, stages, options)
    gap = count - USUAL_BANDS.critical if stages else len(steps)
    return [Layer(i + (i >= gap), step.after.size[0], step.after.channels) for i, step in enumerate(steps)]


PUBLISHED = [
    (1024, 14, [], 32768, 512),  # StyleGAN3-T
    (1024, 14, [], 65536, 1024),  # StyleGAN3-R
    (256, 14, [], 16384, 512),
    (64, 10, [(2, 7), (2, 7)], 65536, 1024),  # StyleGAN-XL
    (256, 10, [(2, 7), (2, 7), (2, 7), (2, 7)], 65536, 1024),
    (512, 10, [(2, 7), (2, 7), (2, 7), (2, 7), (2, 7)], 65536, 1024),
    (256, 10, [(2, 7), (8, 5)], 65536, 1024),  # not published: stages of different kinds
]


@pytest.mark.parametrize("arguments", PUBLISHED)
def test_names_of_layers_tell_one_network(arguments: tuple[int, int, list[tuple[int, int]], int, int]) -> None:
    side, count, stages, base, most = arguments
    stem = side
    for factor, _ in stages:
        stem //= factor
    assert list(guesses(layers(*arguments))) == [Guess(stem, count, tuple(stages), 10, base, most)]


def test_widths_that_never_fall_below_the_most_are_those_of_a_smaller_base() -> None:
    """A stem of 16 pixels has 1024 channels everywhere, whichever large base it was made with."""
    wide = layers(16, 10, [], 65536, 1024)
    (guess,) = guesses(wide)
    assert (guess.channel_base, guess.channel_max) == (16384, 1024)
    assert layers(16, 10, [], guess.channel_base, guess.channel_max) == wide
