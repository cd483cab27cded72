"""lamina ablate: measure how each part of a net or recipe changes the score."""

from __future__ import annotations

from functools import partial

from lamina.cli.compare import find_sources, load_study_data, read_plan, train_study
from lamina.cli.net_argument import choose_net
from lamina.cli.options.study_options import AblateOptions
from lamina.cli.terminal import Terminal
from lamina.studies.ablation import find_settings, remove_parts
from lamina.studies.comparison import FIGURE, plan_study, read_comparisons
from lamina.studies.experiment_text import make_experiment
from lamina.targets import Score


def run(options: AblateOptions, terminal: Terminal) -> int:
    """Run the command."""
    plan = read_plan(options)
    (source,) = find_sources([options.net], options)
    dataset = load_study_data([source], options, terminal)
    whole, decisions = make_experiment(source, dataset, partial(choose_net, terminal=terminal))
    for decision in decisions:
        terminal.remark(str(decision))
    without = list(options.without)
    if options.each:
        without += find_settings(whole, source)
    named = remove_parts(source.title, whole, without)
    study = plan_study(options.runs_dir, options.name, named)
    status = train_study(study, plan, terminal)
    if status:
        return status
    comparisons = read_comparisons(study.path)
    first = comparisons[0]
    compared = {comparison.a for comparison in comparisons}
    rows = [
        (name, "–", "diverged")
        for name in study.experiments
        if name not in compared and name != source.title
    ]
    for comparison in comparisons:
        score = Score(comparison.metric, comparison.a_score)
        rows.append((comparison.a, str(score), comparison.words))
        terminal.emit(**comparison.to_json())
    terminal.say(f"{first.b}: {first.split} {Score(first.metric, first.b_score)}")
    terminal.tabulate(("A", "score", "compared with the whole"), rows, texts=3)
    terminal.say(f"figure: {study.path / FIGURE}")
    return 0
