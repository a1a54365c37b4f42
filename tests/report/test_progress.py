"""The bar of a run: one line in a terminal of 100 columns, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ganvas.cli.progress import Progress, clock, short, totals

LOSSES = {"discriminator.adversarial": 1.25, "discriminator.r1": 0.25, "generator.adversarial": -0.125}


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_the_bar_is_one_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress()
    progress.console = Console(file=io.StringIO(), force_terminal=True, width=columns, height=24, highlight=False)
    progress.begin(98_000, 100_000)
    for step in range(98_001, 98_050):
        progress.tick(step, LOSSES)
    assert progress.bar is not None
    lines = progress.console.render_lines(progress.bar.get_renderable(), pad=False)
    text = ["".join(segment.text for segment in line) for line in lines]
    progress.end()
    assert len(text) == 1 and len(text[0].rstrip()) <= columns
    if columns >= 100:
        assert "98049/100000" in text[0] and "steps/s" in text[0] and " left" in text[0]
        assert "discriminator 1.5  generator -0.125" in text[0]


def test_elsewhere_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.begin(0, 10)
    progress.tick(5, LOSSES)
    progress.row(
        5, {"step": 5, "images": 320, "lr.generator": 0.1, **LOSSES, **{f"generator.term_{i}": 1.0 for i in range(9)}}
    )
    progress.row(5, {"score.frechet_distance": 1.23456, "score.precision": 0.5})
    progress.end()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(
        "step 5  discriminator.adversarial 1.25  discriminator.r1 0.25  generator.adversarial -0.125"
    )
    assert second == "step 5  frechet_distance 1.235  precision 0.5"


def test_words() -> None:
    assert [clock(seconds) for seconds in (0, 65, 3599.6, 7384, 200_000)] == [
        "0:00",
        "1:05",
        "1:00:00",
        "2:03:04",
        "2d 7:33:20",
    ]
    assert totals(LOSSES) == "discriminator 1.5  generator -0.125"
    assert short({"step": 1, "images": 2, "lr.generator": 3.0, "score.recall": 0.5}) == "recall 0.5"
