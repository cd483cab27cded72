"""The RUN argument: load a run's model, and the data to use it on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.parsing import Given
from lamina.cli.terminal import Terminal
from lamina.data import NAMES, Dataset, load_data
from lamina.data.description import describe_data
from lamina.data.load import full_source
from lamina.data.matching import Unknown, load_to_evaluate
from lamina.errors import DataError, LaminaWarning, NetError
from lamina.evaluation.predictor import Predictor
from lamina.runs.run import Run, find_source, load_run
from lamina.runs.start import with_module
from lamina.training.device import choose_device
from lamina.training.hooks import find_path
from lamina.training.model import Model

KEPT_FIELDS = (
    "size_px",
    "resize",
    "task",
    "val_fraction",
    "test_fraction",
    "split_seed",
    "group_from",
    "group_column",
    "fold",
)
"""Fixed by a run's training, so not accepted with other data."""


def load_predictor(
    path: Path, net: str | None, device: str, terminal: Terminal
) -> tuple[Run, Predictor]:
    """Load a run, and its model on a device; ``net`` is the file that defines a custom net."""
    run = add_module(load_run(path), net, terminal)
    place = choose_device(device)
    terminal.remark(f"device: {place}")
    return run, run.predictor(device=place.value)


def add_module(run: Run, net: str | None, terminal: Terminal) -> Run:
    """The run with the custom net from the file ``net``."""
    if net is None:
        return run
    record = run.record
    if record.own_module is None:
        raise NetError(f"{run.path} stores its net, {record.net_name}. Leave out --net.")
    return with_module(run, choose_net(net, terminal))


def choose_run_data(run: Run, source: str | None, terminal: Terminal) -> Dataset:
    """Load the data of a run, by default from its original path; warn if it has changed."""
    recorded = run.record.data
    dataset = choose_data(str(find_source(run, source)), recorded.preparation, terminal)
    if dataset.fingerprint != recorded.fingerprint:
        terminal.remark(
            f"warning: {dataset.name} is not, or no longer, the data set that {run.path} was"
            " trained on, so every split may contain training images"
        )
    return dataset


def choose_evaluated_data(
    run: Run,
    source: str | None,
    predictor: Predictor,
    terminal: Terminal,
    changes: Given,
    unknown: Unknown,
) -> tuple[Dataset, bool]:
    """Load the run's data or another data set; the second value is whether it is the run's."""
    recorded = run.record.data
    task = predictor.task
    if (
        source is None
        or full_source(source) == recorded.source
        or is_moved_to(run, source, terminal)
    ):
        if changes:
            advice = f"Leave out {changes.flags_of()}."
            if source is not None and "labels_from" in changes:
                advice = "To score its images with corrected labels, leave out --data."
            raise DataError(
                f"{run.path} was trained on this data set and loads it in the same way. {advice}"
            )
        return choose_run_data(run, source, terminal), True
    flags = changes.flags_of(KEPT_FIELDS)
    if flags:
        raise DataError(
            f"{run.path} loads images as it did for training, and draws no splits. Leave out"
            f" {flags}."
        )
    # corrections and names of folders belong to the run's own data
    values: dict[str, Any] = {"labels_from": (), "splits": (), **changes}
    values["size_px"] = predictor.size_px
    values["task"] = task.kind.name
    if unknown == "keep":
        values["task"] = None
    preparation = replace(recorded.preparation, **values)
    with terminal.progress("preparing images", quiet_seconds=0) as progress:
        dataset = load_to_evaluate(
            source, preparation, task.target_names, unknown, progress=progress
        )
    for line in describe_data(dataset, "as requested"):
        terminal.remark(line)
    return dataset, False


def is_moved_to(run: Run, source: str, terminal: Terminal) -> bool:
    """Whether a run's data set is missing from its original path and has moved to ``source``."""
    recorded = run.record.data
    if {recorded.source, source} & set(NAMES) or Path(recorded.source).exists():
        return False
    try:
        with (
            warnings.catch_warnings(action="ignore", category=LaminaWarning),
            terminal.progress("preparing images", quiet_seconds=0) as progress,
        ):
            dataset = load_data(source, recorded.preparation, progress=progress)
    except DataError:
        return False
    return dataset.fingerprint == recorded.fingerprint


def choose_layer(model: Model, layer: str) -> str:
    """The module path of a layer, given by its number in the net (from 1) or its module path."""
    number, dot, inside = layer.partition(".")
    # 4.body.0 is in layer 4, as in the figures
    if number.isdecimal() and (model.net is not None or not dot):
        return find_path(model, f"{find_path(model, int(number))}{dot}{inside}")
    return find_path(model, f"body.{layer.removeprefix('body.')}")
