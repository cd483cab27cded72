"""The RUN argument: load a run's model, and the data to use it on."""

from __future__ import annotations

from pathlib import Path

from lamina.cli.data_argument import choose_data
from lamina.cli.net_argument import choose_net
from lamina.cli.terminal import Terminal
from lamina.data import Dataset
from lamina.errors import NetError
from lamina.evaluation.predictor import Predictor
from lamina.runs.run import Run, find_source, load_run
from lamina.runs.start import with_module
from lamina.training.device import choose_device
from lamina.training.hooks import find_path
from lamina.training.model import Model


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


def choose_layer(model: Model, layer: str) -> str:
    """The module path of a layer, given by its number in the net (from 1) or its module path."""
    number, dot, inside = layer.partition(".")
    # 4.body.0 is in layer 4, as in the figures
    if number.isdecimal() and (model.net is not None or not dot):
        return find_path(model, f"{find_path(model, int(number))}{dot}{inside}")
    return find_path(model, f"body.{layer.removeprefix('body.')}")
