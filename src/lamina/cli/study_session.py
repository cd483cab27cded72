"""Shared by compare, ablate and reproduce: plan and train the experiments of a study."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lamina.cli.data_argument import choose_data
from lamina.cli.models import choose_run_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options import StudyOptions
from lamina.cli.parsing import refuse
from lamina.cli.session import end_study, play
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Dataset, Preparation
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.runs.course import RunEvent
from lamina.studies.comparison import (
    Plan,
    PlannedStudy,
    check_pairs,
    iter_comparisons,
    list_runs,
    make_experiments,
)
from lamina.studies.experiment import Experiment
from lamina.studies.experiment_text import Source, find_source
from lamina.studies.pairing import Pairing
from lamina.studies.study import RunSetup


def read_plan(options: StudyOptions) -> Plan:
    seconds = None
    if options.time is not None:
        seconds = read_seconds("--time", options.time)
    pairing = Pairing(options.folds)
    plan = Plan(options.seeds, seconds, options.margin, pairing)
    check_pairs(plan)
    return plan


def find_sources(texts: Sequence[str], options: StudyOptions) -> list[Source]:
    """The runs or nets in ``texts``, to train on the device of the command."""
    sources = [find_source(text, options.runs_dir) for text in texts]
    if options.device == "auto":
        return sources
    device: dict[str, Any] = {"device": options.device}
    return [replace(source, values={**device, **source.values}) for source in sources]


def load_study_data(
    sources: Sequence[Source], options: StudyOptions, terminal: Terminal
) -> Dataset:
    """The data of the first run among the sources, or the data of the command."""
    runs = list_runs(sources)
    if not runs:
        return choose_data(options.data, Preparation(**options.preparation), terminal)
    refuse(options, "A run stores how its images are loaded.", "preparation")
    return choose_run_data(runs[0], options.data, terminal)


def plan_experiments(
    sources: Sequence[Source], dataset: Dataset, terminal: Terminal
) -> list[tuple[str, Experiment]]:
    """The experiments of the sources, by name; prints their choices."""
    choose = partial(choose_net, terminal=terminal)
    named, decisions = make_experiments(sources, dataset, choose)
    for decision in decisions:
        terminal.remark(str(decision))
    return named


def train_study(study: PlannedStudy, terminal: Terminal, jobs: int | None = None) -> int:
    events = iter_comparisons(study, RunSetup(command=terminal.command, jobs=jobs))
    return play_study(events, terminal)


def play_study(events: Generator[RunEvent, None, Any], terminal: Terminal) -> int:
    """Print the events of a study, without lines for epochs. Returns the exit status."""
    with terminal.progress_bar() as show_progress:
        _, stopped_by = play(events, terminal, show_progress, is_brief=True)
    return end_study(stopped_by, terminal)


def print_comparison(comparison: PairedComparison, terminal: Terminal) -> None:
    terminal.say(*str(comparison).split("\n"))
    terminal.emit(**comparison.to_json())
