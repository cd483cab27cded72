"""The trials of a tuning, which Optuna distributes to the workers of a study."""

from __future__ import annotations

import functools
import math
import statistics
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from lamina.files import blaming, damaged, read_object, write_json
from lamina.studies.space import Range, draw, import_optuna
from lamina.studies.storage import CLAIMS, TrialLostError, open_storage, waiting
from lamina.studies.study import check_settings, parse_event
from lamina.targets import Score
from lamina.training.randomness import derive_seed
from lamina.values import Range as Between
from lamina.values import from_json_values

TABLE = "trials.json"
CREATING_SECONDS = 4.0  # for the worker that creates a study, to store its settings
BEAT_SECONDS = 10  # between two signs of life of a worker
SILENT_SECONDS = 60  # without a sign of life, until a trial is given to another worker
MOST_LOST = 2  # lost workers after which a trial fails
REDUCTION = 3  # successive halving: a third of the trials continues
MOST_FINALISTS = 5
MOST_SEEDS = 3
MOST_TESTS = 6
REMEDY = "Use another one with --storage."


@dataclass(frozen=True)
class Limits:
    """When the search of a study ends."""

    trials: int | None = None  # that count
    seconds: float | None = None  # of the search and the finals

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"as many trials as fit into {self.seconds:.0f} s, with finals"
        return f"{self.trials} trials, then finals"


@dataclass(frozen=True)
class FinalsPlan:
    """What the finals train."""

    ranked: tuple[int, ...]  # numbers of the trials, best first
    seeds: Annotated[int, Between(1, MOST_SEEDS)]  # that choose the winner on val
    tests: Annotated[int, Between(0, MOST_TESTS)]  # fresh seeds, which are evaluated on test


@dataclass(frozen=True)
class Stored:
    """What lamina stores with a study."""

    settings: dict[str, Any]  # of the search
    limits: Limits = Limits()  # of the worker that started last
    finals: FinalsPlan | None = None  # once they have begun
    result: dict[str, Any] | None = None  # of the finals


@dataclass(frozen=True)
class Attributes:
    """What lamina stores with a trial."""

    run: int  # number of the first trial with its values, which is in the name of its run
    values: tuple[float, ...] | None  # its score
    scores: dict[int, float]  # by epoch
    params: dict[str, str | bool | int | float | None]
    began: float = 0.0  # in time.time() of its worker
    seen: float = 0.0  # the worker's last sign of life
    lost: int = 0  # number of workers that were silent while they trained it
    repeats: int | None = None  # number of an earlier trial with the same values
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """A trial in a table."""

    trial: int
    state: str
    score: float | None
    epoch: int | None
    seconds: float | None
    error: str | None
    values: dict[str, str | bool | int | float | None]


@dataclass(frozen=True)
class Table:
    """The table of a study."""

    trials: tuple[Row, ...]


@dataclass(frozen=True)
class Progress:
    """The trials of a study at one moment, with values whose types have been checked."""

    trials: Sequence[Any]  # of Optuna
    metric: Score  # its value has no meaning
    limits: Limits
    finals: FinalsPlan | None  # once they have begun
    result: Mapping[str, Any] | None = None  # of the finals, as they have stored it

    def select(self, *states: str) -> list[Any]:
        """The trials in these states of Optuna."""
        return [trial for trial in self.trials if trial.state.name in states]

    @property
    def counted(self) -> list[Any]:
        """The trials that count: all but those that were given back or repeat others."""
        return [
            trial
            for trial in self.trials
            if not is_lost(trial) and "repeats" not in trial.user_attrs
        ]

    @property
    def ended(self) -> int:
        """The number of ended trials that count."""
        return sum(trial.state.is_finished() for trial in self.counted)

    @property
    def used_seconds(self) -> float:
        """The time in which at least one worker was training."""
        stored = [trial.user_attrs for trial in self.trials]
        spans = sorted((values.get("began", 0.0), values.get("seen", 0.0)) for values in stored)
        total = 0.0
        end = -math.inf
        for began, seen in spans:
            total += max(0.0, seen - max(began, end))
            end = max(end, seen)
        return total

    def rank(self, state: str) -> list[Any]:
        """The trials in a state, best first; stopped ones by epochs, most first."""
        known = [
            trial
            for trial in self.select(state)
            if trial.value is not None and "error" not in trial.user_attrs
        ]
        known.sort(key=lambda trial: trial.value, reverse=not self.metric.lower_is_better)
        if state == "PRUNED":
            known.sort(key=lambda trial: trial.last_step, reverse=True)
        return known

    def find_best(self) -> Score | None:
        """The best score of a trial that was trained to the end."""
        ranked = self.rank("COMPLETE")
        return Score(self.metric.name, ranked[0].value) if ranked else None

    def measure(self, expected: float) -> float:
        """The median seconds of the trials that were trained to the end."""
        seconds = [trial.duration.total_seconds() for trial in self.rank("COMPLETE")]
        return statistics.median(seconds) if seconds else expected


@dataclass(frozen=True)
class WithoutLost:
    """A study of Optuna without the trials that were given back and continued by others."""

    study: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    def get_trials(self, deepcopy: bool = True) -> list[Any]:
        trials = self.study.get_trials(deepcopy=deepcopy)
        return [trial for trial in trials if not is_lost(trial)]


@dataclass(frozen=True)
class Trials:
    """A study's trials in its storage."""

    storage: Any  # Optuna's
    study: Any
    folder: Path  # of the runs of this worker
    seed: int  # of the search
    # of running trials: the last sign of life, and the first and last time, on the clock of this
    # worker, at which this worker saw it
    signs: dict[int, tuple[object, float, float]] = field(default_factory=dict, repr=False)

    def locate(self, trial: Any) -> Path:
        """The folder of a trial's run."""
        return self.folder / f"trial-{find_run(trial)}"

    @waiting
    def load(self) -> Progress:
        """The trials as they are now."""
        return read_progress(self.study)

    @waiting
    def store(self, name: str, value: Any) -> None:
        """Store an attribute of the study."""
        self.study.set_user_attr(name, value)

    @waiting
    def take(self, ranges: Mapping[str, Range]) -> Any:
        """Take a trial that was given back, or draw a new one."""
        trial = self.study.ask()
        find_run(trial)  # another process may have stored it since the trials were loaded
        # by the number of the trial, so that no two workers draw the same values, and a search
        # that goes on does not begin again
        self.study.sampler = import_optuna().samplers.TPESampler(
            seed=derive_seed(self.seed, f"trial {trial.number}") % 2**32,
            multivariate=True,
            constant_liar=True,
        )
        for name, span in ranges.items():
            draw(trial, name, span)
        now = time.time()
        trial.set_user_attr("began", now)
        trial.set_user_attr("seen", now)
        return trial

    @waiting
    def find_equal(self, trial: Any) -> int | None:
        """The number of an earlier trial with the same values, which is stored with the trial."""
        for other in self.study.get_trials(deepcopy=False)[: trial.number]:
            if other.params == trial.params and not is_lost(other):
                trial.set_user_attr("repeats", other.number)
                return int(other.number)
        return None

    @contextmanager
    def holding(self, trial: Any) -> Iterator[None]:
        """Send signs of life during the block; an error in the block gives the trial back."""
        is_over = threading.Event()
        thread = threading.Thread(target=_send_signs, args=(trial, is_over), daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            # if that fails, other workers notice that the signs of life stop
            with suppress(Exception):
                _give_back(self.study, trial.number)
            raise
        finally:
            is_over.set()
            thread.join(timeout=1)  # while the storage is unreachable, it may wait for a connection

    @waiting
    def recover(self) -> None:
        """Give back the trials of workers that this one has seen silent for too long."""
        now = time.monotonic()
        watched = dict(self.signs)
        self.signs.clear()
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name != "RUNNING":
                continue
            sign = trial.user_attrs.get("seen")
            known, since, until = watched.get(trial.number, (None, now, now))
            # not watched while this worker trained, or while the storage was unreachable
            if known != sign or now - until >= SILENT_SECONDS / 2:
                since = now
            self.signs[trial.number] = (sign, since, now)
            if now - since > SILENT_SECONDS:
                with suppress(TrialLostError):
                    _give_back(self.study, trial.number, is_silent=True)

    @waiting
    def report(self, trial: Any, epoch: int, score: float) -> None:
        """Store the score of an epoch, unless it was reported before."""
        with warnings.catch_warnings(action="ignore"):
            trial.report(score, epoch)

    @waiting
    def is_worse(self, trial: Any) -> bool:
        """Whether successive halving stops the trial after the epoch that was reported last."""
        stored = self.study.get_trials(deepcopy=False)[trial.number]
        return bool(self.study.pruner.prune(WithoutLost(self.study), stored))

    @waiting
    def finish(
        self, trial: Any, state: str, score: float | None = None, error: str | None = None
    ) -> None:
        """Store the end of a trial; ``TrialLostError`` if another worker has given it back."""
        from optuna.trial import TrialState

        stored = self.study.get_trials(deepcopy=False)[trial.number]
        if stored.state.name == state and not is_lost(stored):
            return  # the connection was lost after the end had been stored
        if error is not None:
            trial.set_user_attr("error", error)
        trial.set_user_attr("seen", time.time())
        try:
            self.study.tell(trial, score, TrialState[state])
        except ValueError as lost:  # it was given back just now
            raise TrialLostError from lost

    @waiting
    def open_claims(self) -> Trials:
        """The trials that claim the finals: Optuna gives each to one worker."""
        name = self.folder.name + CLAIMS
        claims = import_optuna().create_study(
            storage=self.storage, study_name=name, load_if_exists=True
        )
        return Trials(self.storage, claims, self.folder, self.seed)

    @waiting
    def find_claim(self) -> Any:
        """The first trial that runs or has ended well; ``None`` if there is none."""
        trials = self.study.get_trials(deepcopy=False)
        names = ("RUNNING", "COMPLETE")
        return next((trial for trial in trials if trial.state.name in names), None)


@waiting
def open_trials(place: str | None, folder: Path, settings: Mapping[str, Any]) -> Trials:
    """Create the study of a search, or open it; ``RunError`` if it belongs to another search."""
    optuna = import_optuna()
    storage = open_storage(place, folder)
    metric = Score(settings["metric"], 0.0)
    # epochs before the first comparison; then three times as many before each next
    least = max(1, round((settings["epochs"] or 1) / REDUCTION**2))
    open_it = functools.partial(
        optuna.create_study,
        storage=storage,
        study_name=folder.name,
        direction="minimize" if metric.lower_is_better else "maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=least, reduction_factor=REDUCTION
        ),
    )
    try:
        study = open_it()
        study.set_user_attr("settings", settings)
    except optuna.exceptions.DuplicatedStudyError:
        study = open_it(load_if_exists=True)
    stored = _await_settings(study)
    if stored is None and not study.get_trials(deepcopy=False):  # the first worker was killed
        study.set_user_attr("settings", settings)
    else:
        check_settings(f"The study {folder.name} in the storage", stored, settings)
    return Trials(storage, study, folder, settings["seed"])


def _await_settings(study: Any) -> Any:
    """The settings of a study, which the worker that has just created it may not have stored."""
    until = time.monotonic() + CREATING_SECONDS
    while (stored := study.user_attrs.get("settings")) is None:
        if study.get_trials(deepcopy=False) or time.monotonic() > until:
            break
        time.sleep(CREATING_SECONDS / 20)
    return stored


def read_progress(study: Any) -> Progress:
    """The trials of a study of Optuna; ``RunError`` if lamina has not written them."""
    with blaming("The storage of the study", REMEDY):  # values of any type may be at any place
        stored = from_json_values(Stored, study.user_attrs, "study")
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            _check_trial(trial)
        ranked = stored.finals.ranked if stored.finals else ()
        if len(ranked) > MOST_FINALISTS or not set(ranked) <= set(range(len(trials))):
            raise ValueError(f"the finals list the trials {ranked}")
        metric = Score(stored.settings["metric"], 0.0)
    return Progress(trials, metric, stored.limits, stored.finals, stored.result)


def _check_trial(trial: Any) -> None:
    """Raise ``ValueError`` if a trial has a value that lamina does not store."""
    where = f"trial {trial.number}"
    stored = {"run": trial.number, **trial.user_attrs, "values": trial.values}
    stored |= {"scores": trial.intermediate_values, "params": trial.params}
    from_json_values(Attributes, stored, where)
    find_run(trial)
    has_ended = trial.values is not None and trial.duration is not None
    are_epochs = all(isinstance(epoch, int) for epoch in trial.intermediate_values)
    if not are_epochs or (trial.state.name == "COMPLETE" and not has_ended):
        raise ValueError(f"{where} has values that lamina does not store")


def find_run(trial: Any) -> int:
    """The number in the name of a trial's run: of the first trial with its values."""
    run = trial.user_attrs.get("run", trial.number)
    if type(run) is not int or not 0 <= run <= trial.number:
        raise damaged(f"Trial {trial.number}", f"its run is {run!r}", REMEDY)
    return run


def is_lost(trial: Any) -> bool:
    """Whether a trial was given back, so that a later trial has its values."""
    return trial.state.name == "FAIL" and "error" not in trial.user_attrs


def store_table(folder: Path, progress: Progress) -> None:
    """Store the trials as a table, which the report page shows."""
    with suppress(OSError):  # a full disk
        write_json(folder / TABLE, {"trials": list_trials(progress.trials)})


def read_table(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table that a worker with this folder stored last."""
    file = folder / TABLE
    if not file.exists():
        return []
    return [asdict(row) for row in parse_event(Table, read_object(file), file).trials]


def list_trials(trials: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows of a table of trials, with the last known scores, under the numbers of their runs.

    Trials that were given back have their rows where they are continued.
    """
    rows = []
    for trial in trials:
        if is_lost(trial):
            continue
        error = trial.user_attrs.get("error")
        score = trial.value
        if score is None:
            score = trial.intermediate_values.get(trial.last_step)
        if error:  # one that diverged has the worst score, perhaps infinity
            score = None
        row = {
            "trial": find_run(trial),
            "state": trial.state.name.lower(),
            "score": score,
            "epoch": trial.last_step,
            "seconds": None if trial.duration is None else trial.duration.total_seconds(),
            "error": error,
            "values": trial.params,
        }
        rows.append(row)
    return sorted(rows, key=lambda row: row["trial"])


def _send_signs(trial: Any, is_over: threading.Event) -> None:
    while not is_over.wait(BEAT_SECONDS):
        with suppress(Exception):
            trial.set_user_attr("seen", time.time())


def _give_back(study: Any, number: int, *, is_silent: bool = False) -> None:
    """End a trial, and queue its values again; ``TrialLostError`` if another worker has done so.

    A trial whose workers were silent too often fails: it may be what kills them.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState, create_trial

    trial = study.get_trials(deepcopy=False)[number]
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError) as error:
        raise TrialLostError from error
    lost = trial.user_attrs.get("lost", 0) + is_silent
    attributes = {"run": find_run(trial), "lost": lost}
    state = TrialState.WAITING
    if lost == MOST_LOST:
        state = TrialState.FAIL
        attributes["error"] = f"failed: {lost} workers were lost while they trained it"
    again = create_trial(
        state=state,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=attributes,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
    )
    study.add_trial(again)
