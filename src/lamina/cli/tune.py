"""lamina tune: search the settings of a recipe, or the sizes of a net."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.options import Tune
from lamina.cli.study_session import play_study
from lamina.cli.terminal import Terminal, read_seconds
from lamina.data import Preparation
from lamina.errors import RecipeError
from lamina.files import check_name
from lamina.studies.experiment_text import parse_experiment
from lamina.studies.search import Search
from lamina.studies.study import RunSetup
from lamina.studies.tuning import draw_val, find_limits, iter_tuning


def run(options: Tune, terminal: Terminal) -> int:

    over = _split("--over", options.over)
    net_over = _split("--net-over", options.net_over)
    if options.net is None:
        raise RecipeError("There is no net to tune. Use lamina tune NET --over lr=1e-4..1e-1:log.")
    seconds = None
    if options.time is not None:
        seconds = read_seconds("--time", options.time)
    loaded = choose_data(options.data, Preparation(**options.preparation), terminal)
    dataset = draw_val(loaded)
    if dataset is not loaded:
        terminal.remark("val: a tenth of the training images, to compare trials (--val)")
    net, recipe, values = parse_experiment(options.net)
    choose = partial(choose_net, terminal=terminal)
    setup = RunSetup(command=terminal.command, jobs=options.jobs)
    search = Search(net, recipe, values, over, net_over, dataset, choose, setup)
    limits = find_limits(search, options.trials, seconds)
    check_name(options.name)
    path = options.runs_dir / (options.name or search.name)
    events = iter_tuning(path, search, options.storage, limits, is_worker=options.worker)
    return play_study(events, terminal)


def _split(flag: str, texts: tuple[str, ...]) -> Mapping[str, str]:
    """Ranges by name, from ``NAME=RANGE``."""
    ranges: dict[str, str] = {}
    for text in texts:
        name, equals, limits = text.partition("=")
        if not (name and equals):
            raise RecipeError(
                f"{flag} {text!r} is not a name with a range. Use {flag} NAME=LOW..HIGH or"
                f" NAME=A,B,C. If it is the net, put it before {flag}."
            )
        name = name.replace("-", "_")
        if name in ranges:
            raise RecipeError(
                f"{flag} has two ranges for {name}, {ranges[name]} and {limits}. Leave out one of"
                " them."
            )
        ranges[name] = limits
    return ranges
