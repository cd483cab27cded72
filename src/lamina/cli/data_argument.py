"""The DATA argument: load a data set, and print how lamina reads it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from lamina.cli.terminal import Terminal
from lamina.data import Dataset, Preparation, find_default_data, load_data, load_to_evaluate
from lamina.data.description import describe_data, describe_depth, describe_reading
from lamina.data.matching import ClassMatch
from lamina.errors import LaminaWarning


def choose_data(
    source: str | None, preparation: Preparation, terminal: Terminal, *, is_again: bool = False
) -> Dataset:
    """Load a data set by name or path, or the default; ``is_again`` omits warnings and remarks."""
    reason = "as requested"
    if source is None:
        source, reason = find_default_data()
    if is_again:
        with (
            warnings.catch_warnings(action="ignore", category=LaminaWarning),
            _preparing(terminal) as progress,
        ):
            return load_data(source, preparation, progress=progress)
    with _preparing(terminal) as progress:
        dataset = load_data(source, preparation, progress=progress)
    for line in [*describe_data(dataset, reason), *describe_reading(dataset)]:
        terminal.remark(line)
    return dataset


def choose_other_data(
    source: str,
    preparation: Preparation,
    target_names: tuple[str, ...],
    match: ClassMatch,
    terminal: Terminal,
) -> Dataset:
    """Load a data set by name or path, to evaluate a model that was trained on another one."""
    with _preparing(terminal) as progress:
        dataset = load_to_evaluate(source, preparation, target_names, match, progress=progress)
    for line in [*describe_data(dataset, "as requested"), *describe_depth(dataset)]:
        terminal.remark(line)
    return dataset


@contextmanager
def _preparing(terminal: Terminal) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows progress, called with (done, total)."""
    with terminal.progress() as show_progress:
        yield partial(show_progress, "preparing images")
