"""lamina data duplicates: near-duplicates within and across splits."""

from __future__ import annotations

import shlex

from lamina.cli.data_argument import choose_data
from lamina.cli.options import DataDuplicates
from lamina.cli.output import check_new, check_output, save_table
from lamina.cli.terminal import Terminal
from lamina.data import Preparation
from lamina.errors import plural
from lamina.insight.similarity import compare_images


def run(options: DataDuplicates, terminal: Terminal) -> int:

    if options.groups is not None:
        check_output(options.groups, (".csv",), "--groups")
        check_new(options.groups, "groups")
    dataset = choose_data(options.data, Preparation(**options.preparation), terminal)
    with terminal.progress("comparing images") as progress:
        duplicates = compare_images([*dataset.splits.values()], progress)
    terminal.say(duplicates.headline())
    terminal.tabulate(*duplicates.table(), texts=5, top=options.top)
    terminal.say(*duplicates.remarks())
    if options.groups is not None:
        heads, rows = duplicates.group_table()
        save_table(options.groups, [heads, *rows])
        groups = plural(len({group for _, group in rows}), "group", "groups")
        advice = ""
        if rows:
            advice = f"; train with --group-from {shlex.quote(str(options.groups))}"
        terminal.say(f"{options.groups}: {len(rows):,} images in {groups}{advice}")
    elif duplicates.near_train:
        terminal.say(
            "to keep near-duplicates in one split, save them as groups with --groups groups.csv"
        )
    terminal.emit("duplicates", **duplicates.to_json())
    return 0
