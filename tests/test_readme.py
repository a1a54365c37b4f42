"""Every command and snippet of the README, run in order as a reader would, at sizes that end in seconds."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas import cli

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
# Networks are small, and two steps stand for the thousands that a reader waits for.
QUICK = [
    "train.steps=2", "train.batch=4", "networks.generator.width=16", "networks.discriminator.width=16",
    "train.checkpoint_every=1", "eval.every=2",
]  # fmt: skip


def quicker(words: list[str]) -> list[str]:
    if words[0] != "train" or "--resume" in words:
        return words
    return [*words, *QUICK]


def snippets() -> list[tuple[str, str]]:
    return [(language, text) for language, text in BLOCK.findall(README.read_text(encoding="utf-8"))]


def test_every_command_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(photos / f"{number}.png")
    ran = 0
    for language, text in snippets():
        named = re.match(r"# (\S+\.(?:yaml|py))\n", text)
        if named:
            Path(named.group(1)).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text.replace('"train.steps=2000"', ", ".join(map(repr, QUICK))), str(README), "exec"), {})
        elif language == "sh":
            for line in text.splitlines():
                program, *words = shlex.split(line, comments=True)
                assert program == "ganvas"
                assert cli.run(quicker(words)) == 0, line
                ran += 1
    assert ran == 17
    assert (tmp_path / "grid.png").is_file()
    assert len(list((tmp_path / "fakes").rglob("*.png"))) == 200


def test_readme_names_both_commands_and_shows_a_picture_it_made() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text and "make test" in text
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (README.parent / picture).is_file()
