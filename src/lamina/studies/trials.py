"""A tuning's trials in a database that the workers share: Optuna's storage and pruner."""

from __future__ import annotations

import re
import secrets
import sqlite3
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from lamina.errors import RunError, name_some
from lamina.studies.space import Range, find_values, to_distribution
from lamina.studies.study_events import Decision
from lamina.targets import Score
from lamina.text import hide_password
from lamina.training.randomness import derive_seed

Result = TypeVar("Result")

HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 60
"""A trial whose worker has not been heard of for longer than the latter is taken up by another
worker."""
OUTAGE_SECONDS = 600.0  # how long a worker waits for its database
LONGEST_PAUSE_SECONDS = 5.0  # between two attempts to reach the database
OPENING_PAUSE_SECONDS = 2.0  # before the second attempt to open it
DATABASE = "study.db"
LEADING = 5  # trials in the table of the best
FIRST = 10  # trials with evenly spread values, before the sampler proposes any
MOST_DRAWS = 1000  # of values, until no other trial has them
MOST_REPEATS = 10  # trials in a row that repeat the values of others, until the search ends
REDUCTION = 3  # successive halving: a third of the trials goes on


class TrialLostError(Exception):
    """Another worker has taken up the trial, because this one was silent for too long."""


class RepeatedError(Exception):
    """Another trial has the same values."""


def import_optuna() -> Any:
    """Import Optuna; ``RunError`` if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise RunError("lamina tune needs Optuna. Run pip install 'lamina[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@dataclass(frozen=True)
class Trials:
    """A study's trials in a database. Methods raise Optuna's errors; generators use ``wait``."""

    study: Any  # Optuna's
    settings: Mapping[str, Any]  # of the search
    folder: Path  # of the runs of this worker
    # stored with the trials that it trains
    worker: str = field(default_factory=lambda: secrets.token_hex(4))

    def read(self, *states: str) -> list[Any]:
        """All trials, or those in these states of Optuna."""
        trials = self.study.get_trials(deepcopy=False)
        return [one for one in trials if not states or one.state.name in states]

    def rank(self, state: str) -> list[Any]:
        """The trials in a state of Optuna, best first; stopped ones by epochs, most first."""
        sign, is_stopped = 1 if self.study.direction.name == "MINIMIZE" else -1, state == "PRUNED"
        known = [
            one
            for one in self.read(state)
            if one.value is not None and "error" not in one.user_attrs
        ]
        return sorted(
            known, key=lambda one: (-one.last_step if is_stopped else 0, sign * one.value)
        )

    def find_progress(self) -> tuple[int, Score | None, float]:
        """The number of ended trials, the best score, and about how many seconds are left."""
        limits, finished = self.study.user_attrs["limits"], self.rank("COMPLETE")
        took = [
            one.duration.total_seconds()
            for one in find_new(self.read("COMPLETE", "PRUNED", "FAIL"))
        ]
        if limits["trials"] is None:
            left = max(0.0, limits["until"] - time.time())
        else:
            each = statistics.fmean(took) if took else 0.0
            left = max(0, limits["trials"] - len(took)) * each / (1 + len(self.read("RUNNING")))
        return (
            len(took),
            Score(self.settings["metric"], finished[0].value) if finished else None,
            left,
        )

    def list_leading(self) -> tuple[dict[str, Any], ...]:
        """The rows of the best trials so far, and of those that run now."""
        best = [*self.rank("COMPLETE"), *self.rank("PRUNED")][:LEADING]
        return tuple(map(_to_row, [*best, *self.read("RUNNING")]))

    def take(self) -> Any:
        """Take a trial that was given back, or a new one."""
        # about heartbeats outside of Optuna's own loop
        with warnings.catch_warnings(action="ignore"):
            trial = self.study.ask()
        self._mark(trial._trial_id, self.worker)
        return trial

    def propose(self, trial: Any, ranges: Mapping[str, Range]) -> None:
        """Choose values that no other trial has: first evenly spread (Sobol), then by TPE."""
        from optuna.samplers import PartialFixedSampler, TPESampler

        # Seeded by the number of the trial, so that no two workers draw the same values.
        seed = derive_seed(self.settings["seed"], f"trial {trial.number}") % 2**32
        tpe, values = TPESampler(seed=seed, n_startup_trials=FIRST, constant_liar=True), {}
        if ranges:  # a function draws its values itself
            points = torch.quasirandom.SobolEngine(
                len(ranges), scramble=True, seed=self.settings["seed"]
            )
            points.fast_forward(trial.number)
            space = {name: to_distribution(one) for name, one in ranges.items()}
            # Empty until so many trials have ended.
            values = tpe.sample_relative(
                self.study, self.study._storage.get_trial(trial._trial_id), space
            )
            values, others = (
                values or find_values(ranges, points.draw()),
                [one.params for one in self.read()],
            )
            for _ in range(MOST_DRAWS):
                if values not in others:
                    break
                values = find_values(ranges, points.draw())
        with warnings.catch_warnings(action="ignore"):  # it is experimental
            self.study.sampler = PartialFixedSampler(values, tpe)

    def check_new(self, trial: Any) -> None:
        """Raise ``RepeatedError`` if an earlier trial has the same values."""
        for one in self.read():
            if one.number < trial.number and one.params == trial.params:
                trial.set_user_attr("repeats", one.number)
                raise RepeatedError(f"trial {one.number} has the same values")

    @contextmanager
    def holding(self, trial: Any) -> Iterator[None]:
        """Send heartbeats during the block; an error in the block gives the trial back."""
        from optuna.exceptions import UpdateFinishedTrialError

        is_over, storage = threading.Event(), self.study._storage

        def beat() -> None:
            while not is_over.wait(HEARTBEAT_SECONDS):
                with suppress(*_find_outages()):
                    storage.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            # If that fails, the leader notices that the heartbeats stop.
            with suppress(*_find_outages(), TrialLostError, UpdateFinishedTrialError):
                self._check(trial)
                _offer(storage, trial._trial_id)
            raise
        finally:
            is_over.set()
            thread.join(timeout=1)  # while the database is down, it may wait for a connection

    @contextmanager
    def timing(self, began: float) -> Iterator[None]:
        """Store the seconds since ``began``, also if a signal ends the block."""
        try:
            yield
        finally:
            with suppress(*_find_outages()):
                self.study.set_user_attr("used_seconds", time.time() - began)

    def recover(self) -> None:
        """Offer the trials of silent workers again; only the leader calls this."""
        from optuna.exceptions import UpdateFinishedTrialError

        storage, study = self.study._storage, self.study._study_id
        with suppress(UpdateFinishedTrialError):
            for one in self.read("RUNNING"):
                # perhaps lost before its first heartbeat: its time begins now
                if "worker" not in one.user_attrs:
                    self._mark(one._trial_id, "")
            if before := storage._get_stale_trial_ids(study):
                # perhaps the database was down: live workers are heard of by then
                time.sleep(2 * HEARTBEAT_SECONDS)
                for row in set(before) & set(storage._get_stale_trial_ids(study)):
                    # a worker that was only asleep has lost it
                    storage.set_trial_user_attr(row, "worker", "")
                    _offer(storage, row)

    def report(self, trial: Any, epoch: int, score: float) -> Any:
        """Store the score of an epoch; returns the trial with it."""
        self._check(trial)
        # a trial that starts again reports its epochs again
        with warnings.catch_warnings(action="ignore"):
            trial.report(score, epoch)
        return self.study._storage.get_trial(trial._trial_id)

    def is_worse(self, trial: Any, epoch: int) -> bool:
        """Whether successive halving stops the trial after this epoch; can be asked again."""
        epochs = self.settings["epochs"]
        return (
            epochs is not None
            and 2 * epoch <= epochs
            and bool(self.study.pruner.prune(self.study, trial))
        )

    def tell(
        self, trial: Any, score: float | None, state: str, error: str | None = None
    ) -> Mapping[str, Any]:
        """Store the end of a trial; returns its values."""
        from optuna.trial import TrialState

        self._check(trial)
        is_told = self.study._storage.get_trial(
            trial._trial_id
        ).state.is_finished()  # before the connection was lost
        if error is not None and not is_told:
            trial.set_user_attr("error", error)
        try:
            return dict(
                self.study.tell(trial, score, TrialState[state], skip_if_finished=True).params
            )
        except ValueError as lost:  # the leader has just put the trial back into the queue
            raise TrialLostError from lost

    def _check(self, trial: Any) -> None:
        if self.study._storage.get_trial(trial._trial_id).user_attrs.get("worker") != self.worker:
            raise TrialLostError

    def _mark(self, row: int, worker: str) -> None:
        self.study._storage.record_heartbeat(row)
        self.study._storage.set_trial_user_attr(row, "worker", worker)


def find_new(trials: Sequence[Any]) -> list[Any]:
    """The trials that do not repeat the values of others."""
    return [one for one in trials if "repeats" not in one.user_attrs]


def list_trials(trials: Trials) -> list[dict[str, Any]]:
    """The rows of a table of trials, with the last known scores."""
    return list(map(_to_row, trials.read()))


def _to_row(trial: Any) -> dict[str, Any]:
    score = trial.intermediate_values.get(trial.last_step) if trial.value is None else trial.value
    error = trial.user_attrs.get("error")
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        # one that diverged has the worst score, perhaps infinity
        "score": None if error else score,
        "epoch": trial.last_step,
        "seconds": None if trial.duration is None else trial.duration.total_seconds(),
        "error": error,
        "values": trial.params,
    }


def _offer(storage: Any, row: int) -> None:
    from optuna.trial import TrialState

    storage.set_trial_state_values(row, state=TrialState.WAITING)


def wait(call: Callable[[], Result]) -> Generator[Decision, None, Result]:
    """Retry a call while the database is down; yields first, so that a signal can end it."""
    from optuna.exceptions import UpdateFinishedTrialError

    began, pause = time.monotonic(), 0.5
    while True:
        try:
            return call()
        except UpdateFinishedTrialError as error:
            raise TrialLostError from error
        except _find_outages() as error:
            if time.monotonic() - began > OUTAGE_SECONDS:
                raise RunError(
                    f"The database of the study has been unreachable for {OUTAGE_SECONDS / 60:.0f}"
                    f" minutes ({_explain(error)}). Start it, and run the command again; nothing is"
                    " lost."
                ) from error
            if pause == 0.5:
                yield Decision(
                    "waiting",
                    f"for the database of the study ({_explain(error)})",
                    "Ctrl-C ends it",
                )
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _find_outages() -> tuple[type[Exception], ...]:
    """The errors of a database that cannot be reached."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import InterfaceError, OperationalError

    return OperationalError, InterfaceError, StorageInternalError


def _explain(error: BaseException) -> str:
    return hide_password(str(error.__cause__ or error).strip().split("\n")[0])


def connect(url: str | None, folder: Path) -> Any:
    """Open the database at ``url``, or SQLite in the study's folder; ``RunError`` if that fails."""
    optuna = import_optuna()
    from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    # A new connection for each transaction, so that none is left open, or found dead after the
    # server has restarted.
    options: dict[str, Any] = {"poolclass": NullPool}
    if url is not None and not url.startswith("postgres"):
        raise _refuse(url)
    if url is None:
        file = folder.resolve() / DATABASE
        # a URL cannot contain all names of files
        options["creator"] = lambda: sqlite3.connect(file, timeout=60)
    else:
        options["connect_args"] = {"connect_timeout": 10, "tcp_user_timeout": 30_000}  # s, ms
    place = "sqlite://"
    if url is not None:
        place = re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)
    open_storage = partial(
        optuna.storages.RDBStorage,
        place,
        engine_kwargs=options,
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
    )
    try:
        with warnings.catch_warnings(action="ignore"):
            try:
                return open_storage()
            except OperationalError:  # the server may be restarting
                time.sleep(OPENING_PAUSE_SECONDS)
                return open_storage()
    except ArgumentError:
        raise _refuse(url) from None
    except ImportError as error:
        raise RunError(f"{error} For PostgreSQL, run pip install 'lamina[tune]'.") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        where = folder / DATABASE if url is None else hide_password(url)
        raise RunError(f"Cannot open the database {where}: {_explain(error)}.") from None


def _refuse(url: str | None) -> RunError:
    return RunError(
        f"storage is {hide_password(str(url))!r}, which is not the URL of a PostgreSQL database."
        " Use postgresql://USER:PASSWORD@HOST/DATABASE."
    )


def create_study(storage: Any, name: str, settings: Mapping[str, Any], leader: str) -> None:
    """Create a study, unless ``leader`` has created it; ``RunError`` if the name is taken."""
    optuna = import_optuna()
    direction = "minimize" if Score(settings["metric"], 0.0).lower_is_better else "maximize"
    study = optuna.create_study(
        storage=storage, study_name=name, direction=direction, load_if_exists=True
    )
    if study.user_attrs.get("leader", leader) != leader:
        raise RunError(
            f"The database already contains the study {name}, which another folder leads. Join it"
            " with lamina tune --join, or choose another name."
        )
    study.set_user_attr("leader", leader)
    study.set_user_attr("settings", settings)


def open_trials(storage: Any, name: str | None, folder: Path) -> Trials:
    """Open a study in a database; without a name, its only one. ``RunError`` if there is none."""
    optuna = import_optuna()
    known = sorted(one.study_name for one in storage.get_all_studies())
    name = known[0] if name is None and len(known) == 1 else name
    if name not in known:
        several = f"these studies: {name_some(known)}. Choose one by URL#NAME."
        none = "no study. Start one with lamina tune NET --over … --storage URL."
        raise RunError(f"The database contains {several if known else none}")
    study = optuna.load_study(study_name=name, storage=storage)
    if (settings := study.user_attrs.get("settings")) is None:
        raise RunError(
            f"The study {name} has no settings. If lamina tune is starting it at this moment, try"
            " again; otherwise it is of another program."
        )
    # epochs before trials are compared, then thrice
    least = max(1, round((settings["epochs"] or 1) / REDUCTION**2))
    study.pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=least, reduction_factor=REDUCTION
    )
    return Trials(study, settings, folder / study.study_name)
