"""What RUN means on the command line: a run's model, and the data to use it on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from lamina.cli.data_argument import choose_data, choose_other_data
from lamina.cli.net_argument import choose_net
from lamina.cli.parsing import Given
from lamina.cli.terminal import Terminal
from lamina.data import NAMES, Dataset, Problem
from lamina.data.load import full_source
from lamina.errors import DataError, NetError
from lamina.evaluation.image_files import find_images
from lamina.evaluation.predictor import Predictor
from lamina.nets import Net
from lamina.runs.net_names import TIMM
from lamina.runs.retraining import find_source
from lamina.runs.run import Run
from lamina.runs.stored import load_run
from lamina.training.activations import find_path
from lamina.training.device import choose_device
from lamina.training.model import Model

IMAGES_OF_ONE_THREAD = 10
"""Up to this many images are predicted by one thread: each takes a millisecond, but waiting for a second thread whose
core another process is using takes eighty."""
KEPT_FIELDS = {"size_px", "resize", "task", "val_fraction", "test_fraction", "split_seed"}
"""How a run's model is used follows from its training: not to be given for other data."""


def load_predictor(path: Path, net: str | None, device: str, terminal: Terminal) -> tuple[Run, Predictor]:
    """A run, and its model on a device; ``net`` is the file that makes a user's own module."""
    run = load_run(path)
    run, place = add_module(run, net, terminal), choose_device(device)
    terminal.remark(f"device: {place}")
    return run, run.predictor(device=place.value)


def add_module(run: Run, net: str | None, terminal: Terminal) -> Run:
    """The run with the user's own net or module in the file ``net``, its weights drawn from the run's seed."""
    if net is None:
        return run
    record = run.record
    is_own = not net.startswith(TIMM)
    body = choose_net(net, terminal).make(record.recipe.seed, record.in_shape, record.task.outputs) if is_own else None
    if body is None or (isinstance(body, Net) and record.own_module is None):
        raise NetError(f"--net is for a module of your own, but {net} defines a net that the run already stores.")
    return dataclasses.replace(run, module=body)


def choose_run_data(run: Run, source: str | None, terminal: Terminal) -> Dataset:
    """The data set of a run, from where it was, or from its new place, ``source``."""
    return choose_data(str(find_source(run.folder, run.record, source)), run.record.data.preparation, terminal)


def choose_evaluated_data(
    run: Run, source: str | None, predictor: Predictor, terminal: Terminal, given: Given | None = None
) -> tuple[Dataset, bool]:
    """The data set to use a run's model on, read as ``given`` says unless it is the run's own, and whether it is."""
    own, given = run.record.data, given or Given()
    if source is not None and full_source(source) != own.source and not is_moved_to(run, source, terminal):
        if kept := given.flags_of(KEPT_FIELDS):
            raise DataError(f"{run.path} reads images as for its training, and draws no splits. Leave out {kept}.")
        task = predictor.task
        preparation = dataclasses.replace(own.preparation, **given)
        preparation = dataclasses.replace(preparation, size_px=predictor.size_px, task=task.kind.name)
        return choose_other_data(source, preparation, task.target_names, terminal), False
    if given:
        raise DataError(
            f"{run.path} was trained on this data, which is read as it was then. Leave out {given.flags_of()}."
        )
    data = choose_run_data(run, source, terminal)
    if data.fingerprint != own.fingerprint:
        terminal.remark(
            f"warning: {own.source} has changed since the run was trained: these may include images it was trained on"
        )
    return data, True


def is_moved_to(run: Run, source: str, terminal: Terminal) -> bool:
    """Whether a run's data set, where it is no longer where it was, has moved to ``source``."""
    own = run.record.data
    if {own.source, source} & set(NAMES) or Path(own.source).exists():
        return False
    terminal.remark(f"data: {own.source} is no longer there; reading {source} to see whether it has moved")
    try:
        return choose_data(source, own.preparation, terminal, is_again=True).fingerprint == own.fingerprint
    except DataError:
        return False


def choose_images(given: tuple[Path, ...]) -> tuple[list[Path], list[Problem]]:
    """The images that were given, and what is wrong with the others."""
    if not given:
        raise DataError("Expected images after the run, got none. Give their paths.")
    paths, problems = find_images(given)
    if len(paths) <= IMAGES_OF_ONE_THREAD:
        torch.set_num_threads(1)
    return paths, problems


def choose_layer(model: Model, layer: str) -> str:
    """The module path of a layer that is given by its number in the net, from 1, or by its path in the module."""
    number, dot, inside = layer.partition(".")
    if number.isdecimal() and (model.net is not None or not dot):  # 4.body.0 is in layer 4, as in figures
        return find_path(model, f"{find_path(model, int(number))}{dot}{inside}")
    return find_path(model, layer if layer.startswith("body.") else f"body.{layer}")
