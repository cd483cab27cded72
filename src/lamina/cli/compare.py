"""lamina compare: compare two runs or nets, with an interval and a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from lamina.cli.fields import StudyOptions
from lamina.cli.options import Flag
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal

RUNS = ("data", "name", "device", "jobs", "preparation")
"""Options about runs to train."""


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Compare two runs, or two nets trained with shared seeds; print an interval and a verdict.

    Two runs without settings, --seeds, --until-decided and --time are not trained: their stored
    logits are compared, with labels corrected by --labels-from. Otherwise, lamina trains pairs that
    share the seed, the splits and the order of images.

    Example: lamina compare cnn:best cnn:best,dropout=0.5
    """

    a: Positional[str]
    """a run, or a net as in lamina train; a recipe follows after a colon, settings after commas, as
    in cnn:best,lr=0.01"""
    b: Positional[str]
    """the reference, as A"""
    until_decided: Flag = False
    """train 4, 8 or 16 pairs, until A is better, worse or equal, or more seeds cannot help (the
    default for nets)"""


def run(options: Options, terminal: Terminal) -> int:
    from lamina.cli import study_session
    from lamina.studies.comparison import (
        FIGURE,
        are_stored,
        list_runs,
        plan_study,
        read_comparisons,
    )
    from lamina.studies.judging import compare_stored

    if options.until_decided:
        refuse(options, "--until-decided sets the number of seeds.", "seeds", "time", "folds")
    plan = study_session.read_plan(options)
    sources = study_session.find_sources([options.a, options.b], options)
    if are_stored(sources, plan) and not options.until_decided:
        reason = (
            "Two runs are compared by their stored predictions; to train them again, add --seeds."
        )
        labels = options.preparation.pop("labels_from", ())
        refuse(options, reason, *RUNS)
        comparison = compare_stored(list_runs(sources), plan.margin, labels)
        study_session.print_comparison(comparison, terminal)
        return 0
    dataset = study_session.load_study_data(sources, options, terminal)
    experiments = study_session.plan_experiments(sources, dataset, terminal)
    planned = plan_study(options.runs_dir, options.name, experiments, plan)
    status = study_session.train_study(planned, terminal, options.jobs)
    if status == 0:
        (comparison,) = read_comparisons(planned.path)
        study_session.print_comparison(comparison, terminal)
        terminal.say(f"figure: {planned.path / FIGURE}")
    return status
