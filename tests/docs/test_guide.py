"""Every command, snippet and recipe of the guide, page by page and in order, at sizes that end in seconds."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, PAGES, blocks

from ganvas import cli, parts
from ganvas.files.files import read_rows
from ganvas.recipe import yaml12
from ganvas.recipe.check import check_node
from ganvas.recipe.recipe import Recipe

# Networks are narrow, two steps stand for thousands, and what is trained here is not scored.
QUICK = [
    "train.steps=2", "train.batch=4", "train.checkpoint_every=1", "networks.generator.width=8",
    "networks.discriminator.width=8", "eval=~",
]  # fmt: skip
LANGUAGES = {"sh", "console", "python", "yaml", "text"}


def quicker(words: list[str]) -> list[str]:
    if words[0] != "train":
        return words
    if "--resume" in words:
        return [word.replace("train.steps=4000", "train.steps=3") for word in words]
    return [*words, *QUICK]


def is_whole_recipe(data: Any) -> bool:
    return isinstance(data, dict) and ("base" in data or {"data", "networks", "task"} <= data.keys())


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(DOCS)) for page in PAGES])
def test_what_the_page_shows_works(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "reader"}
    if page.name == "train.md":  # where a reader makes it
        shutil.rmtree("runs")
    for language, file, text in blocks(page):
        assert language in LANGUAGES
        if file:
            Path(file).write_text(text, encoding="utf-8")
        if language == "yaml":
            shown = yaml12.read(text, page.name)[0]
            if is_whole_recipe(shown):
                Path("shown.yaml").write_text(text, encoding="utf-8")
                Recipe.load("shown.yaml").resolve()
            elif isinstance(shown, dict) and shown.keys() == {"data"}:
                dataset = parts.build("dataset", check_node("dataset", shown["data"]))
                assert len(dataset) >= 2, text
        elif language == "python" and not file:
            exec(compile(text, str(page), "exec"), names)
        elif language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line, comments=True)
                assert program == "ganvas", "only commands of ours can be run here; mark the others ```console"
                code = cli.run(quicker(words))
                assert code == 0, f"{line}\n{capsys.readouterr().err}"


def test_the_score_page_names_the_fields_of_a_row(furnished: Path) -> None:
    rows = read_rows(furnished / "runs" / "digits" / "scores.jsonl")
    text = (DOCS / "scores.md").read_text(encoding="utf-8")
    for field in rows[0]:
        assert f"`{field}`" in text, f"docs/scores.md does not say what {field!r} is"
    for name in {row["metric"] for row in rows}:
        assert f"| `{name}` |" in text


def test_the_train_page_names_the_files_of_a_run(furnished: Path) -> None:
    text = (DOCS / "train.md").read_text(encoding="utf-8")
    for file in (furnished / "runs" / "digits").iterdir():
        assert f"`{file.name}" in text, f"docs/train.md does not say what {file.name} is"


def test_the_exit_code_of_a_mistake_is_two(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["check", "digits", "optim.lr=-1"], ["train", "nowhere"], ["sample", "nowhere"], ["train", "--nope"]):
        assert cli.run(words) == 2
    assert "Traceback" not in capsys.readouterr().err
