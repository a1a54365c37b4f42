"""The way that a user goes: train, sample, score, resume; names and files that scripts rely on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganvas.files.files import read_rows
from ganvas.recipe import yaml12

Ganvas = Callable[..., Any]
QUICK = "train.steps=3 train.batch=8 train.checkpoint_every=2 train.log_every=1 train.sample_every=2 --device cpu"


@pytest.fixture(scope="module")
def scored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with scores, made by the command line; read it, or work on a copy."""
    from ganvas import cli

    folder = tmp_path_factory.mktemp("walk") / "run"
    assert cli.run(["train", "tiny/digits", *QUICK.split(), "eval.every=~", "--out", str(folder)]) == 0
    return folder


def test_a_run_folder_holds_what_scripts_rely_on(scored_run: Path) -> None:
    files = {str(each.relative_to(scored_run)) for each in scored_run.rglob("*") if each.is_file()}
    assert {
        "model.safetensors", "scores.jsonl", "recipe.yaml", "resolved.yaml", "log.jsonl", "provenance.json",
        "report.html", "samples/step-0000002.png", "samples/step-0000003.png",
        "checkpoints/step-0000002/state.safetensors", "checkpoints/step-0000003/state.safetensors",
    } <= files  # fmt: skip
    assert not [name for name in files if "tmp" in name]
    assert [row["step"] for row in read_rows(scored_run / "log.jsonl")] == [1, 2, 3]
    assert {"frechet_distance", "class_agreement"} <= {row["metric"] for row in read_rows(scored_run / "scores.jsonl")}
    written, _ = yaml12.read((scored_run / "recipe.yaml").read_text(), "recipe.yaml")
    assert written["train"]["steps"] == 3 and "keep" not in written["train"]
    resolved, _ = yaml12.read((scored_run / "resolved.yaml").read_text(), "resolved.yaml")
    assert resolved["train"]["steps"] == 3 and resolved["train"]["keep"] == 2
    assert {"ganvas", "torch", "seed", "data", "device"} <= json.loads(
        (scored_run / "provenance.json").read_text()
    ).keys()


def test_train_tells_scripts_where_everything_is(ganvas: Ganvas) -> None:
    said = ganvas(f"train tiny/digits eval= {QUICK} --out run --json")
    assert said.code == 0
    assert said.json["run"] == "run" and said.json["step"] == 3
    for name in ("model", "samples", "report"):
        assert Path(said.json[name]).is_file(), name
    assert said.json["scores"] is None
    assert "step 3" in said.err  # people are still told


def test_train_without_json_says_nothing_on_standard_output(ganvas: Ganvas) -> None:
    said = ganvas(f"train tiny/digits eval= {QUICK} --out run")
    assert (said.code, said.out) == (0, "")
    assert "run/model.safetensors" in said.err


def test_runs_without_a_name_are_numbered(ganvas: Ganvas) -> None:
    for _ in range(2):
        assert ganvas(f"train tiny/digits eval= {QUICK} train.steps=1").code == 0
    assert sorted(each.name for each in Path("runs").iterdir()) == ["tiny-digits", "tiny-digits-2"]


def test_resume_goes_on_and_ends_where_the_whole_run_ended(ganvas: Ganvas, scored_run: Path) -> None:
    shutil.copytree(scored_run, "run")
    shutil.rmtree("run/checkpoints/step-0000003")
    Path("run/model.safetensors").unlink()
    said = ganvas("train --resume --out run --device cpu")
    assert said.code == 0, said.err
    assert "going on from step 2 of 3" in said.err
    assert Path("run/model.safetensors").read_bytes() == (scored_run / "model.safetensors").read_bytes()
    assert len(read_rows(Path("run/log.jsonl"))) == 3


def test_a_run_folder_is_a_recipe(ganvas: Ganvas, scored_run: Path) -> None:
    assert ganvas(f"train {scored_run} train.steps=1 eval= --out again --device cpu").code == 0
    changed = ganvas(f"diff {scored_run} again --json").json
    assert changed["train.steps"] == {"a": 3, "b": 1}
    assert changed["eval.protocol"] == {"a": "digits", "b": None}
    assert ganvas(f"diff {scored_run} {scored_run}").err == "no difference\n"


# --------------------------------------------------------------------------------------------------- sample


def test_a_grid_has_a_column_for_each_class(ganvas: Ganvas, trained_run: Path) -> None:
    shutil.copy(trained_run / "model.safetensors", "alone.safetensors")  # no run, no data
    said = ganvas("sample alone.safetensors --n 20 --out a.png --json")
    assert said.json == {"out": "a.png", "n": 20, "seed": 0, "label": None}
    with Image.open("a.png") as grid:
        assert grid.mode == "L"
        assert round(grid.width / grid.height) == 10 / 2  # 10 classes, 2 of each, gaps aside
        assert grid.height // 2 >= 48  # large enough to read
    ganvas("sample alone.safetensors --n 20 --out b.png")
    ganvas("sample alone.safetensors --n 20 --seed 1 --out c.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() != Path("c.png").read_bytes()


def test_a_grid_by_default_lies_in_the_run(ganvas: Ganvas, trained_run: Path) -> None:
    Path("run").mkdir()
    shutil.copy(trained_run / "model.safetensors", "run")
    assert ganvas("sample run --seed 7").code == 0
    assert Path("run/samples/seed-7.png").is_file()


def test_a_folder_has_a_folder_for_each_class_and_trains_again(ganvas: Ganvas, trained_run: Path) -> None:
    assert ganvas(f"sample {trained_run} --n 12 --out images").code == 0
    assert len(list(Path("images").rglob("*.png"))) == 12
    assert sorted(each.name for each in Path("images").iterdir()) == [str(label) for label in range(10)]
    with Image.open("images/0/000000.png") as image:
        assert image.size == (8, 8)
    assert ganvas(f"sample {trained_run} --n 3 --label 4 --out fours/").code == 0
    assert [str(each) for each in sorted(Path("fours").rglob("*.png"))] == [f"fours/4/{i:06d}.png" for i in range(3)]
    said = ganvas("train tiny/digits data=folder data.path=images data.channels=1 train.steps=1 eval= --out run")
    assert said.code == 0, said.err


def test_arrays_hold_the_same_images_whatever_the_batch(ganvas: Ganvas, trained_run: Path) -> None:
    assert ganvas(f"sample {trained_run} --n 70 --batch 7 --out a.npz").code == 0
    assert ganvas(f"sample {trained_run} --n 100 --batch 100 --out b.npz").code == 0
    with np.load("a.npz") as few, np.load("b.npz") as many:
        assert few["images"].shape == (70, 8, 8, 1) and few["images"].dtype == np.uint8
        assert np.array_equal(few["labels"], np.arange(70) % 10)
        # The last bit of a float may round another way in another batch.
        assert np.abs(few["images"].astype(int) - many["images"][:70]).max() <= 1


def test_truncation_and_samplers(ganvas: Ganvas, trained_run: Path) -> None:
    for out, words in {"plain": "", "near": "--truncation 0.01", "wide": "--truncation 9"}.items():
        assert ganvas(f"sample {trained_run} --n 16 --label 3 {words} --out {out}.npz").code == 0
    plain, near, wide = (np.load(f"{name}.npz")["images"].astype(float) for name in ("plain", "near", "wide"))
    assert near.std(0).mean() < 0.1 * plain.std(0).mean()
    assert np.abs(plain - wide).max() <= 1
    assert ganvas(f"sample {trained_run} --n 16 --label 3 --sampler truncated --out named.npz").code == 0


# --------------------------------------------------------------------------------------------------- eval


def test_eval_of_a_run_adds_rows_to_its_scores(ganvas: Ganvas, scored_run: Path) -> None:
    shutil.copytree(scored_run, "run")
    before = read_rows(Path("run/scores.jsonl"))
    said = ganvas("eval run --json")
    assert said.code == 0, said.err
    rows = read_rows(Path("run/scores.jsonl"))
    assert rows[: len(before)] == before and rows[len(before) :] == said.json
    for row in said.json:
        assert {
            "metric",
            "value",
            "low",
            "high",
            "interval",
            "protocol",
            "n_fake",
            "n_real",
            "extractor",
            "step",
        } <= row.keys()
        assert row["low"] <= row["value"] <= row["high"]
    table = ganvas("eval run").out
    assert "frechet_distance" in table and "lower is better" in table and "95 % t-interval" in table


def test_eval_of_a_lone_model_writes_nothing(ganvas: Ganvas, trained_run: Path) -> None:
    shutil.copy(trained_run / "model.safetensors", "alone.safetensors")
    assert ganvas("eval alone.safetensors --protocol digits --json").code == 0
    assert [each.name for each in Path().iterdir()] == ["alone.safetensors"]


def test_eval_of_two_folders(ganvas: Ganvas, trained_run: Path) -> None:
    for seed in (0, 1):
        ganvas(f"sample {trained_run} --n 20 --seed {seed} --out images-{seed}")
    same = {row["metric"]: row for row in ganvas("eval images-0 --against images-0 --json").json}
    other = {row["metric"]: row for row in ganvas("eval images-0 --against images-1 --json").json}
    assert same["frechet_distance"]["value"] == pytest.approx(0, abs=1e-6)
    assert same["precision"]["value"] == same["recall"]["value"] == 1
    assert other["frechet_distance"]["value"] > same["frechet_distance"]["value"]
    assert other["precision"]["n_fake"] == 20 and other["precision"]["protocol"] == "folder-default"


# --------------------------------------------------------------------------------------------------- the program


def test_the_module_is_the_program(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "ganvas.cli", "show", "recipe", "digts", "--json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["errors"][0]["type"] == "RecipeError"
    assert "Did you mean 'digits'?" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    line = f"{sys.executable} -m ganvas.cli list --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_a_bug_is_told_as_ours(ganvas: Ganvas, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("inside")

    monkeypatch.setattr("ganvas.recipe.catalogue.recipes", broken)
    said = ganvas("list recipes --json")
    assert said.code == 1
    assert "Traceback" in said.err and "a bug of ours" in said.err
    assert said.json["errors"][0]["type"] == "Bug"


def test_a_key_pressed_at_the_wrong_moment(ganvas: Ganvas, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ganvas.recipe.catalogue.recipes", pressed)
    said = ganvas("list recipes")
    assert said.code == 130
    assert "stopped at once" in said.err


def test_an_interruption_that_saved_says_how_to_go_on(ganvas: Ganvas, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganvas.engine.trainer import Interrupted, Trainer

    def stop(trainer: Trainer) -> None:
        raise Interrupted(7)

    monkeypatch.setattr(Trainer, "run", stop)
    said = ganvas("train tiny/digits eval= --out run --device cpu --json")
    assert said.code == 130
    assert "saved at step 7. Go on with: ganvas train --resume --out run" in said.err
    assert said.json["errors"][0]["type"] == "Interrupted"


def test_a_sampler_with_keys_of_its_own(ganvas: Ganvas, trained_run: Path, tmp_path: Path) -> None:
    def drawn(sampler: str, name: str) -> np.ndarray:
        said = ganvas(f"sample {trained_run} --n 5 --out {tmp_path / name}.npz --sampler '{sampler}'")
        assert said.code == 0, said.err
        return np.load(tmp_path / f"{name}.npz")["images"]

    plain = drawn("plain", "a")
    assert np.array_equal(drawn("{use: interpolated, psi: 1.0}", "b"), plain)
    assert not np.array_equal(drawn("{use: interpolated, psi: 0.1}", "c"), plain)
    wrong = ganvas(f"sample {trained_run} --n 5 --out {tmp_path}/d.npz --sampler '{{use: interpolated, spi: 1}}'")
    assert wrong.code == 2 and "Did you mean 'psi'" in wrong.err
