"""lamina compare: compare two runs or nets, and say what was shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lamina.cli.data_argument import choose_data
from lamina.cli.models import choose_run_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.study_options import CompareOptions, StudyOptions
from lamina.cli.session import play
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Dataset, Preparation
from lamina.errors import RecipeError
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.studies.comparison import (
    FIGURE,
    Plan,
    PlannedStudy,
    are_stored,
    check_pairs,
    iter_comparisons,
    list_runs,
    make_experiments,
    plan_study,
    read_comparisons,
)
from lamina.studies.experiment_text import Source, find_source
from lamina.studies.judging import compare_stored
from lamina.studies.study import RunSetup


def run(options: CompareOptions, terminal: Terminal) -> int:
    """Run the command."""
    plan = read_plan(options)
    if options.until_decided and not plan.is_sequential:
        raise RecipeError(
            "--until-decided sets the number of seeds. Use it without --seeds and --time."
        )
    sources = find_sources([options.a, options.b], options)
    if are_stored(sources) and plan.is_sequential and not options.until_decided:
        _refuse_training_options(options)
        print_comparison(compare_stored(list_runs(sources), plan.margin), terminal)
        return 0
    dataset = load_study_data(sources, options, terminal)
    named, decisions = make_experiments(sources, dataset, partial(choose_net, terminal=terminal))
    for decision in decisions:
        terminal.remark(str(decision))
    study = plan_study(options.runs_dir, options.name, named)
    status = train_study(study, plan, terminal)
    if status == 0:
        (comparison,) = read_comparisons(study.path)
        print_comparison(comparison, terminal)
        terminal.say(f"figure: {study.path / FIGURE}")
    return status


def _refuse_training_options(options: CompareOptions) -> None:
    values = {
        "--data": options.data,
        "--name": options.name,
        "--device": options.device != "auto",
        options.preparation.flags_of(): options.preparation,
    }
    flags = [flag for flag, value in values.items() if value]
    if flags:
        raise RecipeError(
            "Two runs are compared by their stored predictions. Leave out"
            f" {' and '.join(flags)}, or add --seeds to train them again."
        )


def read_plan(options: StudyOptions) -> Plan:
    seconds = None if options.time is None else read_seconds("--time", options.time)
    check_pairs(options.seeds)
    return Plan(options.seeds, seconds, options.margin)


def find_sources(texts: Sequence[str], options: StudyOptions) -> list[Source]:
    """The runs or nets that are named, trained on the device of the command."""
    device = "" if options.device == "auto" else f",device={options.device}"
    return [find_source(f"{text}{device}", options.runs_dir) for text in texts]


def load_study_data(
    sources: Sequence[Source], options: StudyOptions, terminal: Terminal
) -> Dataset:
    """The data of the first run among the sources, or those of the command."""
    runs = list_runs(sources)
    if not runs:
        return choose_data(options.data, Preparation(**options.preparation), terminal)
    if options.preparation:
        flags = options.preparation.flags_of()
        raise RecipeError(f"A run stores how its images are loaded. Leave out {flags}.")
    return choose_run_data(runs[0], options.data, terminal)


def train_study(study: PlannedStudy, plan: Plan, terminal: Terminal) -> int:
    """Train the experiments of a study, without lines for epochs. Returns the exit status."""
    events = iter_comparisons(study, plan, RunSetup(command=terminal.command))
    with terminal.progress() as show_progress:
        _, stopped_by = play(events, terminal, show_progress, is_brief=True)
    if stopped_by is None:
        return 0
    terminal.remark(
        f"lamina: stopped by {stopped_by.name}; to continue the study {study.path}, run the"
        " command again"
    )
    return 128 + stopped_by


def print_comparison(comparison: PairedComparison, terminal: Terminal) -> None:
    terminal.say(*str(comparison).split("\n"))
    terminal.emit(**comparison.to_json())
