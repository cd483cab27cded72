"""lamina data: what is in a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from lamina.cli.choices import choose_data
from lamina.cli.preparation import DataOptions
from lamina.cli.terminal import Terminal, parse_options

if TYPE_CHECKING:
    from lamina.data import Images


@dataclass(frozen=True)
class Options:
    """Show a data set's splits, classes, counts and sizes, and the pictures that could not be read."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """a name or a path"""
    reading: DataOptions = DataOptions()
    json: bool = False
    """one JSON object on stdout"""


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse_options(Options, "data", arguments)
    terminal = Terminal(as_json=options.json)
    dataset = choose_data(options.data, options.reading.prepare(), terminal).dataset
    counts = {split: images.target_counts() for split, images in dataset.splits.items()}
    columns = [_tell_targets(images) for images in dataset.splits.values()]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    rows.append(("images", *(f"{len(images):,}" for images in dataset.splits.values())))
    terminal.tabulate(("target", *counts), rows)
    terminal.say(f"size: {'×'.join(map(str, dataset.train.shape))} (channels, height, width)")
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


def _tell_targets(images: Images) -> dict[str, str]:
    """How many images each class or label has; of a number, its range."""
    if images.targets.dtype != np.float32:
        return {name: f"{count:,}" for name, count in images.target_counts().items()}
    ranges = zip(images.target_names, images.targets.min(axis=0), images.targets.max(axis=0), strict=True)
    return {name: f"{low:.4g} … {high:.4g}" for name, low, high in ranges}
