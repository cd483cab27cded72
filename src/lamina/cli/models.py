"""The RUN argument: load a run's model, and the data to use it on."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from lamina.cli.data_argument import choose_data, choose_other_data
from lamina.cli.net_argument import choose_net
from lamina.cli.parsing import Given
from lamina.cli.terminal import Terminal
from lamina.data import NAMES, Dataset, Problem
from lamina.data.decoding import EncodedImage
from lamina.data.image_inputs import find_images
from lamina.data.images import OTHER_FILE
from lamina.data.load import EXAMPLES, full_source
from lamina.data.matching import ClassMatch
from lamina.errors import DataError, NetError, name_some, plural
from lamina.evaluation.predictor import Predictor
from lamina.nets import Net
from lamina.runs.loading import load_run
from lamina.runs.nets_by_name import TIMM
from lamina.runs.resuming import find_source
from lamina.runs.run import Run
from lamina.training.device import choose_device
from lamina.training.hooks import find_path
from lamina.training.model import Model

IMAGES_OF_ONE_THREAD = 10
"""Up to this many images, one thread predicts: an image takes about 1 ms, but waiting for a second
thread whose core another process uses takes about 80 ms."""
KEPT_FIELDS = {
    *(
        "size_px",
        "resize",
        "bit_depth",
        "task",
        "val_fraction",
        "test_fraction",
        "split_seed",
        "group_from",
        "group_column",
        "fold",
    ),
}
"""Fixed by a run's training, so not accepted with other data."""


def load_predictor(
    path: Path, net: str | None, device: str, terminal: Terminal
) -> tuple[Run, Predictor]:
    """Load a run, and its model on a device; ``net`` is the file that defines a custom net."""
    run = load_run(path)
    run, place = add_module(run, net, terminal), choose_device(device)
    terminal.remark(f"device: {place}")
    return run, run.predictor(device=place.value)


def add_module(run: Run, net: str | None, terminal: Terminal) -> Run:
    """The run with the custom net from the file ``net``, its weights drawn from the run's seed."""
    if net is None:
        return run
    record = run.record
    is_own = not net.startswith(TIMM)
    body = (
        choose_net(net, terminal).make(record.recipe.seed, record.in_shape, record.task.outputs)
        if is_own
        else None
    )
    if body is None or (isinstance(body, Net) and record.own_module is None):
        raise NetError(
            f"--net is {net}, which defines a net that the run already stores. Leave out --net."
        )
    return dataclasses.replace(run, module=body)


def choose_run_data(run: Run, source: str | None, terminal: Terminal) -> Dataset:
    return choose_data(str(find_source(run, source)), run.record.data.preparation, terminal)


def choose_evaluated_data(
    run: Run,
    source: str | None,
    predictor: Predictor,
    terminal: Terminal,
    given: Given,
    match: ClassMatch,
) -> tuple[Dataset, bool]:
    """Load the run's data or another data set; the second value says whether it is the run's."""
    own = run.record.data
    if (
        source is not None
        and full_source(source) != own.source
        and not is_moved_to(run, source, terminal)
    ):
        if kept := given.flags_of(KEPT_FIELDS):
            raise DataError(
                f"{run.path} loads images as it did for training, and draws no splits. Leave out"
                f" {kept}."
            )
        task = predictor.task
        uncorrected = dataclasses.replace(own.preparation, labels_from=())
        preparation = dataclasses.replace(uncorrected, **given)
        kind = None if match.unknown == "keep" else task.kind.name
        preparation = dataclasses.replace(preparation, size_px=predictor.size_px, task=kind)
        return choose_other_data(source, preparation, task.target_names, match, terminal), False
    if given:
        raise DataError(
            f"{run.path} was trained on this data set and loads it in the same way. Leave out"
            f" {given.flags_of()}."
        )
    data = choose_run_data(run, source, terminal)
    if data.fingerprint != own.fingerprint:
        terminal.remark(
            f"warning: {own.source} has changed since the run was trained, so these may include"
            " training images"
        )
    return data, True


def is_moved_to(run: Run, source: str, terminal: Terminal) -> bool:
    """Whether a run's data set is missing from its original path and has moved to ``source``."""
    own = run.record.data
    if {own.source, source} & set(NAMES) or Path(own.source).exists():
        return False
    terminal.remark(
        f"data: {own.source} no longer exists; checking whether {source} is the same data set"
    )
    try:
        return (
            choose_data(source, own.preparation, terminal, is_again=True).fingerprint
            == own.fingerprint
        )
    except DataError:
        return False


def choose_images(
    given: tuple[Path, ...], stack: ExitStack, terminal: Terminal
) -> tuple[list[EncodedImage], list[Problem]]:
    """Find the images to predict, and arguments that match none; ``-`` reads paths from stdin."""
    if not given:
        raise DataError("No images given. Add image files, folders or patterns after RUN.")
    named: list[str | Path] = []
    for path in given:
        if str(path) == "-":
            named += filter(None, sys.stdin.read().splitlines())
        else:
            named.append(path)
    images, problems = find_images(named, stack)
    if unused := [problem.path for problem in problems if problem.reason == OTHER_FILE]:
        terminal.remark(
            f"not used: {plural(len(unused), 'file', 'files')}: {name_some(unused, EXAMPLES)}"
        )
    if len(images) <= IMAGES_OF_ONE_THREAD:
        torch.set_num_threads(1)
    failed = [problem for problem in problems if problem.reason != OTHER_FILE]
    if failed and not images:  # before the model is loaded
        for problem in failed:
            terminal.emit("problem", image=problem.path, reason=problem.reason)
        raise DataError(name_some([f"{problem.path}: {problem.reason}" for problem in failed]))
    return images, failed


def report_problem(name: str, reason: str, terminal: Terminal) -> None:
    """Say why an image could not be used."""
    terminal.emit("problem", image=name, reason=reason)
    terminal.remark(f"lamina: {name}: {reason}")


def choose_layer(model: Model, layer: str) -> str:
    """The module path of a layer, given by its number in the net (from 1) or its module path."""
    number, dot, inside = layer.partition(".")
    # 4.body.0 is in layer 4, as in the figures
    if number.isdecimal() and (model.net is not None or not dot):
        return find_path(model, f"{find_path(model, int(number))}{dot}{inside}")
    return find_path(model, layer if layer.startswith("body.") else f"body.{layer}")
