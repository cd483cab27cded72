"""lamina compare: compare two runs or nets, with an interval and a verdict."""

from __future__ import annotations

from lamina.cli import study_session
from lamina.cli.options import Compare
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.studies.comparison import FIGURE, are_stored, list_runs, plan_study, read_comparisons
from lamina.studies.judging import compare_stored

RUNS = ("data", "name", "device", "jobs", "preparation")
"""Options about runs to train."""


def run(options: Compare, terminal: Terminal) -> int:

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
