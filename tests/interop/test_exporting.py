"""What goes out comes back: official keys, and ONNX files that give the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from official_files import golden
from torch import Tensor

import ganvas
from ganvas import cli, parts
from ganvas.errors import MissingCapability, UsageError
from ganvas.interop.checkpoints import import_checkpoint
from ganvas.interop.official import before, export_official
from ganvas.interop.onnx_file import as_onnx
from ganvas.model import Model
from ganvas.parts import image_spec
from ganvas.recipe.check import check_node
from ganvas.types import Generator

ITERATED = (".u0", ".sv0")  # not unique: any vector whose next power iteration is ours will do


def model_of(name: str, tmp_path: Path, family: str, content: Any) -> Model:
    torch.save(content, tmp_path / f"{name}.pt")
    import_checkpoint(tmp_path / f"{name}.pt", family).save(tmp_path / f"{name}.safetensors")
    return ganvas.load(tmp_path / f"{name}.safetensors")


def same_state(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.shape == other[key].shape, key
        if not key.endswith(ITERATED):
            assert torch.equal(value, other[key]), key


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("biggan_g", "generator"), ("biggandeep_g", "generator"), ("biggan_d", "discriminator"),
        ("biggandeep_d", "discriminator"),
    ],
)  # fmt: skip
def test_biggan_in_official_keys(name: str, role: str, tmp_path: Path) -> None:
    case = golden(name)
    model = model_of(name, tmp_path, "biggan", case.state)
    export_official(model, "biggan", tmp_path / "out.pth", role=role)
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    same_state(written, case.state)
    again = import_checkpoint(tmp_path / "out.pth", "biggan").imported[role]  # type: ignore[index]
    assert {**again.node} == {key: model.recipe["networks"][role][key] for key in again.node} or role == "discriminator"
    for key, value in again.net.state_dict().items():
        torch.testing.assert_close(value, model.nets[role].state_dict()[key], rtol=0, atol=1e-6)
    output = "img" if role == "generator" else "logits"
    wanted = case.outputs[output]
    assert float((again.run(case.inputs)[output] - wanted).abs().max() / wanted.std()) < 1e-4


def test_the_vector_before_a_power_iteration() -> None:
    for rows, columns in ((5, 9), (9, 5), (6, 6), (1, 4)):
        W = torch.randn(rows, columns)
        start = torch.randn(rows)
        v = W.T @ start
        v = v / v.norm()
        u = W @ v
        u = u / u.norm()
        found = before(W, u, v)
        again = W.T @ found
        torch.testing.assert_close(again / again.norm(), v, rtol=0, atol=1e-5)


def test_stylegan2_in_official_keys(tmp_path: Path) -> None:
    cases = {"G_ema": golden("stylegan2_g"), "D": golden("stylegan2_d")}
    states = {key: dict(case.state) for key, case in cases.items()}
    kwargs = {key: dict(case.kwargs) for key, case in cases.items()}
    model = model_of("stylegan2", tmp_path, "stylegan2-ada", {**states, "init_kwargs": kwargs})
    export_official(model, "stylegan2-ada", tmp_path / "out.pt")
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    for key, case in cases.items():
        same_state(written[key], case.state)
    again = import_checkpoint(tmp_path / "out.pt", "stylegan2-ada")
    for role, net in model.nets.items():
        state = again.imported[role].net.state_dict()  # type: ignore[index]
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
        node = check_node("network", dict(again.imported[role].node))  # type: ignore[index]
        kept = model.recipe["networks"][role]
        assert {k: v for k, v in node.items() if k != "filter"} == {k: kept[k] for k in node if k != "filter"}


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_stylegan2_of_ours_with_labels(architecture: str, tmp_path: Path) -> None:
    """Every architecture, conditional; arguments travel with it, and without them shapes tell what they can."""
    spec = image_spec((1, 16, 16), 3)
    nodes: dict[str, Any] = {
        "generator": {
            "use": "stylegan2-generator", "z_dim": 6, "w_dim": 8, "channel_base": 128, "channel_max": 12,
            "architecture": architecture, "conditioning": "mapping", "clamp": 256.0,
            "mapping": {"layers": 2, "embed_dim": 5, "lr_multiplier": 0.02},
        },
        "discriminator": {
            "use": "stylegan2-discriminator", "channel_base": 128, "channel_max": 12, "architecture": architecture,
            "conditioning": {"use": "mapped-projection", "dim": 7}, "minibatch_channels": 2, "clamp": 256.0,
        },
    }  # fmt: skip
    nodes = {role: check_node("network", node) for role, node in nodes.items()}
    nets = {role: parts.build("network", node, spec) for role, node in nodes.items()}
    model = Model({"networks": nodes}, spec, nets)
    export_official(model, "stylegan2-ada", tmp_path / "out.pt")
    again = import_checkpoint(tmp_path / "out.pt", "stylegan2-ada")
    assert not again.notes and again.spec == spec
    for role, net in nets.items():
        state = again.imported[role].net.state_dict()  # type: ignore[index]
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    z, label = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    assert torch.equal(again.imported["generator"].net(z, label), nets["generator"](z, label))
    bare = torch.load(tmp_path / "out.pt", weights_only=True)
    del bare["init_kwargs"]
    torch.save(bare, tmp_path / "bare.pt")
    told = import_checkpoint(tmp_path / "bare.pt", "stylegan2-ada", {"lr_multiplier": 0.02, "conv_clamp": 256})
    assert torch.equal(told.imported["generator"].net(z, label), nets["generator"](z, label))


def test_the_command_line(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = golden("biggan_g")
    model_of("biggan", tmp_path, "biggan", case.state)
    out = tmp_path / "G_ema.pth"
    assert cli.run(["export", str(tmp_path / "biggan.safetensors"), "--to", "biggan", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["networks"]["generator"]["kwargs"]["shared_dim"] == 12
    same_state(torch.load(out, weights_only=True), case.state)
    for words, kind in (
        ([], "UsageError"), (["--onnx", "--to", "biggan"], "UsageError"), (["--to", "bigan"], "UsageError"),
        (["--to", "biggan"], "MissingCapability"), (["--to", "stylegan2-ada"], "MissingCapability"),
        (["--to", "biggan", "--net", "critic"], "UsageError"), (["--onnx", "--out", "nowhere/a.onnx"], "UsageError"),
    ):  # fmt: skip
        assert cli.run(["export", str(trained_run), *words, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["errors"][0]["type"] == kind, words
    assert not [each for each in trained_run.iterdir() if each.suffix in (".pt", ".onnx")]


def test_networks_without_a_counterpart(tmp_path: Path) -> None:
    spec = image_spec((3, 32, 32), 4)
    for node in (
        {"use": "biggan-generator", "width": 8, "z_dim": 8, "conditioning": None},
        {"use": "sngan-generator", "width": 8, "z_dim": 8},
    ):
        full = check_node("network", node)
        model = Model({"networks": {"generator": full}}, spec, {"generator": parts.build("network", full, spec)})
        with pytest.raises(MissingCapability, match="no counterpart"):
            export_official(model, "biggan", tmp_path / "a.pt")
    with pytest.raises(UsageError, match="Did you mean 'biggan'"):
        export_official(model, "bigan", tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()


# ---------------------------------------------------------------------------------------------------- ONNX


def generators() -> list[str]:
    """All network parts that are driven by latents, which instances alone can tell; none is named otherwise."""
    return [part.name for part in parts.every("network") if "generator" in part.name]


def built(name: str) -> Model:
    part, spec = parts.find("network", name), image_spec((3, 32, 32), 4)
    torch.manual_seed(0)
    net = parts.build("network", {"use": name, **part.tiny}, spec)
    if not isinstance(net, Generator):
        pytest.skip(f"{name} is not driven by latents")
    return Model({"sampler": {"use": "plain"}}, spec, {"generator": net})


def compared(name: str) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs the extra onnx ({package})")
    model = built(name)
    before = model.sample(2, seed=0)
    _, facts = as_onnx(model)
    assert facts["deviation"] < 1e-4
    assert list(facts["inputs"]) == (["z", "label"] if model.num_classes else ["z"])
    assert all(shape[0] is None for shape in facts["inputs"].values())
    assert torch.equal(model.sample(2, seed=0), before)  # the model itself is as it was


def test_onnx(tmp_path: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A conditional model from the command line, in batches of other sizes than it was made with."""
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx (onnxruntime)")
    out = tmp_path / "model.onnx"
    assert cli.run(["export", str(trained_run), "--onnx", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deviation"] < 1e-4
    model = ganvas.load(trained_run)
    session = runtime.InferenceSession(out.read_bytes())
    assert [(each.name, each.type) for each in session.get_inputs()] == [
        ("z", "tensor(float)"),
        ("label", "tensor(int64)"),
    ]
    for n in (1, 2, 9):
        z, label = model.draw(n, seed=n), torch.arange(n) % 10
        (images,) = session.run(None, {"z": z.values.numpy(), "label": label.numpy()})
        torch.testing.assert_close(torch.from_numpy(images), model.synthesize(z, label).clamp(-1, 1), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", generators())
def test_every_generator_on_the_shelf(name: str) -> None:
    compared(name)
