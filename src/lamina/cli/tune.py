"""lamina tune: search the settings of a recipe, or the sizes of a net."""

from __future__ import annotations

import shlex
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
from lamina.studies.study import without_device
from lamina.studies.tuning import draw_val, find_trials, iter_joined, iter_tuning, plan_tuning
from lamina.text import hide_password


def run(options: TuneOptions, terminal: Terminal) -> int:
    """Run the command."""
    choose = partial(choose_net, terminal=terminal)
    if options.join is not None:
        known = (
            options.net,
            options.over,
            options.net_over,
            options.trials,
            options.time,
            options.storage,
        )
        has_settings = bool(without_device(options.given)) or bool(options.preparation)
        if any(known) or options.name or has_settings:
            raise RecipeError(
                "--join continues a study that knows its net, ranges and settings. Leave out all"
                " but --data, --runs-dir and --device; of several studies in a database, choose one"
                " by URL#NAME."
            )
        trials = find_trials(options.join, options.runs_dir)
        if (
            options.runs_dir != TuneOptions.runs_dir
            and trials.folder.parent.resolve() != options.runs_dir.resolve()
        ):
            raise RecipeError(
                f"{options.join} keeps its runs in its own folder. Leave out --runs-dir."
            )
        events = iter_joined(trials, options.data, choose, options.given, terminal.command)
        again = f"lamina tune --join {shlex.quote(hide_password(options.join))}"
    else:
        over, net_over = _split("--over", options.over), _split("--net-over", options.net_over)
        if options.net is None:
            raise RecipeError(
                "There is no net to tune. Use lamina tune NET --over lr=1e-4..1e-1:log."
            )
        seconds = None if options.time is None else read_seconds("--time", options.time)
        found = choose_data(options.data, Preparation(**options.preparation), terminal)
        dataset = draw_val(found)
        if dataset is not found:
            terminal.remark("val: a tenth of the training images, to compare trials (--val)")
        net, recipe, values = parse_experiment(options.net)
        search = Search(
            net,
            recipe,
            {**values, **options.given},
            over,
            net_over,
            dataset,
            choose,
            terminal.command,
        )
        path = plan_tuning(search, options.runs_dir, options.name, options.trials, seconds)
        events = iter_tuning(path, search, options.storage, options.trials, seconds)
        again = "the command"
    with terminal.progress() as show_progress:
        _, stopped_by = play(events, terminal, show_progress, is_brief=True)
    if stopped_by is None:
        return 0
    terminal.remark(
        f"lamina: stopped by {stopped_by.name}; to continue the study, run {again} again"
    )
    return 128 + stopped_by


def _split(flag: str, texts: tuple[str, ...]) -> Mapping[str, str]:
    """Ranges by name, from ``NAME=RANGE``."""
    found: dict[str, str] = {}
    for text in texts:
        if "=" not in text or text.startswith("="):
            raise RecipeError(
                f"{flag} {text!r} is not a name with a range. Use {flag} NAME=LOW..HIGH or"
                f" NAME=A,B,C. If it is the net, put it before {flag}."
            )
        name, _, ranged = text.partition("=")
        name = name.replace("-", "_")
        if name in found:
            raise RecipeError(
                f"{flag} has two ranges for {name}, {found[name]} and {ranged}. Leave out one of"
                " them."
            )
        found[name] = ranged
    return found
