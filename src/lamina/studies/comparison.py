"""Studies: train experiments with shared seeds, and compare each with the last."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset
from lamina.errors import DataError, NetError, NotFiniteError, RecipeError, RunError, check_type
from lamina.evaluation.intervals import ALPHA
from lamina.evaluation.paired import LOOKS, check_comparable
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.files import check_name
from lamina.nets import Net
from lamina.runs.course import RunEvent
from lamina.runs.folder import STUDY_FILE
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.progress import show_progress
from lamina.runs.resuming import find_dataset
from lamina.runs.run import Run
from lamina.runs.start import NetLike, as_net_choice
from lamina.studies.experiment import Experiment, check_seconds, format_minutes, time_experiment
from lamina.studies.judging import compare_stored, count_seconds, judge_runs
from lamina.studies.seeds import choose_repeatable
from lamina.studies.setup import RunSetup
from lamina.studies.study import (
    describe_experiments,
    find_experiment,
    find_run_or_net,
    iter_runs,
    locate_run,
    name_study,
    open_study,
    parse_event,
    read_study,
)
from lamina.studies.study_events import Decision, is_about_run
from lamina.training.device import choose_device

FIGURE = "differences.png"


@dataclass(frozen=True)
class Plan:
    """When a study ends: after some seeds, before some seconds, or as soon as it is decided."""

    seeds: int | None = None
    seconds: float | None = None
    margin: float | None = None  # of the verdicts

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seconds is not None:
            raise RecipeError(
                "Seeds and a time limit both set the number of trainings. Use only one of --seeds"
                " and --time (in Python, seeds and seconds)."
            )
        check_seconds(self.seconds)
        if self.margin is not None and not 0 < self.margin < float("inf"):
            raise RecipeError(
                f"margin is {self.margin}; it must be positive. Use 0.005 for half a percentage"
                " point."
            )

    @property
    def is_sequential(self) -> bool:
        return self.seeds is None and self.seconds is None


def check_pairs(seeds: int | None) -> None:
    """Raise ``RecipeError`` if so many pairs cannot be compared."""
    check_type(seeds, (int,), "seeds", "a whole number")
    if seeds is not None and seeds < 2:
        raise RecipeError(
            f"seeds is {seeds}; a comparison needs at least 2, because one seed does not show how"
            " much seeds differ. Use --seeds 4 (in Python, seeds=4)."
        )


def compare(
    a: NetLike | Path | Run,
    b: NetLike | Path | Run,
    data: Dataset | Images | str | Path | None = None,
    *,
    a_given: Mapping[str, Any] | None = None,
    b_given: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    seconds: float | None = None,
    margin: float | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    progress: bool = True,
) -> PairedComparison:
    """Train pairs of runs of A and B that share their seeds, and compare them.

    Two runs are compared by their stored predictions, unless other settings are given. The study is
    a folder in ``runs_dir`` with the runs and the figure ``differences.png``.

    Args:
        a: A net by name, with a recipe after a colon if it is not the first (``"cnn:best"``), by
            layers, as a value, or a function without arguments that makes your own module, called
            for each seed; or a run or its path, whose net and recipe are trained with other seeds.
        b: The reference, as ``a``.
        data: As for :func:`~lamina.train`; by default the data of a run, or CIFAR-10.
        a_given: Settings of A's recipe, such as ``{"lr": 0.01}``.
        b_given: Settings of B's recipe.
        seeds: Number of pairs, at least 2; by default 4, 8 or 16, until there is a verdict. With
            two runs and no other settings, none is trained: their stored predictions are compared.
        seconds: Time limit in place of a number of pairs.
        margin: Smallest difference that matters, by default 0.005 (half a point); for regression,
            in the unit of the numbers, by default 1 % of B's error.
        name: Name of the study. By default, an interrupted study of the same experiments is
            continued.
        runs_dir: Folder of the study and of runs by name.
        progress: Print a line for each run, and show a progress bar.

    Returns:
        The comparison; ``print`` it. Differences are positive if A is better.

    Raises:
        LaminaError: An argument is invalid, A and B are the same, or any error of
            :func:`~lamina.train`.

    Source: Searle et al., Variance Components, 1992, chapter 4 (seeds and images); McNemar,
    Psychometrika 12, 1947 (two runs).

    >>> import tempfile
    >>> from lamina import compare
    >>> found = compare("Flatten(), Output()", "Flatten(), Linear(4), Output()", "shapes",
    ...     a_given={"epochs": 1}, b_given={"epochs": 1}, seeds=2,
    ...     runs_dir=tempfile.mkdtemp(), progress=False)
    >>> found.seeds, found.images
    (2, 2000)
    """
    for given in (a_given, b_given):
        check_type(given, (Mapping,), "a_given or b_given", 'a dictionary, such as {"lr": 0.01}')
    check_type(name, (str,), "name", "text")
    check_pairs(seeds)
    runs_dir, plan = Path(runs_dir), Plan(seeds, seconds, margin)
    sources = [_find_source(source, runs_dir) for source in (a, b)]
    runs = [one for one in sources if isinstance(one, Run)]
    if len(runs) == 2 and not (seeds or seconds or a_given or b_given):
        if data is not None or name is not None:
            raise RunError(
                "Two runs are compared by their stored predictions. Leave out data and name."
            )
        return compare_stored(runs, margin)
    dataset = find_dataset(runs[0], data) if runs else as_dataset(data)
    settings = (a_given or {}, b_given or {})
    found = [
        find_experiment(one, dataset, each, as_net_choice)
        for one, each in zip(sources, settings, strict=True)
    ]
    if found[0][0] == found[1][0] and any(callable(source) for source in (a, b)):
        raise NetError(
            f"A and B are both called {found[0][0]}. Use functions with different names, or change"
            " the recipe of B, as in b_given={'lr': 0.03}."
        )
    path, experiments = plan_study(
        runs_dir, name, [(title, experiment) for title, experiment, _ in found]
    )
    decisions = [Decision(title, str(one)) for title, _, made in found for one in made]
    events = itertools.chain(decisions, iter_comparisons(path, experiments, plan))
    for _ in (
        show_progress(itertools.filterfalse(is_about_run, events), name=path.name)
        if progress
        else events
    ):
        pass
    return read_comparisons(path)[0]


def _find_source(source: NetLike | Path | Run, runs_dir: Path) -> Run | str | NetChoice:
    if isinstance(source, Run):
        return source
    if isinstance(source, str | Path) or (isinstance(source, Net) and not source.own_layers):
        return find_run_or_net(str(source), runs_dir)
    return choose_repeatable(source)


def plan_study(
    runs_dir: Path, name: str | None, named: Sequence[tuple[str, Experiment]]
) -> tuple[Path, dict[str, Experiment]]:
    """The folder of a study, and its experiments by name; ``RunError`` if two are the same."""
    check_name(name)
    for (one, first), (other, second) in itertools.combinations(named, 2):
        if one == other or (first.net.net, first.recipe) == (second.net.net, second.recipe):
            raise RunError(
                f"{one} and {other} are the same net with the same recipe. Change the recipe of B,"
                " as in --b-lr 0.03 (in Python, b_given={'lr': 0.03}). To compare a net with"
                " itself with other seeds, use --b-seed 1000."
            )
    dataset = named[0][1].dataset
    if dataset.val is None and dataset.test is None:
        raise DataError(
            f"{dataset.name} has no val or test split to compare on. Draw one with --val 0.1."
        )
    metrics = {each: one.recipe.find_metric(one.dataset.train.kind) for each, one in named}
    for metric in metrics.values():
        check_comparable(metric, dataset.train.kind)
    if len(set(metrics.values())) > 1:
        scored = ", ".join(f"{each} by {metric}" for each, metric in metrics.items())
        raise RecipeError(
            f"The scores differ: {scored}. Set metric to the same value in all recipes."
        )
    experiments = dict(named)
    return (
        runs_dir / (name or name_study(runs_dir, "study", describe_experiments(experiments))),
        experiments,
    )


def iter_comparisons(
    path: Path,
    experiments: Mapping[str, Experiment],
    plan: Plan,
    command: Sequence[str] = (),
) -> Generator[RunEvent, None, None]:
    """Train experiments with shared seeds in the study ``path``, and compare each with the last.

    The last experiment is the reference. Yields the comparisons at each look but the last;
    :func:`read_comparisons` returns the last.
    """
    began, last = time.perf_counter(), max(LOOKS) if plan.is_sequential else plan.seeds
    for experiment in experiments.values():
        choose_device(experiment.recipe.device)  # fails before the folder is created
    with open_study(path, describe_experiments(experiments)) as study:
        state = study.state
        looks, known_plan, diverged = (
            state.get("looks", []),
            state.get("plan", {}),
            state.get("diverged", []),
        )
        if known_plan == asdict(plan) and state["is_finished"]:
            yield Decision("study", str(path), "its result")
            return
        slowest = yield from _announce(path, experiments, plan)
        if looks and known_plan | {"margin": None} != asdict(replace(plan, margin=None)):
            known = f"a result with {', '.join(map(str, looks))} seeds is known"
            yield Decision("warning", known, "choose the number of seeds beforehand")
        runs: dict[str, list[Run]] = {name: [] for name in experiments if name not in diverged}
        for count in itertools.count(1):
            seed_began = time.perf_counter()
            goal = (
                next((look for look in LOOKS if look >= count), last)
                if plan.is_sequential
                else last
            )
            yield from _train_seed(path, experiments, runs, count - 1, goal, command)
            state["diverged"] = [name for name in experiments if name not in runs]
            slowest = max(slowest, time.perf_counter() - seed_began)
            is_last = count == last
            if last is None and plan.seconds is not None and count >= 2:
                is_last = time.perf_counter() - began + slowest > plan.seconds
            if not is_last and not (plan.is_sequential and count in LOOKS):
                continue
            judged = judge_runs(runs, plan.margin, LOOKS[count] if plan.is_sequential else ALPHA)
            is_last = is_last or all(one.verdict != "undecided" or one.is_limited for one in judged)
            looks = sorted({*looks, count})
            results = [one.to_json() for one in judged]
            # before anybody sees the result
            study.save(plan=asdict(plan), is_finished=is_last, looks=looks, results=results)
            _draw(judged, path / FIGURE)
            if is_last:
                return
            yield from judged


def _draw(judged: Sequence[PairedComparison], file: Path) -> None:
    from lamina.drawing.difference_figure import draw_differences  # loads matplotlib
    from lamina.drawing.style import save_figure

    save_figure(draw_differences(judged), file)


def read_comparisons(path: Path) -> list[PairedComparison]:
    """The results of a study."""
    return [
        parse_event(PairedComparison, one, path / STUDY_FILE)
        for one in read_study(path).get("results", [])
    ]


def _announce(
    path: Path, experiments: Mapping[str, Experiment], plan: Plan
) -> Generator[Decision, None, float]:
    """The plan with its time; returns the estimated time of one seed."""
    each = {name: time_experiment(one) for name, one in experiments.items()}
    one_seed, begun = sum(each.values()), len(list(path.glob("*-seed*"))) / len(experiments)
    if plan.seconds is not None:
        text = f"as many seeds as fit into {plan.seconds:.0f} s, at least 2"
    else:
        counts = [plan.seeds] if plan.seeds else [min(LOOKS), max(LOOKS)]
        minutes = " to ".join(f"{one_seed * max(0.0, count - begun) / 60:.1f}" for count in counts)
        text = (
            f"{f'{plan.seeds} seeds' if plan.seeds else '4, 8 or 16 seeds, until decided'}: about"
            f" {minutes} min"
        )
    parts = " + ".join(f"{took:.0f} s ({name})" for name, took in each.items())
    yield Decision(
        "plan", f"{text}; one seed: {parts}; in {path}", "to resume, run the command again"
    )
    return one_seed


def _train_seed(
    path: Path,
    experiments: Mapping[str, Experiment],
    runs: dict[str, list[Run]],
    place: int,
    seeds_planned: int | None,
    command: Sequence[str],
) -> Generator[RunEvent, None, None]:
    """Add a run with the next seed to each experiment; drop an experiment if its run diverges."""
    *_, reference = runs
    for name in list(runs):
        folder, recipe = locate_run(path, list(experiments), name, place), experiments[name].recipe
        seed = recipe.seed + place
        seeded = replace(experiments[name], recipe=replace(recipe, seed=seed))
        try:
            setup = RunSetup(command=tuple(command))
            (run,) = yield from iter_runs(path, [(folder.name, seeded)], setup)
            runs[name].append(run)
            done = [one for each in runs.values() for one in each]
            yield _describe_progress(name, run, done, seeds_planned and seeds_planned * len(runs))
        except NotFiniteError as error:
            if name == reference or len(runs) == 2:
                raise RunError(
                    f"{name} diverged with seed {seed}, so there is nothing to compare: {error}"
                ) from error
            yield Decision("warning", f"{name} diverged with seed {seed}", str(error))
            del runs[name]


def _describe_progress(name: str, run: Run, done: Sequence[Run], planned: int | None) -> Decision:
    """The score of a run, and about how long the rest of those planned takes."""
    progress = f"{len(done)} of {planned}" if planned else f"{len(done)} so far"
    if planned and len(done) < planned:
        seconds = statistics.fmean(count_seconds(one) for one in done)
        progress += f", {format_minutes(seconds * (planned - len(done)))} left"
    score = "" if run.report is None else f": {run.report.split} {run.report.score}"
    return Decision("trained", f"{name}, seed {run.record.recipe.seed}{score}", progress)
