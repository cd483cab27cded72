"""lamina reproduce: the article's two nets, its claims beside what is measured."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import tyro

from lamina.cli import STARTED
from lamina.cli.datasets import choose_data
from lamina.cli.nets import choose_net
from lamina.cli.options import Json
from lamina.cli.parsing import parse_options
from lamina.cli.session import Outcome, start, train
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.errors import DataError, RecipeError
from lamina.targets import SINGLE_LABEL, Score

CLAIMED = {"mlp": 0.4996, "cnn": 0.7552}
"""The article's test accuracy on CIFAR-10."""


@dataclass(frozen=True)
class Options:
    """Train the article's two nets as the article does, and print its claims beside the measurements."""

    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """a name or a path; by default CIFAR-10 where it is available, else the built-in shapes"""
    seeds: int = 1
    """how many times to train each net, with seeds 0, 1, 2 …"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """where to compute"""
    runs_dir: Path = Path("runs")
    """folder to save the runs and the plot in"""
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "reproduce", arguments)
    if options.seeds < 1:
        raise RecipeError(f"--seeds was {options.seeds}, but takes 1 or more.")
    terminal = Terminal(as_json=options.json, command=("lamina", "reproduce", *arguments))
    dataset = choose_data(options.data, Preparation(val_fraction=0.0), terminal)
    if dataset.train.kind is not SINGLE_LABEL:
        raise DataError(f"The article's nets predict one class an image, but {dataset.name} has other targets.")
    if len(dataset.splits) == 1:
        raise DataError(f"{dataset.name} has no val or test images to evaluate on. Give it a test split.")
    outcomes: dict[str, list[Outcome]] = {name: [] for name in CLAIMED}
    for seed in range(options.seeds):
        for name, done in outcomes.items():
            net = choose_net(name, terminal)
            recipe = dataclasses.replace(net.recipes["article"], seed=seed)
            terminal.say("", f"{name}, seed {seed}")
            made = start(net, recipe, dataset, terminal, device=options.device, runs_dir=options.runs_dir)
            outcome = train(made, dataset, terminal)
            if outcome.stopped_by is not None:
                terminal.remark(
                    f"lamina: stopped by {outcome.stopped_by.name}; the runs so far are in {options.runs_dir}"
                )
                return 128 + outcome.stopped_by
            done.append(outcome)
    claimed = CLAIMED if dataset.source == "cifar10" else {}
    from lamina.drawing import draw_curves, save_figure

    picture = options.runs_dir / "reproduce-curves.png"
    histories = {name: [outcome.run.history.epochs() for outcome in done] for name, done in outcomes.items()}
    reports = {name: [outcome.report for outcome in done if outcome.report] for name, done in outcomes.items()}
    save_figure(draw_curves(histories, Score("accuracy", 0.0), claimed, reports), picture)
    _print(outcomes, claimed, terminal)
    if not claimed:
        terminal.say(f"The article's figures are for CIFAR-10, not for {dataset.name}.")
    terminal.say(f"learning curves: {picture}")
    terminal.emit("done", curves=str(picture), seconds=time.perf_counter() - STARTED)
    return 0


def _print(outcomes: dict[str, list[Outcome]], claimed: dict[str, float], terminal: Terminal) -> None:
    from lamina.evaluation.intervals import mean_interval

    rows = []
    for name, done in outcomes.items():
        reports = [outcome.report for outcome in done if outcome.report is not None]
        accuracies = [report.score.value for report in reports]
        measured = mean_interval(accuracies)
        record = done[0].run.record
        seconds = median(outcome.train_seconds for outcome in done)
        speed = median(outcome.images_per_second for outcome in done)
        claim, interval = "–", "one seed gives none"
        if claimed:
            claim = f"{100 * claimed[name]:.2f} %"
        if measured.low is not None and measured.high is not None:
            interval = f"{100 * measured.low:.2f} to {100 * measured.high:.2f} %"
        accuracy = f"{100 * measured.mean:.2f} %"
        rows.append((name, claim, accuracy, interval, f"{record.parameters:,}", f"{seconds:.1f}", f"{speed:,.0f}"))
        score = f"{reports[0].split}_accuracy"
        terminal.emit(
            "result",
            net=name,
            runs=[str(outcome.run.path) for outcome in done],
            data=record.data.name,
            claimed_accuracy=claimed.get(name),
            parameters=record.parameters,
            train_seconds=seconds,
            images_per_second=speed,
            **{
                score: measured.mean,
                f"{score}_low": measured.low,
                f"{score}_high": measured.high,
                f"{reports[0].split}_accuracies": accuracies,
            },
        )
    terminal.say("")
    heads = ("net", "claimed", "measured", "95 % interval", "parameters", "train seconds", "images/s")
    terminal.tabulate(heads, rows)
