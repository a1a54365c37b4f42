"""Searches: trials of a recipe at proposed values, each trained from where it stands.

`space` says what varies, `store` proposes and keeps the trials, `places` trains, `pareto` shows what was found.
"""

from __future__ import annotations

import importlib
import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ganvas.cost import clock, flops
from ganvas.engine.trainer import Stop
from ganvas.errors import BadValue, MissingExtra, RecipeError, UsageError
from ganvas.evaluation.protocol import MADE_BY
from ganvas.experiments import places, tables
from ganvas.experiments.places import Ended, Place, Tell, Work
from ganvas.experiments.places.dispatch import asked_to_stop
from ganvas.experiments.search.pareto import Trial
from ganvas.experiments.search.space import MEASURED, Prune, Search
from ganvas.files.files import is_claimed
from ganvas.model import Model
from ganvas.runtime.devices import pick_device
from ganvas.training.session import Watcher

if TYPE_CHECKING:
    from ganvas.experiments.search.store import TrialStore

BATCH = 64  # samples that latency is measured with
_REPEATS = 9
_POLL_S = 0.5
_SEEN_WITHIN_S = 90.0  # network file systems show a new file to other machines up to a minute late


def check_installed() -> None:
    """Raise MissingExtra unless optuna is there and works."""
    try:
        importlib.import_module("optuna")
    except ImportError as error:
        raise MissingExtra(
            f"a search needs the package optuna ({error})", where="ganvas search",
            hint='pip install "ganvas[search]" -c constraints.txt',
        ) from None  # fmt: skip


def open_store(search: Search, place: str) -> TrialStore:
    """The search's trials in a storage, see `store.TrialStore`.

    Raises
    ------
    MissingExtra : optuna is not installed.
    ResumeMismatch : what is there is another search.
    UsageError : the storage cannot be opened.
    """
    check_installed()
    from ganvas.experiments.search.store import TrialStore

    return TrialStore(search, place)


# --------------------------------------------------------------------------------------------------- stopping early


class WorseThanOthers(Stop):
    """A training that is stopped because others were better at the same step."""


@dataclass
class Scores(Watcher):
    """In a worker: tells the search's storage the objective's scores, and stops a training that is worse than others.

    Parameters
    ----------
    storage, search, number : where the trial is kept.
    offset : steps of the trial's trainings before this one; a score's step in the storage counts them, too.
    """

    storage: str
    search: str
    number: int
    prune: Prune
    metric: str
    offset: int
    steps: int = field(default=0, init=False)

    def begin(self, step: int, steps: int) -> None:
        from ganvas.experiments.search.store import Reporter

        self.steps = steps
        self.reporter = Reporter(self.storage, self.search, self.number, self.prune)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        value = values.get(f"score.{self.metric}")
        if value is not None and self.reporter.tell(self.offset + step, value) and step < self.steps:
            raise WorseThanOthers(f"stopped at step {step}: worse than the median")


# --------------------------------------------------------------------------------------------------- measuring


def measured(folder: Path, names: Sequence[str], device: str) -> dict[str, float]:
    """Those of the objectives of `MEASURED` that are asked for, of a run's model, on a device of this machine."""
    asked = [name for name in names if name in MEASURED]
    if not asked:
        return {}
    where = pick_device(device)
    model = Model.load(folder, device=where)
    values: dict[str, float] = {}
    if "parameters" in asked:
        nets: Sequence[Any] = list(model.nets.values()) if model.generator is None else [model.generator]
        values["parameters"] = float(sum(flops.parameter_count(net) for net in nets))
    if "macs" in asked:
        values["macs"] = flops.flops(lambda: model.sample(BATCH)) / flops.FLOPS_PER_MAC / BATCH
    if "latency_ms" in asked:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # comparable between machines with more or fewer cores
        try:
            taken = clock.times(lambda: model.sample(BATCH), repeats=_REPEATS, warm_up=2, device=where)
            values["latency_ms"] = 1000 * taken.working(where)
        finally:
            torch.set_num_threads(threads)
    return values


def judged(trial: Trial, works: Sequence[Work], names: Sequence[str], device: str) -> Trial:
    """A trial whose trainings all ended well, with its values; one that has none is a failure."""
    seeds: dict[str, list[float]] = {name: [] for name in names}
    made: dict[str, dict[str, Any]] = {}
    for work in works:
        rows, measures = tables.newest(work.folder), measured(work.folder, names, device)
        for name in names:
            value = measures[name] if name in measures else float(rows[name]["value"]) if name in rows else math.nan
            if not math.isfinite(value):
                return replace(trial, state="failed", problem=f"{work.title}: {name} is no number")
            seeds[name].append(value)
            if name in rows:
                # The sampler may be what is searched for; it belongs to the trial.
                made[name] = {key: rows[name].get(key) for key in MADE_BY if key != "sampler"}
    return replace(trial, state="complete", seeds={name: tuple(values) for name, values in seeds.items()}, made=made)


# --------------------------------------------------------------------------------------------------- the session


def execute(
    search: Search,
    store: TrialStore,
    out: Path,
    place: Place,
    *,
    retries: int = places.RETRIES,
    tell: Tell = lambda done, total, text: None,
) -> list[Trial]:
    """Carry out what is missing, beside other sessions of the same storage, and return all trials when they have ended.

    A training that diverges, or that cannot be with these values, fails its trial; so does one whose worker is lost
    more than `retries` times, after it went on from its last checkpoint each time. The first SIGINT or SIGTERM lets
    what runs save itself, and leaves its trials to the next session.

    Parameters
    ----------
    out : trainings go into `trials/<number>/seed-<seed>` of it.
    place : where trainings run; it says how many at a time.

    Raises
    ------
    places.Interrupted : by a signal.
    GanvasError and others : what a training failed with; the others save themselves first.
    """
    return _Session(search, store, out, place, retries, tell).run()


class _Session:
    def __init__(self, search: Search, store: TrialStore, out: Path, place: Place, retries: int, tell: Tell) -> None:
        self.search, self.store, self.out, self.place = search, store, out, place
        self.retries, self.tell = retries, tell
        self.device = place.device if isinstance(place, places.Local) else "cpu"  # that speed is measured on
        self.trials: dict[int, Trial] = {}  # what this session works at
        self.works: dict[int, list[Work]] = {}
        self.waiting: deque[tuple[int, Work]] = deque()
        self.running: dict[Path, int] = {}  # run folder -> trial
        self.unseen: list[tuple[int, Work, float]] = []  # said to be done, but not to be seen here; until when
        self.lost: Counter[Path] = Counter()
        self.error: Exception | None = None
        self.stopping = False

    def run(self) -> list[Trial]:
        self.say("already there")
        try:
            with self.store.beating(), asked_to_stop() as stop:
                while True:
                    if (stop.is_set() or self.error) and not self.stopping:
                        self.stop()
                    self.take_on()
                    self.hand_out()
                    if not (self.waiting or self.running or self.unseen) and (self.stopping or not self.to_come()):
                        break
                    if self.running:
                        for work, ended in self.place.ended(_POLL_S):
                            self.take(self.running.pop(work.folder), work, ended)
                    else:  # others work at the last trials, or in these folders
                        stop.wait(_POLL_S)
                    self.look_again()
        finally:
            self.store.release()
        if self.error is not None:
            raise self.error
        if stop.is_set():
            raise places.Interrupted(self.ended(), self.search.plan.trials)
        return self.store.trials()

    def say(self, text: str) -> None:
        self.tell(self.ended(), self.search.plan.trials, text)

    def ended(self) -> int:
        return sum(trial.state != "running" for trial in self.store.trials())

    def to_come(self) -> bool:
        return self.ended() < max(self.search.plan.trials, len(self.store.trials()))

    def stop(self) -> None:
        self.stopping = True
        self.waiting.clear()
        if self.running:
            self.say(f"stopping: {len(self.running)} save their state first; Ctrl-C again ends them at once")
        self.place.stop()

    # ------------------------------------------------------------------ handing out

    def take_on(self) -> None:
        """As many trials as there is room for."""
        while not self.stopping and len(self.waiting) + len(self.running) < (self.place.jobs or 1):
            trial = self.store.next()
            if trial is None:
                return
            self.trials[trial.number] = trial
            try:
                self.works[trial.number] = self.works_of(trial)
            except RecipeError as error:  # each value is possible, but not all of these together
                self.end(replace(trial, state="failed", problem=error.problems[0].problem))
                continue
            for work in self.works[trial.number]:
                if (problem := places.divergence(work)) is not None:
                    self.end(replace(trial, state="failed", problem=problem))
                    break
                if not places.finished(work):
                    self.waiting.append((trial.number, work))
            self.end_where_done(trial.number)

    def works_of(self, trial: Trial) -> list[Work]:
        plan, works = self.search.plan, []
        for i, seed in enumerate(plan.seeds):
            recipe = self.search.trial_recipe(trial.proposal, seed)
            steps = recipe.resolve()["train"]["steps"]
            work = Work.here(
                recipe, self.out / "trials" / str(trial.number) / f"seed-{seed}", f"trial {trial.number} seed {seed}",
                threads=self.place.threads, device=self.place.device,
            )  # fmt: skip
            if plan.prune is not None:
                metric = next(iter(self.search.objectives))
                watcher = Scores(self.store.place, plan.name, trial.number, plan.prune, metric, i * steps)
                work = replace(work, watcher=watcher)
            works.append(work)
        return works

    def hand_out(self) -> None:
        for number, work in list(self.waiting):
            if len(self.running) >= (self.place.jobs or 1):
                return
            if not is_claimed(work.folder):
                self.waiting.remove((number, work))
                self.place.start(work)
                self.running[work.folder] = number

    # ------------------------------------------------------------------ what comes back

    def take(self, number: int, work: Work, ended: Ended) -> None:
        trial = self.trials.get(number)
        if trial is None:  # another of its trainings has failed
            return
        if ended.how == "done":
            self.unseen.append((number, work, time.monotonic() + _SEEN_WITHIN_S))
        elif ended.how == "diverged":
            self.end(replace(trial, state="failed", problem=ended.problem))
        elif ended.how == "failed" and isinstance(ended.error, WorseThanOthers):
            self.end(replace(trial, state="stopped", problem=str(ended.error)))
        elif ended.how == "failed" and isinstance(ended.error, (BadValue, MemoryError, torch.OutOfMemoryError)):
            problem = ended.error.problem if isinstance(ended.error, BadValue) else "not enough memory"
            self.end(replace(trial, state="failed", problem=problem))
        elif ended.how == "failed":
            self.error = self.error or ended.error
        elif not self.stopping:  # lost, stopped by somebody else, or in use
            self.try_again(trial, work, ended)

    def try_again(self, trial: Trial, work: Work, ended: Ended) -> None:
        if ended.how != "in use":
            self.lost[work.folder] += 1
            times = self.lost[work.folder]
            if times > self.retries:
                self.end(replace(trial, state="failed", problem=f"{ended.problem}, {times} times"))
                return
            self.say(f"{work.title}: {ended.problem}; retry {times} of {self.retries}")
        self.waiting.appendleft((trial.number, work))

    def look_again(self) -> None:
        """At what is said to be done."""
        for entry in list(self.unseen):
            number, work, until = entry
            if places.finished(work):
                self.unseen.remove(entry)
                self.end_where_done(number)
            elif time.monotonic() > until:
                self.unseen.remove(entry)
                self.error = self.error or UsageError(
                    "its worker says that it is done, and nothing of it is to be seen here", where=str(work.folder),
                    hint="this folder must lie on a file system that all machines share",
                )  # fmt: skip

    def end_where_done(self, number: int) -> None:
        if number in self.trials and all(places.finished(work) for work in self.works[number]):
            self.end(judged(self.trials[number], self.works[number], tuple(self.search.objectives), self.device))

    def end(self, trial: Trial) -> None:
        """Write a trial down; what is left of it is no longer of interest."""
        self.waiting = deque(entry for entry in self.waiting if entry[0] != trial.number)
        del self.trials[trial.number]
        try:
            self.store.finish(trial)
        except UsageError as error:
            self.error = self.error or error
            return
        shown = ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items())
        self.say(f"trial {trial.number}: {trial.problem or shown}")
