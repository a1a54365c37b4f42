"""Trainings in processes of this machine. A worker serves one after the other; one that dies takes nobody along."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection

from ganvas.experiments.places.place import Call, Place, read_options
from ganvas.experiments.places.work import Ended, Work, carry_out


@dataclass(frozen=True)
class Options:
    """Options of `--on local`."""

    device: str = "cpu"


def from_options(settings: Sequence[str], call: Call) -> Local:
    jobs = call.jobs or 1
    threads = call.threads or max(1, (os.cpu_count() or 1) // jobs)
    return Local(jobs=jobs, threads=threads, **read_options(Options, settings, "local"))


class Local(Place):
    """Up to `jobs` worker processes, each started when it is first needed."""

    def __init__(self, *, jobs: int = 1, threads: int = 1, device: str = "cpu") -> None:
        self.jobs: int = jobs
        self.threads, self.device = threads, device
        self._idle: list[_Worker] = []
        self._busy: list[tuple[_Worker, Work]] = []

    def start(self, work: Work) -> None:
        worker = self._idle.pop() if self._idle else _Worker()
        with contextlib.suppress(OSError):  # it died while it was idle: `ended` tells
            worker.pipe.send(work)
        self._busy.append((worker, work))

    def ended(self, seconds: float) -> list[tuple[Work, Ended]]:
        connection.wait([worker.pipe for worker, _ in self._busy], seconds)  # a pipe whose worker is gone is ready, too
        results = []
        for worker, work in list(self._busy):
            if not worker.pipe.poll():
                continue
            self._busy.remove((worker, work))
            try:
                results.append((work, worker.pipe.recv()))
                self._idle.append(worker)
            except (EOFError, OSError):
                results.append((work, Ended("lost", worker.death())))
        return results

    def stop(self) -> None:
        for worker, _ in self._busy:
            worker.process.terminate()  # the engine saves first; outside its loop there is nothing to save

    def close(self) -> None:
        for worker in [*self._idle, *(worker for worker, _ in self._busy)]:
            worker.process.kill()  # an idle one has nothing to lose, and would take seconds to leave
            worker.process.join()
            worker.pipe.close()
        self._idle, self._busy = [], []


class _Worker:
    """A process, and the pipe that work goes to it by and that its end comes back by."""

    def __init__(self) -> None:
        # Spawned, not forked: torch's thread pools do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, worker_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(worker_end,), name="ganvas worker")
        with _deaf_to_ctrl_c():
            self.process.start()
        worker_end.close()  # or the pipe would not end with the worker

    def death(self) -> str:
        """What its end looks like from here."""
        self.process.join()
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        return f"its worker {how}"


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A child that is started within ignores SIGINT from its first moment on.

    A terminal sends Ctrl-C to all processes of the group, and one that still loads would answer with a traceback. A
    training that runs listens again: its engine saves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: connection.Connection) -> None:
    """In a worker: train what comes, until the pipe is closed."""
    _end_with_parent()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.send(carry_out(pipe.recv()))


def _end_with_parent() -> None:
    """End when the process that started this one is gone, however it went, instead of training on alone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)  # at any point: what a run writes is whole or not there

    threading.Thread(target=watch, daemon=True).start()
