"""Becoming one of several processes, noticing that one is gone, and leaving.

torchrun says who a process is by RANK, WORLD_SIZE and LOCAL_RANK; SLURM's srun by SLURM_PROCID, SLURM_STEP_NUM_TASKS
and SLURM_LOCALID. Where neither speaks of more than one process, nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from ganvas.errors import GanvasError, UsageError, WorkerLost
from ganvas.runtime import ranks
from ganvas.runtime.devices import ACCELERATOR, device_of

T = TypeVar("T")

SILENT_S = 40  # a rank that has not been heard of for so long is taken for dead
BEAT_S = 2
_PATIENCE = timedelta(hours=2)  # rank 0 may write, and score, for long; who is dead is found out otherwise
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|Socket|socket", re.IGNORECASE)


@dataclass(frozen=True)
class Seat:
    """Which of how many processes this one is, and where they meet."""

    rank: int
    world: int
    local_rank: int
    address: str
    port: int


def seat_of(environment: Mapping[str, str]) -> Seat | None:
    """The seat that torchrun or srun gave this process, None where it is alone.

    Raises
    ------
    UsageError : they say something that is no number.
    """
    try:
        if int(environment.get("WORLD_SIZE", 1)) > 1:
            rank = int(environment["RANK"])
            return Seat(
                rank, int(environment["WORLD_SIZE"]), int(environment.get("LOCAL_RANK", 0)),
                environment.get("MASTER_ADDR", "127.0.0.1"), int(environment.get("MASTER_PORT", 29500)),
            )  # fmt: skip
        # Not SLURM_NTASKS: that is also set in the shell of an allocation, where nothing has been started yet.
        if "SLURM_PROCID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            job = int(environment.get("SLURM_JOB_ID", 0))
            return Seat(
                int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"]),
                int(environment.get("SLURM_LOCALID", 0)),
                environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", "127.0.0.1")),
                int(environment.get("MASTER_PORT", 29500 + job % 1000)),
            )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"this is started as one of several processes, but {error} is missing or no number", where="environment",
            hint="start it with torchrun or srun, which set RANK, WORLD_SIZE and LOCAL_RANK",
        ) from None  # fmt: skip
    return None


def first_host(nodes: str) -> str:
    """The first machine of a SLURM list: `node[03-05,9]` -> `node03`."""
    match = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    if match is None:
        return "127.0.0.1"
    start, number, end = match.groups()
    return start + (number or "") + (end or "")


@contextlib.contextmanager
def joined(device: str | None = None) -> Iterator[str | None]:
    """Train as one of several processes while it lasts; gives the device of this one, or what was asked for.

    Raises
    ------
    UsageError : the others are not to be found.
    WorkerLost : one of them is gone; it is dropped from no computation, the whole job ends.
    """
    seat = seat_of(os.environ)
    if seat is None or (dist.is_available() and dist.is_initialized()):  # alone, or joined already
        yield device
        return
    device = device_of(seat.local_rank, device)
    accelerated = device is not None and torch.device(device).type == ACCELERATOR
    if accelerated:
        torch.cuda.set_device(device)
    os.environ.setdefault("MASTER_ADDR", seat.address)
    os.environ.setdefault("MASTER_PORT", str(seat.port))
    try:
        backend = f"cpu:gloo,{ACCELERATOR}:nccl" if accelerated else "gloo"
        dist.init_process_group(backend, rank=seat.rank, world_size=seat.world, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"process {seat.rank} of {seat.world} cannot reach {seat.address}:{seat.port}: {_first_line(error)}",
            where="MASTER_ADDR", hint="it must be the machine of process 0, with a port that is open between them",
        ) from None  # fmt: skip
    pulse = Pulse(seat)
    try:
        yield device
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise WorkerLost(
            f"process {seat.rank} of {seat.world} has lost another one: {_first_line(error)}",
            where="torch.distributed", hint="start the same command again with --resume and --out",
        ) from None  # fmt: skip
    finally:
        pulse.stop()
        dist.destroy_process_group()  # or the process may abort as it exits


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Pulse:
    """Every rank tells every few seconds that it lives; one that has not for `SILENT_S` ends the job.

    A collective call waits for a rank that was killed together with its machine as long as its time limit, and that has
    to be long, because one rank may score for an hour. So lives are counted beside the work.
    """

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.over = threading.Event()
        box: list[Any] = [None]
        if seat.rank == 0:
            self.store = TCPStore(
                seat.address, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=SILENT_S)
            )
            box = [self.store.port]
        dist.broadcast_object_list(box, src=0)
        if seat.rank > 0:
            self.store = TCPStore(
                seat.address, box[0], is_master=False, wait_for_workers=False, timeout=timedelta(seconds=SILENT_S)
            )
        self.store.set(f"beat/{seat.rank}", "0")
        dist.barrier()
        self.thread = threading.Thread(target=self.beat, daemon=True)
        self.thread.start()

    def beat(self) -> None:
        keys = [f"beat/{rank}" for rank in range(self.seat.world)]
        heard: dict[str, tuple[bytes, float]] = {}
        count = 0
        while not self.over.wait(BEAT_S):
            count += 1
            try:
                self.store.set(keys[self.seat.rank], str(count))
                answers = self.store.multi_get(keys)
            except RuntimeError:  # whoever kept the store is gone
                if self.over.wait(BEAT_S):
                    return
                self.end(0)
            now = time.monotonic()
            for key, value in zip(keys, answers, strict=True):
                if value == b"left":
                    continue
                if heard.get(key, (b"", 0.0))[0] != value:
                    heard[key] = (value, now)
                elif now - heard[key][1] > SILENT_S:
                    self.end(keys.index(key))

    def end(self, lost: int) -> None:
        """Leave at once: the main thread may wait for the lost rank in a call that cannot be interrupted."""
        time.sleep(BEAT_S)  # the main thread may have noticed by itself, and says it better
        if self.over.is_set():
            return
        error = WorkerLost(
            f"process {lost} of {self.seat.world} has not been heard of for {SILENT_S} s; this one ends, too",
            where=f"process {self.seat.rank}", hint="start the same command again with --resume and --out",
        )  # fmt: skip
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(2)

    def stop(self) -> None:
        self.over.set()
        with contextlib.suppress(RuntimeError):
            self.store.set(f"beat/{self.seat.rank}", "left")
            if self.seat.rank == 0:  # the store lives here: the others must have stopped asking
                deadline = time.monotonic() + BEAT_S
                while time.monotonic() < deadline:
                    beats = self.store.multi_get([f"beat/{rank}" for rank in range(self.seat.world)])
                    if all(beat == b"left" for beat in beats):
                        break
                    time.sleep(0.05)
        self.thread.join(timeout=2 * BEAT_S)


def agreed(decide: Callable[[], T]) -> T:
    """What rank 0 decides, on every rank; its mistake is everybody's.

    Raises
    ------
    GanvasError : that of rank 0, marked as told by it.
    """
    if ranks.world() == 1:
        return decide()
    box: list[Any] = [None]
    if ranks.rank() == 0:
        try:
            box = [(decide(), None)]
        except GanvasError as error:
            box = [(None, error)]
    dist.broadcast_object_list(box, src=0)
    value, mistake = box[0]
    if mistake is not None:
        mistake.already_reported = ranks.rank() > 0
        raise mistake
    return value  # type: ignore[no-any-return]
