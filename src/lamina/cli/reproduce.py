"""lamina reproduce: retrain a run's first epochs and compare, or train the article's nets."""

from __future__ import annotations

from pathlib import Path

from lamina import zoo
from lamina.cli import study_session
from lamina.cli.data_argument import choose_data
from lamina.cli.models import add_module, choose_run_data
from lamina.cli.options import Reproduce
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.errors import RunError
from lamina.evaluation.intervals import mean_interval
from lamina.runs.differences import find_changes
from lamina.runs.run import Run, find_dataset, list_needed_parts, load_run, make_training
from lamina.studies.comparison import Plan, PlannedStudy, plan_study, read_comparisons
from lamina.studies.experiment_text import find_source
from lamina.training.checkpoint import digest_tensors
from lamina.training.events import Epoch, Step
from lamina.training.threads import computing_with, keep_threads

ARTICLE = ("mlp:article", "cnn:article")


def run(options: Reproduce, terminal: Terminal) -> int:
    """Run the command; the exit status is 2 if the weights after an epoch differ."""
    if options.run is None:
        refuse(options, "Without RUN, lamina trains the article's nets.", "epochs", "net")
        return _reproduce_article(options, terminal)
    refuse(options, f"RUN is {options.run}, not the article's nets.", "seeds", "device")
    return _reproduce_run(options.run, options, terminal)


def _reproduce_article(options: Reproduce, terminal: Terminal) -> int:
    """Compare the article's two nets, and their published and measured accuracies."""
    seeds = options.seeds or 1
    dataset = choose_data(options.data, Preparation(val_fraction=0.0), terminal)
    texts = [f"{text},device={options.device}" for text in ARTICLE]
    sources = [find_source(text, options.runs_dir) for text in texts]
    experiments = study_session.plan_experiments(sources, dataset, terminal)
    planned = plan_study(options.runs_dir, None, experiments, Plan(seeds))
    status = study_session.train_study(planned, terminal)
    if status == 0:
        _print_published(planned, seeds, terminal)
        (comparison,) = read_comparisons(planned.path)
        study_session.print_comparison(comparison, terminal)
    return status


def _print_published(study: PlannedStudy, seeds: int, terminal: Terminal) -> None:
    """A row for each net: the accuracy in the article, and the score in its runs."""
    rows = []
    for name, experiment in study.experiments.items():
        net = experiment.net.name
        data = experiment.dataset
        runs = [load_run(study.locate_run(name, seed)) for seed in range(seeds)]
        reports = [run.report for run in runs if run.report is not None]
        measured = mean_interval([report.score.value for report in reports])
        score = reports[0].score
        published = zoo.NETS[net].published
        accuracy = None
        claim = "–"
        if published is not None and published.data == data.source:
            accuracy = published.accuracy
            claim = score.format(accuracy)
        interval = "needs several seeds"
        if measured.low is not None and measured.high is not None:
            interval = f"{score.format(measured.low)} to {score.format(measured.high)}"
        rows.append((net, claim, score.format(measured.mean), interval))
        terminal.emit(
            "result",
            net=net,
            runs=[str(run.path) for run in runs],
            data=data.name,
            split=reports[0].split,
            published=accuracy,
            measured=measured.mean,
            low=measured.low,
            high=measured.high,
        )
    terminal.tabulate(("net", "published", "measured", "95 % interval"), rows)
    if rows[0][1] == "–":
        terminal.say(
            f"The article's accuracies are for CIFAR-10, so they are not shown for {data.name}."
        )


def _reproduce_run(path: Path, options: Reproduce, terminal: Terminal) -> int:

    run = load_run(path, runs_dir=options.runs_dir)
    digests = _read_digests(run, options.epochs or 1)
    run = add_module(run, options.net, terminal)
    if list_needed_parts(run.record.parts, run.record.task.metric):
        raise RunError(
            f"{run.path} was trained with your own functions, which the run does not store, so this"
            " command cannot train it again. In Python, start another run with them and the same"
            ' recipe, and compare "weights" in both history.jsonl.'
        )
    dataset = find_dataset(run, choose_run_data(run, options.data, terminal))
    rows = []
    is_same = True
    threads = keep_threads(run.record.machine.threads)
    with terminal.progress_bar() as show_progress, computing_with(threads):
        training = make_training(run, dataset)
        checkpoint = run.folder.read_checkpoint()
        if checkpoint is not None:  # its learning rate may have fallen earlier than planned
            training.schedule.restore(checkpoint.standing.knots, 0)
        for event in training:
            if isinstance(event, Step):
                show_progress(f"epoch {event.epoch}", event.step, event.steps)
            if not isinstance(event, Epoch):
                continue
            recorded = digests[event.epoch - 1]
            again = digest_tensors(training.model.state_dict())
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
        differences = find_changes(run.record)
    terminal.tabulate(("epoch", "recorded weights", "retrained weights", "equal"), rows, texts=4)
    changes = []
    reason = (
        "Software, processor and threads are unchanged. Check whether the run's history or the"
        " data changed."
    )
    for change in differences:
        changes.append({"what": change.what, "recorded": change.first, "now": change.second})
        terminal.remark(f"{change.what}: {change.first} during training, {change.second} now")
        reason = "The differences listed above may be the cause."
    terminal.emit("result", run=str(run.path), same=is_same, epochs=len(rows), changes=changes)
    if not is_same:
        terminal.remark(f"lamina: {run.path}: the weights after epoch {len(rows)} differ. {reason}")
        return 2
    epochs = "epoch 1"
    if len(rows) > 1:
        epochs = f"epochs 1 to {len(rows)}"
    terminal.say(f"{run.path}: the weights after {epochs} are bit-identical")
    return 0


def _read_digests(run: Run, epochs: int) -> list[str]:
    """The digests of the weights after the first epochs."""
    recorded = {row["epoch"]: row.get("weights") for row in run.folder.read_epochs()}
    digests: list[str] = []
    while len(digests) < epochs and recorded.get(len(digests) + 1):
        digests.append(str(recorded[len(digests) + 1]))
    if len(digests) == epochs:
        return digests
    end = f"it has only {len(recorded)} complete epochs"
    if len(digests) < len(recorded):
        end = f"history.jsonl lacks the digest of the weights after epoch {len(digests) + 1}"
    raise RunError(
        f"--epochs is {epochs}, but only {len(digests)} epochs of {run.path} can be reproduced:"
        f" {end}. Use fewer --epochs, or train again."
    )
