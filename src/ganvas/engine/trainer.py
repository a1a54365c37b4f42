"""The loop. It knows no part by name: a task is a list of updates, and everything else is settings."""

from __future__ import annotations

import contextlib
import errno
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ganvas.engine.checkpoint import Checkpoints, to_device
from ganvas.engine.distributed import agreed
from ganvas.engine.ema import Averages
from ganvas.engine.feed import Feed
from ganvas.engine.layout import Replicated, local
from ganvas.engine.logbook import Logbook
from ganvas.engine.optim import Optim
from ganvas.engine.precision import autocast, seed_from
from ganvas.engine.schedules import Schedules
from ganvas.errors import BadValue, CheckpointError, DivergenceError, ResumeMismatch
from ganvas.files.files import cut_after, sweep
from ganvas.nn.precise import precise
from ganvas.recipe.schema import Train
from ganvas.runtime import ranks
from ganvas.types import Batch, Network, Task, Update

T = TypeVar("T")
State = dict[str, dict[str, Tensor]]
Around = Callable[[int, Callable[[], dict[str, float]]], dict[str, float]]


class Stop(Exception):
    """A decision to end a run, also where it is taken while a picture or score is made."""


class Interrupted(Exception):
    """The run was asked to stop, and everything up to `step` is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step


@dataclass(frozen=True)
class Hooks:
    """What happens around the loop; none of it can change what is learnt.

    `score` returns a number to keep the best checkpoint by, smaller is better, or None; `saved` is told whether the
    weights that were saved are the best so far. `failed` is told of a picture or score that could not be made, `say`
    of what else a person must know, `diverged` of the step and the reason that ended the run;
    `pictured` says whether that of a step is there, `scored` what `score` gave for it. `around_step` and
    `around_update` are given the step and what runs it; they run it once and return the losses that it found.
    """

    tick: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    row: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    picture: Callable[[int, State], None] = lambda step, state: None
    score: Callable[[int, State], float | None] = lambda step, state: None
    saved: Callable[[int, State, bool], None] = lambda step, state, best: None
    failed: Callable[[int, str, Exception], None] = lambda step, what, error: None
    say: Callable[[str], None] = lambda text: None
    diverged: Callable[[int, str], None] = lambda step, problem: None
    pictured: Callable[[int], bool] = lambda step: True
    scored: Callable[[int], float | None] = lambda step: None
    around_step: Around = lambda step, run: run()
    around_update: Around = lambda step, run: run()


def stack(update: Update, losses: Mapping[str, Tensor]) -> Tensor:
    """The losses of an update, (L,) float32.

    Raises
    ------
    BadValue : none of them depends on a weight that the update may change.
    """
    stacked = torch.stack([precise(loss) for loss in losses.values()])
    if not stacked.requires_grad:
        names = ", ".join(losses)
        raise BadValue(
            f"{names} of {' and '.join(update.nets)} depends on no weight that can be learnt there",
            hint="leave it out: " + " ".join(f"task.regularizers.{name}=~" for name in losses),
        )
    return stacked


class Trainer:
    """Runs a task from where it stands to the last step."""

    def __init__(
        self,
        *,
        task: Task,
        nets: Mapping[str, Network],
        feed: Feed,
        optim: Optim,
        averages: Averages | None,
        schedules: Schedules,
        layout: Replicated,
        settings: Train,
        score_every: int | None,
        folder: Path,
        device: torch.device,
        hooks: Hooks,
    ) -> None:
        self.task = task
        self.nets = nets
        self.feed = feed
        self.optim = optim
        self.averages = averages
        self.schedules = schedules
        self.layout = layout
        self.settings = settings
        self.score_every = score_every
        self.device = device
        self.hooks = hooks
        self.checkpoints = Checkpoints(folder / "checkpoints", settings.keep)
        self.logbook = Logbook(folder / "log.jsonl")
        self.row_files = (self.logbook.file, folder / "scores.jsonl")
        self.step = 0
        self.batch: Batch | None = None  # of the step's latest update
        self.best: tuple[int, float] | None = None
        self.resumed = False
        self.rank = ranks.rank()
        self.stop = threading.Event()  # that the run is asked to end

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Train to the last step.

        Raises
        ------
        DivergenceError : a loss or weight is no longer finite; names the term, the step and the last good checkpoint.
        Interrupted : a signal came, or nobody reads any more what is said; the state was saved first.
        """
        with _asked_to_stop(self.stop):
            if self.resumed:
                self.look_again()
            while self.step < self.settings.steps:
                values = self.hooks.around_step(self.step, self.take_step)
                with self.heard():
                    self.hooks.tick(self.step, values)
                self.around_the_step()
                if self.step < self.settings.steps and ranks.any_rank(self.stop.is_set(), self.device):
                    if self.step not in self.checkpoints.steps():
                        self.save()
                    raise Interrupted(self.step)

    def take_step(self) -> dict[str, float]:
        seed_from(self.settings.seed, self.rank, self.step)
        self.optim.begin(self.step)
        self.schedules.begin(self.step)
        values: dict[str, float] = {}
        self.batch = None
        for update in self.task.updates():
            if self.step % update.every or not any(self.optim.learning[role] for role in update.nets):
                continue  # not its turn, or all that it would teach is frozen
            for _ in range(update.repeat):
                losses = self.hooks.around_update(self.step, partial(self.apply_next, update))
                self.logbook.add(losses)
                values.update(losses)
        self.step += 1
        self.layout.settle(self.nets)
        if self.averages is not None:
            self.averages.update(self.nets, (self.step - 1) * self.settings.batch, self.settings.batch)
        return values

    def apply_next(self, update: Update) -> dict[str, float]:
        if self.batch is None or not update.again:
            self.batch = next(self.feed)
        return self.apply(update, self.batch)

    def apply(self, update: Update, batch: Batch) -> dict[str, float]:
        """One optimizer step: every micro-batch forward and backward, then the weights."""
        pieces = batch.split(self.settings.accumulate)
        names: list[str] = []
        total: list[float] = []
        with self.layout.all_weights(self.nets), self.only_learning(update.nets) as parameters:
            for piece in pieces:
                share = len(piece) / len(batch)
                with autocast(self.device, self.settings.precision):
                    losses = update.losses(piece, self.step)
                names = list(losses)
                stacked = stack(update, losses)
                means = ranks.mean_over_ranks(share * stacked.detach()).tolist()
                total = [a + b for a, b in zip(total, means, strict=True)] if total else means
                self.check_finite(update, names, means)
                self.optim.backward(update.every * share * stacked.sum())
            self.layout.reduce(parameters)
        # A lazy term may not reach every weight. As in StyleGAN2's code, which adds what the term does not need times
        # zero, the optimizer counts the update for all.
        self.optim.step(update.nets, all_move=update.every > 1)
        if update.after is not None:
            with self.layout.all_weights(self.nets):
                update.after(batch)
        return {f"{update.nets[0]}.{name}": value for name, value in zip(names, total, strict=True)}

    @contextlib.contextmanager
    def only_learning(self, roles: tuple[str, ...]) -> Iterator[list[nn.Parameter]]:
        """The parameters that the optimizer steps for these roles; what stands for them in the networks can learn."""
        # Held through the backward pass: a leaf that is frozen before it silently gets no gradient.
        parameters = [parameter for role in roles for parameter in self.optim.learning[role]]
        live = self.layout.learning(parameters)
        for parameter in live:
            parameter.requires_grad_(True)
        try:
            yield parameters
        finally:
            for parameter in live:
                parameter.requires_grad_(False)

    # ------------------------------------------------------------------ around a step

    def around_the_step(self) -> None:
        """What is due after this step, in this order: the row, the checkpoint, picture and score, the best's mark.

        Nothing after the checkpoint can cost a step: what fails there is told, and training goes on.
        """
        settings, last = self.settings, self.last
        if last or self.step % settings.log_every == 0:
            extra = {"images": self.step * settings.batch, **self.optim.rates()}
            extra |= self.schedules.values(self.step - 1)
            with self.layout.all_weights(self.nets):
                extra |= self.task.readings()
            row = self.logbook.row(self.step, extra)
            with self.heard():
                self.hooks.row(self.step, row)
        if last or self.step % settings.checkpoint_every == 0:
            self.save()
        elif self.picture_due or self.score_due:
            self.check_weights()  # nothing is drawn or measured with weights that are no numbers
        if self.picture_due:
            self.attempt("picture", lambda: self.hooks.picture(self.step, self.result()))
        if self.score_due:
            self.score()

    @property
    def last(self) -> bool:
        return self.step == self.settings.steps

    @property
    def picture_due(self) -> bool:
        every = self.settings.sample_every or self.settings.checkpoint_every
        return self.step > 0 and (self.last or self.step % every == 0)

    @property
    def score_due(self) -> bool:
        every = self.score_every
        return self.step > 0 and (self.last or (every is not None and self.step % every == 0))

    def score(self) -> None:
        """Score the weights, and keep them where they are the best so far."""
        self.keep_best(self.attempt("score", lambda: self.hooks.score(self.step, self.result())))

    def keep_best(self, value: float | None) -> None:
        if value is None or (self.best is not None and value >= self.best[1]):
            return
        self.best = (self.step, value)
        if self.step not in agreed(self.checkpoints.steps):
            self.save()
        if self.rank == 0:
            self.checkpoints.mark_best(*self.best)
        self.hooks.saved(self.step, self.result(), True)

    def attempt(self, what: str, run: Callable[[], T]) -> T | None:
        """What `run` gives; None where it fails, which is told and nothing else."""
        try:
            return run()
        except Stop:
            raise
        except Exception as error:  # whatever it is: a diagnostic never ends a run
            with self.heard():
                self.hooks.failed(self.step, what, error)
            return None

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Something is said within. Where its reader has left, as in `ganvas train |& head`, the run saves and ends.

        A terminal that is gone, or a full disk behind standard error, costs what was said and no step.
        """
        try:
            yield
        except BrokenPipeError:
            self.stop.set()
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOSPC):
                raise

    def look_again(self) -> None:
        """Make the picture and the score of the step that a resumed run stands at, where a kill came before them."""
        if self.picture_due and not agreed(lambda: self.hooks.pictured(self.step)):
            self.attempt("picture", lambda: self.hooks.picture(self.step, self.result()))
        if self.score_due:
            value = agreed(lambda: self.hooks.scored(self.step))
            self.score() if value is None else self.keep_best(value)

    def result(self) -> State:
        """The weights that a user of the run gets: averaged where there are averages."""
        averaged = self.averages.state_dict() if self.averages is not None else {}
        states = {role: averaged.get(role) or net.state_dict() for role, net in self.nets.items()}
        return {role: self.layout.full(state) for role, state in states.items()}

    def save(self) -> None:
        self.check_weights()
        self.checkpoints.save(self.step, self.state_dict(), self.best and self.best[0])
        self.tell_saved()

    def tell_saved(self) -> None:
        self.hooks.saved(self.step, self.result(), self.best is not None and self.best[0] == self.step)

    # ------------------------------------------------------------------ what is not finite

    def check_finite(self, update: Update, names: list[str], values: list[float]) -> None:
        bad = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if bad:
            self.diverged(f"the loss {', '.join(bad)} of the {update.nets[0]} is not finite", self.step + 1)

    def check_weights(self) -> None:
        for role, net in self.nets.items():
            for name, tensor in net.state_dict().items():
                if ranks.any_rank(not bool(torch.isfinite(local(tensor)).all()), self.device):
                    self.diverged(f"the weight {name} of the {role} is not finite", self.step)

    def diverged(self, problem: str, row: int) -> None:
        """End the run; its last losses and the reason are a row of the log, which a resumed run drops again."""
        self.logbook.row(row, {}, {"diverged": problem})
        self.hooks.diverged(row, problem)
        good = self.checkpoints.steps()
        last = (
            f"the last good checkpoint is {self.checkpoints.path(good[-1])}" if good else "there is no checkpoint yet"
        )
        raise DivergenceError(
            f"{problem} at step {self.step}; {last}",
            where=f"step {self.step}",
            hint=f"the same recipe would diverge again: {self.cures()}",
        )

    def cures(self) -> str:
        """What may help against a divergence, of what the run does not do already."""
        cures = ["lower optim.lr"]
        cures += ["set optim.clip_norm=1"] if self.optim.clip_norm is None else []
        cures += ["use train.precision=fp32"] if self.settings.precision != "fp32" else []
        return ", or ".join(cures) + "; train it into another --out, or resume with --allow-changes"

    # ------------------------------------------------------------------ exact state

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "position": self.feed.position,
            "nets": {role: net.state_dict() for role, net in self.nets.items()},
            "averages": self.averages.state_dict() if self.averages is not None else None,
            "optim": self.optim.state_dict(),
            "task": self.task.state_dict(),
            "logbook": self.logbook.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for role, net in self.nets.items():
            net.load_state_dict(self.layout.place(net, state["nets"][role]))
        if self.averages is not None:
            placed = {role: self.layout.place(net, state["averages"][role]) for role, net in self.averages.nets.items()}
            self.averages.load_state_dict(placed)
        self.optim.load_state_dict(state["optim"], self.layout.place_moments)
        self.task.load_state_dict(state["task"])
        self.logbook.load_state_dict(state["logbook"])
        self.step, self.feed.position = state["step"], state["position"]
        self.best = self.checkpoints.best(self.step) or state.get("best")

    def resume(self) -> int:
        """Go back to the newest checkpoint, or to the start where there is none; the step that was found.

        Raises
        ------
        CheckpointError : there are checkpoints, and none of them can be read; says what is wrong with the newest.
        ResumeMismatch : it is that of another recipe.
        """
        if self.rank == 0:
            self.checkpoints.sweep()
            sweep(self.logbook.file.parent)
        steps = agreed(self.checkpoints.steps)
        if steps:
            step, state = self.newest_whole(steps)
            try:
                self.load_state_dict(state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise ResumeMismatch(
                    f"the checkpoint is not one of this recipe: {str(error).splitlines()[-1].strip()}",
                    where=str(self.checkpoints.path(step)),
                    hint="undo the changes to the recipe, or start anew from its weights with networks.ROLE.from=…",
                ) from None
            self.tell_saved()  # a kill may have come between the checkpoint and the model file
        if self.rank == 0:
            for file in self.row_files:
                cut_after(file, self.step)
        self.resumed = True
        return self.step

    def newest_whole(self, steps: list[int]) -> tuple[int, dict[str, Any]]:
        """(step, state on the device) of the newest checkpoint that can be read; those after it are set aside.

        Raises
        ------
        CheckpointError : none can; it is that of the newest.
        """
        faults: dict[int, CheckpointError] = {}
        for step in reversed(steps):
            try:
                state = to_device(self.checkpoints.load(step), self.device)
            except CheckpointError as error:
                faults[step] = error
                continue
            for damaged, fault in faults.items():
                self.hooks.say(f"{fault}\n  the run goes on from the checkpoint before it, that of step {step}")
                if self.rank == 0:
                    self.checkpoints.set_aside(damaged)
            return step, state
        raise faults[steps[-1]]


@contextlib.contextmanager
def _asked_to_stop(stop: threading.Event) -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP set the event; a second SIGINT is the ordinary KeyboardInterrupt.

    A SIGHUP that is ignored, as under `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return

    def ask(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    names = {"SIGINT", "SIGTERM", "SIGHUP"} & signal.Signals.__members__.keys()  # Windows has no SIGHUP
    numbers = [signal.Signals[name] for name in sorted(names)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
