"""lamina tune: search the settings of a recipe, or the sizes of a net."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options.study_options import TuneOptions
from lamina.cli.session import play
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Preparation
from lamina.errors import RecipeError
from lamina.studies.experiment_text import parse_experiment
from lamina.studies.search import Search
from lamina.studies.tuning import draw_val, find_limits, find_name, iter_tuning


def run(options: TuneOptions, terminal: Terminal) -> int:
    """Run the command."""
    over = _split("--over", options.over)
    net_over = _split("--net-over", options.net_over)
    if options.net is None:
        raise RecipeError("There is no net to tune. Use lamina tune NET --over lr=1e-4..1e-1:log.")
    seconds = None if options.time is None else read_seconds("--time", options.time)
    loaded = choose_data(options.data, Preparation(**options.preparation), terminal)
    dataset = draw_val(loaded)
    if dataset is not loaded:
        terminal.remark("val: a tenth of the training images, to compare trials (--val)")
    net, recipe, settings = parse_experiment(options.net)
    choose = partial(choose_net, terminal=terminal)
    search = Search(net, recipe, settings, over, net_over, dataset, choose, terminal.command)
    limits = find_limits(search, options.trials, seconds)
    path = options.runs_dir / find_name(search, options.name, options.storage, options.runs_dir)
    events = iter_tuning(path, search, options.storage, limits)
    with terminal.progress() as show_progress:
        _, stopped_by = play(events, terminal, show_progress, is_brief=True)
    if stopped_by is None:
        return 0
    terminal.remark(
        f"lamina: stopped by {stopped_by.name}; to continue the study, run the command again"
    )
    return 128 + stopped_by


def _split(flag: str, texts: tuple[str, ...]) -> Mapping[str, str]:
    """Ranges by name, from ``NAME=RANGE``."""
    ranges: dict[str, str] = {}
    for text in texts:
        if "=" not in text or text.startswith("="):
            raise RecipeError(
                f"{flag} {text!r} is not a name with a range. Use {flag} NAME=LOW..HIGH or"
                f" NAME=A,B,C. If it is the net, put it before {flag}."
            )
        name, _, ranged = text.partition("=")
        name = name.replace("-", "_")
        if name in ranges:
            raise RecipeError(
                f"{flag} has two ranges for {name}, {ranges[name]} and {ranged}. Leave out one of"
                " them."
            )
        ranges[name] = ranged
    return ranges
