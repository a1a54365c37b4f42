"""What each test of a published system showed is kept as data: with GANVAS_CLAIMS=1 a run renews `claims/<id>.json`.

An entry is one test: the statement that it asserts, whether it held, the value that it measured (fixture `claim`), how
to run it, and the commit. `ganvas show system ID` and the docs print them; `make claims` renews them and says what
changed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLAIMS = Path(__file__).parent / "claims"
ROOT = Path(__file__).parents[2]
_seen: dict[str, dict[str, dict[str, Any]]] = {}  # system -> node id -> entry


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`claim(value, seeds=…, shown=…, statement=…)` notes what a test measured before it asserts it.

    `shown=False` says that the catalogue's statement did not hold and that the test asserts what is true instead.
    """

    def note(value: Any, *, seeds: object = 0, shown: bool = True, statement: str | None = None) -> None:
        request.node.user_properties.append(("claim", {"value": value, "seeds": seeds, "shown": shown}))
        if statement is not None:
            request.node.user_properties.append(("statement", statement))

    return note


def statement_of(item: pytest.Item) -> str:
    """The first sentence of a test's docstring, else its name in words, with its parameters."""
    function = getattr(item, "function", None)
    doc = (getattr(function, "__doc__", None) or "").strip().split("\n\n")[0].replace("\n", " ")
    words = " ".join(doc.split()).rstrip(".") or item.name.split("[")[0].removeprefix("test_").replace("_", " ")
    parameters = item.name.partition("[")[2].rstrip("]")
    return f"{words} ({parameters})" if parameters else words


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("system"):
        item.user_properties.append(("system", mark.args[0]))
    item.user_properties.append(("stated", statement_of(item)))
    item.user_properties.append(("slow", item.get_closest_marker("slow") is not None))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" or not os.environ.get("GANVAS_CLAIMS") or os.environ.get("PYTEST_XDIST_WORKER"):
        return  # of several processes the one that gathers writes
    properties = dict(report.user_properties)
    entry: dict[str, Any] = {
        "statement": properties.get("statement") or properties.get("stated"),
        "held": report.passed,
        **{"shown": True, **properties.get("claim", {})},
        "slow": properties.get("slow", False),
        "command": f"python -m pytest {'-m slow ' if properties.get('slow') else ''}'{report.nodeid}'",
        "commit": _commit(),
    }
    for name, value in report.user_properties:
        if name == "system":
            _seen.setdefault(value, {})[report.nodeid] = entry


def pytest_sessionfinish() -> None:
    for system, entries in _seen.items():
        file = CLAIMS / f"{system}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        kept = {name: entry for name, entry in kept.items() if (ROOT / name.split("::")[0]).is_file()}
        for name, entry in entries.items():  # an unchanged finding keeps the commit at which it was found
            same = {key: value for key, value in entry.items() if key != "commit"}
            before = {key: value for key, value in kept.get(name, {}).items() if key != "commit"}
            kept[name] = kept[name] if same == before else entry
        CLAIMS.mkdir(exist_ok=True)
        file.write_text(json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return asked.stdout.strip()
