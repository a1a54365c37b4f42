"""What the users of the field's reference library live with, each as a test that it would fail."""

from __future__ import annotations

import copy
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import ganvas
from ganvas import parts
from ganvas.engine.build import Plan, build_trainer
from ganvas.engine.checkpoint import STATE, Checkpoints
from ganvas.engine.trainer import Hooks
from ganvas.errors import BadValue
from ganvas.files.files import read_rows
from ganvas.model import Model
from ganvas.parts import data_spec, image_spec
from ganvas.parts.values import choices
from ganvas.recipe import catalogue, yaml12
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe
from ganvas.report.figures import figure
from ganvas.shelves.analysis.embedding import tsne
from ganvas.shelves.metrics import classification_accuracy
from ganvas.shelves.regularizers.spectrum import radial_spectrum
from ganvas.training.session import Watcher
from ganvas.training.train import train
from ganvas.types import NO_CONDITION, Critic, Evidence, EvidenceSet, Generator, Latent, LatentSpec, Scores, Turn

SOURCE = Path(ganvas.__file__).parent
DEVICE = re.compile(r"""["'](cuda|mps|xpu|hip)(:\d+)?["']""")
TINY = ("train.steps=2", "train.batch=4", "data.limit=40", "train.log_every=1", "train.checkpoint_every=1")


def build(kind: str, name: str, *given: Any, **keys: Any) -> Any:
    return parts.build(kind, check_node(kind, {"use": name, **keys}), *given)


def protocol(folder: Path, metrics: dict[str, Any]) -> tuple[str, str]:
    """Overrides that score every step by these metrics alone."""
    file = folder / "few.yaml"
    reference = {"use": "digits", "split": "test", "limit": 40}
    content = {"reference": reference, "extractor": "digit-net", "metrics": metrics, "samples": 20, "seeds": [0]}
    file.write_text(yaml12.write(content), encoding="utf-8")
    return f"eval.protocol={file}", "eval.every=1"


# ---------------------------------------------------------------------------------------------------- metrics


def test_training_without_any_evaluation_ends_well(tmp_path: Path) -> None:
    model = train("tiny/digits", *TINY, "eval=", out=tmp_path / "run", device="cpu")
    assert model.step == 2
    assert not (tmp_path / "run" / "scores.jsonl").exists()
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).steps() == [1, 2]
    assert not (tmp_path / "run" / "model-best.safetensors").exists()  # nothing says which is best


def test_training_with_a_protocol_without_metrics_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="no metrics"):
        train("tiny/digits", *TINY, *protocol(tmp_path, {}), out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_training_with_the_inception_score_alone_ends_well_and_keeps_the_highest(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("tiny/digits", *TINY, *protocol(tmp_path, {"inception-score": {}}), out=run, device="cpu")
    rows = read_rows(run / "scores.jsonl")
    assert [(row["step"], row["metric"]) for row in rows] == [(1, "inception_score"), (2, "inception_score")]
    best = max(rows, key=lambda row: row["value"])["step"]
    assert ganvas.load(run / "model-best.safetensors").step == best


# ---------------------------------------------------------------------------------------------------- files


def test_a_checkpoint_that_was_saved_after_a_score_loads_without_pickle(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("tiny/digits", *TINY, *protocol(tmp_path, {"inception-score": {}}), out=run, device="cpu")
    with safe_open(run / "checkpoints" / "step-0000002" / STATE, framework="pt") as file:
        assert all(isinstance(file.get_tensor(name), Tensor) for name in file.keys())  # noqa: SIM118 - no mapping
    checkpoints = Checkpoints(run / "checkpoints", 2)
    assert checkpoints.load(2)["step"] == 2
    step, value = checkpoints.best(2)
    assert step in (1, 2)
    assert type(value) is float  # the reference stores a NumPy scalar, which the safe loader refuses
    for each in run.rglob("*"):  # a pickle begins with PROTO, torch.save's archive with PK
        assert not each.is_file() or each.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x04", b"PK"), each


class ReadScores(Watcher):
    """Looks at the disk while training goes on, at the moment when a step is done and not yet scored."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seen: dict[int, list[int]] = {}

    def tick(self, step: int, values: object) -> None:
        self.seen[step] = [row["step"] for row in read_rows(self.file)]


def test_scores_are_on_disk_while_training_goes_on(tmp_path: Path) -> None:
    watcher = ReadScores(tmp_path / "run" / "scores.jsonl")
    scored = protocol(tmp_path, {"inception-score": {}})
    train("tiny/digits", *TINY, "train.steps=3", *scored, out=tmp_path / "run", device="cpu", watcher=watcher)
    assert watcher.seen == {1: [], 2: [1], 3: [1, 2]}


# ---------------------------------------------------------------------------------------------------- samplers


class Identity(Generator):
    """G(z) = z, no image, so that nothing is cut to [-1, 1]."""

    conditional = False

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": LatentSpec((16,), "normal")}

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent


class Counting(Critic):
    """d(x) = slope · Σ x, and how often it was asked."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope, self.calls = slope, 0

    def forward(self, data: Tensor, label: Tensor | None = None) -> Scores:
        self.calls += 1
        return Scores(self.slope * data.flatten(1).sum(1), data.flatten(1))


def linear_model(slope: float) -> Model:
    nets = {"generator": Identity(), "discriminator": Counting(slope)}
    return Model({"sampler": {"use": "plain"}}, data_spec("plane", (16,)), nets)


@pytest.mark.parametrize("steps", [0, 1, 4, 10])
def test_latent_optimisation_at_test_time_takes_the_steps_asked_for(steps: int) -> None:
    model = linear_model(0.5)
    moved = model.sample(6, seed=0, sampler={"use": "latent-optimisation", "steps": steps, "rate": 0.1})
    assert model.nets["discriminator"].calls == steps
    torch.testing.assert_close(moved, model.sample(6, seed=0) + steps * 0.1 * 0.5)


@pytest.mark.parametrize("method", ["gradient", "natural"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_latent_optimisation_in_training_takes_the_steps_asked_for(steps: int, method: str) -> None:
    asked = []

    def score(latent: Latent) -> Tensor:
        asked.append(latent)
        return latent.values.sum(1)

    part = build("regularizer", "latent-optimisation", method=method, steps=steps, rate=0.1, damping=1.0, share=1.0)
    moved = part.move_latent(Latent(torch.zeros(3, 4)), score, differentiable=False).values
    assert len(asked) == steps
    slope = 1.0 if method == "gradient" else 1 / (1.0 + 4)
    torch.testing.assert_close(moved, torch.full((3, 4), steps * 0.1 * slope))


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
def test_langevin_noise_has_the_std_asked_for(noise: float) -> None:
    """Without a slope of the critic one step is z − ½εz + noise √ε n."""
    model, step = linear_model(0.0), 0.04
    z = model.sample(2000, seed=0)
    moved = model.sample(2000, seed=0, sampler={"use": "langevin", "steps": 1, "step_size": step, "noise": noise})
    added = moved - (1 - 0.5 * step) * z
    assert added.std().item() == pytest.approx(noise * 0.2, rel=0.02)  # the reference's has noise² · ε


# ---------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", ["simclr", "byol"])
@pytest.mark.parametrize("channels", [1, 3])
def test_contrastive_views_change_images_and_carry_gradients(name: str, channels: int) -> None:
    torch.manual_seed(0)
    images = (torch.rand(16, channels, 8, 8) * 2 - 1).requires_grad_(True)
    changed = build("augment", name)(images)
    assert changed.shape == images.shape
    assert (changed - images).abs().flatten(1).amax(1).gt(1e-3).all()  # each of them
    (slope,) = torch.autograd.grad(changed.square().sum(), images)
    assert torch.isfinite(slope).all()
    assert slope.flatten(1).abs().sum(1).gt(0).all()


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_contrastive_views_train(name: str, tmp_path: Path) -> None:
    model = train("tiny/digits", *TINY, "eval=", f"task.augment={name}", out=tmp_path / "run", device="cpu")
    assert model.step == 2


def logits_of(normalize: str | None, *, scale: float) -> Tensor:
    """Class logits of an auxiliary classifier, the weights of whose class 3 are `scale` times what they were."""
    torch.manual_seed(0)
    keys = {} if normalize is None else {"normalize": normalize}
    head = build(
        "conditioning", "auxiliary-classifier", 6, image_spec((1, 8, 8), 10), lambda layer: layer, True, **keys
    )
    with torch.no_grad():
        head.classifier.linear.weight[3] *= scale
    return head(torch.randn(5, 6, generator=torch.Generator().manual_seed(1))).extra["class_logits"]


def test_normalising_an_auxiliary_classifier_reaches_its_weights() -> None:
    for normalize in (None, "features"):
        torch.testing.assert_close(logits_of(normalize, scale=3.0)[:, 3], 3 * logits_of(normalize, scale=1.0)[:, 3])
    cosine = logits_of("both", scale=1.0)
    torch.testing.assert_close(logits_of("both", scale=3.0), cosine)
    assert cosine.abs().max() <= 1 + 1e-6
    assert not torch.allclose(cosine, logits_of("features", scale=1.0))


def test_top_k_is_never_the_whole_batch_again_also_not_after_a_resume(tmp_path: Path) -> None:
    objective = "task.objective={use: top-k, of: hinge, decay: 0.5, floor: 0.25, every: 1}"
    resolved = Recipe.load("tiny/digits", [*TINY, "train.batch=8", "eval=", objective]).resolve()
    plan = Plan(resolved, parts.build("dataset", resolved["data"]), torch.device("cpu"))

    def watched(fresh: bool) -> tuple[Any, list[int]]:
        trainer, lengths = build_trainer(plan, tmp_path, Hooks(), fresh=fresh), []
        inner = trainer.task.objective.of
        loss = inner.generator
        inner.generator = lambda real, fake: lengths.append(len(fake)) or loss(real, fake)
        return trainer, lengths

    trainer, lengths = watched(True)
    for _ in range(3):
        trainer.take_step()
    trainer.save()
    trainer.take_step()
    assert lengths == [8, 4, 2, 2]
    resumed, lengths = watched(False)
    assert resumed.resume() == 3
    resumed.take_step()
    assert lengths == [2]


# ---------------------------------------------------------------------------------------------------- analysis


def test_spectra_use_every_sample() -> None:
    torch.manual_seed(0)
    images = torch.rand(37, 1, 8, 8) * 2 - 1
    spectra = radial_spectrum(images)
    assert spectra.shape == (37, 5)
    for n in range(37):  # no batch that does not come out even is dropped
        torch.testing.assert_close(radial_spectrum(images[n : n + 1]), spectra[n : n + 1])


def test_the_spectral_term_hears_every_sample_of_both_sides() -> None:
    torch.manual_seed(0)
    real, fake = torch.rand(7, 1, 8, 8) * 2 - 1, (torch.rand(7, 1, 8, 8) * 2 - 1).requires_grad_(True)
    term = build("regularizer", "spectral-distribution")

    def loss(of_real: Tensor) -> Tensor:
        turn = Turn(
            {}, 0, of_real, NO_CONDITION, Latent(torch.zeros(7, 1)), NO_CONDITION, lambda x, y: x, lambda z, y: fake
        )  # type: ignore[arg-type, return-value]
        return term(turn)

    (slope,) = torch.autograd.grad(loss(real), fake)
    assert slope.flatten(1).abs().sum(1).gt(0).all()
    for n in range(7):
        other = real.clone()
        other[n] = other[n].flip(-1) + torch.linspace(-1, 1, 8)
        assert loss(other).item() != loss(real).item()


# ---------------------------------------------------------------------------------------------------- classifiers


def eight_bit_digits(split: str, n: int) -> tuple[Tensor, Tensor]:
    """Digits (n, 1, 8, 8) as bytes, and their labels."""
    dataset = parts.build("dataset", check_node("dataset", {"use": "digits", "split": split}))
    batch = dataset.batch(np.arange(n), np.random.default_rng(0))
    assert batch.label is not None
    return ((batch.data + 1) * 127.5).round().byte(), batch.label


def test_a_classifiers_gradients_are_those_of_the_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference never empties its buffers, so that each step follows the sum of all gradients so far."""
    batches: list[tuple[nn.Module, Tensor, Tensor]] = []
    loss_of, largest = classification_accuracy.batch_loss, []

    def watched(net: nn.Module, images: Tensor, label: Tensor) -> Tensor:
        batches.append((copy.deepcopy(net), images, label))
        return loss_of(net, images, label)

    def look(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        net, images, label = batches[-1]
        weights = [each for group in optimizer.param_groups for each in group["params"]]
        alone = torch.autograd.grad(loss_of(net, images, label), list(net.parameters()))
        assert len(weights) == len(alone)
        for weight, expected in zip(weights, alone, strict=True):
            torch.testing.assert_close(weight.grad, expected)
        largest.append(max(each.abs().max().item() for each in alone))

    monkeypatch.setattr(classification_accuracy, "batch_loss", watched)
    hook = register_optimizer_step_pre_hook(look)
    try:
        classification_accuracy.train_classifier(*eight_bit_digits("train", 300), epochs=3, width=4)
    finally:
        hook.remove()
    assert len(largest) == len(batches) == 3 * 8
    assert min(largest) > 1e-3  # there was a gradient to be told from a sum of several


def test_the_accuracy_of_a_classifier_is_that_of_the_test_set() -> None:
    """Shuffled labels of the test set bring the score down to chance; the training set is known as well as before."""
    images, label = eight_bit_digits("train", 600)
    fake, (real_images, real_label) = EvidenceSet(images=images, label=label), eight_bit_digits("test", 300)
    part = build("metric", "classification-accuracy-score", epochs=12, width=8)

    def score(of: Tensor) -> float:
        value: float = part(Evidence(EvidenceSet(images=real_images, label=of), fake))["classification_accuracy_score"]
        return value

    assert score(real_label) > 0.9
    shuffled = real_label[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert score(shuffled) < 0.2
    net = classification_accuracy.train_classifier(images, label, epochs=12, width=8)
    assert classification_accuracy.accuracy(net, images, label) > 0.9
    assert classification_accuracy.accuracy(net, real_images, shuffled) == score(shuffled)


def test_the_epoch_of_a_classifier_is_chosen_on_images_that_it_was_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference picks it on the training data. Every image is either learnt from or held out, in no epoch both."""
    images, label = eight_bit_digits("train", 300)
    images[:, 0, 0, 0] = torch.arange(300) // 256  # each can be told from the others
    images[:, 0, 0, 1] = torch.arange(300) % 256
    learnt, judged = set(), set()
    loss_of, predict = classification_accuracy.batch_loss, classification_accuracy.predict

    def numbers(batch: Tensor) -> list[int]:
        corner: list[int] = (batch[:, 0, 0, 0].long() * 256 + batch[:, 0, 0, 1].long()).tolist()
        return corner

    def watched_loss(net: nn.Module, batch: Tensor, own: Tensor) -> Tensor:
        learnt.update(numbers(batch))
        return loss_of(net, batch, own)

    def watched_predict(net: nn.Module, batch: Tensor) -> Tensor:
        judged.update(numbers(batch))
        return predict(net, batch)

    monkeypatch.setattr(classification_accuracy, "batch_loss", watched_loss)
    monkeypatch.setattr(classification_accuracy, "predict", watched_predict)
    classification_accuracy.train_classifier(images, label, epochs=4, width=2)
    assert len(judged) == 30
    assert not learnt & judged
    assert learnt | judged == set(range(300))


# ---------------------------------------------------------------------------------------------------- values


def keys_with_words() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """(kind, part, key, its words) of every key of every part where a text is chosen from a list."""
    for part in parts.every():
        for key, each in part.fields().items():
            words = [] if each.marker else choices(each.annotation)
            if words:
                yield part.kind, part.name, key, tuple(words)


@pytest.mark.parametrize(("kind", "name", "key", "words"), list(keys_with_words()))
def test_accepted_values_are_exactly_the_documented_ones(
    kind: str, name: str, key: str, words: tuple[str, ...]
) -> None:
    """`ganvas show` names the words; each is accepted as it stands there, and nothing near it is."""
    shown = catalogue.as_text(catalogue.details(parts.find(kind, name)))
    (line,) = (each.strip() for each in shown.splitlines() if each.strip().startswith(f"{key}: "))
    documented = re.findall(r'"([^"]+)"', line.split("  = ")[0])
    assert {*documented} == {*words}
    each = parts.find(kind, name).fields()[key]
    others = {one: "x" for one, field in parts.find(kind, name).fields().items() if field.required and one != key}
    in_list = "list of" in line
    for word in documented:
        problems = refused(kind, {"use": name, **others, key: word})
        if problems and in_list:
            problems = refused(kind, {"use": name, **others, key: [word]})
        assert not any(repr(key) in problem for problem in problems), (word, problems)
    if "text" in re.split(r" \| |\(|\)| = |: ", line):  # any text is let through here, and the part itself says no
        return
    for wrong in (documented[0].upper(), f"{documented[0]}s", f" {documented[0]}", "N/A"):
        assert each.annotation is str or any(repr(key) in text for text in refused(kind, {"use": name, key: wrong}))


def refused(kind: str, node: dict[str, Any]) -> list[str]:
    try:
        check_node(kind, node)
    except BadValue as error:
        return [each.problem for each in error.problems]
    except ganvas.errors.RecipeError as error:
        return [each.problem for each in error.problems]
    return []


@pytest.mark.parametrize("kind", ["objective", "augment", "sampler", "regularizer"])
def test_every_documented_word_builds_its_part(kind: str) -> None:
    for of, name, key, words in keys_with_words():
        for word in words if of == kind else ():
            if not refused(kind, {"use": name, key: word}):
                build(kind, name, **{key: word})


# ---------------------------------------------------------------------------------------------------- devices


def test_nothing_names_a_device() -> None:
    """Outside the one place that picks a device, no string is one and nothing is sent to one by name."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        if file == SOURCE / "runtime" / "devices.py":
            continue
        tokens = list(tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline))
        for before, token in itertools.pairwise(tokens):
            named = token.type == tokenize.STRING and DEVICE.fullmatch(token.string)
            compared = before.string in ("==", "!=", "in")  # asking which one it is names none
            sent = before.string == "." and token.string == "cuda" and token.line[token.end[1] :].startswith("(")
            if (named and not compared) or sent:
                found.append(f"{file.relative_to(SOURCE)}:{token.start[0]}: {token.line.strip()}")
    assert found == []


def test_everything_runs_where_there_is_no_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("an accelerator was asked for")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", refuse)
    monkeypatch.setattr(torch.Tensor, "cuda", refuse)
    monkeypatch.setattr(nn.Module, "cuda", refuse)
    run = tmp_path / "run"
    model = train("tiny/digits", *TINY, *protocol(tmp_path, {"inception-score": {}}), out=run)
    assert str(model.device) == "cpu"
    assert ganvas.load(run).sample(3, seed=0).shape == (3, 1, 8, 8)


# ---------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize(("n", "d"), [(60, 512), (60, 3), (8, 512)], ids=["wide", "narrow", "few"])
def test_the_tsne_view_works_with_the_installed_scikit_learn(n: int, d: int) -> None:
    """The reference passes a keyword that scikit-learn has dropped, and a perplexity that few samples do not allow."""
    random = np.random.default_rng(0)
    sides = np.repeat([0.0, 20.0], n // 2)[:, None]
    features = (random.normal(size=(n, d)) + sides).astype(np.float32)  # two clouds, far apart
    points = tsne(features, 3)
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(points, tsne(features.copy(), 3))
    if n > 8:  # each point's nearest is of its own cloud
        distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(n)
        assert (sides[distance.argmin(1)] == sides).all()


def test_the_tsne_view_draws_both_sides() -> None:
    real, fake = torch.randn(30, 12), torch.randn(40, 12)
    panel = build("analysis", "embedding")(Evidence(EvidenceSet(features=real), EvidenceSet(features=fake)))
    (chart,) = panel.charts
    assert {name: len(x) for name, (x, _) in chart.series.items()} == {"real": 30, "generated": 30}
    drawn = figure(chart)
    assert drawn.count("h0") == 60  # a dot each
    assert "real" in drawn
    assert "generated" in drawn
