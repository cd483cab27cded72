"""lamina ablate: measure how each part of a net or recipe changes the score."""

from __future__ import annotations

from functools import partial

from lamina.cli.compare import read_plan, train_study
from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.study_options import AblateOptions
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.studies.ablation import find_settings, remove_parts
from lamina.studies.comparison import FIGURE, plan_study, read_comparisons
from lamina.studies.study import find_experiment, split_recipe
from lamina.targets import Score


def run(options: AblateOptions, terminal: Terminal) -> int:
    """Run the command."""
    plan = read_plan(options)
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    choose = partial(choose_net, terminal=terminal)
    name, whole, decisions = find_experiment(options.net, dataset, options.given, choose)
    for decision in decisions:
        terminal.remark(str(decision))
    settings = (
        find_settings(whole, split_recipe(options.net)[1], options.given) if options.each else []
    )
    parts = remove_parts(name, whole, [*options.without, *settings])
    path, experiments = plan_study(options.runs_dir, options.name, parts)
    if status := train_study(path, experiments, plan, terminal):
        return status
    found = {one.a: one for one in read_comparisons(path)}
    whole_result = next(iter(found.values()))
    terminal.say(f"{name}: {whole_result.split} {Score(whole_result.metric, whole_result.b_score)}")
    rows = [(part, "–", "diverged") for part in experiments if part != name and part not in found]
    rows += [(part, str(Score(one.metric, one.a_score)), one.words) for part, one in found.items()]
    terminal.tabulate(("A", "score", "compared with the whole"), rows, texts=3)
    terminal.say(f"figure: {path / FIGURE}")
    for one in found.values():
        terminal.emit(**one.to_json())
    return 0
