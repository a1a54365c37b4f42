"""Many trainings at one place: what is done already, what is tried again, and how it stops."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ganvas.errors import UsageError, WorkerLost
from ganvas.experiments.places.place import Place
from ganvas.experiments.places.work import Ended, Work, divergence, finished, last_saved
from ganvas.files.files import is_claimed

RETRIES = 2
_POLL_S = 0.5
_SEEN_WITHIN_S = 90.0  # network file systems show a new file to other machines up to a minute late

Tell = Callable[[int, int, str], None]  # (trainings done, trainings in all, what happened)


class Interrupted(Exception):
    """It was asked to stop. What ran is saved, nothing runs any more, and the same call goes on."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"stopped with {done} of {total} done")
        self.done, self.total = done, total


def carry_out_all(
    planned: Sequence[Work], place: Place, *, retries: int = RETRIES, tell: Tell = lambda done, total, text: None
) -> dict[Path, str]:
    """Train what is not finished; the problem of each run that diverged, by its folder.

    A training whose worker is gone (killed, out of memory, its machine lost) goes on from its last checkpoint, up to
    `retries` times. One that diverges would do so again and is not repeated. A folder that another process trains into
    is waited for. The first SIGINT or SIGTERM lets what runs save itself; a second one ends it at once.

    Raises
    ------
    Interrupted : by a signal.
    WorkerLost : when all others are done, for those whose workers were lost too often.
    GanvasError and others : what a training failed with; the others save themselves first.
    """
    return _Dispatch(planned, place, retries, tell).run()


class _Dispatch:
    def __init__(self, planned: Sequence[Work], place: Place, retries: int, tell: Tell) -> None:
        self.place, self.retries, self.tell = place, retries, tell
        self.failed = {work.folder: problem for work in planned if (problem := divergence(work)) is not None}
        self.waiting = deque(work for work in planned if work.folder not in self.failed and not finished(work))
        self.total = len(planned)
        self.done = self.total - len(self.waiting)
        self.running = 0
        self.held: list[Work] = []  # others train into their folders
        self.unseen: list[tuple[Work, float]] = []  # said to be done, but not to be seen here; until when
        self.lost: Counter[Path] = Counter()
        self.given_up: dict[Path, str] = {}
        self.error: Exception | None = None
        self.stopping = False

    def run(self) -> dict[Path, str]:
        self.say("already there")
        with asked_to_stop() as stop:
            while self.waiting or self.running or self.held or self.unseen:
                if (stop.is_set() or self.error) and not self.stopping:
                    self.stop()
                self.hand_out()
                for work, ended in self.place.ended(_POLL_S):
                    self.running -= 1
                    self.take(work, ended)
                self.look_again()
        if self.error is not None:
            raise self.error
        if stop.is_set():
            raise Interrupted(self.done, self.total)
        if self.given_up:
            first, why = next(iter(self.given_up.items()))
            raise WorkerLost(
                f"{len(self.given_up)} of {self.total} trainings lost their workers {self.retries + 1} times; "
                f"of the first: {why}",
                where=str(first), hint="the same command goes on from the last checkpoints, once the cause is gone",
            )  # fmt: skip
        return self.failed

    def say(self, text: str) -> None:
        self.tell(self.done, self.total, text)

    def hand_out(self) -> None:
        while self.waiting and (self.place.jobs is None or self.running < self.place.jobs):
            work = self.waiting.popleft()
            if is_claimed(work.folder):
                self.hold(work)
                continue
            self.place.start(work)
            self.running += 1

    def hold(self, work: Work) -> None:
        self.say(f"{work.title}: another process trains into {work.folder}; waiting for it")
        self.held.append(work)

    def take(self, work: Work, ended: Ended) -> None:
        if ended.how == "done":
            self.unseen.append((work, time.monotonic() + _SEEN_WITHIN_S))
        elif ended.how == "diverged":
            self.failed[work.folder] = ended.problem
            self.count(work, f": {ended.problem}")
        elif ended.how == "failed":
            self.error = self.error or ended.error or RuntimeError(ended.problem)
        elif ended.how == "in use":
            if not self.stopping:
                self.hold(work)
        elif not self.stopping:  # lost, or stopped by somebody else
            self.try_again(work, ended.problem)

    def count(self, work: Work, more: str = "") -> None:
        self.done += 1
        self.say(work.title + more)

    def try_again(self, work: Work, why: str) -> None:
        self.lost[work.folder] += 1
        times = self.lost[work.folder]
        if times > self.retries:
            self.given_up[work.folder] = why
            self.say(f"{work.title}: {why}; given up, its worker was lost {times} times")
            return
        self.say(f"{work.title}: {why}; retry {times} of {self.retries}, from step {last_saved(work.folder)}")
        self.waiting.appendleft(work)

    def look_again(self) -> None:
        """At folders that others had, and at those where the end has not come to be seen."""
        for work in [held for held in self.held if not is_claimed(held.folder)]:
            self.held.remove(work)
            if finished(work):
                self.count(work)
            elif (problem := divergence(work)) is not None:
                self.failed[work.folder] = problem
                self.count(work, f": {problem}")
            else:
                self.waiting.append(work)
        for work, until in list(self.unseen):
            if finished(work):
                self.count(work)
            elif time.monotonic() < until:
                continue
            else:
                self.error = self.error or UsageError(
                    "its worker says that it is done, and nothing of it is to be seen here", where=str(work.folder),
                    hint="this folder must lie on a file system that all machines share",
                )  # fmt: skip
            self.unseen.remove((work, until))

    def stop(self) -> None:
        self.stopping = True
        self.waiting.clear()
        self.held.clear()
        if self.running:
            self.say(f"stopping: {self.running} save their state first; Ctrl-C again ends them at once")
        self.place.stop()


@contextlib.contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the next one is the ordinary KeyboardInterrupt."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals are the main thread's business
        return

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
