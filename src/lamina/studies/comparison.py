"""Studies: train experiments with shared seeds, and compare each with the last."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset
from lamina.errors import (
    DataError,
    NotFiniteError,
    RecipeError,
    RunError,
    check_type,
    plural,
)
from lamina.evaluation.difference_sketch import sketch_differences
from lamina.evaluation.paired import LOOKS, check_comparable
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.files import check_name, write_atomically
from lamina.runs.folder import STUDY_FILE
from lamina.runs.record import OwnModule
from lamina.runs.run import Run, find_dataset, load_run
from lamina.runs.start import NetChoice, as_net_choice, shorten_net_name
from lamina.studies.experiment import (
    RESERVE,
    TRAINING,
    Decision,
    Events,
    Experiment,
    check_seconds,
    format_minutes,
    time_experiment,
)
from lamina.studies.experiment_text import Source, SourceLike, find_source, make_experiment
from lamina.studies.forks import Jobs, Planned, check_jobs
from lamina.studies.judging import (
    check_seeds,
    compare_stored,
    judge_folds,
    judge_runs,
    mean_seconds,
)
from lamina.studies.pairing import ALL_IMAGES, Pairing
from lamina.studies.study import (
    OpenStudy,
    RunSetup,
    describe_experiments,
    follow_study,
    name_study,
    open_study,
    parse_event,
    read_study,
)
from lamina.training.device import choose_device
from lamina.training.threads import computing_with

FIGURE = "differences.svg"
LONGEST_FOLDER = 40  # characters of an experiment's name in the name of a run


@dataclass(frozen=True)
class Plan:
    """When a study ends: after some seeds, at a time limit, or as soon as there is a verdict.

    With folds, it ends after some seeds, by default one, on each fold.
    """

    seeds: int | None = None
    seconds: float | None = None
    margin: float | None = None  # of the verdicts
    pairing: Pairing = ALL_IMAGES

    def __post_init__(self) -> None:
        check_type(self.seeds, (int,), "seeds", "a whole number")
        check_type(self.margin, (Real,), "margin", "a number, such as 0.005")
        check_seconds(self.seconds)
        if self.seeds is not None and self.seeds < 1:
            raise RecipeError(f"seeds is {self.seeds}; it must be at least 1.", "Use seeds=4.")
        if self.pairing.folds is not None and self.seconds is not None:
            raise RecipeError(
                "A study on folds has no time limit.", "Use --seeds (in Python, seeds)."
            )
        if self.seeds is not None and self.seconds is not None:
            raise RecipeError(
                "Seeds and a time limit both set the number of runs. Use only one of --seeds"
                " and --time (in Python, seeds and seconds)."
            )
        if self.margin is not None and not 0 < self.margin < float("inf"):
            raise RecipeError(
                f"margin is {self.margin}; it must be positive. Use 0.005 for half a percentage"
                " point."
            )

    @property
    def is_sequential(self) -> bool:
        return self.pairs is None and self.seconds is None

    @property
    def least_pairs(self) -> int:
        """The number of pairs that are trained in any case."""
        return self.pairs or (min(LOOKS) if self.seconds is None else 2)

    @property
    def pairs(self) -> int | None:
        """The number of pairs of runs, if it is known."""
        folds = self.pairing.folds
        if folds is None:
            return self.seeds
        return folds if self.seeds is None else folds * self.seeds

    @property
    def goals(self) -> Iterable[int]:
        """The numbers of pairs after which the study may end."""
        return LOOKS if self.pairs is None else [self.pairs]

    def describe(self) -> dict[str, Any]:
        """The settings of a study."""
        settings = {"seeds": self.seeds, "seconds": self.seconds, "margin": self.margin}
        return settings | self.pairing.describe()

    def __str__(self) -> str:
        if self.is_sequential:
            return "4, 8 or 16 seeds, until decided"
        text = plural(self.seeds or 1, "seed", "seeds")
        folds = self.pairing.folds
        return text if folds is None else f"{text} on each of {folds} folds"


@dataclass(frozen=True)
class PlannedStudy:
    """The folder of a study, and its experiments by name, each compared with the last."""

    path: Path
    experiments: Mapping[str, Experiment]
    plan: Plan
    settings: Mapping[str, Any]  # that ``study.json`` stores

    def locate_run(self, name: str, pair: int) -> Path:
        """The folder of a run, from the number of its pair, 0 for the first."""
        number = list(self.experiments).index(name) + 1
        place = self.plan.pairing.name_pair(pair)
        return self.path / f"{number}-{shorten_net_name(name)[:LONGEST_FOLDER]}-{place}"

    def list_runs(self, names: Iterable[str], pairs: range) -> list[Planned]:
        """The runs of several pairs, in training order."""
        listed = []
        for pair in pairs:
            for name in names:
                draw = partial(self.plan.pairing.draw, self.experiments[name], pair)
                listed.append(Planned(self.locate_run(name, pair), draw))
        return listed


def check_pairs(plan: Plan) -> None:
    """Raise ``RecipeError`` if there are too few pairs to compare."""
    if plan.pairs is not None and plan.pairs < 2:
        raise RecipeError(
            f"seeds is {plan.pairs}; a comparison needs at least 2, because one seed does not show"
            " how much seeds differ. Use --seeds 4 (in Python, seeds=4)."
        )


def compare(
    a: SourceLike,
    b: SourceLike,
    data: Dataset | Images | str | Path | None = None,
    *,
    seeds: int | None = None,
    seconds: float | None = None,
    margin: float | None = None,
    folds: int | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    jobs: int | None = None,
    progress: bool = True,
) -> PairedComparison:
    """Train pairs of runs of A and B that share their seeds, and compare them.

    Two runs are compared by their stored predictions, unless other settings are given. The study is
    a folder in ``runs_dir`` with the runs and the figure ``differences.svg``.

    Args:
        a: A net or a run as text. The name of a recipe, by default the net's first, follows after a
            colon, and settings of the recipe after commas: ``"cnn:best,lr=0.01"``,
            ``"Flatten(), Output(),epochs=5"``, ``"runs/first,lr=0.01"``. Or a
            :class:`~lamina.Net`, or a function without arguments that creates your own module,
            called for each seed; or a run, whose net and recipe are trained with other seeds. Or a
            :class:`~lamina.Variant` of these, with a name, a recipe and your own functions.
        b: The reference, in the same forms as ``a``.
        data: As for :func:`~lamina.train`; by default the data of a run, or CIFAR-10.
        seeds: Number of pairs, at least 2; by default 4, 8 or 16, until there is a verdict. With
            two runs and no other settings, none is trained: their stored predictions are compared.
        seconds: Time limit in place of a number of pairs: before the first run, lamina measures how
            many pairs fit, at least 2.
        margin: Largest difference that counts as equal, by default 0.005 (half a point); for
            regression, in the unit of the numbers, by default 1 % of B's error.
        folds: Number of parts to divide ``train`` and ``val`` into, for small data sets. Each pair
            is trained on all parts but one and scored on that part, so that all images are scored.
            ``seeds`` is then the number of pairs on each fold, by default 1.
        name: Name of the study. By default, it follows from the settings, so that the same call
            continues the study; with your own functions or modules, the study is new.
        runs_dir: Folder of the study, and of runs given by name.
        jobs: As for :func:`~lamina.studies.seeds.iter_seeds`.
        progress: Print a line for each run, and show a progress bar.

    Returns:
        The comparison; ``print`` it. Differences are positive if A is better.

    Raises:
        LaminaError: An argument is invalid, A and B are the same, or any error of
            :func:`~lamina.train`.

    Source: Searle et al., Variance Components, 1992, chapter 4 (seeds and images); Nadeau and
    Bengio, Machine Learning 52, 2003 (folds).

    >>> import tempfile
    >>> from lamina import compare
    >>> comparison = compare("Flatten(), Output(),epochs=1", "mlp,epochs=1", "shapes", seeds=2,
    ...     runs_dir=tempfile.mkdtemp(), progress=False)
    >>> comparison.seeds, comparison.images
    (2, 2000)
    """
    plan = Plan(seeds, seconds, margin, Pairing(folds))
    check_pairs(plan)
    check_jobs(jobs)
    folder = Path(runs_dir)
    sources = [find_source(source, folder) for source in (a, b)]
    if are_stored(sources, plan):
        if data is not None or name is not None:
            raise RunError(
                "Two runs are compared by their stored predictions. Leave out data and name."
            )
        return compare_stored(list_runs(sources), margin)
    dataset = load_study_data(sources, data)
    named, decisions = make_experiments(sources, dataset, as_net_choice)
    study = plan_study(folder, name, named, plan)
    train_study(study, decisions, jobs, progress)
    return read_comparisons(study.path)[0]


def load_study_data(
    sources: Sequence[Source], data: Dataset | Images | str | Path | None
) -> Dataset:
    """The data of the first run among the sources, or ``data``."""
    runs = list_runs(sources)
    return find_dataset(runs[0], data) if runs else as_dataset(data)


def train_study(
    study: PlannedStudy, decisions: Iterable[Decision], jobs: int | None, progress: bool
) -> None:
    """Train a study after these decisions; with ``progress``, print what it does."""
    events = itertools.chain(decisions, iter_comparisons(study, RunSetup(jobs=jobs)))
    follow_study(events, progress)


def are_stored(sources: Sequence[Source], plan: Plan) -> bool:
    """Whether all sources are runs whose predictions are known, and no new pairs are planned."""
    if not plan.is_sequential or plan.pairing != ALL_IMAGES:
        return False
    return all(isinstance(source.origin, Run) and not source.is_changed for source in sources)


def list_runs(sources: Sequence[Source]) -> list[Run]:
    """The runs among the sources."""
    return [source.origin for source in sources if isinstance(source.origin, Run)]


def make_experiments(
    sources: Sequence[Source], dataset: Dataset, choose: Callable[[str], NetChoice]
) -> tuple[list[tuple[str, Experiment]], list[Decision]]:
    """The experiments by name, and how their recipes were fitted to the images."""
    named = []
    decisions = []
    for source in sources:
        experiment, fitted = make_experiment(source, dataset, choose)
        named.append((source.title, experiment))
        decisions += [Decision(source.title, str(decision)) for decision in fitted]
    return named, decisions


def plan_study(
    runs_dir: Path, name: str | None, named: Sequence[tuple[str, Experiment]], plan: Plan
) -> PlannedStudy:
    """The study of these experiments; ``LaminaError`` if they cannot be compared."""
    check_name(name)
    for first, second in itertools.combinations(named, 2):
        _check_different(first, second)
    experiments = dict(named)
    dataset = named[0][1].dataset
    plan.pairing.draw(named[0][1], 0)  # fails before a run
    if plan.pairing.folds is None and dataset.val is None and dataset.test is None:
        raise DataError(
            f"{dataset.name} has no val or test split to compare on. Draw one with --val 0.1."
        )
    kind = dataset.train.kind
    metrics = {
        title: experiment.recipe.find_metric(kind) for title, experiment in experiments.items()
    }
    for metric in metrics.values():
        check_comparable(metric, kind)
    if len(set(metrics.values())) > 1:
        scored = ", ".join(f"{title} by {metric}" for title, metric in metrics.items())
        raise RecipeError(
            f"The scores differ: {scored}. Set metric to the same value in all recipes."
        )
    settings = describe_experiments(experiments) | plan.describe()
    name = name or name_study("study", settings)
    return PlannedStudy(runs_dir / name, experiments, plan, settings)


def _check_different(first: tuple[str, Experiment], second: tuple[str, Experiment]) -> None:
    name, experiment = first
    other_name, other = second
    if _identify(experiment) == _identify(other):
        raise RunError(
            f"{name} and {other_name} are the same net with the same recipe. Change"
            f' the recipe of B, as in "{other_name},lr=0.03". To compare a net with itself with'
            f' other seeds, use "{other_name},seed=1000".'
        )
    if name == other_name:
        raise RunError(
            f"Two different experiments are called {name}. Name one of them, as in"
            f' Variant("{name}-2", net, recipe, parts).'
        )


def _identify(experiment: Experiment) -> tuple[Any, ...]:
    """What an experiment trains; equal for copies of a file, and for one function."""
    net = experiment.net
    trained: Any = net.net
    if isinstance(net.origin, OwnModule) and net.origin.file:
        trained = (net.origin.digest, net.origin.name)
    elif isinstance(trained, partial):  # of the function that makes a module
        trained = trained.args
    functions = experiment.parts.functions()
    return trained, experiment.recipe, {name: functions.get(name) for name in TRAINING}


def iter_comparisons(study: PlannedStudy, setup: RunSetup) -> Events[None]:
    """Train the experiments of a study in pairs that share a seed, and compare each with the last.

    Yields the comparisons at each look except the last, which :func:`read_comparisons` returns.
    """
    for experiment in study.experiments.values():
        choose_device(experiment.recipe.device)  # fails before the folder is created
    _check_seeds(study, study.plan.seeds or max(LOOKS))
    with open_study(study.path, study.settings) as opened:
        state = opened.state
        if state.get("is_finished"):
            yield Decision("study", f"{study.path} is finished", "this is its result")
            return
        diverged = state.get("diverged", [])
        runs: dict[str, list[Run]] = {
            name: [] for name in study.experiments if name not in diverged
        }
        count = 0
        with closing(Jobs(setup.jobs, len(runs) * study.plan.least_pairs)) as jobs:
            study = yield from _iter_plan(study, opened, jobs)
            plan = study.plan
            for goal in plan.goals:
                listed = study.list_runs(runs, range(count, goal))
                stored = {item.path for item in listed if item.is_done}
                jobs.plan([item for item in listed if item.path not in stored], setup)
                while count < goal:
                    count += 1
                    yield from _train_pair(study, runs, goal, stored, jobs)
                    diverged = [name for name in study.experiments if name not in runs]
                    opened.save(diverged=diverged)
                comparisons = _judge(runs, plan, count)
                plan = replace(plan, margin=comparisons[0].margin)
                is_decided = all(comparison.is_decided for comparison in comparisons)
                is_last = is_decided or not plan.is_sequential or count == max(LOOKS)
                opened.save(  # before anybody sees the result
                    is_finished=is_last,
                    looks=sorted({*state.get("looks", []), count}),
                    seeds=count,
                    results=[comparison.to_json() for comparison in comparisons],
                )
                figure = sketch_differences(comparisons)
                write_atomically(study.path / FIGURE, figure.encode())
                if is_last:
                    return
                yield from comparisons


def _check_seeds(study: PlannedStudy, pairs: int) -> None:
    """Raise ``RunError`` if experiments share some seeds, but not all."""
    seeds = {}
    for name, experiment in study.experiments.items():
        first = experiment.recipe.seed
        seeds[name] = range(first, first + pairs)
    check_seeds(seeds)


def _iter_plan(
    study: PlannedStudy, opened: OpenStudy, jobs: Jobs
) -> Generator[Decision, None, PlannedStudy]:
    """The study with the number of pairs that fit into its time, and the margin of its results."""
    plan = study.plan
    with computing_with(jobs.threads):
        seconds = sum(map(time_experiment, study.experiments.values()))
    limit = ""
    if plan.seconds is not None:
        limit = f"{plan.seconds:.0f} s → "
        pairs = opened.state.get("pairs")
        if pairs is None:
            pairs = plan.least_pairs
            if seconds:
                pairs = max(pairs, int(jobs.most * plan.seconds / (RESERVE * seconds)))
            opened.save(pairs=pairs)
        _check_seeds(study, pairs)
        plan = replace(plan, seeds=pairs, seconds=None)
    if results := read_comparisons(study.path):
        plan = replace(plan, margin=results[0].margin)
    value = f"{limit}{plan}: {format_minutes(seconds)} for each pair; in {study.path}"
    yield Decision("plan", value, "to resume, run the command again")
    *_, reference = study.experiments.values()
    yield from plan.pairing.announce(reference.dataset)
    return replace(study, plan=plan)


def _judge(runs: Mapping[str, Sequence[Run]], plan: Plan, count: int) -> list[PairedComparison]:
    """The comparisons after ``count`` pairs."""
    if plan.pairing.folds is not None:
        return judge_folds(runs, plan.pairing.folds, plan.margin)
    if not plan.is_sequential:
        return judge_runs(runs, plan.margin)
    return judge_runs(runs, plan.margin, LOOKS[count], max(LOOKS.values()))


def read_comparisons(path: Path) -> list[PairedComparison]:
    """The results of a study."""
    results = read_study(path).get("results", [])
    return [parse_event(PairedComparison, result, path / STUDY_FILE) for result in results]


def _train_pair(
    study: PlannedStudy,
    runs: dict[str, list[Run]],
    goal: int,
    stored: Container[Path],
    jobs: Jobs,
) -> Events[None]:
    """Add a run of the next pair to each experiment; drop an experiment if its run diverges.

    Runs in the folders of ``stored`` are not announced again.
    """
    *_, reference = runs
    pair = len(runs[reference])
    pairing = study.plan.pairing
    place, fold = pairing.find_place(pair)
    for name in list(runs):
        seed = study.experiments[name].recipe.seed + place
        folder = study.locate_run(name, pair)
        try:
            if folder not in stored:
                yield from jobs.iter_run(folder)
            run = load_run(folder)
        except NotFiniteError as error:
            if name == reference or len(runs) == 2:
                raise RunError(
                    f"{name} diverged with seed {seed}, so there is nothing to compare: {error}"
                ) from error
            yield Decision("warning", f"{name} diverged with seed {seed}", str(error))
            del runs[name]
            continue
        runs[name].append(run)
        if folder in stored:
            continue
        trained = list(itertools.chain(*runs.values()))
        left = goal * len(runs) - len(trained)
        seconds = left * mean_seconds(trained) / jobs.most
        progress = f"{len(trained)} of {goal * len(runs)}, {format_minutes(seconds)} left"
        where = f"seed {seed}"
        score = "" if run.report is None else f": {run.report.split} {run.report.score}"
        if pairing.folds is not None and run.report is not None:
            where = f"fold {fold}, seed {seed}"
            score = f": {run.report.score}"
        yield Decision("trained", f"{name}, {where}{score}", progress)
