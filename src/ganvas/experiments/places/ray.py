"""Trainings as tasks of a Ray cluster. Needs the extra `ray`, and a file system that all its machines share."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt

from ganvas.errors import UsageError
from ganvas.experiments.places.place import Call, Place, missing, read_options
from ganvas.experiments.places.work import Ended, Work, carry_out
from ganvas.runtime.devices import ACCELERATOR

_KNOCK_S = 10.0


@dataclass(frozen=True)
class Options:
    """Options of `--on ray`; CPUs and GPUs are those of one training."""

    address: str | None = None  # such as auto or ray://head:10001; None: $RAY_ADDRESS, else a cluster of this machine
    cpus: Annotated[int, Gt(0)] | None = None  # None: as many as threads
    gpus: Annotated[float, Ge(0)] = 0.0
    device: str | None = None  # None: cuda where there are GPUs, else cpu


def from_options(settings: Sequence[str], call: Call) -> Ray:
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise missing("ray", "ray", error) from None
    return Ray(jobs=call.jobs, threads=call.threads, **read_options(Options, settings, "ray"))


class Ray(Place):
    """Ray queues and places the tasks; it connects when the first one is started."""

    def __init__(
        self, *, jobs: int | None = None, threads: int | None = None, address: str | None = None,
        cpus: int | None = None, gpus: float = 0.0, device: str | None = None,
    ) -> None:  # fmt: skip
        self.jobs, self.threads = jobs, threads or cpus or 1
        self.device = device or (ACCELERATOR if gpus else "cpu")
        self.address, self.cpus, self.gpus = address, cpus or self.threads, gpus
        self._task: Any = None
        self._running: dict[Any, Work] = {}
        self._ours = False  # whether the connection is, to be closed again

    def start(self, work: Work) -> None:
        if self._task is None:
            self._connect()
        self._running[self._task.remote(work)] = work

    def ended(self, seconds: float) -> list[tuple[Work, Ended]]:
        import ray

        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [(self._running.pop(task), _end_of(task)) for task in ready]

    def stop(self) -> None:
        import ray

        for task in self._running:
            ray.cancel(task)  # raises SIGINT in the task, and the engine saves

    def close(self) -> None:
        import ray

        for task in self._running:
            ray.cancel(task, force=True)
        self._running = {}
        if self._ours:
            ray.shutdown()  # where the cluster was started by us, it ends with it

    def _connect(self) -> None:
        import ray

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what is trained here
            main = threading.current_thread() is threading.main_thread()
            before = signal.getsignal(signal.SIGTERM)
            address = self._elsewhere()
            try:
                _knock(address)
                ray.init(
                    address=self.address, include_dashboard=None if address else False,
                    log_to_driver=False, logging_level=logging.ERROR,
                )  # fmt: skip
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(
                    f"there is no Ray cluster to be reached: {str(error).splitlines()[0]}",
                    where=f"--with address={address}" if address else "--on ray",
                    hint="ray status tells its address; without one, a cluster of this machine is started",
                ) from None
            if main:
                signal.signal(signal.SIGTERM, before)  # Ray puts its own there
            self._ours = True
        if not self._elsewhere():
            self._check_possible(ray.cluster_resources())  # type: ignore[no-untyped-call, unused-ignore]
        # Retries are counted in one way at all places, so not by Ray.
        self._task = ray.remote(carry_out).options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)

    def _elsewhere(self) -> str | None:
        """The address of a cluster that is there already."""
        return self.address or os.environ.get("RAY_ADDRESS")

    def _check_possible(self, resources: dict[str, float]) -> None:
        """On a cluster that cannot grow, Ray would wait for ever."""
        for kind, needed in (("CPU", self.cpus), ("GPU", self.gpus)):
            if needed > resources.get(kind, 0):
                raise UsageError(
                    f"a training is to have {needed:g} {kind}s, and this machine has {resources.get(kind, 0):g}",
                    where=f"--with {kind.lower()}s={needed:g}", hint="give less, or the address of a larger cluster",
                )  # fmt: skip


def _knock(address: str | None) -> None:
    """Whether anybody listens at HOST:PORT, of which Ray would try to be sure for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _end_of(task: Any) -> Ended:
    import ray
    from ray.exceptions import RayError, RayTaskError, TaskCancelledError

    try:
        ended: Ended = ray.get(task)
    except TaskCancelledError:
        return Ended("stopped", "it was cancelled")
    except RayTaskError as error:  # not from training, which tells its errors as values: the worker could not begin
        return Ended("failed", str(error), RuntimeError(f"a worker of the Ray cluster cannot train: {error}"))
    except RayError as error:
        return Ended("lost", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    return ended
