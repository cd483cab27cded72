"""lamina data duplicates: near-duplicates within and across splits, and outliers."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

from lamina.cli.data_argument import choose_data
from lamina.cli.options.data_options import DataDuplicatesOptions
from lamina.cli.output import check_output, save_table
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Preparation
from lamina.errors import DataError, plural
from lamina.insight.similarity import NearDuplicates, compare_images


def run(options: DataDuplicatesOptions, terminal: Terminal) -> int:
    if options.top < 1:
        raise DataError(f"--top is {options.top}; it must be at least 1. Use --top 10.")
    if options.groups is not None:
        check_output(options.groups, (".csv",), "--groups")
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    splits = [*dataset.splits.values()]
    with terminal.progress(QUIET_SECONDS) as show_progress:
        duplicates = compare_images(splits, options.top, partial(show_progress, "comparing images"))
    terminal.say(duplicates.headline())
    terminal.tabulate(*duplicates.table(), texts=5, top=options.top)
    terminal.say(*duplicates.remarks())
    if options.groups is not None:
        _save_groups(duplicates, options.groups, terminal)
    elif duplicates.near_train:
        terminal.say(
            "to keep near-duplicates in one split, save them as groups with --groups groups.csv"
        )
    terminal.say("outliers (images unlike all others):")
    terminal.tabulate(*duplicates.outliers.table(), texts=2)
    terminal.emit("duplicates", **duplicates.to_json())
    return 0


def _save_groups(duplicates: NearDuplicates, file: Path, terminal: Terminal) -> None:
    heads, rows = duplicates.group_table()
    save_table(file, [heads, *rows])
    groups = plural(len({group for _, group in rows}), "group", "groups")
    advice = ""
    if rows:
        advice = f"; train with --group-from {shlex.quote(str(file))}"
    terminal.say(f"{file}: {len(rows):,} images in {groups}{advice}")
