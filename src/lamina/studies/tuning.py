"""Tuning: search settings of a recipe or sizes of a net on ``val``, alone or with other workers."""

from __future__ import annotations

import math
import secrets
import shlex
import statistics
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lamina.data import Dataset, Images, Preparation, load_data
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
from lamina.studies.search import Search, Tried, iter_search
from lamina.studies.study import name_study, open_study, read_study
from lamina.studies.study_events import Decision, FinalsDecision, is_about_run
from lamina.studies.trials import (
    DATABASE,
    Trials,
    connect,
    create_study,
    list_trials,
    open_trials,
    wait,
)
from lamina.text import hide_password

if TYPE_CHECKING:
    import polars

DEFAULT_TRIALS = 30
FIGURE, IMPORTANCES, TABLE = "trials.png", "importances.png", "trials.json"
LEAST_FOR_IMPORTANCES = 20  # finished trials


@dataclass(frozen=True)
class Study:
    """A tuning: its trials and its result.

    Attributes:
        path: Folder of the study.
        storage: URL of its database; ``None`` for SQLite in the folder.
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

        folder = Path(self.path).resolve()
        if self.storage is None:
            trials = find_trials(str(folder), folder.parent)
        else:
            trials = open_trials(connect(self.storage, folder), folder.name, folder.parent)
        rows = list_trials(trials)
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
        storage: URL of a PostgreSQL database that several machines share; by default SQLite in the
            study's folder.
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
    check_type(storage, (str,), "storage", "the URL of a database")
    check_type(name, (str,), "name", "text")
    check_type(recipe, (str,), "recipe", "the name of a recipe; single settings go into given")
    if isinstance(net, nn.Module):
        raise NetError(
            f"net is a module, {type(net).__name__}, which would start with the same weights in"
            " each run. Pass layers, or a function that returns a Net."
        )
    net = str(net) if isinstance(net, Net) else net
    dataset = as_dataset(data) if isinstance(data, Dataset | Images) else draw_val(as_dataset(data))
    search = Search(net, recipe, given or {}, over or {}, net_over or {}, dataset, as_net_choice)
    path = plan_tuning(search, Path(runs_dir), name, trials, seconds)
    events = iter_tuning(path, search, storage, trials, seconds)
    shown = (event for event in events if not is_about_run(event))
    for _ in show_progress(shown, name=path.name) if progress else events:
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


def plan_tuning(
    search: Search, runs_dir: Path, name: str | None, trials: int | None, seconds: float | None
) -> Path:
    """Check the arguments of a tuning; returns its folder."""
    check_name(name)
    check_seconds(seconds)
    check_type(trials, (int,), "trials", "a whole number")
    if trials is not None and seconds is not None:
        raise RecipeError("trials and a time limit both end the search. Use only one of them.")
    if trials is not None and trials < 2:
        raise RecipeError(f"trials is {trials}; a search needs at least 2. Use 30.")
    search.check()
    return runs_dir / (
        name or name_study(runs_dir, "tune", None if callable(search.net) else search.to_json())
    )


def iter_tuning(
    path: Path, search: Search, storage: str | None, most: int | None, seconds: float | None
) -> Generator[RunEvent, None, None]:
    """Lead a study: search with all workers, then retrain the best and evaluate it once."""
    settings = search.to_json()
    limit = min(most or (DEFAULT_TRIALS if seconds is None else math.inf), search.most_trials)
    if (known := read_final(path)) is not None:
        with open_study(path, settings) as study:
            state = study.state
            if seconds is None and limit > (state.get("limit") or known.trials):
                raise RunError(
                    f"{path} has ended with {known.trials} trials, not {limit}. Choose another"
                    " name."
                )
        yield known
        return
    example, decisions = search.example
    expected = time_experiment(example)
    needed = 2 * count_trainings(*finals.PLANS[-1]) * expected
    if seconds is not None and seconds < needed and not (path / STUDY_FILE).exists():
        raise RecipeError(
            f"The time limit is {seconds:.0f} s, but a training takes about {expected:.1f} s, and"
            f" the shortest search with its finals {needed:.0f} s. Use --time {math.ceil(needed)}s,"
            " fewer epochs, or a smaller net."
        )
    # fails before the folder is created
    database = None if storage is None else connect(storage, path)
    place = None if storage is None else hide_password(storage)
    with open_study(path, settings) as study:
        state = study.state
        if state.setdefault("storage", place) != place:
            known = state["storage"]
            how = f"Use --storage {known}" if known else "Leave out --storage"
            raise RunError(
                f"{path} has its trials in {known or DATABASE}. {how}, or choose another name."
            )
        if "joined" in state:
            raise RunError(
                f"{path} has trials of a study that another folder leads. Join it, or choose"
                " another name."
            )
        leader = state.setdefault("leader", secrets.token_hex(8))
        study.save()
        database = database or connect(None, path)
        yield from wait(lambda: create_study(database, path.name, settings, leader))
        trials = yield from wait(lambda: open_trials(database, path.name, path.parent))
        if "finals" not in (yield from wait(lambda: trials.study.user_attrs)):
            study.save(limit=None if seconds is not None else limit)
        elif seconds is None and limit > (
            ended := state.get("limit") or len((yield from wait(trials.read)))
        ):
            raise RunError(
                f"The search of {path} has ended with {ended} trials, not {limit}. Use --trials"
                f" {ended}."
            )
        best, seeds = finals.PLANS[0]
        longest = limit + count_trainings(min(best, limit), seeds, search.base is not None)
        every = ", which are all values" if limit == search.most_trials else ""
        how = (
            f"{limit} trials{every}, then finals: at most {longest} trainings,"
            f" {format_minutes(longest * expected)}"
        )
        how = how if seconds is None else f"as many trials as fit into {seconds:.0f} s, with finals"
        yield from decisions
        yield Decision(
            "settings",
            describe_recipe(example.recipe),
            "of the recipe, except for what is searched",
        )
        yield Decision("search", f"{search}; {how}; in {path}", "to resume, run the command again")
        hint = "with its password; " if place != storage else ""
        where = f"{hint}{'on other machines, or ' if storage else ''}for other cores"
        yield Decision("join", f"lamina tune --join {place or shlex.quote(str(path))}", where)
        yield from _lead(
            search, trials, None if limit == math.inf else int(limit), seconds, expected
        )


def _lead(
    search: Search, trials: Trials, most: int | None, seconds: float | None, expected: float
) -> Generator[RunEvent, None, None]:
    """Search until the limit, draw the trials, and train the finals."""
    stored = yield from wait(lambda: trials.study.user_attrs)
    began = time.time() - stored.get("used_seconds", 0.0)
    if "finals" in stored:  # they were interrupted
        ranked, count, seeds = stored["finals"]
    else:
        yield from _lead_search(search, trials, most, seconds, expected, began)
        ranked = yield from wait(lambda: rank_finalists(trials))
        expected = yield from wait(lambda: _measure(trials, expected))
        count, seeds = plan_finals(
            expected, None if seconds is None else began + seconds - time.time()
        )
        count = min(count, len(ranked))
        yield from wait(lambda: trials.study.set_user_attr("finals", [ranked, count, seeds]))
    longest = count_trainings(count, seeds, search.base is not None)
    how = f"at most {longest} trainings, {format_minutes(longest * expected)}"
    rivals = plural(count, "trial", "trials") + (
        " and the recipe" if search.base is not None else ""
    )
    yield FinalsDecision("finals", f"{rivals}, each with {seeds} new seeds", how)
    yield from wait(lambda: store_table(trials))
    try:
        yield from wait(lambda: draw_study(trials))
    except Exception as error:  # of Optuna, matplotlib or the disk
        yield Decision("warning", "the figures of the trials could not be drawn", str(error))
    yield from iter_finals(search, trials, ranked, count, seeds)


def _lead_search(
    search: Search,
    trials: Trials,
    most: int | None,
    seconds: float | None,
    expected: float,
    began: float,
) -> Generator[RunEvent, None, None]:
    """Search until the limits, which all workers read and which follow the trials' times."""

    def limit() -> None:
        until, each = None, _measure(trials, expected)
        if seconds is not None:  # a trial that begins later would end in the time of the finals
            kept = (
                min(seconds / 2, count_trainings(*finals.PLANS[0]) * each) if each else seconds / 2
            )
            until = began + seconds - kept - each
        trials.study.set_user_attr("limits", {"trials": most, "until": until})
        trials.study.set_user_attr("used_seconds", time.time() - began)
        store_table(trials)

    yield from wait(limit)
    with trials.timing(began):
        for event in iter_search(search, trials, is_leader=True):
            yield event
            if isinstance(event, Tried):
                yield from wait(limit)


def _measure(trials: Trials, expected: float) -> float:
    """The median seconds of the trials that were trained to the end."""
    took = [one.duration.total_seconds() for one in trials.rank("COMPLETE")]
    return statistics.median(took) if took else expected


def store_table(trials: Trials) -> None:
    """Store the trials as a table, which the report page shows."""
    with suppress(OSError):  # a full disk
        write_json(trials.folder / TABLE, {"trials": list_trials(trials)})


def draw_study(trials: Trials) -> None:
    """Draw the trials and, if enough were trained to the end, how much each value matters."""
    from lamina.drawing.style import save_figure  # loads matplotlib
    from lamina.drawing.trial_figure import draw_importances, draw_trials

    finished = len(trials.rank("COMPLETE"))
    metric = trials.settings["metric"]
    if finished:
        save_figure(draw_trials(trials.study, metric), trials.folder / FIGURE)
    if finished >= LEAST_FOR_IMPORTANCES:
        save_figure(draw_importances(trials.study, metric), trials.folder / IMPORTANCES)


def iter_joined(
    trials: Trials,
    data: str | None,
    choose: Callable[[Any], Any],
    given: Mapping[str, Any],
    command: Sequence[str],
) -> Generator[RunEvent, None, None]:
    """Train trials of a study that another process leads; ``given`` may name another device."""
    settings = trials.settings
    source = data or settings["data"]
    if settings["net"] is None or not source:
        raise RunError(
            "The leader searches a Python function or uses arrays in memory, so other processes"
            " cannot join. Let it use layers with names of sizes, and a path of images."
        )
    dataset = load_data(source, Preparation(**settings["preparation"]))
    if dataset.fingerprint != settings["fingerprint"]:
        raise RunError(
            f"{source} has other images than the study (fingerprint {dataset.fingerprint}, not "
            f"{settings['fingerprint']}). Pass the same images with --data."
        )
    net, recipe, shared, over, net_over = (
        settings[key] for key in ("net", "recipe", "given", "over", "net_over")
    )
    search = Search(net, recipe, shared | given, over, net_over, dataset, choose, command)
    if search.to_json()["file"] != settings["file"]:
        raise RunError(f"{net} differs from the file that the leader uses. Copy it from there.")
    leader = (yield from wait(lambda: trials.study.user_attrs))["leader"]
    with making_runs(trials.folder.parent):
        trials.folder.mkdir(parents=True, exist_ok=True)
    known = read_study(trials.folder)
    if known and (
        known["settings"] != settings or leader not in (known.get("leader"), known.get("joined"))
    ):
        raise RunError(
            f"{trials.folder} contains another study. Choose another folder for runs with"
            " --runs-dir."
        )
    if not known:  # study.json also says that the runs are trials, which do not read test
        write_json(trials.folder / STUDY_FILE, {"settings": settings, "joined": leader})
    yield Decision("study", f"{trials.study.study_name}: {search}; in {trials.folder}")
    yield from iter_search(search, trials)
    yield Decision("ended", "the search", "the process that leads it trains the finals")


def find_trials(text: str, runs_dir: Path) -> Trials:
    """The trials of a study, by the URL of its database (``URL#NAME``), its folder or its name."""
    if "://" in text:
        name: str | None = None
        if "#" in text.rpartition("/")[2]:  # one before that is a part of a password
            text, _, name = text.rpartition("#")
        return open_trials(connect(text, runs_dir), name, runs_dir)
    for path in (Path(text), runs_dir / text):
        if (path / DATABASE).exists():
            path = path.resolve()
            return open_trials(connect(None, path), path.name, path.parent)
        if (path / STUDY_FILE).exists():
            raise RunError(
                f"{path} contains no trials. If they are in another database, pass its URL,"
                " postgresql://…."
            )
    raise RunError(f"There is no study {text}. Pass its folder, or the URL of its database.")
