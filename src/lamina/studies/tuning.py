"""Tuning: search settings of a recipe or sizes of a net on ``val``, alone or with other workers."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lamina.data import Dataset, Images, load_data
from lamina.data.load import as_dataset
from lamina.errors import (
    DataError,
    LaminaWarning,
    NetError,
    RecipeError,
    RunError,
    check_type,
    plural,
)
from lamina.files import check_name, write_json
from lamina.markup import card
from lamina.nets import Net
from lamina.runs.course import RunEvent
from lamina.runs.folder import STUDY_FILE
from lamina.runs.overview import describe_recipe
from lamina.runs.progress import show_progress
from lamina.runs.start import as_net_choice, making_runs
from lamina.studies import finals
from lamina.studies.experiment import check_seconds, format_minutes, time_experiment
from lamina.studies.finals import (
    Tuned,
    count_trainings,
    iter_finals,
    plan_finals,
    rank_finalists,
    read_final,
)
from lamina.studies.search import Search
from lamina.studies.storage import JOURNAL, TrialLostError, load_study, open_storage
from lamina.studies.study import name_study, read_study
from lamina.studies.study_events import Decision, is_about_run
from lamina.studies.trials import (
    FinalsPlan,
    Limits,
    Progress,
    Trials,
    check_settings,
    list_trials,
    open_trials,
    read_progress,
    store_table,
)
from lamina.studies.tuning_worker import LOOK_SECONDS, iter_search
from lamina.text import hide_password
from lamina.training.lanes import check_alone

if TYPE_CHECKING:
    import polars

DEFAULT_TRIALS = 30
FIGURE = "trials.png"
IMPORTANCES = "importances.png"
LEAST_FOR_IMPORTANCES = 20  # finished trials


@dataclass(frozen=True)
class Study:
    """A tuning: its trials and its result.

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
        ``error`` and the values.

        Raises:
            RunError: The folder contains no study, or its database cannot be reached.
        """
        import polars

        folder = Path(self.path)
        study = load_study(open_storage(self.storage, folder), folder.name)
        rows = list_trials(read_progress(study).trials)
        for row in rows:
            row |= {
                f"{key}_value" if key in row else key: value
                for key, value in row.pop("values").items()
            }
        return polars.DataFrame(rows, infer_schema_length=None)

    def __str__(self) -> str:
        return f"{self.path}: no result yet" if self.result is None else str(self.result)

    def _repr_html_(self) -> str:
        return (
            card(f"{self.path}: no result yet")
            if self.result is None
            else self.result._repr_html_()
        )


def tune(
    net: str | Callable[[Any], Net],
    data: Dataset | Images | str | Path | None = None,
    *,
    over: Mapping[str, str] | None = None,
    net_over: Mapping[str, str] | None = None,
    recipe: str | None = None,
    given: Mapping[str, Any] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    storage: str | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    progress: bool = True,
) -> Study:
    """Search the settings of a recipe, or the sizes of a net, that score best on ``val``.

    Args:
        net: A net by name or layers, which may contain names of sizes; or a function from a trial
            of Optuna to a net.
        data: As for :func:`~lamina.train`, with a ``val`` split; of a name or a path, lamina takes
            a tenth of ``train`` as ``val`` if there is none.
        over: Ranges of settings of the recipe, such as ``{"lr": "1e-4..1e-1:log", "batch_size":
            "50,100,200"}``.
        net_over: Ranges of the sizes in ``net``, such as ``{"width": "32..256"}``.
        recipe: Name of the net's recipe; by default its first.
        given: Other settings of the recipe.
        trials: Number of trials of all workers, at least 2; by default 30.
        seconds: Time limit in place of a number of trials. At least half of it is for the search.
        storage: For workers on several machines, each of which makes this call: URL of a PostgreSQL
            database, or path of a file on a disk that they share. By default, a file in the study's
            folder, for the processes of one machine.
        name: Name of the study. By default, an interrupted study of the same search is continued.
        runs_dir: Folder of the study.
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
    for setting, text in {**(over or {}), **(net_over or {})}.items():
        check_type(
            text,
            (str,),
            f"the range of {setting}",
            'text, such as "0.01..0.1" or "50,100"',
            is_optional=False,
        )
    check_type(storage, (str,), "storage", "the URL of a database or the path of a file")
    check_type(name, (str,), "name", "text")
    check_type(recipe, (str,), "recipe", "the name of a recipe; single settings go into given")
    if isinstance(net, nn.Module):
        raise NetError(
            f"net is a module, {type(net).__name__}, which would start with the same weights in"
            " each run. Pass layers, or a function that returns a Net."
        )
    net = str(net) if isinstance(net, Net) else net
    dataset = as_dataset(data)
    if not isinstance(data, Dataset | Images):
        dataset = draw_val(dataset)
    search = Search(net, recipe, given or {}, over or {}, net_over or {}, dataset, as_net_choice)
    limits = find_limits(search, trials, seconds)
    path = Path(runs_dir) / find_name(search, name, storage, Path(runs_dir))
    events: Iterable[RunEvent] = iter_tuning(path, search, storage, limits)
    if progress:
        events = show_progress(
            (event for event in events if not is_about_run(event)), name=path.name
        )
    for _ in events:
        pass
    return Study(path, storage)


def draw_val(dataset: Dataset) -> Dataset:
    """The loaded data set, if necessary with a tenth of ``train`` as ``val``."""
    if dataset.val is not None or dataset.preparation.val_fraction is not None:
        return dataset
    if dataset.preparation.fold is not None:
        raise DataError("A fold has no val split to compare trials on. Leave out fold.")
    with warnings.catch_warnings(action="ignore", category=LaminaWarning):  # they were printed
        return load_data(dataset.source, replace(dataset.preparation, val_fraction=0.1))


def find_limits(search: Search, trials: int | None, seconds: float | None) -> Limits:
    """Check a search and its limits."""
    check_seconds(seconds)
    check_type(trials, (int,), "trials", "a whole number")
    if trials is not None and seconds is not None:
        raise RecipeError("trials and a time limit both end the search. Use only one of them.")
    if trials is not None and trials < 2:
        raise RecipeError(f"trials is {trials}; a search needs at least 2. Use 30.")
    search.check()
    if trials is None and seconds is None:
        trials = DEFAULT_TRIALS
    most = min(trials or math.inf, search.most_trials)
    return Limits(None if most == math.inf else int(most), seconds)


def find_name(search: Search, name: str | None, storage: str | None, runs_dir: Path) -> str:
    """The name of a study: the given one, or one that all workers of the search find."""
    check_name(name)
    if name is not None:
        return name
    if not callable(search.net):
        return search.name
    if storage is not None:
        raise RecipeError(
            "lamina cannot compare functions, so workers that search a function need the name of"
            ' their study. Pass name="first-try".'
        )
    return name_study(runs_dir, "tune")


def iter_tuning(
    path: Path, search: Search, storage: str | None, limits: Limits
) -> Generator[RunEvent, None, None]:
    """Search with all other workers of the study; then one of them trains the finals."""
    settings = json.loads(json.dumps(search.to_json()))
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
        _check_time(limits.seconds, expected)
    if storage is None:
        _create_folder(path, state)
    database = open_storage(storage, path)
    trials = yield from open_trials(database, path, settings, search.ranges)
    _create_folder(path, state)
    yield from trials.store("limits", asdict(limits))
    yield from decisions
    yield Decision(
        "settings", describe_recipe(example.recipe), "of the recipe, except for what is searched"
    )
    yield Decision(
        "search",
        f"{search}; {_describe_limits(search, limits, expected)}; in {path}",
        "to resume, or to help with another process, run the command again",
    )
    yield from iter_search(search, trials, expected)
    claims = yield from trials.open_claims()
    claim = yield from _claim_finals(claims)
    if claim is None:
        reason = "if it is lost, run the command again"
        yield Decision("finals", "another process trains them, or has trained them", reason)
        known = read_final(path)
        if known is not None:
            yield known
        return
    with claims.holding(claim):
        yield from _iter_finals(search, trials, expected)
        with suppress(TrialLostError):  # this process was suspended, and another has trained them
            yield from claims.finish(claim, "COMPLETE", 0.0)


def _check_folder(path: Path, state: Mapping[str, Any]) -> None:
    """Raise ``RunError`` if a folder is of another search, or has its trials elsewhere."""
    check_alone("A study")
    is_used = any(path.glob("[!.]*"))
    stored = read_study(path)  # after the look, because other workers create the folder as well
    if is_used and not stored:
        raise RunError(f"{path} exists, but is not a study. Choose another name.")
    if stored:
        check_settings(str(path), stored["settings"], state["settings"])
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


def _check_time(seconds: float | None, expected: float) -> None:
    needed = 2 * count_trainings(*finals.PLANS[-1]) * expected
    if seconds is not None and seconds < needed:
        raise RecipeError(
            f"The time limit is {seconds:.0f} s, but a training takes about {expected:.1f} s, and"
            f" the shortest search with its finals {needed:.0f} s. Use --time {math.ceil(needed)}s,"
            " fewer epochs, or a smaller net."
        )


def _describe_limits(search: Search, limits: Limits, expected: float) -> str:
    if limits.seconds is not None:
        return f"as many trials as fit into {limits.seconds:.0f} s, with finals"
    trials = limits.trials or 0
    finalists, seeds = finals.PLANS[0]
    longest = trials + count_trainings(min(finalists, trials), seeds, search.base is not None)
    of_all = ", which are all values" if trials == search.most_trials else ""
    return (
        f"{trials} trials{of_all}, then finals: at most {longest} trainings,"
        f" {format_minutes(longest * expected)}"
    )


def _claim_finals(claims: Trials) -> Generator[RunEvent, None, Any]:
    """Claim the finals; ``None`` if another process trains them, or has done so."""
    first = yield from claims.find_claim()
    sign = None if first is None else first.user_attrs.get("seen")
    while True:
        yield from claims.recover()
        other = yield from claims.find_claim()
        if other is None:
            claim = yield from claims.take({})
            before = yield from claims.find_claim()
            if before.number == claim.number:
                return claim
            yield from claims.withdraw(claim)
            return None
        is_alive = (
            first is None or other.number != first.number or other.user_attrs.get("seen") != sign
        )
        if is_alive or other.state.name == "COMPLETE":
            return None
        time.sleep(LOOK_SECONDS)


def _iter_finals(
    search: Search, trials: Trials, expected: float
) -> Generator[RunEvent, None, None]:
    """Train the finals as they are planned, or as many as fit into the time left."""
    progress = yield from trials.load()
    expected = progress.measure(expected)
    plan = progress.finals
    if plan is None:
        ranked = rank_finalists(progress)
        seconds = progress.limits.seconds
        left = None if seconds is None else seconds - progress.used_seconds
        count, seeds = plan_finals(expected, left)
        plan = FinalsPlan(tuple(ranked), min(count, len(ranked)), seeds)
        yield from trials.store("finals", asdict(plan))
    longest = count_trainings(plan.count, plan.seeds, search.base is not None)
    rivals = plural(plan.count, "trial", "trials")
    if search.base is not None:
        rivals += " and the recipe"
    yield Decision(
        "finals",
        f"{rivals}, each with {plan.seeds} new seeds",
        f"at most {longest} trainings, {format_minutes(longest * expected)}",
    )
    store_table(trials.folder, progress)
    try:
        draw_study(trials.study, progress, trials.folder)
    except Exception as error:  # of Optuna, matplotlib or the disk
        yield Decision("warning", "the figures of the trials could not be drawn", str(error))
    yield from iter_finals(search, trials.folder, progress, plan)


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


def find_progress(path: Path) -> Progress:
    """The trials of a study, in its folder or in its storage."""
    place = read_study(path).get("storage")
    if place is not None:
        place = place.replace(":***@", "@")  # the password is in ~/.pgpass
    return read_progress(load_study(open_storage(place, path), path.name))
