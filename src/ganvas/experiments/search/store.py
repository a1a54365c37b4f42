"""The trials of a search in Optuna's storage: what is proposed, who works at what, and what came of it.

Sessions share a storage, on one machine or on several. A trial keeps its number and its proposal whatever happens to
the process that works at it: another session finds it abandoned, takes it over, and its trainings go on from their
checkpoints. Nothing is proposed twice and no trial is repeated.

A proposal is a function of the search's seed, the trial's number and the trials that had ended by then. So a search of
one worker comes to the same trials whether it was stopped in between or not.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ganvas.errors import MissingExtra, ResumeMismatch, UsageError
from ganvas.experiments.search.pareto import State, Trial
from ganvas.experiments.search.space import Prune, Search
from ganvas.recipe.recipe import differences
from ganvas.runtime.devices import derive_seed

try:
    import fcntl
except ImportError:  # Windows has no flock; there, two sessions of one file may each propose a last trial
    fcntl = None  # type: ignore[assignment]

BEAT = 10.0  # seconds between signs of life of a session
GRACE = 90.0  # seconds without one, after which what a session of another machine works at is taken over
_JOURNALS = (".journal", ".log")
_PATIENCE = 60.0  # seconds that a session waits for another one's write to a SQLite file
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed",
    TrialState.RUNNING: "running", TrialState.WAITING: "running",
}  # fmt: skip

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


# --------------------------------------------------------------------------------------------------- storage


def open_storage(place: str) -> BaseStorage:
    """The storage at a database URL or in a file: a journal by its suffix (.journal, .log), else SQLite.

    Raises
    ------
    UsageError : it cannot be opened.
    MissingExtra : the database's driver is not installed.
    """
    file = file_of(place)
    if file is not None and not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent}", where="--storage", hint=f"mkdir -p {file.parent}")
    try:
        if file is not None and file.suffix in _JOURNALS:
            return JournalStorage(JournalFileBackend(str(file)))
        wait = {"connect_args": {"timeout": _PATIENCE}} if file is not None else {}
        return RDBStorage(place if file is None else f"sqlite:///{file}", engine_kwargs=wait)
    except ImportError as error:
        said = str(error).splitlines()[0]
        raise MissingExtra(
            f"this database needs its driver ({said})",
            where="--storage",
            hint="pip install it, such as psycopg2-binary",
        ) from None
    except Exception as error:  # whatever the database's driver raises
        said = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
        shown = "the database" if file is None else str(file)  # a URL may hold a password
        raise UsageError(
            f"{shown} cannot be opened ({type(error).__name__}: {said})", where="--storage",
            hint="give a new file, or a URL such as postgresql://user@host/name",
        ) from None  # fmt: skip


def file_of(place: str) -> Path | None:
    """The file that a storage is in; None for a database server."""
    scheme, separator, path = place.partition("://")
    if not separator:
        return Path(place)
    return Path(path[1:]) if scheme.startswith("sqlite") and len(path) > 1 else None


@contextlib.contextmanager
def _alone(place: str) -> Iterator[None]:
    """Hold a file's storage against other sessions. A database server has locks of its own for what matters."""
    file = file_of(place)
    if file is None or fcntl is None:
        yield
        return
    # A file beside it: to close the file itself would let go of the locks that SQLite holds on it.
    with file.with_name(f"{file.name}.sessions").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


# --------------------------------------------------------------------------------------------------- proposals


class _Seeded(BaseSampler):
    """A sampler whose randomness begins anew with each trial, from the search's seed and the trial's number."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.inner: BaseSampler = self.of_trial(0)

    def of_trial(self, number: int) -> BaseSampler:
        plan = self.search.plan
        seed = derive_seed(plan.seed, number, "proposal") % 2**32
        if self.search.sampler == "tpe":
            return TPESampler(seed=seed, constant_liar=True)  # what others work at is no good place to try again
        return NSGAIISampler(population_size=plan.population, seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner = self.of_trial(trial.number)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(study, trial, state, values)


def _pruner(prune: Prune | None) -> BasePruner:
    if prune is None:
        return optuna.pruners.NopPruner()
    return MedianPruner(n_startup_trials=prune.startup, n_warmup_steps=prune.warmup)


# --------------------------------------------------------------------------------------------------- the store


class TrialStore:
    """One session's view of a search that may have several.

    Parameters
    ----------
    place : a database URL or a file, see `open_storage`.

    Raises
    ------
    ResumeMismatch : what is there under this name is another search; the difference is shown.
    UsageError : the storage cannot be opened.
    """

    def __init__(self, search: Search, place: str) -> None:
        self.search = search
        self.place = place
        self.storage = open_storage(place)
        self.me = {"host": socket.gethostname(), "process": os.getpid(), "session": uuid.uuid4().hex}
        self.trial_ids: dict[int, int] = {}  # number -> id in the storage, of what this session works at
        self.seen: dict[int, tuple[Any, float]] = {}  # number -> (another session's last sign of life, when I saw it)
        directions: list[Literal["minimize", "maximize"]] = [
            "minimize" if column.lower_is_better else "maximize" for column in search.objectives.values()
        ]
        with self.alone():
            self.check_same_search()
            self.study = optuna.create_study(
                study_name=search.plan.name, storage=self.storage, directions=directions, load_if_exists=True,
                sampler=_Seeded(search), pruner=_pruner(search.plan.prune),
            )  # fmt: skip
            self.study.set_user_attr("facts", self.facts())

    def alone(self) -> contextlib.AbstractContextManager[None]:
        return _alone(self.place)

    def facts(self) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(json.dumps(self.search.facts()))
        return plain

    def check_same_search(self) -> None:
        name = self.search.plan.name
        if name not in optuna.get_all_study_names(self.storage):
            return
        before = optuna.load_study(study_name=name, storage=self.storage).user_attrs.get("facts")
        if before is None:  # a session ended between making it and saying what it is; or somebody else's
            return
        changed = differences(before, self.facts())
        if changed:
            lines = "\n".join(f"    {key}: {old!r} -> {new!r}" for key, (old, new) in changed.items())
            raise ResumeMismatch(
                f"the search {name!r} did not begin with this recipe and space:\n{lines}", where="ganvas search",
                hint="give another --out, or another name: in the space",
            )  # fmt: skip

    # ------------------------------------------------------------------ who works at what

    def next(self) -> Trial | None:
        """A trial to work at: one that was left, else a new one; None where there is none just now."""
        with self.alone():
            trials = self.study.get_trials(deepcopy=False)
            for frozen in trials:
                if frozen.state == TrialState.RUNNING and frozen.number not in self.trial_ids and self.is_left(frozen):
                    trial = optuna.trial.Trial(self.study, self.id_of(frozen.number))
                    return self.begin(trial)
            if len(trials) < self.search.plan.trials or any(frozen.state == TrialState.WAITING for frozen in trials):
                return self.begin(self.study.ask())
        return None

    def begin(self, trial: optuna.Trial) -> Trial:
        number = trial.number
        identity = self.id_of(number)
        self.storage.set_trial_user_attr(identity, "worker", self.me)
        for axis in self.search.axes:
            axis.propose(trial)  # what was proposed before stays as it is
        self.trial_ids[number] = identity
        return Trial(number, "running", self.search.proposal(trial.params))

    def id_of(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def is_left(self, trial: FrozenTrial) -> bool:
        """Whether nobody works at it any more: its session said so, its process is gone, or it has been silent.

        Silence is timed by this session's clock alone; clocks of several machines differ.
        """
        worker = trial.user_attrs.get("worker")
        if worker == {}:
            return True
        if worker and worker["host"] == self.me["host"] and not _is_alive(int(worker["process"])):
            return True
        sign = (worker, trial.user_attrs.get("beat"))
        before, when = self.seen.get(trial.number, (None, 0.0))
        if before != sign:
            self.seen[trial.number] = (sign, time.monotonic())
            return False
        return time.monotonic() - when > GRACE

    def release(self) -> None:
        """Leave what this session works at to whoever comes next."""
        for identity in self.trial_ids.values():
            with contextlib.suppress(UpdateFinishedTrialError):
                self.storage.set_trial_user_attr(identity, "worker", {})
        self.trial_ids.clear()

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Within, a thread gives a sign of life for each trial of this session."""
        over = threading.Event()

        def beat() -> None:
            count = 0
            while not over.wait(BEAT):
                count += 1
                for identity in list(self.trial_ids.values()):
                    with contextlib.suppress(OptunaError):  # it has just ended, or the database does not answer
                        self.storage.set_trial_user_attr(identity, "beat", count)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    # ------------------------------------------------------------------ what came of it

    def finish(self, trial: Trial) -> None:
        """Write down what became of a trial. One that failed teaches the sampler that it is a bad place.

        Raises
        ------
        UsageError : its scores were made in another way than those of the trials before.
        """
        identity = self.trial_ids[trial.number]
        with self.alone():
            if trial.state == "complete":
                self.check_alike(trial)
            outcome = {"seeds": {name: list(scores) for name, scores in trial.seeds.items()}, "problem": trial.problem}
            with contextlib.suppress(UpdateFinishedTrialError):
                self.storage.set_trial_user_attr(identity, "found", outcome)
            if trial.state == "complete":
                values = [trial.values[name] for name in self.search.objectives]
                self.study.tell(trial.number, values, skip_if_finished=True)
            else:
                self.study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
        del self.trial_ids[trial.number]

    def check_alike(self, trial: Trial) -> None:
        made = json.loads(json.dumps(trial.made))
        before = self.study.user_attrs.get("made")
        if before is None:
            self.study.set_user_attr("made", made)
        elif changed := differences(before, made):
            unequal = "; ".join(f"{key} {old!r} and {new!r}" for key, (old, new) in changed.items())
            raise UsageError(
                f"scores of trial {trial.number} were made in another way than those before: {unequal}",
                hint="search only what leaves the way of scoring alone, or give the protocol a reference",
            )

    def trials(self) -> list[Trial]:
        """All trials by now, by number."""
        return [self.as_trial(trial) for trial in self.study.get_trials(deepcopy=False)]

    def as_trial(self, frozen: FrozenTrial) -> Trial:
        outcome = frozen.user_attrs.get("found") or {}
        complete = {axis.path for axis in self.search.axes} <= frozen.params.keys()
        state = _STATES[frozen.state]
        if state == "stopped" and not frozen.intermediate_values:
            state = "failed"  # told as pruned, because samplers do not learn from trials that failed
        return Trial(
            frozen.number, state, self.search.proposal(frozen.params) if complete else {},
            {name: tuple(values) for name, values in (outcome.get("seeds") or {}).items()},
            outcome.get("problem") or "",
        )  # fmt: skip

    def importances(self) -> dict[str, float]:
        """path -> its share of the spread of the one objective, by functional ANOVA; the largest first.

        Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance". Empty for several
        objectives, and where fewer than two trials came to different values.
        """
        ended = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(self.search.objectives) > 1 or len({trial.value for trial in ended}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.search.plan.seed)
        return dict(optuna.importance.get_param_importances(self.study, evaluator=evaluator))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):  # another user's
        return True
    return True


# --------------------------------------------------------------------------------------------------- while training


class Reporter:
    """In a worker: tells the storage a training's scores, and hears whether to stop it."""

    def __init__(self, place: str, name: str, number: int, prune: Prune) -> None:
        self.study = optuna.load_study(study_name=name, storage=open_storage(place))
        self.storage = self.study._storage
        self.pruner = _pruner(prune)
        study = self.storage.get_study_id_from_name(name)
        self.identity = self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def tell(self, step: int, value: float) -> bool:
        """Whether to stop."""
        self.storage.set_trial_intermediate_value(self.identity, step, value)
        return self.pruner.prune(self.study, self.storage.get_trial(self.identity))
