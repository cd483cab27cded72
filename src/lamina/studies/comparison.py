"""Compare two runs by their stored logits, or experiments by training them with several seeds."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lamina.data import Dataset, Images
from lamina.data.load import as_dataset
from lamina.drawing.difference_figure import draw_differences
from lamina.drawing.style import save_figure
from lamina.errors import DataError, RecipeError, RunError, check_type, plural
from lamina.evaluation.intervals import ALPHA, mean_interval
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import LOOKS, find_metric, holm_levels, measure_effect, probability_better, score_images
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.files import write_json
from lamina.nets import Net
from lamina.runs.keep import RunEvent
from lamina.runs.progress import show_progress
from lamina.runs.retraining import find_dataset
from lamina.runs.run import Run
from lamina.runs.run_folder import STUDY_FILE
from lamina.runs.start import choose_net
from lamina.studies.choice_events import Decision
from lamina.studies.experiments import Candidate, Experiment, check_seconds
from lamina.studies.named_net import IterTrain
from lamina.studies.study import (
    describe_experiments,
    find_experiment,
    find_run_or_net,
    iter_seed,
    name_study,
    open_study,
    read_study,
)
from lamina.targets import Score
from lamina.training.model import build_model
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.values import explain_call, from_json_values

POINTS, NUMBERS = 0.005, 0.01
"""Default margin: half a percentage point; for regression, a fraction of the reference's score."""
FIGURE = "differences.png"


@explain_call
def compare(
    a: Run | Net | str | Path | tuple[Net | str, Recipe],
    b: Run | Net | str | Path | tuple[Net | str, Recipe],
    data: Dataset | Images | str | Path | None = None,
    *,
    seeds: int | None = None,
    seconds: float | None = None,
    margin: float | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    device: str = "auto",
    progress: bool = True,
) -> PairedComparison:
    """Compare two runs, or two nets that are trained with shared seeds, and state what was shown.

    Args:
        a: A run or its path or name; or a net, a pair of a net and a recipe, or text: ``NET``, ``NET:RECIPE``,
            ``timm:NAME`` or layers.
        b: The reference, likewise.
        data: Data to train on; by default that of the first run, or as for :func:`~lamina.train`. Two runs without
            ``seeds`` and ``seconds`` are not trained: their stored logits are compared.
        seeds: Number of pairs to train, at least 2. By default 4, 8 or 16, until the comparison is decided.
        seconds: Train as many pairs as fit into this time, at least 2.
        margin: Largest difference that counts as equal, as a fraction; by default 0.005. For regression, in the unit of
            the numbers; by default 1 % of the score of ``b``.
        name: Name of the study's folder in ``runs_dir``. By default, an interrupted study of the same experiments is
            continued.
        runs_dir: Folder of the study, and of runs given by name.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: Print the plan and a line per epoch, and show a progress bar.

    Returns:
        Difference, intervals and verdict; ``print`` it for the words.

    Raises:
        LaminaError: There is no such run or net, the runs were evaluated on different images, A and B are the same,
            an argument is invalid, or any error of :func:`~lamina.train`.

    >>> import tempfile
    >>> x, y = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    >>> data = Dataset.from_images(Images.from_arrays(x, y), test=Images.from_arrays(255 - x, y, split="test"))
    >>> found = compare("mlp", "Flatten(), Output()", data, seeds=2, runs_dir=tempfile.mkdtemp(), progress=False)
    >>> found.seeds, found.images, found.metric
    (2, 40, 'accuracy')
    """
    check_plan(seeds, seconds, margin)
    expected = "a run, a net, a pair (net, recipe), or text such as cnn:best"
    for one in (a, b):
        check_type(one, (Run, Net, str, Path, tuple), "a or b", expected, is_optional=False)
    folder = Path(runs_dir)
    sources = [one if isinstance(one, Run | tuple) else find_run_or_net(str(one), folder) or str(one) for one in (a, b)]
    runs = [one for one in sources if isinstance(one, Run)]
    if len(runs) == 2 and seeds is None and seconds is None:
        return compare_runs(runs[0], runs[1], margin)
    dataset = find_dataset(runs[0].folder, runs[0].record, data) if runs else as_dataset(data)
    named = []
    for one in sources:
        if isinstance(one, tuple):
            named.append((f"{one[0]}, {one[1]}", Experiment(choose_net(one[0]), one[1], dataset)))
        else:
            named.append(find_experiment(one, dataset, {}, choose_net)[:2])
    experiments = name_experiments(named)
    path = choose_folder(folder, name, experiments)
    train = partial(iter_comparisons, path, experiments, seeds=seeds, seconds=seconds, margin=margin, device=device)
    for _ in show_progress(train(), name=path.name) if progress else train():
        pass
    return read_comparisons(path)[0]


def check_plan(seeds: int | None, seconds: float | None, margin: float | None) -> None:
    check_seconds(seconds)
    check_type(seeds, (int,), "seeds", "a whole number")
    if seeds is not None and seconds is not None:
        raise RecipeError("seeds and a time limit both set the number of trainings. Use only one of them.")
    if seeds is not None and seeds < 2:
        raise RecipeError(
            f"seeds is {seeds}; a comparison needs at least 2, because one seed does not show how much seeds differ. "
            "Use 4 or more."
        )
    if margin is not None and not 0 < margin < float("inf"):
        raise RecipeError(f"margin is {margin}; it must be positive. Use 0.005 for half a percentage point.")


def name_experiments(named: Sequence[tuple[str, Experiment]]) -> dict[str, Experiment]:
    """The experiments by name; ``RunError`` if two are the same."""
    for (name, first), (other, second) in itertools.combinations(named, 2):
        if name == other or (first.net.net, first.recipe) == (second.net.net, second.recipe):
            raise RunError(
                f"{name} and {other} are the same net with the same recipe. Change one of them, as in "
                f"lamina compare {name} {name} --b-lr 0.03."
            )
    metrics = {name: one.recipe.find_metric(one.dataset.train.kind) for name, one in named}
    if len(set(metrics.values())) > 1:
        scored = ", ".join(f"{name} by {metric}" for name, metric in metrics.items())
        raise RecipeError(f"The scores differ: {scored}. Set one metric for both, as in --a-metric accuracy.")
    return dict(named)


def choose_folder(runs_dir: Path, name: str | None, experiments: Mapping[str, Experiment]) -> Path:
    return runs_dir / (name or name_study(runs_dir, "study", describe_experiments(experiments)))


def compare_runs(first: Run, second: Run, margin: float | None = None) -> PairedComparison:
    """Compare two trained models by the stored logits of their runs."""
    if first.path.resolve() == second.path.resolve():
        raise RunError(f"{first.path} and {second.path} are the same run. Compare two runs.")
    return _judge({str(run.path): [run] for run in (first, second)}, margin, ALPHA)[0]


def iter_comparisons(
    path: Path,
    experiments: Mapping[str, Experiment],
    *,
    seeds: int | None = None,
    seconds: float | None = None,
    margin: float | None = None,
    train: IterTrain = Run.iter_train,
    device: str = "auto",
    command: Sequence[str] = (),
) -> Generator[RunEvent, None, None]:
    """Train experiments with shared seeds in the study ``path``, and compare each with the last, the reference.

    Stops after ``seeds`` or before ``seconds``, else as soon as all are decided or limited by the images. Yields the
    comparisons at each look but the last; :func:`read_comparisons` returns the last.
    """
    began, slowest = time.perf_counter(), 0.0
    with open_study(path, describe_experiments(experiments)) as state:
        yield from _announce(path, experiments, seeds, seconds, device)
        is_sequential = seeds is None and seconds is None
        if (known := state.get("looks")) and not is_sequential and seeds not in known:
            yield Decision("warning", f"results are known for {known} seeds", "choose the number of seeds beforehand")
        runs: dict[str, list[Run]] = {name: [] for name in experiments}
        for count in itertools.count(1):
            seed_began = time.perf_counter()
            trained = yield from iter_seed(path, experiments, count - 1, train=train, device=device, command=command)
            for each, run in zip(runs.values(), trained, strict=True):
                each.append(run)
            slowest = max(slowest, time.perf_counter() - seed_began)
            if not is_sequential:
                is_late = seconds is not None and time.perf_counter() - began + slowest > seconds
                if count == seeds or (is_late and count >= 2):
                    found = _judge(runs, margin, ALPHA)
                    break
            elif count in LOOKS:
                found = _judge(runs, margin, LOOKS[count])
                is_open = any(one.verdict == "undecided" and one.seeds_to_detect is not None for one in found)
                if not is_open or count == max(LOOKS):
                    break
                yield from found
        state |= {"looks": sorted({*state.get("looks", ()), count}), "results": [one.to_json() for one in found]}
        write_json(path / STUDY_FILE, state)
        save_figure(draw_differences(found), path / FIGURE)


def read_comparisons(path: Path) -> list[PairedComparison]:
    """The results of a study."""
    derived = ("event", "words", "seeds")
    stored = [{key: one[key] for key in one if key not in derived} for one in read_study(path).get("results", [])]
    return [from_json_values(PairedComparison, one, str(path / STUDY_FILE)) for one in stored]


def _announce(
    path: Path, experiments: Mapping[str, Experiment], seeds: int | None, seconds: float | None, device: str
) -> Generator[Decision, None, None]:
    """The plan with its time, and what the trainings of a seed share."""
    sides = [Candidate(one, min(one.dataset.train.shape[1:])) for one in experiments.values()]
    timed = [side.time(device) for side in sides]
    each = [side.total_seconds() + side.ending_seconds() for side in timed]
    counts = [seeds] if seeds else [min(LOOKS), max(LOOKS)]
    total = " to ".join(f"{sum(each) * count / 60:.1f}" for count in counts)
    parts = " + ".join(f"{took:.0f} s ({name})" for name, took in zip(experiments, each, strict=True))
    if seconds is not None:
        plan = f"about {max(2, int(seconds / sum(each)))} seeds, until {seconds / 60:.1f} min"
    else:
        plan = f"{seeds} seeds" if seeds else f"{', '.join(map(str, LOOKS))} seeds, until decided"
        plan += f": about {total} min"
    yield Decision("plan", f"{plan}; one seed: {parts}; in {path}", "to resume, run the command again")
    *weights, reference = [_list_weights(side) for side in sides]
    equal = ", ".join(f"{sum((one & reference).values())} of {one.total()}" for one in weights)
    yield Decision(
        "shared", f"splits, order of images, and {equal} initial weight tensors", "the others differ in shape or place"
    )


def _list_weights(side: Candidate) -> Counter[bytes]:
    """The initial weight tensors that are drawn at random."""
    recipe, images = side.recipe, side.experiment.dataset.train
    with seeded(derive_seed(recipe.seed, "weights"), torch.device("cpu")):
        model = build_model(side.make(), images.take_evenly(min(len(images), 100)), recipe)
    return Counter(weight.detach().numpy().tobytes() for weight in model.parameters() if weight.ndim > 1)


def _judge(runs: Mapping[str, Sequence[Run]], margin: float | None, alpha: float) -> list[PairedComparison]:
    """Compare each experiment with the last; several have their tests adjusted by Holm's method."""
    outputs = {name: [_find_outputs(run) for run in each] for name, each in runs.items()}
    *names, reference = runs
    base_run, first = runs[reference][0], outputs[reference][0]
    for name in names:
        for run, other in zip(runs[name], outputs[name], strict=True):
            _check_same_images(run, other, base_run, first)
    scores = {
        name: np.stack([score_images(run.task, one) for run, one in zip(each, outputs[name], strict=True)])
        for name, each in runs.items()
    }
    metric, base = find_metric(base_run.record.task), float(scores[reference].mean())
    score = Score(metric, base)
    sign = -1 if score.lower_is_better else 1
    tables = [sign * (scores[name] - scores[reference]) for name in names]
    effects = [measure_effect(table, is_correctness=metric == "accuracy") for table in tables]
    levels = holm_levels([effect.p_value() for effect in effects], alpha)
    limit = margin or (POINTS if score.is_fraction else NUMBERS * abs(base))
    found = []
    for name, table, effect, level in zip(names, tables, effects, levels, strict=True):
        differences = tuple(table.mean(axis=1).tolist())
        alone = mean_interval(differences)
        pairs = list(zip(runs[name], runs[reference], strict=True))
        seconds, equal_time = _compare_times(pairs, f"val_{metric}")
        target = max(limit, abs(effect.difference))
        found.append(
            PairedComparison(
                name, reference, metric, first.split, float(scores[name].mean()), base, effect.difference,
                astuple(effect.interval(1 - level)), level,
                seeds_interval=None if alone.low is None or alone.high is None else (alone.low, alone.high),
                equality_interval=astuple(effect.interval(1 - 2 * level)), differences=differences,
                images=effect.images, p_value=effect.p_value(), probability_better=probability_better(differences),
                margin=limit, seeds_to_detect=effect.seeds_to_detect(target),
                image_half_width=effect.image_half_width(), verdict=effect.judge(limit, level),
                train_seconds=seconds, equal_time=equal_time,
            )
        )  # fmt: skip
    return found


def _find_outputs(run: Run) -> Outputs:
    outputs = run.outputs
    if not outputs:
        raise RunError(f"{run.path} has no stored logits, because it was not evaluated. Run lamina resume {run.path}.")
    found = next(iter(outputs.values()))
    if len(found.names) < 2:
        raise DataError(f"{run.path} was evaluated on {plural(len(found.names), 'image', 'images')}; a comparison "
                        "needs at least 2.")  # fmt: skip
    return found


def _check_same_images(run: Run, outputs: Outputs, other: Run, others: Outputs) -> None:
    tasks = [one.record.task for one in (run, other)]
    if tasks[0].kind is not tasks[1].kind:
        raise DataError(
            f"{run.path} predicts {tasks[0].kind} targets, but {other.path} {tasks[1].kind} targets. Compare runs with "
            "the same kind of targets."
        )
    if (metrics := [find_metric(task) for task in tasks])[0] != metrics[1]:
        raise DataError(
            f"{run.path} is scored by {metrics[0]}, but {other.path} by {metrics[1]}. Train both with one --metric."
        )
    is_same = outputs.names == others.names and np.array_equal(outputs.targets, others.targets)
    if run.record.data.fingerprint != other.record.data.fingerprint and not is_same:
        raise DataError(
            f"{run.path} was evaluated on {outputs.split} images of {run.record.data.name} (fingerprint "
            f"{run.record.data.fingerprint}), but {other.path} on others, of {other.record.data.name} "
            f"({other.record.data.fingerprint}). Compare runs with the same test images."
        )


def _compare_times(
    pairs: Sequence[tuple[Run, Run]], column: str
) -> tuple[tuple[float, float] | None, tuple[float, float, float] | None]:
    """Mean training seconds of both, and their val scores when the faster one has finished, if both are known."""
    rows = [[run.folder.history.epochs() for run in pair] for pair in pairs]
    times = [
        [list(itertools.accumulate(row["train_seconds"] or 0.0 for row in each)) for each in pair] for pair in rows
    ]
    if not all(each for pair in times for each in pair):
        return None, None
    seconds = (statistics.fmean(pair[0][-1] for pair in times), statistics.fmean(pair[1][-1] for pair in times))
    found = []
    for histories, ends in zip(rows, times, strict=True):
        limit = min(each[-1] for each in ends)
        scores = [
            [row.get(column) for row, end in zip(history, each, strict=True) if end <= limit]
            for history, each in zip(histories, ends, strict=True)
        ]
        if not all(each and each[-1] is not None for each in scores):
            return seconds, None
        found.append((limit, scores[0][-1], scores[1][-1]))
    limit, first, second = (statistics.fmean(column) for column in zip(*found, strict=True))
    return seconds, (limit, first, second)
