"""The trials of a tuning in a storage of Optuna: a journal file, or a PostgreSQL database."""

from __future__ import annotations

import functools
import json
import math
import re
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from lamina.errors import LaminaError, RunError
from lamina.files import damaged, write_json
from lamina.runs.folder import STUDY_FILE
from lamina.studies.space import Range, draw, import_optuna
from lamina.studies.study import parse_event, read_study
from lamina.targets import Score
from lamina.text import hide_password
from lamina.training.randomness import derive_seed
from lamina.values import from_json_values

JOURNAL = "trials.journal"
SECRET = re.compile("pass|secret|token", re.IGNORECASE)  # in a key of a URL's query
OPENING_PAUSE_SECONDS = 2.0  # before the second attempt to open a database
MOST_LOST = 2  # lost processes after which a trial fails: it may be what kills them
MOST_REPEATS = 10  # trials in a row that repeat earlier values, after which the search ends
REDUCTION = 3  # successive halving: a third of the trials continues
REMEDY = "Use another storage, or another name."

Values: TypeAlias = dict[str, str | bool | int | float | None]


@dataclass(frozen=True)
class Trial:
    """A trial of a study, as it is stored and listed."""

    trial: int  # also in the name of its run
    state: str  # of Optuna, in lower case, or ``repeated``
    score: float | None  # the last one
    epoch: int | None
    seconds: float | None
    error: str | None
    values: Values

    @property
    def is_counted(self) -> bool:
        """Whether the trial has ended, and is more than a repetition of an earlier one."""
        return self.state in ("complete", "pruned", "fail")


@dataclass(frozen=True)
class State:
    """The content of ``study.json`` in the folder of a tuning."""

    settings: dict[str, Any]
    storage: str | None = None  # URL without its password; ``None`` for the journal in the folder
    trials: tuple[Trial, ...] = ()  # when a process with this folder last began or ended one
    finalists: tuple[int, ...] | None = None  # numbers of trials, once the finals have begun
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class Limits:
    """When a command begins no more trials."""

    trials: float = math.inf  # that have ended, of all workers
    seconds: float = math.inf  # of the command
    until: float = math.inf  # of the search, in ``time.monotonic()``
    run_seconds: float = 0.0  # expected, as long as no trial has been trained to the end

    def __str__(self) -> str:
        if self.seconds < math.inf:
            return f"as many trials as fit into {self.seconds:.0f} s"
        return f"{self.trials} trials"


@dataclass(frozen=True)
class HeldTrial:
    """A trial that this process trains."""

    trial: Any  # Optuna's
    lock: FileLock


def list_outages() -> tuple[type[Exception], ...]:
    """The errors of an unreachable database; a journal raises ``OSError``."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import InterfaceError, OperationalError

    return (OperationalError, InterfaceError, StorageInternalError)


@contextmanager
def using_storage() -> Iterator[None]:
    """Raise ``RunError`` for an error of a storage, or of what anyone may have written there."""
    try:
        yield
    except LaminaError:
        raise
    except Exception as error:  # values of any type may be at any place in a storage
        if isinstance(error, (OSError, *list_outages())):
            raise RunError(
                f"The storage of the study cannot be used: {explain(error)}. Nothing is lost: as"
                " soon as it can be used again, run the same command."
            ) from error
        reason = f"{type(error).__name__}: {explain(error)}"
        raise damaged("The storage of the study", reason, REMEDY) from error


def explain(error: BaseException, url: str = "") -> str:
    """The first line of a storage's error, without the passwords of its URL."""
    text = str(error.__cause__ or error).strip().split("\n")[0]
    if "://" in url:
        from sqlalchemy.engine import make_url

        parsed = make_url(url)
        values = [str(value) for key, value in parsed.query.items() if SECRET.search(key)]
        for secret in filter(None, [parsed.password, *values]):
            text = text.replace(str(secret), "***")
    return hide_password(text)


@dataclass(frozen=True)
class Trials:
    """A study's trials in its storage, for a process with a folder.

    A process locks a file in its folder for the trial that it trains. The system releases the lock
    of a killed process, and the next process with this folder continues the trial.
    """

    study: Any  # Optuna's
    folder: Path
    seed: int  # of the search
    metric: str
    lock: FileLock  # of the folder, while a trial is taken or ``study.json`` is written

    @using_storage()
    def load(self) -> list[Trial]:
        """The trials as they are now."""
        return [_read_trial(trial) for trial in self._list()]

    def save(self, **values: Any) -> None:
        """Store values in ``study.json``."""
        with self.lock:
            write_json(self.folder / STUDY_FILE, read_study(self.folder) | values)

    def store(self) -> list[Trial]:
        """Store the trials in ``study.json``, too; returns them."""
        trials = self.load()
        self.save(trials=[asdict(trial) for trial in trials])
        return trials

    def locate(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.folder / f"trial-{number}"

    @using_storage()
    def take(self, ranges: Mapping[str, Range], limits: Limits) -> tuple[HeldTrial | None, str]:
        """A trial of a lost process, or a new one; without one, the reason to end the search."""
        with self.lock:
            training = 0
            for trial in self._list_running():
                lock = self._find_lock(trial.number)
                if not try_lock(lock):
                    training += 1
                elif (held := self._continue(trial, lock, ranges)) is not None:
                    return held, ""
            end = find_end(self.load(), training, limits)
            if end:
                return None, end
            trial = self.study.ask()
            lock = self._find_lock(trial.number)
            lock.acquire()
            return self._begin(HeldTrial(trial, lock), ranges), ""

    @using_storage()
    def count_training(self) -> int:
        """The number of trials that other processes with this folder train."""
        training = 0
        with self.lock:
            for trial in self._list_running():
                lock = self._find_lock(trial.number)
                if try_lock(lock):
                    lock.release()
                else:
                    training += 1
        return training

    def _continue(
        self, stored: Any, lock: FileLock, ranges: Mapping[str, Range]
    ) -> HeldTrial | None:
        """Continue the trial of a lost process; ``None`` if it fails instead."""
        held = HeldTrial(import_optuna().trial.Trial(self.study, stored._trial_id), lock)
        begun = stored.user_attrs.get("begun", 0)
        if begun < MOST_LOST:
            return self._begin(held, ranges, begun)
        error = f"failed: {begun} processes were lost while they trained it"
        self.finish(held, "FAIL", error=error)
        lock.release()
        return None

    def _begin(self, held: HeldTrial, ranges: Mapping[str, Range], begun: int = 0) -> HeldTrial:
        """Draw the values that a trial does not have yet."""
        # by the number of the trial, so that no two processes draw the same values, and a search
        # that goes on does not begin again
        self.study.sampler = import_optuna().samplers.TPESampler(
            seed=derive_seed(self.seed, f"trial {held.trial.number}") % 2**32,
            multivariate=True,
            constant_liar=True,
        )
        for name, span in ranges.items():
            draw(held.trial, name, span)
        held.trial.set_user_attr("begun", begun + 1)
        return held

    def _list(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)  # type: ignore[no-any-return]

    def _list_running(self) -> list[Any]:
        """The trials that a process with this folder trains, or trained when it was lost."""
        return [
            trial
            for trial in self._list()
            if trial.state.name == "RUNNING" and self._has_begun(trial.number)
        ]

    def _has_begun(self, number: int) -> bool:
        # Windows deletes the file of a released lock
        lock_file = Path(self._find_lock(number).lock_file)
        return lock_file.exists() or self.locate(number).exists()

    def _find_lock(self, number: int) -> FileLock:
        return FileLock(self.folder / f".trial-{number}.lock", thread_local=False)

    @contextmanager
    def holding(self, held: HeldTrial) -> Iterator[None]:
        """Release a trial at the end of the block; an interrupted process does not count as lost.

        The next process continues an interrupted trial.
        """
        try:
            yield
        except BaseException:
            with suppress(Exception):
                begun = held.trial.user_attrs["begun"]
                held.trial.set_user_attr("begun", begun - 1)
            raise
        finally:
            held.lock.release()

    @using_storage()
    def find_equal(self, held: HeldTrial) -> int | None:
        """The number of an earlier trial with the same values, which is stored with the trial."""
        for other in self._list()[: held.trial.number]:
            if other.params == held.trial.params:
                held.trial.set_user_attr("repeats", other.number)
                return int(other.number)
        return None

    @using_storage()
    def report(self, held: HeldTrial, epoch: int, score: float) -> None:
        """Store the score of an epoch, unless it was reported before."""
        with warnings.catch_warnings(action="ignore"):
            held.trial.report(score, epoch)

    @using_storage()
    def is_worse(self, held: HeldTrial) -> bool:
        """Whether successive halving stops the trial after the epoch that was reported last."""
        return bool(held.trial.should_prune())

    @using_storage()
    def finish(
        self, held: HeldTrial, state: str, score: float | None = None, error: str | None = None
    ) -> None:
        """Store the end of a trial."""
        if error is not None:
            held.trial.set_user_attr("error", error)
        self.study.tell(held.trial, score, import_optuna().trial.TrialState[state])


def try_lock(lock: FileLock) -> bool:
    """Acquire a lock, unless another process has it."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


@using_storage()
def open_trials(url: str | None, folder: Path, settings: Mapping[str, Any]) -> Trials:
    """Create the study of a search, or open it; ``RunError`` if it belongs to another search."""
    optuna = import_optuna()
    lock = FileLock(folder / ".trials.lock", thread_local=False)
    storage = _open_journal(folder, lock) if url is None else open_database(url)
    # epochs before the first comparison; then three times as many before each next
    least = max(1, round((settings["epochs"] or 1) / REDUCTION**2))
    lower_is_better = Score(settings["metric"], 0.0).lower_is_better
    study = optuna.create_study(
        storage=storage,
        study_name=folder.name,
        direction="minimize" if lower_is_better else "maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=least, reduction_factor=REDUCTION
        ),
        load_if_exists=True,
    )
    digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if not study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr("settings", digest)
    if study.user_attrs.get("settings") != digest:
        raise RunError(
            f"The study {folder.name} in the storage was begun with other settings, images or"
            " code. Choose another name, or run the same command with the same data, files and"
            " functions as before."
        )
    return Trials(study, folder, settings["seed"], settings["metric"], lock)


def _open_journal(folder: Path, lock: FileLock) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    file = folder / JOURNAL
    if file.is_symlink():
        raise RunError(f"{file} is a link, and lamina would write to its target. Delete it.")
    return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))  # type: ignore[arg-type]


def open_database(url: str) -> Any:
    """Open a PostgreSQL database; ``RunError`` if that fails."""
    optuna = import_optuna()
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    shown = hide_password(url)
    try:
        parsed = make_url(url)
        is_postgres = parsed.drivername.partition("+")[0] in ("postgresql", "postgres")
    except Exception:  # of SQLAlchemy, or a port that is not a number
        is_postgres = False
    if not is_postgres or "@" in (parsed.host or ""):
        raise RunError(
            f"storage is {shown!r}, which is not the URL of a PostgreSQL database. Use"
            " postgresql://USER@HOST/DATABASE, with the password in ~/.pgpass; in a URL, write %40"
            " for @. Machines that share the folder of the study need no storage."
        )
    # A new connection for each transaction, so that none is left open, or found dead after the
    # server has restarted.
    options = {
        "poolclass": NullPool,
        "connect_args": {"connect_timeout": 10, "tcp_user_timeout": 30_000},  # s, ms
    }
    place = parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    open_it = functools.partial(optuna.storages.RDBStorage, place, engine_kwargs=options)
    try:
        try:
            return open_it()
        except SQLAlchemyError:  # the server restarts, or another worker creates the tables
            time.sleep(OPENING_PAUSE_SECONDS)
            return open_it()
    except ImportError as error:
        raise RunError(f"{error} For PostgreSQL, run pip install 'lamina[tune]'.") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = explain(error, url)
        raise RunError(f"Cannot open the database {shown}: {reason}.") from None


def _read_trial(trial: Any) -> Trial:
    """A trial of Optuna, with the last known score; ``ValueError`` for values of other types."""
    error = trial.user_attrs.get("error")
    score = trial.value
    if score is None:
        score = trial.intermediate_values.get(trial.last_step)
    if error:  # one that diverged has the worst score, perhaps infinity
        score = None
    values = {
        "trial": trial.number,
        "state": "repeated" if "repeats" in trial.user_attrs else trial.state.name.lower(),
        "score": score,
        "epoch": trial.last_step,
        "seconds": None if trial.duration is None else trial.duration.total_seconds(),
        "error": error,
        "values": trial.params,
    }
    return from_json_values(Trial, values, f"trial {trial.number}")


def find_end(trials: Sequence[Trial], training: int, limits: Limits) -> str:
    """Why no further trial begins while others train so many; empty if one does."""
    last = trials[-MOST_REPEATS:]
    if len(last) == MOST_REPEATS and all(trial.state == "repeated" for trial in last):
        return f"{MOST_REPEATS} trials in a row had the values of earlier ones"
    counted = training + sum(trial.is_counted for trial in trials)
    if counted >= limits.trials:
        return f"it has {limits.trials} trials"
    if time.monotonic() + measure_run(trials, limits.run_seconds) > limits.until:
        return "the time for trials is over"
    return ""


def measure_run(trials: Sequence[Trial], expected: float) -> float:
    """The median seconds of the trials that were trained to the end."""
    seconds = [
        trial.seconds
        for trial in trials
        if trial.state == "complete" and trial.seconds is not None and trial.error is None
    ]
    return statistics.median(seconds) if seconds else expected


def rank(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """The trials with a score, best first; stopped ones come last, by epochs, most first."""
    sign = 1 if Score(metric, 0.0).lower_is_better else -1
    ended = [trial for trial in trials if trial.state in ("complete", "pruned")]

    def order(trial: Trial) -> tuple[float, float]:
        epochs = math.inf if trial.state == "complete" else trial.epoch or 0
        return -epochs, sign * (trial.score or 0.0)

    return sorted((trial for trial in ended if trial.score is not None), key=order)


def read_state(folder: Path) -> State:
    """The state of a tuning; ``RunError`` if the folder contains none, or if it is damaged."""
    stored = read_study(folder)
    if "over" not in stored.get("settings", {}):
        raise RunError(f"{folder} contains no tuning. Start one with lamina tune NET --over …")
    return parse_event(State, stored, folder / STUDY_FILE)


def describe_values(values: Mapping[str, Any]) -> str:
    """``lr 0.0312, batch_size 100``; numbers have three digits."""
    parts = []
    for name, value in values.items():
        if isinstance(value, float):
            value = f"{value:.3g}"
        parts.append(f"{name} {value}")
    return ", ".join(parts)


def tabulate_trials(
    trials: Sequence[Trial], metric: str
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The headings and rows of a table of trials."""
    score = Score(metric, 0.0)
    heads = ("trial", "values", "state", f"val {score.title}", "epoch", "seconds")
    rows = []
    for trial in trials:
        state = trial.error or trial.state.replace("pruned", "stopped")
        value = "" if trial.score is None else score.format(trial.score)
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        epoch = str(trial.epoch or "")
        values = describe_values(trial.values)
        rows.append((str(trial.trial), values, state, value, epoch, seconds))
    return heads, rows
