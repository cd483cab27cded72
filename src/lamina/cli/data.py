"""lamina data: what is in a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from lamina.cli.choices import choose_data
from lamina.cli.terminal import Terminal, parse_options


@dataclass(frozen=True)
class Options:
    """Show a data set's splits, classes, counts and sizes, and the pictures that could not be read."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """a name or a path"""
    size: Annotated[int | None, tyro.conf.arg(metavar="PX", help_behavior_hint="")] = None
    """make the pictures squares of so many pixels"""
    json: bool = False
    """one JSON object on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "data", arguments)
    terminal = Terminal(as_json=options.json)
    dataset = choose_data(options.data, options.size, terminal).dataset
    counts = {split: images.target_counts() for split, images in dataset.splits.items()}
    rows = [
        (name, *(f"{counts[split].get(name, 0):,}" for split in counts))
        for name in next(iter(counts.values())) or dataset.train.target_names
    ]
    rows.append(("images", *(f"{len(images):,}" for images in dataset.splits.values())))
    terminal.tabulate(("target", *counts), rows)
    terminal.say(f"splits: {dataset.split_rule}; fingerprint: {dataset.fingerprint}")
    for problem in dataset.problems:
        terminal.say(f"not read: {problem.path}: {problem.reason}")
    terminal.emit(
        "data",
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        shape=dataset.train.shape,
        images={split: len(images) for split, images in dataset.splits.items()},
        counts=counts,
        split_rule=dataset.split_rule,
        problems=[{"image": problem.path, "reason": problem.reason} for problem in dataset.problems],
    )
    return 0
