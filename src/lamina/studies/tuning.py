"""Tuning: search settings of a recipe or sizes of a net on ``val``, alone or with other workers."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

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
from lamina.files import check_name, write_json
from lamina.markup import card
from lamina.nets import Net
from lamina.runs.folder import STUDY_FILE
from lamina.runs.run import Run, describe_recipe, load_run
from lamina.runs.start import as_net_choice, making_runs
from lamina.studies import finals
from lamina.studies.experiment import (
    Decision,
    Events,
    Experiment,
    check_seconds,
    format_minutes,
    time_experiment,
)
from lamina.studies.experiment_text import Source, Variant, find_source, parse_experiment
from lamina.studies.finals import Tuned, count_finals, iter_finals
from lamina.studies.forks import Jobs, check_jobs
from lamina.studies.search import Search, Tried, score_on
from lamina.studies.seeds import check_repeatable
from lamina.studies.study import (
    RunSetup,
    check_settings,
    follow_study,
    iter_planned,
    parse_event,
    read_study,
    warn_of_unread,
)
from lamina.studies.trials import (
    JOURNAL,
    HeldTrial,
    Limits,
    Trial,
    Trials,
    list_outages,
    measure_run,
    open_trials,
    rank,
    read_state,
    try_lock,
    using_storage,
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
LOOK_SECONDS = 1.0  # between two looks at the trials of other workers


@dataclass(frozen=True)
class Study:
    """A tuning study: its trials and its result.

    Attributes:
        path: Folder of the study.
    """

    path: Path | str

    @property
    def result(self) -> Tuned | None:
        """The result; ``None`` before the end."""
        return read_result(Path(self.path))

    @property
    def trials(self) -> polars.DataFrame:
        """One row per trial, as they were when a process with this folder last ended one.

        The columns are ``trial``, ``state``, ``score`` (on ``val``), ``epoch``, ``seconds``,
        ``error`` and one for each tuned setting.

        Raises:
            RunError: The folder contains no study.
        """
        import polars

        rows = [asdict(trial) for trial in read_state(Path(self.path)).trials]
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
    worker: bool = False,
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
        seconds: Time limit of this call in place of a number of trials. At least half of it is for
            the search.
        storage: For workers on several machines, each of which makes this call: URL of a PostgreSQL
            database. By default, a file in the study's folder, for processes with this folder.
        worker: Train trials only; another call trains the finals.
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
    check_type(storage, (str,), "storage", "the URL of a database")
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
    path = folder / (name or search.name)
    events = iter_tuning(path, search, storage, limits, is_worker=worker)
    follow_study(events, progress)
    return Study(path)


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
    if seconds is not None:
        return Limits(seconds=seconds)
    return Limits(trials or DEFAULT_TRIALS)


def iter_tuning(
    path: Path, search: Search, storage: str | None, limits: Limits, *, is_worker: bool = False
) -> Events[None]:
    """Search with all other workers of the study; then, unless it is a worker, train the finals."""
    began = time.monotonic()
    settings = search.to_json()
    place = None if storage is None else hide_password(storage)
    state = {"settings": settings, "storage": place}
    _check_folder(path, state)
    known = read_result(path)
    if known is not None:
        yield from _repeat_result(known)
        return
    example, decisions = search.example
    expected = time_experiment(example)
    final_seconds = 0.0
    if not is_worker:
        final_seconds = count_finals(search, finals.FINALISTS) * expected
    if limits.seconds < 2 * final_seconds:
        raise RecipeError(
            f"The time limit is {limits.seconds:.0f} s, but a run takes about {expected:.1f} s, and"
            f" the shortest search with its finals {2 * final_seconds:.0f} s. Use --time"
            f" {math.ceil(2 * final_seconds)}s, fewer epochs, or a smaller net."
        )
    until = began + limits.seconds - final_seconds
    limits = replace(limits, until=until, run_seconds=expected)
    if storage is None:
        _create_folder(path, state)
    trials = open_trials(storage, path, settings)
    _create_folder(path, state)
    yield from decisions
    recipe = describe_recipe(example.recipe)
    yield Decision("settings", recipe, "of the recipe, except for the searched ones")
    resume = "to resume, or to help with another process, run the command again"
    length = str(limits) if is_worker else f"{limits}, then finals"
    length += f", {format_minutes(expected)} for each run"
    yield Decision("search", f"{search}; {length}; in {path}", resume)
    runs = min(limits.trials, torch.get_num_threads())
    with closing(Jobs(search.setup.jobs, int(runs))) as jobs:
        yield from jobs.announce()
        jobs.start_helpers(partial(_help, path, search, storage, limits))
        for event in iter_computing_with(jobs.threads, iter_search(search, trials, limits)):
            yield event
            yield from jobs.iter_help(Tried)
        yield from jobs.iter_help(Tried, seconds=None)
        if not is_worker:
            yield from _await_others(trials)
        # the trials of processes that were lost meanwhile
        end = yield from iter_computing_with(jobs.threads, iter_search(search, trials, limits))
    yield Decision("search", "ended", end)
    if is_worker:
        trials.store()
        return
    yield from _iter_finals(search, trials, measure_run(trials.load(), expected))


def _help(path: Path, search: Search, storage: str | None, limits: Limits) -> Events[None]:
    """Search in another process, until there is nothing to train."""
    trials = open_trials(storage, path, search.to_json())
    yield from iter_search(search, trials, limits)


def read_result(path: Path) -> Tuned | None:
    """The result of a tuning that has ended."""
    result = read_study(path).get("result")
    return None if result is None else parse_event(Tuned, result, path / STUDY_FILE)


def _repeat_result(tuned: Tuned) -> Events[None]:
    ended = f"ended with {plural(tuned.trials, 'trial', 'trials')}"
    yield Decision("search", ended, "for another search, choose another name")
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


def iter_search(search: Search, trials: Trials, limits: Limits) -> Events[str]:
    """Train trials until none is left to begin; returns the reason."""
    while True:
        held, end = trials.take(search.ranges, limits)
        if held is None:
            return end
        yield from _iter_trial(search, trials, held)


def _await_others(trials: Trials) -> Events[None]:
    """Wait for the trials of other processes with this folder."""
    count = trials.count_training()
    if count:
        others = plural(count, "trial", "trials")
        yield Decision("waiting", f"for {others} of other processes", "Ctrl-C stops waiting")
    while trials.count_training():
        time.sleep(LOOK_SECONDS)


def _iter_trial(search: Search, trials: Trials, held: HeldTrial) -> Events[None]:
    """Train one trial, from its checkpoint if it has one."""
    with trials.holding(held):
        trials.store()
        ending = yield from _train(search, trials, held)
        error = ending.words if ending.is_error else None
        trials.finish(held, ending.state, ending.score, error)
    stored = trials.store()
    folder = trials.locate(held.trial.number)
    run = str(folder) if folder.exists() else ""
    score = None
    if ending.score is not None and not ending.is_error:
        score = Score(trials.metric, ending.score)
    best = None
    complete = [trial for trial in stored if trial.state == "complete"]
    if ranked := rank(complete, trials.metric):
        best = Score(trials.metric, ranked[0].score or 0.0)
    done = sum(trial.is_counted for trial in stored)
    yield Tried(held.trial.number, held.trial.params, score, ending.words, run, done, best)


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    state: str  # of Optuna
    words: str
    score: float | None = None  # that is stored
    is_error: bool = True


def _train(search: Search, trials: Trials, held: HeldTrial) -> Events[Ending]:
    """Train a trial; returns how it ended."""
    try:
        experiment = search.make(held.trial.params, held.trial)
        earlier = trials.find_equal(held)
        if earlier is not None:
            return Ending("FAIL", f"not trained: trial {earlier} has the same values")
        epoch = yield from _iter_until_stopped(search, trials, held, experiment)
        if epoch is not None:
            words = f"stopped after epoch {epoch}, not among the best third"
            return Ending("PRUNED", words, is_error=False)
        score = score_on(load_run(trials.locate(held.trial.number)), "val")
        return Ending("COMPLETE", "finished", score, is_error=False)
    except NotFiniteError as error:  # the worst score, so that the sampler avoids these values
        worst = Score(trials.metric, 0.0)
        return Ending("COMPLETE", f"diverged: {error}", worst.bounds[worst.lower_is_better])
    except RunError:  # of the folder or the storage, and not of the values
        raise
    except list_outages():  # while a function draws from the storage
        with using_storage():
            raise
    except LaminaError as error:
        return Ending("FAIL", f"failed: {error}")
    except Exception as error:  # of the user's function
        return Ending("FAIL", f"failed: {type(error).__name__}: {error}")


def _iter_until_stopped(
    search: Search, trials: Trials, held: HeldTrial, experiment: Experiment
) -> Events[int | None]:
    """The events of a trial; returns the epoch after which successive halving stopped it."""
    setup = search.setup.at(trials.locate(held.trial.number))
    halving_epochs = 0 if "epochs" in search.over else experiment.recipe.epochs // 2
    with closing(iter_planned(experiment, setup)) as events:
        for event in events:
            yield event
            if isinstance(event, Epoch) and event.score is not None:
                trials.report(held, event.epoch, event.score.value)
                if event.epoch <= halving_epochs and trials.is_worse(held):
                    return event.epoch
    return None


def _iter_finals(search: Search, trials: Trials, expected: float) -> Events[None]:
    """Train the finals, unless another process with this folder trains them."""
    folder = trials.folder
    lock = FileLock(folder / ".finals.lock", thread_local=False)
    if not try_lock(lock):
        again = "when it has ended, run the command again for the result"
        yield Decision("finals", "another process is training them", again)
        return
    try:
        known = read_result(folder)
        if known is not None:
            yield from _repeat_result(known)
            return
        finalists = _choose_finalists(trials)
        count = count_finals(search, len(finalists))
        rivals = plural(len(finalists), "trial", "trials")
        if search.base is not None:
            rivals += " and the recipe"
        how = f"{rivals}, each with {plural(finals.SEEDS, 'new seed', 'new seeds')}"
        if search.dataset.test is not None:
            how += (
                f"; the winner is tested with {plural(finals.TESTS, 'fresh seed', 'fresh seeds')}"
            )
        yield Decision("finals", how, f"{count} runs, {format_minutes(count * expected)}")
        stored = trials.store()
        try:
            draw_study(trials, stored)
        except Exception as error:  # of Optuna, matplotlib or the disk
            yield Decision("warning", "the figures of the trials could not be drawn", str(error))
        tuned = yield from iter_finals(search, folder, stored, finalists)
        trials.save(result=tuned.to_json())
        yield tuned
    finally:
        lock.release()


def _choose_finalists(trials: Trials) -> tuple[int, ...]:
    """The numbers of the best trials; those that were chosen before, if finals have begun."""
    stored = trials.store()
    chosen = read_state(trials.folder).finalists
    if chosen is not None:
        return chosen
    ranked = rank(stored, trials.metric)
    if not ranked:
        errors = [f" The last trial {trial.error}" for trial in stored if trial.error]
        last = "".join(errors[-1:])
        raise RunError(
            "No trial has a score, so there is no result. Search other ranges, or allow more"
            f" time.{last}"
        )
    numbers = tuple(trial.trial for trial in ranked[: finals.FINALISTS])
    trials.save(finalists=numbers)
    return numbers


def draw_study(trials: Trials, stored: Sequence[Trial]) -> None:
    """Draw the trials and, if enough were trained to the end, how much each value matters."""
    from lamina.drawing.style import save_figure  # loads matplotlib
    from lamina.drawing.trial_figure import draw_importances, draw_trials

    complete = [trial for trial in stored if trial.state == "complete" and trial.error is None]
    if complete:
        save_figure(draw_trials(trials.study, trials.metric), trials.folder / FIGURE)
    if len(complete) >= LEAST_FOR_IMPORTANCES:
        save_figure(draw_importances(trials.study, trials.metric), trials.folder / IMPORTANCES)
