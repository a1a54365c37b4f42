"""Two processes learn what one learns at the same global batch: float64, to 1e-6, whatever the recipe needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launch import finish, start, told
from safetensors.torch import load_file

SNGAN = [
    "digits", "networks.generator.width=8", "networks.generator.z_dim=8", "networks.discriminator.width=8",
    "task.objective=wasserstein", "task.critic_steps=2", "task.regularizers=~",
    "task.regularizers.gradient-penalty.weight=10", "ema.decay=0.9", "ema.start_images=0", "eval=~", "train.batch=16",
    "train.steps=4", "train.precision=fp32", "train.channels_last=false",
]  # fmt: skip
STYLEGAN2 = ["tiny/digits-stylegan2", "eval=~", "train.steps=5"]
ADA = [
    "tiny/digits-ada", "eval=~", "train.steps=9", "task.augment.p=0.3", "task.augment.interval=2",
    "task.augment.speed_kimg=0.2", "optim.lr=0.002",
]  # fmt: skip
CASES = {
    "sngan": SNGAN,
    "sngan-in-pieces": [*SNGAN, "train.accumulate=2", "task.objective=hinge"],
    "sngan-clipped": [*SNGAN, "optim.clip_norm=0.1", "train.steps=3"],
    "stylegan2": STYLEGAN2,
    "ada": ADA,
    "lecam": ["tiny/digits-lecam", "eval=~", "train.steps=4"],
    "weight-norm": ["tiny/digits-weight-norm", "eval=~", "train.steps=3", "task.regularizers=~"],
    "r3gan": ["tiny/digits-r3gan", "eval=~", "train.steps=3"],
    "weight-clipping": ["tiny/digits-wgan-wc", "eval=~", "train.steps=3"],
}
SHARDED = {f"{name}-sharded": [*CASES[name], "train.parallel=sharded"] for name in CASES}
WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of what one process left, and what two did."""
    folders = []
    for world in (1, 2):
        folder = tmp_path_factory.mktemp(f"of-{world}")
        cases = CASES if world == 1 else {**CASES, **SHARDED}
        (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
        codes = finish(start([str(WORKER), str(folder), "cases.json"], world, folder), 400)
        assert not any(codes), "\n".join(told(folder, rank) for rank in range(world))
        folders.append(folder)
    return folders[0], folders[1]


@pytest.mark.parametrize("case", [*CASES, *SHARDED])
@pytest.mark.parametrize("rank", [0, 1])
def test_weights_averages_losses_and_statistics_are_those_of_one_process(
    results: tuple[Path, Path], case: str, rank: int
) -> None:
    alone = load_file(results[0] / f"{case.removesuffix('-sharded')}.0.safetensors")
    together = load_file(results[1] / f"{case}.{rank}.safetensors")
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        assert float((together[name] - value).abs().max()) < 1e-6, name


def test_the_controller_has_moved_and_weights_have_too(results: tuple[Path, Path]) -> None:
    ada = load_file(results[1] / "ada.0.safetensors")
    assert abs(float(ada["task.augment.p"]) - 0.3) > 0.01
    path_length = load_file(results[1] / "stylegan2.0.safetensors")
    assert float(path_length["task.regularizers.path-length.mean"]) > 0
