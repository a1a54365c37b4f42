"""Start processes as torchrun would, without its agent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(command: Sequence[str], world: int, folder: Path, **more: str) -> list[subprocess.Popen[str]]:
    """One process a rank; standard output and error of rank r go to `rank-r.log` in the folder."""
    port = free_port()
    started = []
    for rank in range(world):
        environment = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", **more,
        }  # fmt: skip
        with (folder / f"rank-{rank}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=log, stderr=subprocess.STDOUT, text=True, cwd=folder
            )
            started.append(process)
    return started


def finish(started: Sequence[subprocess.Popen[str]], seconds: float) -> list[int]:
    """The exit codes; whoever is not done by then is killed, and that fails the test."""
    try:
        return [each.wait(seconds) for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()


def told(folder: Path, rank: int) -> str:
    return (folder / f"rank-{rank}.log").read_text(encoding="utf-8")
