"""Players in a report: what a modality writes comes through, and nothing that could run or be fetched."""

from __future__ import annotations

from pathlib import Path

import torch

from ganvas import parts
from ganvas.report.players import MOST_BYTES, players


def shown(text: str, folder: Path) -> str:
    file = folder / "one-0.html"
    file.write_text(text, encoding="utf-8")
    return str(players(file))


def test_players_of_sound_come_through_unchanged(tmp_path: Path) -> None:
    written = parts.modality_of("audio").player(torch.zeros(3, 1, 50))
    assert shown(written, tmp_path) == f'<div class="players">{written}</div>'


def test_nothing_runs_and_nothing_is_fetched(tmp_path: Path) -> None:
    hostile = (
        '<script>x()</script><img src="https://e.org/a.png" onerror="x()"><audio controls src="file:///etc/passwd">'
        '<iframe src="data:text/html,x"></iframe></audio><p style="background:url(//e.org)">a &lt;b&gt;</p></div></div>'
    )
    page = shown(hostile, tmp_path)
    assert page == '<div class="players">x()<img><audio controls></audio><p>a &lt;b&gt;</p></div>'


def test_what_is_open_is_closed_and_what_is_large_is_named(tmp_path: Path) -> None:
    assert shown("<p><span>a", tmp_path) == '<div class="players"><p><span>a</span></p></div>'
    assert "one-0.html" in shown("a" * (MOST_BYTES + 1), tmp_path)
    assert players(tmp_path / "absent.html") is None and players(None) is None
