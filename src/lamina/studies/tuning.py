"""Tuning: search settings of a recipe or sizes of a net on ``val``, alone or with other workers."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lamina.data import Dataset, Images, load_data
from lamina.data.load import as_dataset
from lamina.errors import (
    LaminaError,
    LaminaWarning,
    NotFiniteError,
    RecipeError,
    RunError,
    check_type,
    plural,
)
from lamina.files import LockedError, check_name, write_json
from lamina.markup import card
from lamina.nets import Net
from lamina.runs.folder import STUDY_FILE
from lamina.runs.run import Run, describe_recipe, load_run
from lamina.runs.start import as_net_choice, making_runs
from lamina.studies import finals
from lamina.studies.experiment import (
    Candidate,
    Decision,
    Events,
    Experiment,
    check_seconds,
    format_minutes,
    time_experiment,
)
from lamina.studies.experiment_text import Source, Variant, find_source, parse_experiment
from lamina.studies.finals import (
    Tuned,
    count_trainings,
    iter_finals,
    plan_finals,
    rank_finalists,
    read_final,
    write_final,
)
from lamina.studies.forks import Jobs, check_jobs
from lamina.studies.search import Search, Tried, score_on
from lamina.studies.seeds import check_repeatable
from lamina.studies.storage import (
    JOURNAL,
    LONGEST_PAUSE_SECONDS,
    TrialLostError,
    list_outages,
    load_study,
    open_storage,
    wait_for,
)
from lamina.studies.study import (
    RunSetup,
    check_settings,
    follow_study,
    iter_planned,
    name_free,
    parse_event,
    read_study,
    warn_of_unread,
)
from lamina.studies.trials import (
    FinalsPlan,
    Limits,
    Progress,
    Trials,
    find_run,
    list_trials,
    open_trials,
    read_progress,
    read_table,
    store_table,
)
from lamina.targets import Score
from lamina.text import hide_password
from lamina.training.events import Epoch
from lamina.training.lanes import check_alone
from lamina.training.threads import iter_computing_with

if TYPE_CHECKING:
    import polars

DEFAULT_TRIALS = 30
FIGURE = "trials.png"
IMPORTANCES = "importances.png"
LEAST_FOR_IMPORTANCES = 20  # finished trials
MOST_REPEATS = 10  # trials in a row that repeat earlier values, after which the search ends
LOOK_SECONDS = 1.0  # between two looks at the trials of other workers


@dataclass(frozen=True)
class Study:
    """A tuning study: its trials and its result.

    Attributes:
        path: Folder of the study.
        storage: URL of its database, or path of its journal file; ``None`` for the file in the
            folder.
    """

    path: Path | str
    storage: str | None = field(default=None, repr=False)  # it may contain a password

    @property
    def result(self) -> Tuned | None:
        """The result; ``None`` before the end."""
        return read_final(Path(self.path))

    @property
    def trials(self) -> polars.DataFrame:
        """One row per trial.

        The columns are ``trial``, ``state``, ``score`` (on ``val``), ``epoch``, ``seconds``,
        ``error`` and one for each tuned setting.

        Raises:
            RunError: The folder contains no study, or its database cannot be reached.
        """
        import polars

        rows = list_stored(Path(self.path), self.storage)
        for row in rows:
            row |= {
                f"{key}_value" if key in row else key: value
                for key, value in row.pop("values").items()
            }
        return polars.DataFrame(rows, infer_schema_length=None)

    def __str__(self) -> str:
        return str(self.result or f"{self.path}: no result yet")

    def _repr_html_(self) -> str:
        result = self.result
        return card(str(self)) if result is None else result._repr_html_()


def tune(
    net: str | Net | Variant | Callable[[Any], Net],
    data: Dataset | Images | str | Path | None = None,
    *,
    over: Mapping[str, str] | None = None,
    net_over: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    storage: str | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    jobs: int | None = None,
    progress: bool = True,
) -> Study:
    """Search the settings of a recipe, or the sizes of a net, that score best on ``val``.

    Args:
        net: A net as text, with a recipe and its settings, as in ``"cnn:quick,epochs=5"``; layers
            may contain names in place of sizes. Or a :class:`~lamina.Net`; or a
            :class:`~lamina.Variant` with your own functions or module; or a function that takes a
            trial of Optuna and returns a net.
        data: As for :func:`~lamina.train`, with a ``val`` split; for a name or a path, lamina takes
            a tenth of ``train`` as ``val`` if there is none.
        over: Ranges of settings of the recipe, such as ``{"lr": "1e-4..1e-1:log", "batch_size":
            "50,100,200"}``.
        net_over: Ranges of the sizes in ``net``, such as ``{"width": "32..256"}``.
        given: Settings of the recipe that are not searched.
        trials: Number of trials of all workers, at least 2; by default 30.
        seconds: Time limit in place of a number of trials. At least half of it is for the search.
        storage: For workers on several machines, each of which makes this call: URL of a PostgreSQL
            database, or path of a file on a disk that they share. By default, a file in the study's
            folder, for the processes of one machine.
        name: Name of the study. By default, it follows from the settings, so that the same call
            continues the study; with your own functions or modules, the study is new.
        runs_dir: Folder of the study.
        jobs: As for :func:`~lamina.studies.seeds.iter_seeds`.
        progress: Print a line per trial, and show a progress bar.

    Returns:
        The study, with its trials and its result; ``print`` it.

    Raises:
        LaminaError: The search or an argument is invalid, or any error of :func:`~lamina.train`.

    Source: TPE by Optuna (Bergstra et al., NeurIPS 2011; Akiba et al., KDD 2019), with asynchronous
    successive halving (Li et al., MLSys 2020).
    """
    check_type(over, (Mapping,), "over", 'a dictionary, such as {"lr": "1e-4..1e-1:log"}')
    check_type(net_over, (Mapping,), "net_over", 'a dictionary, such as {"width": "32..256"}')
    check_type(storage, (str,), "storage", "the URL of a database or the path of a file")
    check_repeatable(net)
    check_jobs(jobs)
    source = Source("")
    searched: Any = net
    if isinstance(net, Variant):
        source = find_source(net, Path(runs_dir))
        searched = source.origin
    elif isinstance(net, str | Net):
        source = Source(*parse_experiment(str(net)))
        searched = source.origin
    if isinstance(searched, Run):
        raise RecipeError(f"{net} is a run. Name its net, as in Variant('mine', 'cnn').")
    settings = {**source.values, **(given or {})}
    dataset = as_dataset(data)
    if not isinstance(data, Dataset | Images):
        dataset = draw_val(dataset)
    setup = RunSetup(jobs=jobs)
    search = Search(
        searched,
        source.recipe,
        settings,
        over or {},
        net_over or {},
        dataset,
        as_net_choice,
        setup,
        parts=source.parts,
        given_name=source.given_name,
    )
    limits = find_limits(search, trials, seconds)
    check_name(name)
    folder = Path(runs_dir)
    if name is None:
        name = name_free(folder, "tune") if search.code else search.name
    path = folder / name
    follow_study(iter_tuning(path, search, storage, limits), progress)
    return Study(path, storage)


def draw_val(dataset: Dataset) -> Dataset:
    """The loaded data set, if necessary with a tenth of ``train`` as ``val``."""
    preparation = dataset.preparation
    is_asked = preparation.val_fraction is not None or preparation.fold is not None
    if dataset.val is not None or is_asked:
        return dataset
    with warnings.catch_warnings(action="ignore", category=LaminaWarning):  # they were printed
        return load_data(dataset.source, replace(preparation, val_fraction=0.1))


def find_limits(search: Search, trials: int | None, seconds: float | None) -> Limits:
    """Check a search and its limits."""
    check_seconds(seconds)
    check_type(trials, (int,), "trials", "a whole number")
    if trials is not None and seconds is not None:
        raise RecipeError("trials and a time limit both end the search. Use only one of them.")
    if trials is not None and trials < 2:
        raise RecipeError(f"trials is {trials}; a search needs at least 2. Use 30.")
    search.check()
    return Limits(trials, seconds)


def _agree_on_limits(limits: Limits, trials: Trials) -> Events[Limits]:
    """Store the given limits; without any, the limits of the study, or the default."""
    if limits == Limits():
        progress = yield from trials.load()
        limits = progress.limits
    if limits == Limits():
        limits = Limits(DEFAULT_TRIALS)
    yield from trials.store("limits", asdict(limits))
    return limits


def iter_tuning(path: Path, search: Search, storage: str | None, limits: Limits) -> Events[None]:
    """Search with all other workers of the study; then one of them trains the finals."""
    settings = search.to_json()
    place = None if storage is None else hide_password(storage)
    state = {"settings": settings, "storage": place}
    _check_folder(path, state)
    known = read_final(path)
    if known is not None:
        ended = f"ended with {plural(known.trials, 'trial', 'trials')}"
        yield Decision("search", ended, "for another search, choose another name")
        yield known
        return
    example, decisions = search.example
    expected = time_experiment(example)
    if not (path / STUDY_FILE).exists():
        needed = 2 * count_trainings(*finals.PLANS[-1]) * expected
        if limits.seconds is not None and limits.seconds < needed:
            raise RecipeError(
                f"The time limit is {limits.seconds:.0f} s, but a run takes about"
                f" {expected:.1f} s, and the shortest search with its finals {needed:.0f} s. Use"
                f" --time {math.ceil(needed)}s, fewer epochs, or a smaller net."
            )
    if storage is None:
        _create_folder(path, state)
    trials = yield from open_trials(storage, path, settings)
    _create_folder(path, state)
    limits = yield from _agree_on_limits(limits, trials)
    yield from decisions
    recipe = describe_recipe(example.recipe)
    yield Decision("settings", recipe, "of the recipe, except for the searched ones")
    resume = "to resume, or to help with another process, run the command again"
    length = f"{limits}, {format_minutes(expected)} for each run"
    yield Decision("search", f"{search}; {length}; in {path}", resume)
    runs = min(limits.trials or math.inf, torch.get_num_threads())
    with closing(Jobs(search.setup.jobs, int(runs))) as jobs:
        yield from jobs.announce()
        jobs.start_helpers(partial(_help, path, search, storage, expected))
        for event in iter_computing_with(jobs.threads, iter_search(search, trials, expected)):
            yield event
            yield from jobs.iter_help(Tried)
        yield from jobs.iter_help(Tried, seconds=None)
    claims = yield from trials.open_claims()
    claim = yield from _claim_finals(claims)
    if claim is None:
        yield from _report_finals(trials)
        return
    with claims.holding(claim):
        tuned = yield from _iter_finals(search, trials, expected)
        # stored for all workers first: a worker with the file no longer looks into the storage
        yield from trials.store("result", tuned.to_json())
        write_final(path, tuned)
        yield tuned
        with suppress(TrialLostError):  # this process was suspended, and another has trained them
            yield from claims.finish(claim, "COMPLETE", 0.0)


def _help(path: Path, search: Search, storage: str | None, expected: float) -> Events[None]:
    """Search in another process, until there is nothing to train."""
    trials = yield from open_trials(storage, path, search.to_json())
    yield from iter_search(search, trials, expected, is_helper=True)


def _report_finals(trials: Trials) -> Events[None]:
    """The result of finals that another process trains; if there is none yet, who has them."""
    progress = yield from trials.load()
    store_table(trials.folder, progress)
    reason = "if that process is lost, run the command again"
    yield Decision("finals", "another process is training them, or has trained them", reason)
    if progress.result is None:
        return
    tuned = parse_event(Tuned, progress.result, "The storage of the study")
    write_final(trials.folder, tuned)
    yield tuned


def _check_folder(path: Path, state: Mapping[str, Any]) -> None:
    """Raise ``RunError`` if a folder belongs to another search, or has its trials elsewhere."""
    check_alone("A study")
    is_used = any(path.glob("[!.]*"))
    stored = read_study(path)  # after the look, because other workers create the folder as well
    if not stored:
        if is_used:
            raise RunError(f"{path} exists, but is not a study. Choose another name.")
        return
    check_settings(str(path), stored["settings"], state["settings"])
    warn_of_unread(path, state["settings"])
    place = stored.get("storage")
    if place != state["storage"]:
        advice = f"Use --storage {place}" if place else "Leave out --storage"
        raise RunError(
            f"{path} has its trials in {place or JOURNAL}. {advice}, or choose another name."
        )


def _create_folder(path: Path, state: Mapping[str, Any]) -> None:
    if not (path / STUDY_FILE).exists():
        with making_runs(path.parent):
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / STUDY_FILE, state)


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    state: str  # of Optuna
    words: str
    score: float | None = None  # that is stored
    is_error: bool = True


def find_end(progress: Progress, expected: float) -> str:
    """Why no further trial begins if a run takes ``expected`` seconds; empty if one does."""
    if progress.finals is not None:
        return "its finals have begun"
    if progress.select("WAITING"):  # trials that were given back
        return ""
    limits = progress.limits
    last = progress.trials[-MOST_REPEATS:]
    if len(last) == MOST_REPEATS and all("repeats" in trial.user_attrs for trial in last):
        return f"{MOST_REPEATS} trials in a row had the values of earlier ones"
    if limits.trials is not None and len(progress.counted) >= limits.trials:
        return f"it has {limits.trials} trials"
    if limits.seconds is not None:
        # a trial that begins later would end in the time of the finals
        training = progress.measure(expected)
        reserved = limits.seconds / 2
        if training:
            reserved = min(reserved, count_trainings(*finals.PLANS[0]) * training)
        if reserved + training + progress.used_seconds >= limits.seconds:
            return "the rest of the time is for the finals"
    return ""


def iter_search(
    search: Search, trials: Trials, expected: float, *, is_helper: bool = False
) -> Events[None]:
    """Train trials until the search ends; waits for other workers, unless it is a helper."""
    is_waiting = False
    while True:
        yield from trials.recover()
        progress = yield from trials.load()
        end = find_end(progress, expected)
        running = len(progress.select("RUNNING"))
        if not end:
            is_waiting = False
            yield from _iter_trial(search, trials)
        elif progress.finals is not None or not running:
            yield Decision("search", "ended", end)
            return
        elif is_helper:
            return
        else:  # if another worker is lost, this one trains its trial
            if not is_waiting:
                others = plural(running, "trial", "trials")
                reason = "a lost process is noticed after a minute; Ctrl-C stops waiting"
                yield Decision("waiting", f"for {others} of other processes", reason)
            is_waiting = True
            time.sleep(LOOK_SECONDS)


def _iter_trial(search: Search, trials: Trials) -> Events[None]:
    """Train one trial, or continue one that was given back."""
    try:
        trial = yield from trials.take(search.ranges)
        with trials.holding(trial):
            ending = yield from _train(search, trials, trial)
            error = ending.words if ending.is_error else None
            yield from trials.finish(trial, ending.state, ending.score, error)
    except TrialLostError:
        reason = "this one was silent for too long"
        yield Decision("warning", "another process continues this trial", reason)
        return
    progress = yield from trials.load()
    store_table(trials.folder, progress)
    folder = trials.locate(trial)
    run = str(folder) if folder.exists() else ""
    score = None
    if ending.score is not None and not ending.is_error:
        score = Score(search.metric, ending.score)
    best = progress.find_best()
    yield Tried(find_run(trial), trial.params, score, ending.words, run, progress.ended, best)


def _train(search: Search, trials: Trials, trial: Any) -> Events[Ending]:
    """Train a trial; returns how it ended."""
    not_of_values: tuple[type[Exception], ...] = (TrialLostError, RunError, *list_outages())
    try:
        # waits for an unreachable storage, but not after an OSError of the user's function
        experiment = yield from wait_for(partial(search.make, trial))
        earlier = yield from trials.find_equal(trial)
        if earlier is not None:
            return Ending("FAIL", f"not trained: trial {earlier} has the same values")
        epoch = yield from _iter_until_stopped(search, trials, trial, experiment)
        if epoch is not None:
            words = f"stopped after epoch {epoch}, not among the best third"
            return Ending("PRUNED", words, is_error=False)
        score = score_on(load_run(trials.locate(trial)), "val")
        return Ending("COMPLETE", "finished", score, is_error=False)
    except NotFiniteError as error:  # the worst score, so that the sampler avoids these values
        worst = Score(search.metric, 0.0)
        return Ending("COMPLETE", f"diverged: {error}", worst.bounds[worst.lower_is_better])
    except not_of_values:
        raise
    except LaminaError as error:
        return Ending("FAIL", f"failed: {error}")
    except Exception as error:  # of the user's function
        return Ending("FAIL", f"failed: {type(error).__name__}: {error}")


def _iter_until_stopped(
    search: Search, trials: Trials, trial: Any, experiment: Experiment
) -> Events[int | None]:
    """The events of a trial; returns the epoch after which successive halving stopped it."""
    candidate = Candidate.of(experiment)
    setup = search.setup.at(trials.locate(trial))
    halving_epochs = 0 if "epochs" in search.over else experiment.recipe.epochs // 2
    is_waiting = False
    while True:
        try:
            with closing(iter_planned(candidate, None, setup)) as events:
                for event in events:
                    yield event
                    if isinstance(event, Epoch) and event.score is not None:
                        yield from trials.report(trial, event.epoch, event.score.value)
                        if event.epoch <= halving_epochs and (yield from trials.is_worse(trial)):
                            return event.epoch
            return None
        except LockedError as error:
            if not is_waiting:
                what = "for a process that was silent for too long, but has not ended"
                yield Decision("waiting", what, str(error))
            is_waiting = True
            time.sleep(LONGEST_PAUSE_SECONDS)


def _claim_finals(claims: Trials) -> Events[Any]:
    """Claim the finals; ``None`` if another process trains them, or has done so."""
    signs = set()  # of life; a second sign comes from a living process
    while True:
        yield from claims.recover()
        other = yield from claims.find_claim()
        if other is None:
            break
        signs.add((other.number, other.user_attrs.get("seen")))
        if other.state.name == "COMPLETE" or len(signs) > 1:
            return None
        time.sleep(LOOK_SECONDS)
    claim = yield from claims.take({})
    first = yield from claims.find_claim()
    if first.number == claim.number:
        return claim
    yield from claims.finish(claim, "FAIL", error="another process was first")
    return None


def _iter_finals(search: Search, trials: Trials, expected: float) -> Events[Tuned]:
    """Train the finals as they are planned, or as many as fit into the time left."""
    progress = yield from trials.load()
    expected = progress.measure(expected)
    plan = progress.finals
    if plan is None:
        seconds = progress.limits.seconds
        left = None if seconds is None else seconds - progress.used_seconds
        count, seeds, tests = plan_finals(expected, left)
        if search.dataset.test is None:
            tests = 0
        plan = FinalsPlan(tuple(rank_finalists(progress)[:count]), seeds, tests)
        yield from trials.store("finals", asdict(plan))
    count = len(plan.ranked)
    longest = count_trainings(count, plan.seeds, plan.tests, search.base is not None)
    rivals = plural(count, "trial", "trials")
    if search.base is not None:
        rivals += " and the recipe"
    length = f"{longest} runs, {format_minutes(longest * expected)}"
    how = f"{rivals}, each with {plural(plan.seeds, 'new seed', 'new seeds')}"
    if plan.tests:
        how += f"; the winner is tested with {plan.tests} fresh seeds"
    yield Decision("finals", how, length)
    store_table(trials.folder, progress)
    try:
        draw_study(trials.study, progress, trials.folder)
    except Exception as error:  # of Optuna, matplotlib or the disk
        yield Decision("warning", "the figures of the trials could not be drawn", str(error))
    return (yield from iter_finals(search, trials.folder, progress, plan))


def draw_study(study: Any, progress: Progress, folder: Path) -> None:
    """Draw the trials and, if enough were trained to the end, how much each value matters."""
    from lamina.drawing.style import save_figure  # loads matplotlib
    from lamina.drawing.trial_figure import draw_importances, draw_trials

    finished = len(progress.rank("COMPLETE"))
    metric = progress.metric.name
    if finished:
        save_figure(draw_trials(study, metric), folder / FIGURE)
    if finished >= LEAST_FOR_IMPORTANCES:
        save_figure(draw_importances(study, metric), folder / IMPORTANCES)


def list_stored(path: Path, storage: str | None = None) -> list[dict[str, Any]]:
    """The rows of a study's trials: from its storage or, if that is elsewhere, from its folder.

    lamina never opens a storage that only a folder names.
    """
    if storage is None and not (path / JOURNAL).exists():
        return read_table(path)
    study = load_study(open_storage(storage, path), path.name)
    return list_trials(read_progress(study).trials)
