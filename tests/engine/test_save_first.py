"""A due step saves before it looks: what fails or is killed after the checkpoint costs no step and no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ganvas import parts
from ganvas.engine.checkpoint import BEST, Checkpoints
from ganvas.engine.trainer import Hooks, Trainer
from ganvas.errors import DataError
from ganvas.evaluation.judge import Judge
from ganvas.files.files import read_rows
from ganvas.training import session
from ganvas.training.session import Watcher
from ganvas.training.train import train

Make = Callable[..., Trainer]


class Pulled(BaseException):
    """The plug is pulled: nobody catches it."""


# --------------------------------------------------------------------------------------------------- the loop


def test_the_checkpoint_comes_before_picture_and_score(make_trainer: Make) -> None:
    happened: list[tuple[str, int]] = []
    trainer: Trainer

    def look(what: str, step: int) -> None:
        assert step in trainer.checkpoints.steps()
        happened.append((what, step))

    def score(step: int, state: object) -> float:
        look("score", step)
        return 5.0 - step

    hooks = Hooks(
        picture=lambda step, state: look("picture", step), score=score,
        saved=lambda step, state, best: look("best" if best else "saved", step),
    )  # fmt: skip
    trainer = make_trainer(hooks=hooks, score_every=2)
    trainer.run()
    assert happened == [(what, step) for step in (2, 4) for what in ("saved", "picture", "score", "best")]
    assert trainer.checkpoints.best(4) == (4, 1.0)


@pytest.mark.parametrize("error", [DataError("no such file"), ZeroDivisionError("zero"), OSError("gone")], ids=repr)
def test_what_fails_after_the_checkpoint_is_told_and_training_goes_on(make_trainer: Make, error: Exception) -> None:
    told: list[tuple[int, str, Exception]] = []

    def broken(step: int, state: object) -> float:
        raise error

    hooks = Hooks(picture=broken, score=broken, failed=lambda *what: told.append(what))
    trainer = make_trainer(hooks=hooks, score_every=2)
    trainer.run()
    assert trainer.step == 4
    assert trainer.checkpoints.steps() == [2, 4]
    assert told == [(step, what, error) for step in (2, 4) for what in ("picture", "score")]
    assert trainer.best is None


def test_a_score_that_fails_leaves_the_best_as_it_was(make_trainer: Make) -> None:
    def score(step: int, state: object) -> float:
        if step == 4:
            raise ZeroDivisionError
        return float(step)

    trainer = make_trainer(hooks=Hooks(score=score), score_every=1)
    trainer.run()
    assert trainer.best == trainer.checkpoints.best(4) == (1, 1.0)


def test_a_resumed_run_looks_only_where_nobody_has_looked(make_trainer: Make, tmp_path: Path) -> None:
    """After a kill between checkpoint and picture both are made; what is there is not made again."""
    seen: list[str] = []

    def hooks(*, pictured: bool, score: float | None) -> Hooks:
        def measure(step: int, state: object) -> float:
            seen.append(f"score {step}")
            return 1.0

        return Hooks(
            picture=lambda step, state: seen.append(f"picture {step}"), score=measure,
            pictured=lambda step: pictured, scored=lambda step: score,
        )  # fmt: skip

    def pull(step: int, state: object) -> None:
        raise Pulled

    killed = make_trainer(hooks=Hooks(picture=pull), score_every=2)
    with pytest.raises(Pulled):
        killed.run()
    assert killed.checkpoints.steps() == [2]
    for pictured, score, expected in (
        (False, None, ["picture 2", "score 2"]),
        (True, None, ["score 2"]),
        (True, 3.0, []),
    ):
        seen.clear()
        (tmp_path / "checkpoints" / BEST).unlink(missing_ok=True)
        resumed = make_trainer(hooks=hooks(pictured=pictured, score=score), score_every=2)
        assert resumed.resume() == 2
        resumed.look_again()
        assert seen == expected
        assert resumed.best == killed.checkpoints.best(2) == (2, 1.0 if score is None else score)


# --------------------------------------------------------------------------------------------------- the whole run

SINK = '''
from ganvas.parts import sink
from ganvas.types import Sink

@sink("leaky")
class Leaky(Sink):
    """A sink that takes nothing."""
    def __init__(self, folder) -> None: ...
    def row(self, step, values):
        raise ConnectionError("no row gets through")
    def images(self, step, path):
        raise ConnectionError("no picture gets through")
    def close(self):
        raise ConnectionError("not even the end")
'''


class Listener(Watcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)

    @property
    def failures(self) -> list[str]:
        return [text for text in self.heard if "failed" in text]


@pytest.fixture(scope="module", autouse=True)
def later_is_better() -> Iterator[None]:
    """Every score is the best so far, so that each is followed by a mark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "kept_by", lambda row: -float(row["step"]))
        yield


@pytest.fixture(scope="module")
def recipe(killing: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """Six steps with a picture and a score at every second one, and a checkpoint there."""
    file = killing.write_recipe(tmp_path_factory.mktemp("recipe"), steps=6)
    return (file, "train.sample_every=2", "train.log_every=1", "eval.every=2")


@pytest.fixture(scope="module")
def whole(killing: ModuleType, recipe: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an unbroken run leaves."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(*recipe, out=out, device="cpu")
    found: dict[str, Any] = killing.contents(out)
    assert {"samples/step-0000006.png", "scores.jsonl", "checkpoints/best.json"} <= set(found)
    return found


def broken(*given: Any, **options: Any) -> Any:
    raise ZeroDivisionError("there is nothing to see")


@pytest.mark.parametrize(
    ("owner", "name", "what"), [(session, "sample_grid", "picture"), (Judge, "score_model", "score")]
)
def test_a_picture_or_score_that_fails_is_told_once_and_made_on_resume(
    killing: ModuleType, recipe: tuple[Any, ...], whole: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, what: str,
) -> None:  # fmt: skip
    out, listener = tmp_path / "run", Listener()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        model = train(*recipe, out=out, device="cpu", watcher=listener)
    assert model.step == 6
    assert listener.failures == [
        f"step 2: the {what} failed and training goes on: ZeroDivisionError: there is nothing to see"
    ]
    found = killing.contents(out)
    lost = {"picture": ["samples/"], "score": ["scores.jsonl", "checkpoints/best.json", "model-best/"]}[what]
    differing = killing.differences(whole, found)
    assert differing
    assert all(any(each.startswith(start) for start in lost) for each in differing), differing
    # What was missed at the step where the run stands is made up for; what was learnt is as it was.
    train(*recipe, out=out, device="cpu", resume=True)
    if what == "picture":
        assert (out / "samples" / "step-0000006.png").read_bytes() == whole["samples/step-0000006.png"]
    else:
        assert {row["step"] for row in read_rows(out / "scores.jsonl")} == {6}
        assert Checkpoints(out / "checkpoints", 2).best(6) is not None


def test_a_sink_that_fails_is_told_once_for_each_thing_it_does(
    killing: ModuleType, recipe: tuple[Any, ...], whole: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "leaky.py").write_text(SINK, encoding="utf-8")
    parts.add_file(tmp_path / "leaky.py")
    listener = Listener()
    train(*recipe, "sinks.leaky={}", out=tmp_path / "run", device="cpu", watcher=listener)
    assert listener.failures == [
        "step 1: the sink leaky failed and training goes on: ConnectionError: no row gets through",
        "step 2: the sink leaky failed and training goes on: ConnectionError: no picture gets through",
        "step 6: the sink leaky failed and training goes on: ConnectionError: not even the end",
    ]
    differing = killing.differences(whole, killing.contents(tmp_path / "run"))
    assert all(each.endswith("/ganvas") for each in differing), differing  # the recipe that the model files hold


@pytest.mark.parametrize("moment", ["picture", "score", "between score and mark", "between mark and model"])
def test_killed_after_the_checkpoint_it_ends_with_the_same_files(
    killing: ModuleType, recipe: tuple[Any, ...], whole: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, moment: str,
) -> None:  # fmt: skip
    owner, name = {
        "picture": (session, "sample_grid"),
        "score": (Judge, "score_model"),
        "between score and mark": (Checkpoints, "mark_best"),
        "between mark and model": (session.Session, "saved"),
    }[moment]
    plain = getattr(owner, name)

    def pull(*given: Any, **options: Any) -> Any:
        steps = Checkpoints(tmp_path / "run" / "checkpoints", 2).steps()
        if steps[-1:] == [4] and (moment != "between mark and model" or given[-1]):
            raise Pulled
        return plain(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, pull)
        with pytest.raises(Pulled):
            train(*recipe, out=tmp_path / "run", device="cpu")
    assert Checkpoints(tmp_path / "run" / "checkpoints", 2).steps() == [2, 4]
    train(*recipe, out=tmp_path / "run", device="cpu", resume=True)
    assert killing.differences(whole, killing.contents(tmp_path / "run")) == []
