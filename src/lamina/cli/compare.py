"""lamina compare: compare two runs or nets, and say what was shown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lamina.cli.data_argument import choose_data
from lamina.cli.models import choose_run_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.study_options import CompareOptions, StudyOptions
from lamina.cli.session import play
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Preparation
from lamina.errors import RecipeError
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.runs.run import Run
from lamina.studies.comparison import (
    FIGURE,
    Plan,
    check_pairs,
    iter_comparisons,
    plan_study,
    read_comparisons,
)
from lamina.studies.experiment import Experiment
from lamina.studies.judging import compare_stored
from lamina.studies.study import find_experiment, find_run_or_net


def run(options: CompareOptions, terminal: Terminal) -> int:
    """Run the command."""
    plan = read_plan(options)
    if options.until_decided and (options.seeds or options.time):
        raise RecipeError(
            "--until-decided sets the number of seeds. Use it without --seeds and --time."
        )
    sources = [find_run_or_net(text, options.runs_dir) for text in (options.a, options.b)]
    runs = [one for one in sources if isinstance(one, Run)]
    is_trained = (
        options.seeds or options.time or options.until_decided or options.a_given or options.b_given
    )
    loading = options.preparation.flags_of() or ("--data" if options.data else "")
    if runs and (options.preparation or (loading and not is_trained)):
        raise RecipeError(f"A run stores how its images are loaded. Leave out {loading}.")
    if len(runs) == 2 and not is_trained:
        if options.name is not None or options.device != "auto":
            raise RecipeError(
                "Two runs are compared by their stored predictions. Leave out --name and --device."
            )
        return print_comparison(compare_stored(runs, plan.margin), terminal)
    if runs:
        dataset = choose_run_data(runs[0], options.data, terminal)
    else:
        dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    named = []
    for source, given in zip(sources, (options.a_given, options.b_given), strict=True):
        settings = given | {"device": options.device}
        name, experiment, decisions = find_experiment(
            source, dataset, settings, partial(choose_net, terminal=terminal)
        )
        named.append((name, experiment))
        for decision in decisions:
            terminal.remark(f"{name}: {decision}")
    path, experiments = plan_study(options.runs_dir, options.name, named)
    status = train_study(path, experiments, plan, terminal)
    return status or print_comparison(read_comparisons(path)[0], terminal, path / FIGURE)


def read_plan(options: StudyOptions) -> Plan:
    seconds = None if options.time is None else read_seconds("--time", options.time)
    check_pairs(options.seeds)
    return Plan(options.seeds, seconds, options.margin)


def print_comparison(
    found: PairedComparison, terminal: Terminal, figure: Path | None = None
) -> int:
    terminal.say(*str(found).split("\n"), *([] if figure is None else [f"figure: {figure}"]))
    terminal.emit(**found.to_json())
    return 0


def train_study(
    path: Path,
    experiments: Mapping[str, Experiment],
    plan: Plan,
    terminal: Terminal,
    *,
    is_brief: bool = True,
) -> int:
    """Train the experiments of a study; ``is_brief`` omits epochs. Returns the exit status."""
    events = iter_comparisons(path, experiments, plan, terminal.command)
    with terminal.progress() as show_progress:
        _, stopped_by = play(events, terminal, show_progress, is_brief=is_brief)
    if stopped_by is None:
        return 0
    terminal.remark(
        f"lamina: stopped by {stopped_by.name}; to continue the study {path}, run the command again"
    )
    return 128 + stopped_by
