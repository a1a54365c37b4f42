"""Tables: what may stand side by side, and what can be told apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ganvas.errors import UsageError
from ganvas.evaluation.protocol import Column
from ganvas.experiments import study, tables
from ganvas.experiments.tables import Line, Series

ANY = (float("-inf"), float("inf"))
LOW = Column(True, ANY, "")


def line(name: str, *values: float, seeds: tuple[int, ...] | None = None, **made: object) -> Line:
    own = tuple(range(len(values))) if seeds is None else seeds
    return Line((name,), {"fd": Series(values, own)}, made={"fd": made})


def test_without_common_seeds_ties_are_overlapping_intervals() -> None:
    one = Series((1.0, 1.1, 1.2), (0, 1, 2))
    assert tables.tied(one, Series((1.15, 1.2, 1.3), (3, 4, 5)), ANY)
    assert not tables.tied(one, Series((2.0, 2.01, 2.02), (3, 4, 5)), ANY)
    assert tables.tied(Series((1.0,)), Series((2.0,)), ANY)  # one number without an interval tells nothing apart
    assert not tables.tied(Series((1.0,), own_interval=(0.9, 1.1)), Series((2.0,), own_interval=(1.9, 2.1)), ANY)


def test_common_seeds_are_compared_seed_by_seed() -> None:
    """Two lines that differ by 0.1 in every seed, though seeds differ by ten times that."""
    base = np.array([1.0, 2.0, 3.0])
    one, other = Series(tuple(base), (0, 1, 2)), Series(tuple(base + np.array([0.1, 0.11, 0.09])), (0, 1, 2))
    assert not tables.tied(one, other, ANY)
    assert tables.tied(one, Series(other.values, (7, 8, 9)), ANY)


def test_lines_are_ranked_and_those_without_a_number_come_last() -> None:
    found = tables.ranked([line("b", 2.0), line("none"), line("a", 1.0)], "fd", LOW)
    assert [each.labels[0] for each in found] == ["a", "b", "none"]
    found = tables.ranked([line("b", 2.0), line("a", 1.0)], "fd", Column(False, ANY, ""))
    assert [each.labels[0] for each in found] == ["b", "a"]


def test_unlike_rows_are_refused_with_what_differs() -> None:
    tables.check_alike([line("a", 1.0, protocol="digits", n_fake=500), line("b", 1.0, protocol="digits", n_fake=500)])
    with pytest.raises(UsageError) as caught:
        tables.check_alike(
            [line("a", 1.0, protocol="digits", n_fake=500), line("b", 1.0, protocol="digits", n_fake=100)]
        )
    assert "n_fake 500 and 100" in caught.value.problem and "protocol" not in caught.value.problem


def test_the_markdown_says_which_way_is_better_and_who_is_tied() -> None:
    text = tables.markdown(("gan",), [line("a", 1.0, 1.1), line("b", 1.0, 1.11), line("c", 5.0, 5.2)], {"fd": LOW})
    rows = [row.split("|") for row in text.splitlines()]
    assert rows[0][2].strip() == "fd ↓"
    assert [tables.TIED in row[-2] for row in rows[2:]] == [True, True, False]


def test_the_expected_best_of_a_budget_is_the_order_statistic() -> None:
    """Against all draws written out, and a closed form: the least of k uniform draws from 1…n."""
    scores = [3.0, 1.0, 2.0]
    draws = [(a, b) for a in scores for b in scores]
    assert study.expected_best(scores, 1) == pytest.approx(2.0)
    assert study.expected_best(scores, 2) == pytest.approx(np.mean([min(pair) for pair in draws]))
    curve = [study.expected_best(scores, k) for k in range(1, 30)]
    assert all(np.diff(curve) < 0) and curve[-1] == pytest.approx(1.0, abs=1e-4)


def run_with(folder: Path, value: float, **more: object) -> Path:
    folder.mkdir()
    row = {
        "metric": "fd", "value": value, "low": value - 0.1, "high": value + 0.1, "lower_is_better": True, "step": 5,
        "protocol": "digits", "n_fake": 500, **more,
    }  # fmt: skip
    (folder / "scores.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "resolved.yaml").write_text("{}\n")
    return folder


def test_runs_that_are_scored_alike_make_a_table_and_others_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ganvas import cli

    a, b = run_with(tmp_path / "a", 2.0), run_with(tmp_path / "b", 1.0)
    assert cli.run(["bench", str(a), str(b), "--json", "--out", str(tmp_path / "t")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [cell["run"] for cell in shown["cells"]] == [str(b), str(a)]
    assert "<!doctype html>" in (tmp_path / "t" / "table.html").read_text()
    c = run_with(tmp_path / "c", 1.0, n_fake=100)
    assert cli.run(["bench", str(a), str(c)]) == 2
    assert "n_fake 500 and 100" in capsys.readouterr().err
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "resolved.yaml").write_text("{}\n")
    assert cli.run(["bench", str(a), str(tmp_path / "d")]) == 2
    assert "ganvas eval" in capsys.readouterr().err


TUNED = """
recipes: {{one: tiny/digits, two: tiny/digits}}
overrides: [train.steps=2, train.batch=4, train.checkpoint_every=2, 'eval.every=~', eval.protocol={protocol}]
tune: {{slow: [optim.lr=0.001], poison: [optim.lr=1e30]}}
tune_seeds: [9]
metrics: [frechet_distance]
seeds: [0]
"""


def test_settings_are_chosen_by_other_seeds_than_those_that_count(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text(
        "extractor: digit-net\nreference: {use: digits, split: test, limit: 60}\nmetrics: {frechet-distance: {}}\n"
        "samples: 40\nseeds: [0]\nhalves: 0\n"
    )
    file = tmp_path / "tuned.yaml"
    file.write_text(TUNED.format(protocol=tmp_path / "quick.yaml"))
    plan = study.load(file)
    out = tmp_path / "out"
    failed = study.execute(plan, out, jobs=1, threads=1, tell=lambda *_: None)
    assert study.choices(plan, out) == {("one",): "slow", ("two",): "slow"}
    found = study.lines(plan, out, failed)
    assert {each.labels for each in found} == {("one", "slow"), ("two", "slow")}
    assert all(each.values["frechet_distance"].seeds == (0,) for each in found)
    data = json.loads(study.write(plan, out, found)["json"].read_text())
    assert data["tuning"][0]["scores"].keys() == {"slow"}  # the one that diverged has no score
