"""The DATA argument: load a data set, and print how lamina reads it."""

from __future__ import annotations

from lamina.cli.terminal import Terminal
from lamina.data import Dataset, Preparation, find_default_data, load_data
from lamina.data.description import describe_data, explain_reading


def choose_data(source: str | None, preparation: Preparation, terminal: Terminal) -> Dataset:
    """Load a data set by name or path, or the default."""
    reason = "as requested"
    if source is None:
        source, reason = find_default_data()
    with terminal.progress("preparing images", quiet_seconds=0) as progress:
        dataset = load_data(source, preparation, progress=progress)
    for line in describe_data(dataset, reason):
        terminal.remark(line)
    for line, change in explain_reading(dataset):
        terminal.remark(line, change)
    return dataset
