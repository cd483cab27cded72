"""lamina reproduce without RUN: train the article's two nets, and compare the accuracies."""

from __future__ import annotations

import dataclasses
import time
from statistics import median

from lamina.cli import STARTED
from lamina.cli.compare import print_comparison, train_study
from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.train_options import ReproduceOptions
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.drawing.curves import draw_curves
from lamina.drawing.style import save_figure
from lamina.errors import DataError, RecipeError
from lamina.evaluation.intervals import mean_interval
from lamina.runs.loading import load_run
from lamina.runs.run import Run
from lamina.studies.comparison import FIGURE, Plan, plan_study, read_comparisons
from lamina.studies.experiment import Experiment
from lamina.studies.study import locate_run, name_study, read_study
from lamina.targets import SINGLE_LABEL, Score

CLAIMED = {"mlp": 0.4996, "cnn": 0.7552}  # the article's test accuracy on CIFAR-10


def reproduce_article(options: ReproduceOptions, terminal: Terminal) -> int:
    """Train both nets with each seed, print a table, and draw learning curves."""
    seeds = 1 if options.seeds is None else options.seeds
    if seeds < 1:
        raise RecipeError(f"--seeds is {seeds}; it must be at least 1. Use --seeds 5.")
    dataset = choose_data(options.data, Preparation(val_fraction=0.0), terminal)
    if dataset.train.kind is not SINGLE_LABEL:
        raise DataError(
            f"The article's nets predict one class per image, but the targets of {dataset.name} are"
            f" {dataset.train.kind.name}. Use --data cifar10."
        )
    if len(dataset.splits) == 1:
        raise DataError(
            f"{dataset.name} has no val or test images to evaluate on. Add a test split, or use"
            " --data cifar10."
        )
    nets = {name: choose_net(name, terminal) for name in CLAIMED}
    experiments = {
        name: Experiment(
            net, dataclasses.replace(net.recipes["article"], device=options.device), dataset
        )
        for name, net in nets.items()
    }
    path, experiments = plan_study(options.runs_dir, None, list(experiments.items()))
    if read_study(path).get("is_finished"):  # measure again
        path = options.runs_dir / name_study(options.runs_dir, "study")
    if status := train_study(path, experiments, Plan(seeds), terminal, is_brief=False):
        return status
    names = list(experiments)
    runs = {
        name: [load_run(locate_run(path, names, name, seed)) for seed in range(seeds)]
        for name in names
    }
    claimed = CLAIMED if dataset.source == "cifar10" else {}
    drawing = path / "curves.png"
    histories = {name: [one.folder.history.epochs() for one in done] for name, done in runs.items()}
    reports = {
        name: [report for one in done if (report := one.report)] for name, done in runs.items()
    }
    save_figure(draw_curves(histories, Score("accuracy", 0.0), claimed, reports), drawing)
    terminal.say("")
    rows = [
        _print_net(name, done, len(dataset.train), claimed.get(name), terminal)
        for name, done in runs.items()
    ]
    heads = (
        "net",
        "published",
        "measured",
        "95 % interval",
        "parameters",
        "training seconds",
        "images/s",
    )
    terminal.tabulate(heads, rows)
    if not claimed:
        terminal.say(
            f"The article's accuracies are for CIFAR-10, so they are not shown for {dataset.name}."
        )
    terminal.say(f"learning curves: {drawing}", "")
    print_comparison(read_comparisons(path)[0], terminal, path / FIGURE)
    terminal.emit("done", curves=str(drawing), seconds=time.perf_counter() - STARTED)
    return 0


def _print_net(
    name: str, runs: list[Run], images: int, claimed: float | None, terminal: Terminal
) -> tuple[str, ...]:
    reports = [report for one in runs if (report := one.report)]
    accuracies = [report.score.value for report in reports]
    measured, split = mean_interval(accuracies), reports[0].split
    times = [[row["train_seconds"] for row in one.folder.history.epochs()] for one in runs]
    seconds = median(map(sum, times))
    speed = median(images * len(epochs) / sum(epochs) for epochs in times)
    terminal.emit(
        "result",
        net=name,
        runs=[str(one.path) for one in runs],
        data=runs[0].record.data.name,
        claimed_accuracy=claimed,
        parameters=runs[0].record.parameters,
        train_seconds=seconds,
        images_per_second=speed,
        **{
            f"{split}_accuracy": measured.mean,
            f"{split}_accuracy_low": measured.low,
            f"{split}_accuracy_high": measured.high,
            f"{split}_accuracies": accuracies,
        },
    )
    interval = "needs several seeds"
    if measured.low is not None and measured.high is not None:
        interval = f"{100 * measured.low:.2f} to {100 * measured.high:.2f} %"
    claim = "–" if claimed is None else f"{100 * claimed:.2f} %"
    accuracy, parameters = f"{100 * measured.mean:.2f} %", f"{runs[0].record.parameters:,}"
    return name, claim, accuracy, interval, parameters, f"{seconds:.1f}", f"{speed:,.0f}"
