"""Trainings as SLURM jobs, through submitit. Needs the extra `slurm`, and a file system that all machines share."""

from __future__ import annotations

import dataclasses
import inspect
import os
import shutil
import signal
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ganvas.errors import UsageError
from ganvas.experiments.places.place import Call, Place, missing, read_options
from ganvas.experiments.places.work import Ended, Work, carry_out
from ganvas.runtime.devices import ACCELERATOR

_MINUTES = 60  # a job's limit where none is given; it is queued again when it runs out
_ASK_EVERY_S = 60.0  # the scheduler, about jobs that left no result
_RESULT_WITHIN_S = 15.0  # after its job has ended, on a file system of the network
# One training is one task of one node here, and names that submitit keeps for old callers are not offered.
_NOT_OFFERED = {
    "command", "folder", "map_count", "nodes", "ntasks_per_node", "tasks_per_node", "array_parallelism", "num_gpus",
    "job_name", "cpus_per_gpu",
}  # fmt: skip


def from_options(settings: Sequence[str], call: Call) -> Slurm:
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise missing("slurm", "submitit", error) from None
    read = read_options(_options(), settings, "slurm")
    given = {key: value for key, value in read.items() if value is not None}
    place_settings = {key: given.pop(key) for key in ("cluster", "device") if key in given}
    return Slurm(
        call.out / "slurm-jobs", given, jobs=call.jobs, threads=call.threads, retries=call.retries, **place_settings
    )


def _options() -> type:
    """submitit's parameters of a job, as a section that words are checked against."""
    from submitit import AutoExecutor
    from submitit.slurm import slurm

    shared = AutoExecutor._typed_parameters()
    hints = typing.get_type_hints(slurm._make_sbatch_string)
    sbatch_types = {name: hints[name] for name in inspect.signature(slurm._make_sbatch_string).parameters}
    fields = {name: kind for name, kind in {**sbatch_types, **shared}.items() if name not in _NOT_OFFERED}
    return dataclasses.make_dataclass(
        "Options",
        [
            ("cluster", Literal["slurm", "local"], "slurm"),  # local: processes of this machine, to try it out
            ("device", str | None, None),  # None: cuda where GPUs are asked for, else cpu
            *((name, kind | None, None) for name, kind in fields.items()),
        ],
    )


class Slurm(Place):
    """Each training is a job; SLURM queues and places them.

    A job that is preempted or runs out of time saves its state and queues itself again, as submitit does it.

    Parameters
    ----------
    folder : for submitit's scripts, logs and results; all machines must see it.
    parameters : submitit's, such as `partition`, `timeout_min`, `gpus_per_node`, `mem_gb`.
    retries : times that a job may run out of time before that is taken as a loss.
    """

    def __init__(
        self, folder: Path, parameters: Mapping[str, Any], *, jobs: int | None = None, threads: int | None = None,
        retries: int = 2, cluster: str = "slurm", device: str | None = None,
    ) -> None:  # fmt: skip
        gpus = any("gpu" in key and value for key, value in parameters.items())
        gpus = gpus or str(parameters.get("gres", "")).startswith("gpu")
        self.jobs, self.threads = jobs, threads or parameters.get("cpus_per_task") or 1
        self.device = device or (ACCELERATOR if gpus else "cpu")
        self._executor = _executor(folder, cluster, {"cpus_per_task": self.threads, **parameters}, retries)
        self._result_within_s = 0.0 if cluster == "local" else _RESULT_WITHIN_S
        self._running: list[tuple[Any, Work]] = []
        self._over: dict[str, float] = {}  # job -> since when it is over and left no result
        self._asked = time.monotonic()  # the scheduler, last time
        self._stopping = False

    def start(self, work: Work) -> None:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            self._running.append((self._executor.submit(Training(work)), work))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise UsageError(
                f"SLURM does not take the job: {str(error).strip().splitlines()[-1]}", where=work.title,
                hint="sbatch's own words; change --with KEY=VALUE, and the same command goes on",
            ) from None  # fmt: skip

    def ended(self, seconds: float) -> list[tuple[Work, Ended]]:
        now = time.monotonic()
        ask = self._stopping or now - self._asked > _ASK_EVERY_S
        self._asked = now if ask else self._asked
        results = []
        for job, work in list(self._running):
            over = job.done(force_check=ask)
            ask = False  # one answer is about all jobs
            if not over:
                continue
            left_result = job.paths.result_pickle.exists()
            if not (left_result or self._stopping) and now - self._over.setdefault(job.job_id, now) < (
                self._result_within_s
            ):
                continue
            self._running.remove((job, work))
            results.append((work, _end_of(job) if left_result else Ended("lost", _death_of(job))))
        if not results:
            time.sleep(seconds)
        return results

    def stop(self) -> None:
        self._stopping = True
        for job, _ in self._running:
            job.cancel(check=False)  # SIGTERM first, at which the engine saves; SLURM kills after its KillWait

    def close(self) -> None:
        for job, _ in self._running:
            job.cancel(check=False)
        self._running = []


def _executor(folder: Path, cluster: str, parameters: Mapping[str, Any], retries: int) -> Any:
    from submitit import AutoExecutor

    if cluster == "slurm" and shutil.which("srun") is None:
        raise UsageError(
            "there is no SLURM here: srun is not to be found", where="--on slurm",
            hint="call it on a login node of the cluster; to try it out on this machine: --with cluster=local",
        )  # fmt: skip
    executor = AutoExecutor(folder=folder, cluster=cluster, **{f"{cluster}_max_num_timeout": retries})
    shared = AutoExecutor._typed_parameters()
    # srun of SLURM 22.05 and 23.02 does not take over the number of CPUs that sbatch was given.
    srun = [f"--cpus-per-task={parameters['cpus_per_task']}", *parameters.get("srun_args", ())]
    words = {"name": "ganvas", "timeout_min": _MINUTES, **parameters, "srun_args": srun}
    if "time" in parameters:
        del words["timeout_min"]
    executor.update_parameters(**{key if key in shared else f"slurm_{key}": value for key, value in words.items()})
    return executor


class Training:
    """A training as submitit runs it: at the signal that its time is over it saves, and its job is queued again."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self) -> Ended:
        number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
        queue_again = typing.cast("Callable[[int, Any], None]", signal.getsignal(number))  # submitit's; it exits
        outside = signal.getsignal(signal.SIGTERM)
        asked = False

        def save_first(number: int, frame: object) -> None:
            nonlocal asked
            asked = True
            if signal.getsignal(signal.SIGTERM) is outside:  # the engine's loop is not there to save anything
                queue_again(number, frame)
            signal.raise_signal(signal.SIGTERM)

        signal.signal(number, save_first)
        ended = carry_out(self.work)
        if asked and ended.how == "stopped":
            queue_again(number, None)
        return ended

    def checkpoint(self) -> Any:
        """What submitit runs when the job has its turn again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _end_of(job: Any) -> Ended:
    from submitit.core.utils import UncompletedJobError

    try:
        ended: Ended = job.result()
    except UncompletedJobError:  # the worker could not begin, or had no time left
        return Ended("lost", _death_of(job))
    return ended


def _death_of(job: Any) -> str:
    """What its job ended as, with the last line of its log."""
    said = [line for line in (job.stderr() or "").splitlines() if line.strip()]
    return f"its job {job.job_id} ended as {job.state}" + (f": {said[-1].strip()}" if said else "")
