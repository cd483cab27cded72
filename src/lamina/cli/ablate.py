"""lamina ablate: measure how each part of a net or recipe changes the score."""

from __future__ import annotations

from lamina.cli import study_session
from lamina.cli.options import Ablate
from lamina.cli.terminal import Terminal
from lamina.studies.ablation import read_ablation, remove_parts
from lamina.studies.comparison import FIGURE, plan_study


def run(options: Ablate, terminal: Terminal) -> int:

    plan = study_session.read_plan(options)
    (source,) = study_session.find_sources([options.net], options)
    dataset = study_session.load_study_data([source], options, terminal)
    ((_, whole),) = study_session.plan_experiments([source], dataset, terminal)
    experiments = remove_parts(source, whole, options.without)
    planned = plan_study(options.runs_dir, options.name, experiments, plan)
    status = study_session.train_study(planned, terminal, options.jobs)
    if status:
        return status
    ablation = read_ablation(planned)
    for comparison in ablation.comparisons:
        terminal.emit(**comparison.to_json())
    terminal.say(ablation.headline())
    terminal.tabulate(*ablation.table(), texts=ablation.texts)
    terminal.say(f"figure: {planned.path / FIGURE}")
    return 0
