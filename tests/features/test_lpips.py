"""LPIPS as a feature space: the formula of the paper, and torchvision's networks inside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_weights import drawn, pictures, save
from torch import Tensor

from ganvas.errors import CheckpointError, UsageError
from ganvas.files.published import GivenWeights
from ganvas.shelves.features import lpips
from ganvas.shelves.features.lpips import LPIPS, TRUNKS

NETS = ["alex", "vgg", "squeeze"]


def weights_of(net: str, place: Path) -> tuple[dict[str, Tensor], list[Tensor], dict[str, object]]:
    """(state of the trunk, w_l of each layer, the keys that name the files)."""
    state = {f"features.{name}": value for name, value in drawn(lpips._BUILD[net]()).items()}
    generator = torch.Generator().manual_seed(1)
    linear = [torch.rand(width, generator=generator) for width in TRUNKS[net].widths]
    named = {f"lin{number}.model.1.weight": w.view(1, -1, 1, 1) for number, w in enumerate(linear)}
    more = {"classifier.1.weight": torch.zeros(2, 2)}  # official files hold the classifier, too
    keys = {
        "source": GivenWeights(save({**state, **more}, place / f"{net}.pth")),
        "linear": save(named, place / f"linear-of-{net}.pth"),
    }
    return state, linear, keys


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("size", [(64, 64), (48, 40)])
def test_squared_distance_of_features_is_the_distance_of_the_paper(
    net: str, size: tuple[int, int], tmp_path: Path
) -> None:
    state, linear, keys = weights_of(net, tmp_path)
    images = pictures(3, 3, *size)
    features, _ = LPIPS(net=net, side=None, **keys)(images)

    # Zhang et al. 2018, eq. 1, layer by layer: sum over l of the mean over h, w of |w_l * (y_l - y0_l)|^2
    trunk = lpips._BUILD[net]()
    trunk.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    h = (images - shift[:, None, None]) / scale[:, None, None]
    maps = []
    with torch.no_grad():
        for number, layer in enumerate(trunk):
            h = layer(h)
            if number in TRUNKS[net].taps:
                maps.append(h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        paper = sum(
            (w[:, None, None] * (y[a] - y[b]).square()).sum(0).mean().item() for w, y in zip(linear, maps, strict=True)
        )
        assert (features[a] - features[b]).square().sum().item() == pytest.approx(paper, rel=1e-5)
        assert paper > 1e-3


@pytest.mark.parametrize(("net", "builder"), [("alex", "alexnet"), ("vgg", "vgg16"), ("squeeze", "squeezenet1_1")])
def test_the_networks_are_torchvisions(net: str, builder: str, torchvision: None) -> None:
    import torchvision.models as models

    theirs = getattr(models, builder)(weights=None).features.eval()
    ours = lpips._BUILD[net]().eval()
    assert {name: value.shape for name, value in theirs.state_dict().items()} == {
        name: value.shape for name, value in ours.state_dict().items()
    }
    state = drawn(ours)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    x = y = torch.randn(2, 3, 70, 70)
    with torch.no_grad():
        for number, (own, other) in enumerate(zip(ours, theirs, strict=False)):
            x, y = own(x), other(y)
            assert torch.equal(x, y), number
    taps = TRUNKS[net].taps
    assert len(taps) == len(TRUNKS[net].widths)
    assert len(ours) == taps[-1] + 1


def test_an_image_is_nearest_to_itself_and_further_from_what_is_further_off(tmp_path: Path) -> None:
    _, _, keys = weights_of("alex", tmp_path)
    net = LPIPS(**keys)
    image = pictures(1, 3, 80, 80)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    kept = [net((image + level * noise).clamp(-1, 1))[0] for level in (0, 0.05, 0.1, 0.2)]
    distances = [(each - kept[0]).square().sum().item() for each in kept]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert kept[0].shape[1] == net(pictures(1, 3, 33, 200))[0].shape[1] == 31872  # at 64 pixels, whatever came


def test_refuses_small_images_and_foreign_weights(tmp_path: Path) -> None:
    _, linear, keys = weights_of("alex", tmp_path)
    with pytest.raises(UsageError, match="at least 32 pixels"):
        LPIPS(side=None, **keys)(pictures(1, 3, 31, 64))
    LPIPS(side=None, **keys)(pictures(1, 3, 32, 32))
    _, _, other = weights_of("squeeze", tmp_path)
    with pytest.raises(CheckpointError, match="one weight, 0 or more"):
        LPIPS(**{**keys, "linear": other["linear"]})
    negative = {f"lin{number}.model.1.weight": -w.view(1, -1, 1, 1) for number, w in enumerate(linear)}
    with pytest.raises(CheckpointError, match="one weight, 0 or more"):
        LPIPS(**{**keys, "linear": save(negative, tmp_path / "negative.pth")})


def test_both_files_are_named_and_hashed(tmp_path: Path) -> None:
    _, linear, keys = weights_of("alex", tmp_path)
    before = LPIPS(**keys).provenance
    assert "alex.pth" in before["source"]
    assert "linear-of-alex.pth" in before["source"]
    changed = {f"lin{number}.model.1.weight": 2 * w.view(1, -1, 1, 1) for number, w in enumerate(linear)}
    save(changed, Path(str(keys["linear"])))
    assert LPIPS(**keys).provenance["sha256"] != before["sha256"]


def test_published_files_are_known_by_their_hashes() -> None:
    for trunk in TRUNKS.values():
        for published in (trunk.weights, trunk.linear):
            assert published.files[0].split("-")[-1].removesuffix(".pth").isalnum()
            assert len(published.files[0].split("-")[-1]) == len("00000000.pth")
