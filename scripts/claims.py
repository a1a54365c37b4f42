"""Say what changed in `tests/systems/claims` since the last commit: `python scripts/claims.py`, after `make claims`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "tests" / "systems" / "claims"


def committed(file: Path) -> dict[str, Any]:
    """What the last commit holds of a file; nothing where it is new."""
    asked = subprocess.run(
        ["git", "show", f"HEAD:{file.relative_to(ROOT).as_posix()}"], cwd=ROOT, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(asked.stdout) if asked.returncode == 0 else {}
    return found


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each entry that is new, gone, or says something else."""
    lines = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old is None:
            lines.append(f"new      {name}: {new['statement']}: {verdict(new)}")
        elif new is None:
            lines.append(f"gone     {name}")
        elif verdict(old) != verdict(new):
            lines.append(f"changed  {name}: {verdict(old)} -> {verdict(new)}")
    return lines


def verdict(entry: dict[str, Any]) -> str:
    shown = "shown" if entry["shown"] else "not shown"
    value = f", {json.dumps(entry['value'], ensure_ascii=False)}" if "value" in entry else ""
    return f"{shown if entry['held'] else 'FAILED'}{value}"


if __name__ == "__main__":
    lines = []
    for file in sorted(CLAIMS.glob("*.json")):
        lines += changes(committed(file), json.loads(file.read_text(encoding="utf-8")))
    sys.stdout.write("\n".join(lines or ["nothing changed"]) + "\n")
    sys.exit(any("FAILED" in line for line in lines))
