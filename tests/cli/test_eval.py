"""`ganvas eval` as the nicest tool for two folders of images, and what it refuses."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

Ganvas = Callable[..., Any]


QUICK = "--metric frechet-distance"


def pngs(folder: Path, count: int, seed: int, side: int = 16) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture
def folders(workplace: Path) -> Path:
    pngs(workplace / "reals", 40, 0)
    pngs(workplace / "fakes", 30, 1)
    return workplace


def test_two_folders_and_no_run_at_all(ganvas: Ganvas, folders: Path) -> None:
    said = ganvas("eval fakes --against reals --json")
    assert said.code == 0
    rows = {row["metric"]: row for row in said.json}
    assert {"frechet_distance", "precision", "coverage"} <= rows.keys()
    row = rows["frechet_distance"]
    assert (row["n_fake"], row["n_real"], row["protocol"]) == (30, 40, "folder-default")
    assert row["low"] <= row["value"] <= row["high"] and "halves of both sets" in row["interval"]
    table = ganvas("eval fakes --against reals")
    assert "30 samples against 40" in table.out and "lower is better" in table.out


def test_statistics_saved_once_stand_for_their_images(ganvas: Ganvas, folders: Path) -> None:
    said = ganvas("eval reals --save-stats reals.npz --json")
    assert said.code == 0 and said.json["count"] == 40
    with np.load("reals.npz", allow_pickle=False) as file:  # pytorch-fid's two arrays
        assert file["mu"].shape == (256,) and file["sigma"].shape == (256, 256)
    direct = ganvas(f"eval fakes --against reals {QUICK} --json").json[0]
    saved = ganvas("eval fakes --against reals.npz --json")
    assert [row["metric"] for row in saved.json] == ["frechet_distance"]
    assert saved.json[0]["value"] == pytest.approx(direct["value"], rel=1e-9)
    assert any("without features" in note for note in saved.json[0]["notes"])


def test_statistics_of_another_tool_are_read(ganvas: Ganvas, folders: Path) -> None:
    ganvas("eval reals --save-stats ours.npz")
    with np.load("ours.npz") as file:
        np.savez("theirs.npz", mu=file["mu"], sigma=file["sigma"])
        torch.save({"mu": file["mu"], "sigma": file["sigma"]}, "theirs.pt")
    ours = ganvas("eval fakes --against ours.npz --json").json[0]
    for name in ("theirs.npz", "theirs.pt"):
        theirs = ganvas(f"eval fakes --against {name} --json").json[0]
        assert theirs["value"] == ours["value"] and theirs["n_real"] == 0
    assert "unknown count" in ganvas("eval fakes --against theirs.npz").out


def test_metrics_and_extractor_can_be_chosen(ganvas: Ganvas, folders: Path) -> None:
    said = ganvas(
        ["eval", "fakes", "--against", "reals", "--metric", "{use: precision-recall, k: 5}", "--metric", "vendi-score",
         "--extractor", "digit-net", "--json"]
    )  # fmt: skip
    assert said.code == 0
    assert {row["extractor"] for row in said.json} == {"digit-net"}
    assert {"precision", "recall", "vendi_score"} <= {row["metric"] for row in said.json}


def test_the_checkpoint_that_was_best_says_of_how_many(ganvas: Ganvas, workplace: Path) -> None:
    (workplace / "quick.yaml").write_text(
        "extractor: digit-net\nreference: {use: digits, split: test, limit: 60}\nmetrics: {frechet-distance: {}}\n"
        "samples: 40\nseeds: [0]\nhalves: 0\n"
    )
    line = "train tiny/digits train.steps=4 train.batch=4 eval.protocol=quick.yaml eval.every=1 --out run"
    assert ganvas(line).code == 0
    best = ganvas("eval run --best-of --json")
    assert best.code == 0
    assert best.json[0]["selection"] == "best of 4 checkpoints by frechet_distance of protocol quick"
    rows = [json.loads(row) for row in Path("run/scores.jsonl").read_text().splitlines()]
    least = min(row["value"] for row in rows if "selection" not in row)
    assert best.json[0]["value"] == pytest.approx(least, rel=1e-4)
    assert "was chosen" in ganvas("eval run --best-of").out
    assert ganvas("eval run --json").json[0]["selection"] == "last"


def test_several_runs_of_one_recipe_have_an_interval_over_training_seeds(ganvas: Ganvas, workplace: Path) -> None:
    for seed in (0, 1):
        ganvas(f"train tiny/digits train.steps=1 train.batch=4 eval= train.seed={seed} --out run-{seed}")
    ganvas("train tiny/digits train.steps=1 train.batch=5 eval= --out other")
    few = "--protocol digits --metric frechet-distance --samples 40 --json"
    said = ganvas(f"eval run-0 run-1 {few}")
    assert said.code == 0
    row = said.json[0]
    assert row["interval"] == "95 % t-interval: 2 training seeds" and len(row["values"]) == 2
    assert row["value"] == pytest.approx(np.mean(row["values"]))
    refused = ganvas(f"eval run-0 other {few}")
    assert refused.code == 2 and "train.batch" in refused.json["errors"][0]["problem"]


def test_a_folder_of_samples_scores_like_its_model(ganvas: Ganvas, trained_run: Path) -> None:
    """What a person saves and scores is what the run's own score is about: both are rounded to 8 bits."""
    small = "{use: digits, split: test, limit: 80}"
    Path("once.yaml").write_text(
        f"extractor: digit-net\nreference: {small}\nmetrics: {{frechet-distance: {{}}}}\nlabels: uniform\n"
        "samples: 50\nseeds: [0]\nhalves: 0\n"
    )
    model = ganvas(f"eval {trained_run}/model.safetensors --protocol once.yaml --json").json[0]["value"]
    from ganvas import load
    from ganvas.files.pictures import to_uint8

    trained = load(trained_run)
    images = to_uint8(trained.sample(50, seed=0, label=trained.labels(50, seed=0)))
    Path("samples").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[:, :, 0]).save(f"samples/{i:03}.png")
    folder = ganvas("eval samples --protocol once.yaml --json").json[0]["value"]
    assert folder == pytest.approx(model, rel=1e-4)


# --------------------------------------------------------------------------------------------------- refusals


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("canary", "w"))  # type: ignore[return-value]


def bad_files(folder: Path) -> None:
    pngs(folder / "one", 1, 2)
    pngs(folder / "larger", 20, 3, side=32)
    good = {"mu": np.zeros(256), "sigma": np.eye(256)}
    nan = np.zeros(256)
    nan[3] = np.nan
    skew = np.eye(256)
    skew[0, 1] = 0.5
    for name, arrays in {
        "nan": {**good, "mu": nan},
        "narrow": {"mu": np.zeros(8), "sigma": np.eye(8)},
        "shape": {"mu": np.zeros(256), "sigma": np.eye(8)},
        "skew": {**good, "sigma": skew},
        "negative": {**good, "sigma": -np.eye(256)},
        "no-sigma": {"mu": np.zeros(256)},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)
    np.savez(folder / "cut.npz", **good)
    content = (folder / "cut.npz").read_bytes()
    (folder / "cut.npz").write_bytes(content[: len(content) // 2])
    (folder / "attack.pt").write_bytes(pickle.dumps(Attack()))
    np.savez(folder / "objects.npz", mu=np.array([Attack()], dtype=object), sigma=np.eye(1))
    np.save(folder / "floats.npy", np.full((5, 3, 16, 16), np.nan, dtype=np.float32))
    (folder / "empty").mkdir()
    np.savez(folder / "fine.npz", **good)


BAD = [
    ("eval fakes --against one", "at least 2"),
    ("eval one --against reals", "at least 2"),
    ("eval floats.npy --against reals", "NaN"),
    ("eval fakes --against nan.npz", "NaN"),
    ("eval fakes --against narrow.npz", "8"),
    ("eval fakes --against shape.npz", "(8, 8)"),
    ("eval fakes --against skew.npz", "symmetric"),
    ("eval fakes --against no-sigma.npz", "sigma"),
    ("eval fakes --against cut.npz", "cut.npz"),
    ("eval fakes --against attack.pt", "attack.pt"),
    ("eval fakes --against objects.npz", "objects.npz"),
    ("eval fakes --against empty", "empty"),
    ("eval empty --against reals", "empty"),
    ("eval fakes reals", "runs"),
    ("eval fakes", "--against"),
    ("eval fakes --best-of", "best"),
    ("eval fakes --against reals --metric frechet", "Did you mean"),
    ("eval fakes --against reals --extractor digitnet", "digit-net"),
    ("eval fakes --against reals --metric class-agreement", "class logits"),
    ("eval reals --save-stats reals.txt", ".npz"),
    ("eval reals fakes --save-stats s.npz", "one set"),
    ("eval fakes --against reals --metric '{use: precision-recall, k: 99}'", "99"),
    ("eval fakes --against reals --metric '{use: precision-recall, j: 3}'", "'j'"),
    ("eval fakes --against reals --samples 1", "1"),
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("line", "told"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gets_a_sentence_and_leaves_nothing(ganvas: Ganvas, folders: Path, line: str, told: str) -> None:
    bad_files(folders)
    if "against" in line and not any(option in line for option in ("--metric", "--samples")):
        line += f" {QUICK}"
    before = sorted(str(file) for file in folders.rglob("*"))
    said = ganvas(line)
    assert said.code == 2, said.out
    assert told in said.err and "Traceback" not in said.err
    assert sorted(str(file) for file in folders.rglob("*")) == before
    assert not Path("canary").exists()


def test_fewer_samples_than_dimensions_are_warned_of_in_the_row(ganvas: Ganvas, folders: Path) -> None:
    said = ganvas(f"eval fakes --against reals {QUICK} --json")
    assert any("256" in note for note in said.json[0]["notes"])
    assert "note: " in ganvas(f"eval fakes --against reals {QUICK}").err
