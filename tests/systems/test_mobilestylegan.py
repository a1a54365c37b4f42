"""MobileStyleGAN (Belousov 2021): what its layers compute, what they cost, and that a student learns a teacher."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ganvas import parts
from ganvas.engine.build import build_networks, build_task
from ganvas.errors import BadValue
from ganvas.files.files import read_rows
from ganvas.model import Model
from ganvas.nn.haar import haar
from ganvas.parts import image_spec
from ganvas.recipe import yaml12
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.shelves.networks.style.mobilestylegan import DenseConv, FixedDemodulation, SeparableConv, WaveletUpsample
from ganvas.training.train import train
from ganvas.types import Batch, DataSpec, Facts, Latent

pytestmark = pytest.mark.system("mobilestylegan")

SPEC = image_spec((3, 16, 16))
KEYS = {"z_dim": 8, "w_dim": 8, "channel_base": 256, "channel_max": 16, "mapping": {"layers": 2}}


def build(use: str, spec: DataSpec = SPEC, **keys: object) -> nn.Module:
    return parts.build("network", check_node("network", {"use": use, **KEYS, **keys}), spec)


def shaken(net: nn.Module) -> nn.Module:
    """With no parameter at a value that hides what it does."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def student(**keys: object) -> nn.Module:
    return shaken(build("mobilestylegan-generator", **keys)).eval()


# ------------------------------------------------------------------------------------------- layers


def test_upsampling_is_the_inverse_of_haar_and_keeps_the_energy() -> None:
    layer, x, w = shaken(WaveletUpsample(12, 8)), torch.randn(2, 12, 5, 6), torch.randn(2, 8)
    up = layer(x, w)
    assert up.shape == (2, 3, 10, 12)
    scaled = x * layer.affine(w)[:, :, None, None]
    assert (haar(up) - scaled).abs().max() <= 1e-6 * scaled.abs().max()
    torch.testing.assert_close(up.square().sum(), scaled.square().sum())


def dense(layer: SeparableConv | DenseConv, x: Tensor, w: Tensor) -> Tensor:
    """The paper's formula with a kernel for each datum: modulated by s, divided by the norm that p gives."""
    separable = isinstance(layer, SeparableConv)
    kernel = layer.pointwise * layer.depthwise.transpose(0, 1) if separable else layer.weight  # (out, in, 3, 3)
    kernel = kernel / (9 * x.shape[1]) ** 0.5
    assert layer.typical is not None
    norm = (kernel * layer.typical[:, None, None]).square().sum((1, 2, 3)).add(1e-8).sqrt()
    style = F.linear(w, layer.affine.weight, layer.affine.bias)
    each = [
        F.conv2d(x[n : n + 1], kernel * style[n][:, None, None] / norm[:, None, None, None], padding=1)
        for n in range(len(x))
    ]
    return torch.cat(each)


@pytest.mark.parametrize("kind", [SeparableConv, DenseConv])
def test_convolution_is_the_dense_one_with_kernels_that_are_products(kind: type[FixedDemodulation]) -> None:
    layer, x, w = shaken(kind(6, 10, 8)), torch.randn(3, 6, 7, 9), torch.randn(3, 8)
    expected = dense(layer, x, w)
    assert (layer(x, w) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_output_has_unit_variance_where_the_style_is_the_typical_one() -> None:
    """That is what demodulation is for: N(0, 1) in, N(0, 1) out, whatever the weights."""
    layer = SeparableConv(16, 8, 4)
    nn.init.zeros_(layer.affine.weight)  # the style is 1 for every w, as `typical` is at the start
    out = layer(torch.randn(1, 16, 256, 256), torch.randn(1, 4))[..., 1:-1, 1:-1]
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(8), rtol=0.05, atol=0)


def test_demodulation_does_not_see_the_style() -> None:
    layer, x = shaken(SeparableConv(6, 10, 8)), torch.randn(1, 6, 5, 5)
    nn.init.zeros_(layer.affine.bias)
    w = torch.randn(1, 8)
    torch.testing.assert_close(layer(x, 3 * w), 3 * layer(x, w))  # StyleGAN2's would take the 3 out again


# ------------------------------------------------------------------------------------------- the network


def test_folded_student_makes_the_same_images_with_less() -> None:
    net = student()
    folded, z = net.folded(), torch.randn(3, 8)
    expected = net(z)
    assert (folded(z) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not any(isinstance(each, FixedDemodulation) and each.typical is not None for each in folded.modules())
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in net.parameters())
    torch.testing.assert_close(net(z), expected, rtol=0, atol=0)  # it is a copy


def test_the_last_head_is_the_output_and_the_others_are_half_its_sides_each() -> None:
    net = student()
    z = torch.randn(2, 8)
    assert [each.shape for each in net.scales(z)] == [(2, 3, 8, 8), (2, 3, 16, 16)]
    torch.testing.assert_close(net.scales(z)[-1], net(z))


def test_spaces_are_the_first_layers_of_the_teacher_s() -> None:
    net, teacher = student(), build("stylegan2-generator")
    assert net.latents["w+"].shape == (4, 8)
    assert teacher.latents["w+"].shape == (6, 8)
    z = Latent(torch.randn(2, 8))
    ws = net.to_space(z, "w+")
    for each in (z, net.to_space(z, "w"), ws):
        torch.testing.assert_close(net.from_space(each), net(z.values))
    image = net.from_space(ws)
    for layer in range(4):
        other = ws.values.clone()
        other[:, layer] += 1
        assert (net.from_space(Latent(other, "w+")) - image).abs().max() > 1e-3, layer


def cost(net: nn.Module, z_dim: int) -> tuple[int, int]:
    """Parameters, and multiplications of one image."""
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(1, z_dim))
    return sum(each.numel() for each in net.parameters()), counter.get_total_flops() // 2


def test_student_costs_a_fraction_of_the_teacher() -> None:
    """0.24 of the parameters and 0.069 of the multiplications, mapping included; without it 0.23."""
    keys = {"z_dim": 64, "w_dim": 64, "channel_base": 4096, "channel_max": 128, "mapping": {"layers": 4}}
    spec = image_spec((3, 64, 64))
    small = cost(build("mobilestylegan-generator", spec, **keys).eval().folded(), 64)
    large = cost(build("stylegan2-generator", spec, **keys).eval(), 64)
    assert small[0] <= 0.4 * large[0]
    assert small[1] <= 0.2 * large[1]
    assert small[0] / large[0] == pytest.approx(0.24, abs=0.01)
    assert small[1] / large[1] == pytest.approx(0.069, abs=0.002)


@pytest.mark.slow
def test_onnx_makes_the_same_images() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed; pip install 'ganvas[onnx]'")
    from ganvas.interop.onnx_file import as_onnx

    net = student()
    content, _ = as_onnx(Model({"sampler": {"use": "plain"}}, SPEC, {"generator": net.folded()}))
    session = importlib.import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    for n in (2, 5):
        z = torch.randn(n, 8)
        (images,) = session.run(None, {"z": z.numpy()})
        assert np.abs(images - net(z).clamp(-1, 1).detach().numpy()).max() <= 1e-4


# ------------------------------------------------------------------------------------------- distillation


def task_of(keys: Mapping[str, object], **nets: nn.Module) -> object:
    return parts.build("task", check_node("task", {"use": "distill-generator", **keys}), nets, Facts(SPEC))


def test_terms_are_the_differences_of_images_and_bands_at_each_size() -> None:
    net, teacher = student(), build("stylegan2-generator")
    task = task_of({"share": ["mapping"], "wavelets": {"l1": 2.0, "l2": 0.5}}, generator=net, teacher=teacher)
    torch.manual_seed(3)
    losses = task.losses(Batch(torch.zeros(4, 3, 16, 16)), 0)
    torch.manual_seed(3)
    z = torch.randn(4, 8)
    large = teacher(z)
    wanted = (F.interpolate(large, (8, 8), mode="bilinear", antialias=True), large)
    differences = [made - own for made, own in zip(net.scales(z), wanted, strict=True)]
    mean = {"pixels-l1": 0.0, "pixels-l2": 0.0, "wavelets-l1": 0.0, "wavelets-l2": 0.0}
    for each in differences:
        mean["pixels-l1"] += each.abs().mean()
        mean["pixels-l2"] += each.square().mean()
        mean["wavelets-l1"] += 2 * haar(each).abs().mean()
        mean["wavelets-l2"] += 0.5 * each.square().mean()  # Haar keeps sums of squares
    assert losses.keys() == mean.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, mean[name])


def test_shared_modules_are_the_teacher_s_and_a_student_that_equals_it_has_nothing_to_learn() -> None:
    teacher = build("stylegan2-generator")
    net = build("stylegan2-generator")
    task_of({"share": ["mapping"]}, generator=net, teacher=teacher)
    z = torch.randn(3, 8)
    assert torch.equal(net.map(z), teacher.map(z))
    task = task_of({"share": ["mapping", "synthesis"]}, generator=net.eval(), teacher=teacher)
    assert all(loss == 0 for loss in task.losses(Batch(torch.zeros(3, 3, 16, 16)), 0).values())


def test_the_teacher_gets_no_gradient_and_is_in_eval_mode() -> None:
    net, teacher = student(), build("stylegan2-generator").train()
    task = task_of({}, generator=net, teacher=teacher)
    assert not teacher.training
    sum(task.losses(Batch(torch.zeros(3, 3, 16, 16)), 0).values()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    learnt = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
    assert any(name.startswith("blocks.0.head") for name in learnt)


@pytest.mark.parametrize(
    ("keys", "of_student", "match"),
    [
        ({}, {"z_dim": 4}, "same latents"),
        ({"share": ["mapping"]}, {"w_dim": 4}, "cannot share 'mapping'"),
        ({"share": ["synthesis"]}, {}, "cannot share 'synthesis'"),
        ({"pixels": None, "wavelets": None}, {}, "nothing is compared"),
    ],
)
def test_what_cannot_be_taught_is_refused_with_a_hint(
    keys: dict[str, object], of_student: dict[str, object], match: str
) -> None:
    node = check_node("task", {"use": "distill-generator", **{key: v for key, v in keys.items() if v is not None}})
    node |= keys
    nets = {"generator": student(**of_student), "teacher": build("stylegan2-generator")}
    with pytest.raises(BadValue, match=match) as caught:
        parts.build("task", node, nets, Facts(SPEC))
    assert caught.value.hint


def test_with_a_critic_the_teacher_s_images_are_the_real_data_of_the_same_latents() -> None:
    net, teacher = student(), build("stylegan2-generator")
    critic = parts.build(
        "network",
        check_node("network", {"use": "stylegan2-discriminator", "channel_base": 256, "channel_max": 16}),
        SPEC,
    )
    nets = {"generator": net, "discriminator": critic, "teacher": teacher}
    keys = {"use": "distill-generator-adversarially", "share": ["mapping"], "feature_weight": 2.0}
    task = parts.build("task", check_node("task", {**keys, "adversarial_weight": 0.25}), nets, Facts(SPEC))
    batch = Batch(torch.full((4, 3, 16, 16), 7.0))
    turn = task.turn(batch, 0, for_generator=True)
    torch.testing.assert_close(turn.real, teacher(turn.latent.values))
    torch.testing.assert_close(turn.fake, net(turn.latent.values))
    torch.manual_seed(0)
    losses = task.generator_losses(batch, 0)
    torch.manual_seed(0)
    turn = task.turn(batch, 0, for_generator=True)
    torch.testing.assert_close(losses["adversarial"], 0.25 * F.softplus(-critic(turn.fake).logits).mean())
    features = (critic(turn.fake).features - critic(turn.real).features).abs().mean()
    torch.testing.assert_close(losses["features"], 2 * features)
    assert losses.keys() == {
        "adversarial", "features", "pixels-l1", "pixels-l2", "wavelets-l1", "wavelets-l2"
    }  # fmt: skip
    before = [parameter.grad for parameter in net.parameters()]
    sum(task.critic_losses(batch, 0).values()).backward()
    assert [parameter.grad for parameter in net.parameters()] == before  # a critic's update leaves the student alone


def test_any_generator_learns_from_a_run_of_another(trained_run: Path, tmp_path: Path) -> None:
    before = Model.load(trained_run)
    student = yaml12.write({**before.recipe["networks"]["generator"], "from": None, "freeze": None})
    recipe = Recipe(
        {
            "data": before.recipe["data"],
            "networks": {
                "teacher": {"from": str(trained_run), "net": "generator", "freeze": "all"},
                "generator": yaml12.read(student, "")[0],
            },
            "task": {"use": "distill-generator", "wavelets": {"l1": 0.0, "l2": 0.0}},
            "optim": {"use": "adam", "lr": 0.003, "betas": [0.9, 0.999]},
            "train": {"steps": 30, "batch": 16, "log_every": 1},
            "summary": "a student of a run",
        }
    )
    model = train(recipe, out=tmp_path / "run", device="cpu")
    for name, weight in before.nets["generator"].named_parameters():
        assert torch.equal(weight, dict(model.nets["teacher"].named_parameters())[name])
    rows = read_rows(tmp_path / "run" / "log.jsonl")
    assert {"generator.pixels-l1", "generator.pixels-l2"} <= set(rows[0])
    assert "generator.wavelets-l1" not in rows[0]
    assert rows[-1]["generator.pixels-l2"] < 0.7 * rows[0]["generator.pixels-l2"]
    assert model.generator is model.nets["generator"]  # what samples is the student, wherever the recipe names it


# ------------------------------------------------------------------------------------------- toy


def run(task: object, learning: Mapping[str, torch.optim.Optimizer], real: Tensor, steps: int, batch: int) -> None:
    for step in range(steps):
        for update in task.updates():
            (role,) = update.nets
            if step % update.every:
                continue
            learning[role].zero_grad()
            losses = update.losses(Batch(real[torch.randint(len(real), (batch,))]), step)
            loss = update.every * torch.stack(list(losses.values())).sum()
            assert torch.isfinite(loss), step
            loss.backward()
            learning[role].step()


def taught_digits(seed: int) -> dict[str, float]:
    """A student's mean squared error before and after 400 steps with a StyleGAN2 that had 150 steps on digits."""
    torch.manual_seed(seed)
    recipe = Recipe.load("tiny/digits-mobilestylegan").override(f"train.seed={seed}").resolve()
    data = parts.build("dataset", recipe["data"])
    real = data.batch(np.arange(len(data)), np.random.default_rng(0)).data
    nets, _ = build_networks(recipe, data.spec, pretrained=False)
    critic = {"use": "stylegan2-discriminator", "channel_base": 256, "channel_max": 16}
    pair = {
        "generator": nets["teacher"].train(),
        "discriminator": parts.build("network", check_node("network", critic), data.spec),
    }
    node = {"use": "adversarial", "regularizers": {"r1": {"weight": 1, "every": 4}}}
    against = {role: torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.0, 0.99)) for role, net in pair.items()}
    run(parts.build("task", check_node("task", node), pair, Facts(data.spec)), against, real, 150, 16)
    task = build_task(recipe, nets, Facts(data.spec))
    z = torch.randn(256, 16)

    def error() -> float:
        with torch.no_grad():
            return (nets["generator"](z) - nets["teacher"](z)).square().mean().item()

    with torch.no_grad():
        alike = nets["teacher"](z).var(0).mean().item()  # what a student that ignores its latent has at best
    before = error()
    own = [each for name, each in nets["generator"].named_parameters() if not name.startswith("mapping")]
    run(task, {"generator": torch.optim.Adam(own, lr=3e-3)}, real, 400, 32)
    return {"before": before, "after": error(), "mean image": alike}


@pytest.mark.slow
def test_student_of_a_digit_generator_comes_below_a_quarter_of_its_first_error_over_three_seeds() -> None:
    """And below the error of the teacher's mean image, which is what a student that ignores the latent would have."""
    found = [taught_digits(seed) for seed in range(3)]
    print(found)  # noqa: T201
    assert all(each["after"] < 0.25 * each["before"] for each in found)
    assert all(each["after"] < each["mean image"] for each in found)
