"""Where results are printed to may be closed, full, or a pipe whose reader has read enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m ganvas.cli"


def shell(line: str) -> tuple[int, str]:
    """(exit code of the command itself, what it says on standard error) of a line of bash."""
    done = subprocess.run(
        ["bash", "-c", line.replace("ganvas", COMMAND)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("verb", ["list", "list --json", "--help", "show recipe digits"])
def test_a_reader_that_has_read_enough_is_no_failure(verb: str) -> None:
    code, said = shell(f"ganvas {verb} | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}")
    assert (code, said) == (0, "")


@pytest.mark.parametrize("verb", ["list", "list --json"])
def test_a_closed_output_is_no_traceback(verb: str) -> None:
    assert shell(f"ganvas {verb} >&-") == (0, "")
    assert shell(f"ganvas {verb} 2>&- > /dev/null")[0] == 0
    assert shell("ganvas lisst 2>&- > /dev/null")[0] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
@pytest.mark.parametrize("verb", ["list", "list --json", "list nothing --json"])
def test_a_full_device_is_told_once(verb: str) -> None:
    code, said = shell(f"ganvas {verb} > /dev/full")
    assert code == 2
    assert "Traceback" not in said and "bug of ours" not in said
    assert ("No space left" in said) != ("nothing" in verb)
