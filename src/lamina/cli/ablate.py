"""lamina ablate: measure what each part of a net or recipe is worth."""

from __future__ import annotations

from functools import partial

from lamina.cli.compare import train_study
from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.study_options import AblateOptions
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Preparation
from lamina.studies.ablation import remove_parts
from lamina.studies.comparison import FIGURE, check_plan, choose_folder, name_experiments, read_comparisons
from lamina.studies.study import find_experiment
from lamina.targets import Score


def run(options: AblateOptions, terminal: Terminal) -> int:
    """Run the command."""
    seconds = None if options.time is None else read_seconds("--time", options.time)
    check_plan(options.seeds, seconds, options.margin)
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    choose = partial(choose_net, terminal=terminal)
    name, whole, decisions = find_experiment(options.net, dataset, options.given, choose)
    for decision in decisions:
        terminal.remark(str(decision))
    experiments = name_experiments(remove_parts(name, whole, options.without, each=options.each))
    path = choose_folder(options.runs_dir, options.name, experiments)
    status = train_study(
        path, experiments, terminal, seeds=options.seeds, device=options.device, seconds=seconds, margin=options.margin
    )
    if status:
        return status
    found = read_comparisons(path)
    metric, whole_score = found[0].metric, found[0].b_score
    terminal.say(f"{name}: {found[0].split} {Score(metric, whole_score)}")
    rows = [(one.a, str(Score(metric, one.a_score)), one.words) for one in found]
    terminal.tabulate(("A", "score", "compared with the whole"), rows, texts=3)
    terminal.say(f"figure: {path / FIGURE}")
    for one in found:
        terminal.emit(**one.to_json())
    return 0
