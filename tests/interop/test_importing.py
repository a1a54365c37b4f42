"""Golden cases as their authors' checkpoint files: imported by the command line, they are the same networks."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_files import SAVES, Official, golden, tree
from torch import Tensor, nn

import ganvas
from ganvas import cli
from ganvas.errors import CheckpointError, GanvasError, UsageError
from ganvas.files.files import model_metadata
from ganvas.interop.checkpoints import import_checkpoint
from ganvas.interop.families import FAMILIES
from ganvas.interop.registry import NoImporter, OfficialCase, import_network
from ganvas.types import Latent

Contents = Callable[[Mapping[str, Mapping[str, Tensor]]], Any]


def only(states: Mapping[str, Mapping[str, Tensor]]) -> Any:
    return next(iter(states.values()))


def parallel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As DataParallel names tensors."""
    return {f"module.{name}": each for name, each in state.items()}


def zeros(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that must not be taken, where averaged ones are there."""
    return {name: torch.zeros_like(each) for name, each in state.items()}


def learnt(state: Mapping[str, Tensor]) -> list[Tensor]:
    """FastGAN's averaged weights: parameters in order, without names."""
    fixed = ("weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked")
    return [each for name, each in state.items() if not name.endswith(fixed)]


def studiogan(states: Mapping[str, Mapping[str, Tensor]]) -> Any:
    return {"state_dict": OrderedDict(only(states)), "epoch": 3, "best_fid": np.float64(7.5), "run_name": "x"}


FILES: dict[str, tuple[str, tuple[str, ...], Contents, dict[str, Any]]] = {
    "biggan": ("biggan", ("biggan_g",), only, {}),
    "biggan critic": ("biggan", ("biggan_d",), only, {}),
    "biggan-deep": ("biggan", ("biggandeep_g",), lambda s: parallel(only(s)), {}),
    "biggan-deep critic": ("biggan", ("biggandeep_d",), only, {}),
    "sngan": ("studiogan", ("sngan_g",), studiogan, {}),
    "sagan": ("studiogan", ("sagan_g",), studiogan, {}),
    "dcgan": ("studiogan", ("dcgan_g",), studiogan, {}),
    "studio biggan": ("studiogan", ("studio_bigresnet_g",), studiogan, {}),
    "studio biggan critic": ("studiogan", ("studio_bigresnet_d",), studiogan, {"backbone": "big_resnet"}),
    "sngan critic": ("studiogan", ("sngan_d",), studiogan, {}),
    "fastgan": (
        "fastgan", ("fastgan_g", "fastgan_d"),
        lambda s: {"g": parallel(s["fastgan_g"]), "d": parallel(s["fastgan_d"]), "opt_g": {"state": {}}}, {},
    ),
    "fastgan all": (
        "fastgan", ("fastgan_g",),
        lambda s: {"g": s["fastgan_g"], "g_ema": learnt(s["fastgan_g"])}, {},
    ),
    "ladagan": (
        "ladagan", ("ladagan_g", "ladagan_d"),
        lambda s: {
            "iter": 3, "generator": zeros(s["ladagan_g"]), "discriminator": s["ladagan_d"], "ema": s["ladagan_g"],
        },
        {},
    ),
    "transgan": (
        "transgan", ("transgan_g", "transgan_d"),
        lambda s: {
            "epoch": 9, "gen_model": "x", "gen_state_dict": zeros(s["transgan_g"]), "dis_state_dict": s["transgan_d"],
            "avg_gen_state_dict": s["transgan_g"], "path_helper": {"ckpt_path": "x"}, "fixed_z": torch.ones(2),
        },
        {"latent_norm": True},
    ),
    "transgan without positions": (
        "transgan", ("transgan_g_norp",), lambda s: {"avg_gen_state_dict": only(s)}, {"latent_norm": True},
    ),
    "r3gan state dicts": (
        "r3gan", ("r3gan_g", "r3gan_d"), lambda s: {"G_ema": s["r3gan_g"], "D": s["r3gan_d"]}, {},
    ),
    "styleswin": (
        "styleswin", ("styleswin_g", "styleswin_d"),
        lambda s: {
            "g": zeros(s["styleswin_g"]), "d": s["styleswin_d"], "g_ema": s["styleswin_g"], "g_optim": {"state": {}},
            "args": Namespace(size=32, lr_mlp=0.01),
        },
        {},
    ),
}  # fmt: skip


def deviation(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest one, in spreads of each output."""
    return max(float((found[name] - each).abs().max() / each.std()) for name, each in wanted.items() if name in found)


def images(case: OfficialCase) -> dict[str, Tensor]:
    names = ("img", "img_128", "logits")
    return {name: each for name, each in case.outputs.items() if name in names and "fastgan_d" not in str(case.cls)}


@pytest.mark.parametrize("form", SAVES)
@pytest.mark.parametrize("name", FILES)
def test_the_same_networks(name: str, form: str, tmp_path: Path) -> None:
    family, cases, contents, options = FILES[name]
    given = {each: golden(each) for each in cases}
    file = tmp_path / "official.pt"
    SAVES[form](contents({each: case.state for each, case in given.items()}), file)
    found = import_checkpoint(file, family, options)
    assert not found.notes
    for each, case in given.items():
        role = "discriminator" if each.endswith("_d") else "generator"
        ours, theirs = found.imported[role], import_network(case)  # type: ignore[index]
        assert deviation(ours.run(case.inputs), images(case)) < 1e-4 or not images(case)
        assert {k: v for k, v in ours.node.items() if k != "from"} == dict(theirs.node), each
        same_state(ours.net, theirs.net)


def same_state(ours: nn.Module, theirs: nn.Module, but: str = "") -> None:
    """The same tensors; vectors of power iterations that were computed twice differ in their last bits."""
    state = theirs.state_dict()
    for key, value in ours.state_dict().items():
        if key.endswith((".0._u", ".0._v")):
            torch.testing.assert_close(value, state[key], rtol=0, atol=1e-5)
        elif not (but and key.endswith(but)):
            assert torch.equal(value, state[key]), key


def test_vitgan(tmp_path: Path) -> None:
    """Its files do not hold what singular values are multiplied by; the rest is the same."""
    case, file = golden("vitgan_g"), tmp_path / "gen_ema.pt"
    torch.save(case.state, file)
    ours, theirs = import_checkpoint(file, "vitgan").imported["generator"].net, import_network(case).net
    same_state(ours, theirs, but=".sigma")


# ---------------------------------------------------------------------------------------------------- pickles


NVIDIA = {
    "stylegan2-ada": ("stylegan2_g", "stylegan2_d"),
    "stylegan3": ("stylegan3_t_g",),
    "stylegan3 r": ("stylegan3_r_g",),
    "stylegan3 with stylegan2": ("stylegan2_g", "stylegan2_d"),
}


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("name", NVIDIA)
def test_pickles_with_source_code(
    name: str, protocol: int, nvidia: Callable[[OfficialCase], nn.Module], official: Official, tmp_path: Path
) -> None:
    """NVIDIA's snapshots; the code in them is neither imported nor run."""
    given = {each: golden(each) for each in NVIDIA[name]}
    nets = {("D" if each.endswith("_d") else "G_ema"): nvidia(case) for each, case in given.items()}
    easy = official.cls("dnnlib.util", "EasyDict", dict)
    content = {
        "G": nvidia(next(iter(given.values()))), **nets, "augment_pipe": None,
        "training_set_kwargs": easy(class_name="training.dataset.ImageFolderDataset", path="x.zip", xflip=True),
    }  # fmt: skip
    file = tmp_path / "network-snapshot.pkl"
    file.write_bytes(official.dumps(content, protocol))
    try:
        found = import_checkpoint(file, name.split(" ")[0])
    except NoImporter as error:
        pytest.skip(f"no importer yet: {error.problem}")
    for each, case in given.items():
        role = "discriminator" if each.endswith("_d") else "generator"
        same_state(found.imported[role].net, import_network(case).net)  # type: ignore[index]
        assert dict(found.imported[role].node) == dict(import_network(case).node)  # type: ignore[index]
    found.save(tmp_path / "model.safetensors")
    model = ganvas.load(tmp_path / "model.safetensors")
    assert model.sample(2, seed=0).shape == (2, *found.spec.shape)


def test_stylegan_xl(nvidia: Callable[[OfficialCase], nn.Module], official: Official, tmp_path: Path) -> None:
    """Functions that its program pickles with dill lie in the file as records."""
    case, file = golden("stylegan_xl_stem"), tmp_path / "best_model.pkl"
    function = official.module("dill._dill")

    def _create_function(*arguments: Any) -> Any:
        raise AssertionError("a function was made")

    _create_function.__module__, _create_function.__qualname__ = "dill._dill", "_create_function"
    function._create_function = _create_function  # type: ignore[attr-defined]

    class Hook:
        def __reduce__(self) -> Any:
            return _create_function, (b"code", {})

    file.write_bytes(official.dumps({"D": {"hook": Hook()}, "G_ema": nvidia(case)}))
    try:
        found = import_checkpoint(file, "stylegan-xl")
    except NoImporter as error:
        pytest.skip(f"no importer yet: {error.problem}")
    same_state(found.imported["generator"].net, import_network(case).net)
    with pytest.raises(CheckpointError, match=r"dill\._dill"):
        import_checkpoint(file, "stylegan3")


def test_r3gan_pickles(official: Official, tmp_path: Path) -> None:
    """Plain objects of its training program around those of its networks."""
    cases = {"G_ema": golden("r3gan_g"), "D": golden("r3gan_d")}
    content = {}
    for key, case in cases.items():
        cls = case.cls.rpartition(".")[2]
        outer = official.cls("training.networks", cls, nn.Module)()
        inner = official.cls("R3GAN.Networks", cls, nn.Module)
        layer = official.cls("R3GAN.Networks", "Layer", nn.Module)
        outer.Model = tree(
            case.state, lambda name, i=inner, e=layer: (e if name else i)(), lambda name: name == "Kernel"
        )
        outer.Model.DataTypePerStage = [torch.float32, torch.bfloat16]
        content[key] = outer
    file = tmp_path / "r3gan.pkl"
    file.write_bytes(official.dumps(content))
    found = import_checkpoint(file, "r3gan")
    for role, case in zip(("generator", "discriminator"), cases.values(), strict=True):
        assert deviation(found.imported[role].run(case.inputs), images(case)) < 1e-4  # type: ignore[index]


def test_tensorflow_pickles_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "stylegan2-ffhq-config-f.pkl"
    file.write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81}b.")
    with pytest.raises(CheckpointError, match=r"(?s)TensorFlow.*legacy\.py"):
        import_checkpoint(file, "stylegan2-ada")


# ---------------------------------------------------------------------------------------------------- the model


def test_the_file_samples_and_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, official = golden("biggan_g"), tmp_path / "G_ema.pth"
    torch.save(case.state, official)
    assert cli.run(["import", str(official), "--from", "biggan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    model = tmp_path / "G_ema.safetensors"
    assert told["out"] == str(model)
    assert told["networks"]["generator"]["use"] == "biggan-generator"
    assert told["networks"]["generator"]["class"] == "BigGAN.Generator"
    assert (told["shape"], told["num_classes"]) == ([3, 32, 32], 4)
    origin = model_metadata(model)["recipe"]["origin"]
    assert origin["from"] == "biggan" and origin["generator"]["repo"] == "ajbrock/BigGAN-PyTorch"
    loaded = ganvas.load(model)
    z, y = case.inputs["z"], case.inputs["y"]
    ours = loaded.synthesize(Latent(z), y)
    assert float((ours - case.outputs["img"]).abs().max() / case.outputs["img"].std()) < 1e-4
    assert cli.run(["sample", str(model), "--n", "4", "--label", "2", "--out", str(tmp_path / "grid.png")]) == 0
    reals = tmp_path / "reals.npz"
    np.savez(reals, images=np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8))
    capsys.readouterr()
    words = ["eval", str(model), "--against", str(reals), "--samples", "20", "--metric", "kernel-distance", "--json"]
    assert cli.run(words) == 0
    assert {row["metric"] for row in json.loads(capsys.readouterr().out)} == {"kernel_distance"}


def test_training_goes_on_from_it(tmp_path: Path) -> None:
    """`from:` an imported model."""
    case, official = golden("biggan_g"), tmp_path / "G_ema.pth"
    torch.save(case.state, official)
    import_checkpoint(official, "biggan").save(tmp_path / "model.safetensors")
    recipe = ganvas.Recipe.load("tiny/shapes-sagan", [f"networks.generator={{from: {tmp_path}/model.safetensors}}"])
    assert recipe.resolve()["networks"]["generator"]["use"] == "biggan-generator"


# ---------------------------------------------------------------------------------------------------- mistakes


@pytest.fixture
def biggan_file(tmp_path: Path) -> Path:
    file = tmp_path / "G_ema.pth"
    torch.save(golden("biggan_g").state, file)
    return file


def test_another_code_base(biggan_file: Path) -> None:
    for family in FAMILIES:
        if family != "biggan":
            with pytest.raises(CheckpointError, match="it looks like one of biggan") as caught:
                import_checkpoint(biggan_file, family)
            assert caught.value.hint == "--from biggan"


def test_each_golden_state_is_known_by_one_code_base_alone(tmp_path: Path) -> None:
    file = tmp_path / "official.pt"
    for name, (family, cases, contents, options) in FILES.items():
        torch.save(contents({each: golden(each).state for each in cases}), file)
        for other in set(FAMILIES) - {family}:
            with pytest.raises(CheckpointError, match=f"looks like one of {family}"):
                import_checkpoint(file, other)
        assert import_checkpoint(file, family, options), name


def test_missing_and_misshapen_tensors(biggan_file: Path) -> None:
    state = dict(golden("biggan_g").state)
    for change in (
        {"blocks.0.0.conv1.weight": None}, {"shared.weight": torch.zeros(4, 13)}, {"linear.weight": None},
        {"blocks.1.0.bn1.stored_mean": torch.zeros(7)}, {"more": torch.zeros(3)}, {"output_layer.2.bias": None},
    ):  # fmt: skip
        torch.save({k: v for k, v in {**state, **change}.items() if v is not None}, biggan_file)
        with pytest.raises((CheckpointError, NoImporter)) as caught:
            import_checkpoint(biggan_file, "biggan")
        assert str(biggan_file) in caught.value.where and caught.value.hint


def test_unknown_names(biggan_file: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'stylegan2-ada'"):
        import_checkpoint(biggan_file, "stylegan2ada")
    with pytest.raises(UsageError, match="Did you mean 'BN_eps'"):
        import_checkpoint(biggan_file, "biggan", {"BN_epsilon": 1})


def test_arguments_that_describe_another_network(
    nvidia: Callable[[OfficialCase], nn.Module], official: Official, tmp_path: Path
) -> None:
    """Numbers in the file are not believed: no network is built that is far larger than its tensors."""
    case, file = golden("stylegan2_g"), tmp_path / "a.pkl"
    for lie in (
        {"z_dim": 10**7},
        {"img_channels": 10**8},
        {"img_resolution": 1 << 15},
        {"channel_base": 10**7, "channel_max": 10**7},
    ):
        other = OfficialCase(case.cls, case.repo, {**case.kwargs, **lie}, case.state)
        file.write_bytes(official.dumps({"G_ema": nvidia(other)}))
        with pytest.raises(GanvasError) as caught:
            import_checkpoint(file, "stylegan2-ada")
        assert str(file) in caught.value.where


def test_modules_within_themselves(official: Official, tmp_path: Path) -> None:
    net, file = nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.pkl"
    net._modules["again"] = net
    file.write_bytes(pickle.dumps({"G_ema": net}))
    with pytest.raises(CheckpointError, match="without end"):
        import_checkpoint(file, "stylegan2-ada")


def test_arguments_that_multiply(
    nvidia: Callable[[OfficialCase], nn.Module], official: Official, tmp_path: Path
) -> None:
    """A list of ten lists of ten lists ..., forty deep."""
    laughs: Any = 0
    for _ in range(40):
        laughs = [laughs] * 10
    case, file = golden("stylegan2_g"), tmp_path / "a.pkl"
    other = OfficialCase(case.cls, case.repo, {**case.kwargs, "laughs": laughs}, case.state)
    file.write_bytes(official.dumps({"G_ema": nvidia(other)}))
    with pytest.raises(CheckpointError, match="multiplies"):
        import_checkpoint(file, "stylegan2-ada")


def test_tensors_made_of_the_same_numbers(tmp_path: Path) -> None:
    file, shared = tmp_path / "a.pt", torch.zeros(1000)
    state = dict(golden("biggan_g").state) | {f"blocks.{i}.0.more": shared for i in range(2000)}
    torch.save(state, file)
    with pytest.raises(CheckpointError, match="the same few numbers"):
        import_checkpoint(file, "biggan")


def test_the_command_line_says_so(biggan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(biggan_file)
    for words, kind in (
        (["import", file], "UsageError"),
        (["import", file, "--from", "biggan", "--out", "a.pt"], "UsageError"),
        (["import", file, "--from", "biggan", "--out", "nowhere/a.safetensors"], "UsageError"),
        (["import", file, "--from", "biggan", "--option", "BN_eps"], "UsageError"),
        (["import", file, "--from", "stylegan9"], "UsageError"),
        (["import", f"{file}x", "--from", "biggan"], "CheckpointError"),
        (["import", __file__, "--from", "biggan"], "CheckpointError"),
    ):
        assert cli.run([*words, "--json"]) == 2
        said = capsys.readouterr()
        assert json.loads(said.out)["errors"][0]["type"] == kind, said.err
        assert "Traceback" not in said.err
    assert not list(biggan_file.parent.glob("*.safetensors"))


def test_transgan_s_generator_that_attends_to_its_latent_is_refused(tmp_path: Path) -> None:
    names = ("l1.weight", "pos_embed_6", "blocks_6.block.0.attn.qkv.weight", "embedding_transform.weight")
    torch.save({name: torch.zeros(4, 4) for name in names}, tmp_path / "checkpoint")
    with pytest.raises(NoImporter, match="Celeba256_gen"):
        import_checkpoint(tmp_path / "checkpoint", "transgan")
