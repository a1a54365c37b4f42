"""Weights from elsewhere: where they are found, what is refused, and what is said."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import sys
from pathlib import Path

import pytest
import torch
from made_weights import save

from ganvas.errors import CheckpointError, MissingExtra
from ganvas.files import published
from ganvas.files.published import GivenWeights, Published, _from_hub, find, load_extra, read_state

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.count": torch.tensor(3)}
FILE = Published(("net.safetensors", "official.pth"), "https://example.org/net", ("someone/net", "model.safetensors"))


def test_the_given_path_comes_first_then_the_folders_then_the_hub(
    own_places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = save(STATE, tmp_path / "hub" / "model.safetensors")
    asked = []
    monkeypatch.setattr(published, "_from_hub", lambda *what: (asked.append(what), (fetched, ""))[1])
    assert find(FILE, GivenWeights(), part="net").path == fetched
    assert asked == [("someone/net", "model.safetensors")]
    in_torch_hub = save(STATE, tmp_path / "torch-hub" / "checkpoints" / "official.pth")
    assert find(FILE, GivenWeights(), part="net").path == in_torch_hub
    ours = save(STATE, own_places / "official.pth")
    assert find(FILE, GivenWeights(), part="net").path == ours
    first = save(STATE, own_places / "net.safetensors")
    assert find(FILE, GivenWeights(), part="net").path == first
    given = save(STATE, tmp_path / "mine.safetensors")
    found = find(FILE, GivenWeights(given), part="net")
    assert found.path == given
    assert found.sha256 == hashlib.sha256(given.read_bytes()).hexdigest()
    assert asked == [("someone/net", "model.safetensors")]  # the Hub is asked only where nothing is here


def test_what_is_missing_is_told_with_its_address_and_place(own_places: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find(FILE, GivenWeights(), part="net")
    text = str(caught.value)
    for said in ("net.safetensors", "https://example.org/net", str(own_places / "net.safetensors"), "out of reach"):
        assert said in text
    with pytest.raises(CheckpointError, match="there are no weights at") as caught:
        find(FILE, GivenWeights(tmp_path / "nowhere.pth"), part="net")
    assert "https://example.org/net" in caught.value.hint


def test_the_hub_gives_a_file_or_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the extra timm")
    monkeypatch.setattr(hub, "hf_hub_download", lambda repository, file: str(tmp_path / repository / file))
    assert _from_hub("someone/net", "model.safetensors") == (tmp_path / "someone/net" / "model.safetensors", "")

    def away(repository: str, file: str) -> str:
        raise ConnectionError("no route\nto anywhere")

    monkeypatch.setattr(hub, "hf_hub_download", away)
    path, reason = _from_hub("someone/net", "model.safetensors")
    assert path is None
    assert "ConnectionError: no route)" in reason
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "huggingface_hub" in _from_hub("someone/net", "model.safetensors")[1]


def test_without_a_folder_of_their_own_weights_lie_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANVAS_WEIGHTS")
    monkeypatch.setenv("GANVAS_CACHE", "/somewhere")
    assert published.folder() == Path("/somewhere/weights")
    monkeypatch.delenv("GANVAS_CACHE")
    assert published.folder() == Path.home() / ".cache" / "ganvas" / "weights"


def test_a_file_that_is_not_the_wanted_one_is_refused(tmp_path: Path) -> None:
    file = save(STATE, tmp_path / "net.safetensors")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert find(FILE, GivenWeights(file, sha256[:8].upper()), part="net").sha256 == sha256
    with pytest.raises(CheckpointError, match="does not begin with 00000000"):
        find(FILE, GivenWeights(file, "0" * 8), part="net")
    named = file.rename(tmp_path / f"net-{sha256[:8]}.safetensors")
    assert find(FILE, GivenWeights(named), part="net").sha256 == sha256
    wrong = named.rename(tmp_path / "net-0123abcd.safetensors")
    with pytest.raises(CheckpointError, match="does not begin with 0123abcd") as caught:
        find(FILE, GivenWeights(wrong), part="net")
    assert "get it again" in caught.value.hint


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net.pth.tar"])
def test_reads_tensors_by_name(name: str, tmp_path: Path) -> None:
    half = {**STATE, "layer.weight": STATE["layer.weight"].half()}
    found = read_state(save(half, tmp_path / name))
    assert set(found) == set(STATE)
    assert torch.equal(found["layer.weight"], STATE["layer.weight"])
    assert found["layer.weight"].dtype == torch.float32
    assert found["layer.count"].dtype == torch.int64


@pytest.mark.parametrize("wrap", ["state_dict", "model"])
def test_takes_off_what_official_files_wrap_around(wrap: str, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save({wrap: {f"module.{name}": value for name, value in STATE.items()}, "epoch": 3}, file)
    assert set(read_state(file)) == set(STATE)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('it ran')",)


def test_nothing_in_a_file_runs_and_damage_is_told(tmp_path: Path) -> None:
    whole = save(STATE, tmp_path / "whole.pth").read_bytes()
    safe = save(STATE, tmp_path / "whole.safetensors").read_bytes()
    contents = {
        "hostile.pth": pickle.dumps(Hostile(), protocol=2),
        "cut.pth": whole[:-200],
        "empty.pth": b"",
        "garbage.pth": b"\xff" * 500,
        "cut.safetensors": safe[:-4],
        "empty.safetensors": b"",
        "directory.safetensors": None,
    }
    for name, content in contents.items():
        file = tmp_path / "damaged" / name
        file.parent.mkdir(exist_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            read_state(file)
        assert str(file) in str(caught.value), name
    torch.save({"weights": Hostile()}, tmp_path / "zipped.pth")
    with pytest.raises(CheckpointError, match="it is refused"):
        read_state(tmp_path / "zipped.pth")
    for number, content in enumerate(([1, 2], {"lr": 0.1}, torch.zeros(3))):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(CheckpointError, match="no table of named tensors"):
            read_state(tmp_path / f"{number}.pth")


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'timm'"), RuntimeError("operator torchvision::nms does not exist")]
)
def test_a_package_that_is_absent_or_broken_says_how_to_get_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(MissingExtra, match="extractor 'swin' needs the package timm") as caught:
        load_extra("timm", package="timm", extra="timm", part="swin")
    assert 'pip install "ganvas[timm]"' in caught.value.hint
    assert ("build for this PyTorch" in caught.value.hint) == isinstance(error, RuntimeError)
