"""A place that trains in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ganvas.experiments.places import Ended, Place, Work
from ganvas.experiments.places.work import carry_out

Go = Callable[..., dict[str, Any]]


class Here(Place):
    """Trains in this process, one after the other; `between` is called before each training."""

    def __init__(self, between: Callable[[Work], None] = lambda work: None) -> None:
        self.jobs: int = 1
        self.threads, self.device = 1, "cpu"
        self.queue: deque[Work] = deque()
        self.between = between
        self.trained: list[str] = []

    def start(self, work: Work) -> None:
        self.queue.append(work)

    def ended(self, seconds: float) -> list[tuple[Work, Ended]]:
        work = self.queue.popleft()
        self.between(work)
        self.trained.append(work.title)
        return [(work, carry_out(work))]

    def stop(self) -> None:
        self.queue.clear()

    def close(self) -> None:
        self.queue.clear()
