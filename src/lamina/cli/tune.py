"""lamina tune: search the settings of a recipe, or the sizes of a net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.fields import SharedOptions
from lamina.cli.terminal import Terminal, read_seconds
from lamina.errors import RecipeError
from lamina.files import check_name


@dataclass(frozen=True, kw_only=True)
class Options(SharedOptions):
    """Search the settings of a recipe, or the sizes of a net, that score best on val.

    lamina trains the best five and the recipe without searched values with three new seeds. It then
    trains the winner with six fresh seeds, evaluates it once on test, and compares it with the
    recipe. Ranges: lr=1e-4..1e-1:log (logarithmic), dropout=0..0.5, batch_size=50,100,200 (these
    values).

    Example: lamina tune cnn-s:quick --over lr=0.01..0.2:log batch_size=250,500 --time 30m
    """

    net: Positional[str | None] = None
    """a net as in lamina train; a recipe follows after a colon, settings after commas, as in
    cnn-s:quick,epochs=5; layers may contain a name in place of a size"""
    over: Annotated[tuple[str, ...], arg(metavar="NAME=RANGE...")] = ()
    """settings of the recipe to search"""
    net_over: Annotated[tuple[str, ...], arg(metavar="NAME=RANGE...")] = ()
    """sizes in the layers of NET to search, as in "Flatten(), Linear(width), ReLU(), Output()"
    --net-over width=32..256"""
    trials: int | None = None
    """number of trials of all workers (default: 30)"""
    time: str | None = None
    """time limit (30s, 5m, 1h) in place of --trials: at least half for the search, the
    rest for the finals"""
    storage: str | None = None
    """where the workers of several machines, which all run the same command, share the trials:
    postgresql://USER@HOST/DATABASE (password in ~/.pgpass), or a file on a shared disk (default: a
    file in the study's folder, for the processes of one machine)"""


def run(options: Options, terminal: Terminal) -> int:
    from lamina.cli.data_argument import choose_data
    from lamina.cli.net_argument import choose_net
    from lamina.cli.study_session import play_study
    from lamina.data import Preparation
    from lamina.studies.experiment_text import parse_experiment
    from lamina.studies.search import Search
    from lamina.studies.study import RunSetup
    from lamina.studies.tuning import draw_val, find_limits, iter_tuning

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
    return play_study(iter_tuning(path, search, options.storage, limits), terminal)


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
