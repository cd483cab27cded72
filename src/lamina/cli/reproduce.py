"""lamina reproduce: retrain a run's first epochs and compare, or train the article's nets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lamina import zoo
from lamina.cli.compare import print_comparison, train_study
from lamina.cli.data_argument import choose_data
from lamina.cli.models import add_module, choose_run_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.train_options import ReproduceOptions
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.errors import RecipeError, RunError
from lamina.evaluation.intervals import mean_interval
from lamina.runs.differences import find_changes
from lamina.runs.loading import load_run
from lamina.runs.resuming import find_dataset, list_needed_parts, make_training
from lamina.runs.run import Run
from lamina.studies.comparison import (
    Plan,
    PlannedStudy,
    make_experiments,
    plan_study,
    read_comparisons,
)
from lamina.studies.experiment_text import find_source
from lamina.training.checkpoint import digest_tensors
from lamina.training.events import Epoch, Step

ARTICLE = ("mlp:article", "cnn:article")


def run(options: ReproduceOptions, terminal: Terminal) -> int:
    """Run the command; the exit status is 2 if the weights after an epoch differ."""
    _check_options(options)
    if options.run is None:
        return _reproduce_article(options, terminal)
    return _reproduce_run(options.run, options, terminal)


def _check_options(options: ReproduceOptions) -> None:
    """Reject options that need RUN without it, and the reverse."""
    with_run = {"--epochs": options.epochs is not None, "--net": options.net is not None}
    without_run = {"--seeds": options.seeds is not None, "--device": options.device != "auto"}
    unused = [
        flag
        for flag, is_given in (with_run if options.run is None else without_run).items()
        if is_given
    ]
    if unused and options.run is None:
        raise RunError(f"{unused[0]} requires a run. Add RUN, as in lamina reproduce runs/pets.")
    if unused:
        raise RunError(
            f"{unused[0]} applies to the article's nets, but RUN is {options.run}. Leave out"
            f" {unused[0]} or RUN."
        )


def _reproduce_article(options: ReproduceOptions, terminal: Terminal) -> int:
    """Compare the article's two nets, and their published accuracies with the measured ones."""
    seeds = 1 if options.seeds is None else options.seeds
    if seeds < 1:
        raise RecipeError(f"--seeds is {seeds}; it must be at least 1. Use --seeds 5.")
    dataset = choose_data(options.data, Preparation(val_fraction=0.0), terminal)
    texts = [f"{text},device={options.device}" for text in ARTICLE]
    sources = [find_source(text, options.runs_dir) for text in texts]
    named, _ = make_experiments(sources, dataset, partial(choose_net, terminal=terminal))
    study = plan_study(options.runs_dir, None, named)
    status = train_study(study, Plan(seeds), terminal)
    if status == 0:
        _print_published(study, seeds, terminal)
        (comparison,) = read_comparisons(study.path)
        print_comparison(comparison, terminal)
    return status


def _print_published(study: PlannedStudy, seeds: int, terminal: Terminal) -> None:
    """A row for each net: the accuracy in the article, and the score in its runs."""
    rows = []
    dataset = next(iter(study.experiments.values())).dataset
    for name, experiment in study.experiments.items():
        net = experiment.net.name
        runs = [load_run(study.locate_run(name, seed)) for seed in range(seeds)]
        reports = [run.report for run in runs if run.report is not None]
        measured = mean_interval([report.score.value for report in reports])
        published = zoo.load_published(net)
        accuracy = None
        if published is not None and published.data == dataset.source:
            accuracy = published.accuracy
        terminal.emit(
            "result",
            net=net,
            runs=[str(run.path) for run in runs],
            data=dataset.name,
            split=reports[0].split,
            published=accuracy,
            measured=measured.mean,
            low=measured.low,
            high=measured.high,
        )
        score = reports[0].score
        interval = "needs several seeds"
        if measured.low is not None and measured.high is not None:
            interval = f"{score.format(measured.low)} to {score.format(measured.high)}"
        claim = "–" if accuracy is None else score.format(accuracy)
        rows.append((net, claim, score.format(measured.mean), interval))
    terminal.tabulate(("net", "published", "measured", "95 % interval"), rows)
    if all(claim == "–" for _, claim, *_ in rows):
        terminal.say(
            f"The article's accuracies are for CIFAR-10, so they are not shown for {dataset.name}."
        )


def _reproduce_run(path: Path, options: ReproduceOptions, terminal: Terminal) -> int:
    run = load_run(path, runs_dir=options.runs_dir)
    origin = run.record.started_from
    if origin is not None and origin.epoch is not None:
        raise RunError(
            f"{run.path} continues from {origin.run} after epoch {origin.epoch:g}, so its first"
            f" epochs are those of that run. Reproduce them with lamina reproduce {origin.run}"
        )
    digests = _read_digests(run, 1 if options.epochs is None else options.epochs)
    run = add_module(run, options.net, terminal)
    if list_needed_parts(run.record.parts, run.record.task.metric):
        raise RunError(
            f"{run.path} was trained with your own functions, which the run does not store, so this"
            " command cannot train it again. In Python, start another run with them and the same"
            ' recipe, and compare "weights" in both history.jsonl.'
        )
    dataset = find_dataset(run, choose_run_data(run, options.data, terminal))
    training = make_training(run, dataset, run.record)
    rows = []
    is_same = True
    with terminal.progress() as show_progress:
        for event in training:
            if isinstance(event, Step):
                show_progress(f"epoch {event.epoch}", event.step, event.steps)
            if not isinstance(event, Epoch):
                continue
            recorded, again = digests[event.epoch - 1], digest_tensors(training.model.state_dict())
            is_same = again == recorded
            rows.append((str(event.epoch), recorded, again, "yes" if is_same else "no"))
            terminal.emit(
                "reproduced",
                run=str(run.path),
                epoch=event.epoch,
                recorded=recorded,
                again=again,
                same=is_same,
            )
            if event.epoch == len(digests) or not is_same:
                break
    terminal.tabulate(("epoch", "recorded weights", "retrained weights", "equal"), rows, texts=4)
    changes = find_changes(run.record)
    terminal.emit(
        "result",
        run=str(run.path),
        same=is_same,
        epochs=len(rows),
        changes=[
            {"what": change.what, "recorded": change.first, "now": change.second}
            for change in changes
        ],
    )
    for change in changes:
        terminal.remark(f"{change.what}: {change.first} during training, {change.second} now")
    if is_same:
        epochs = "epoch 1" if len(rows) == 1 else f"epochs 1 to {len(rows)}"
        terminal.say(f"{run.path}: the weights after {epochs} are bit-identical")
        return 0
    reason = (
        "The differences listed above may be the cause."
        if changes
        else (
            "Software, processor and threads are unchanged. Check whether the run's history or the"
            " data changed."
        )
    )
    terminal.remark(f"lamina: {run.path}: the weights after epoch {len(rows)} differ. {reason}")
    return 2


def _read_digests(run: Run, epochs: int) -> list[str]:
    recorded = {row["epoch"]: row.get("weights") for row in run.folder.history.epochs()}
    rewinds = run.folder.history.rewinds()
    done = max(recorded, default=0)
    if epochs < 1:
        raise RunError(f"--epochs is {epochs}; it must be at least 1. Use --epochs 1.")
    if epochs > done:
        raise RunError(
            f"--epochs is {epochs}, but {run.path} has only {done} complete epochs. Use fewer"
            " --epochs."
        )
    if rewinds and epochs > (last := rewinds[0].get("to_epochs_done") or 0):
        raise RunError(
            f"--epochs is {epochs}, but {run.path} returned to epoch {last} and continued with a"
            " lower learning rate. "
            + (f"Use --epochs {last} or less." if last else "None of its epochs can be reproduced.")
        )
    digests = [str(digest) for epoch in range(1, epochs + 1) if (digest := recorded.get(epoch))]
    if len(digests) < epochs:
        raise RunError(
            f"{run.path / 'history.jsonl'} lacks the digest of the weights after one of epochs 1 to"
            f" {epochs}. Use fewer --epochs, or train again."
        )
    return digests
