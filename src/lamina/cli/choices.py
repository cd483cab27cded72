"""What NET, DATA and RUN mean on the command line."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lamina.cli.terminal import Terminal
from lamina.errors import DataError, LaminaWarning, NetError
from lamina.nets import Net
from lamina.runs.nets import TIMM, find_net
from lamina.runs.nets import NetChoice as NetChoice
from lamina.runs.nets import choice_of_timm as choice_of_timm
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.data import Dataset, Preparation
    from lamina.evaluation.predictor import Predictor
    from lamina.runs.run import Run
    from lamina.training.model import Model


def choose_net(text: str, terminal: Terminal, weights: str | None = None) -> NetChoice:
    """The net that ``text`` names: as :func:`find_net` has it, or ``file.py`` or ``file.py:NAME``, which is run."""
    is_timm = text.startswith(TIMM)
    if weights is not None and not is_timm:
        raise NetError(f"--weights was {weights!r}, but only timm:NAME takes weights. Leave it out.")
    if not is_timm and (file := re.fullmatch(r"(.+\.py)(?::(\w+))?", text)):
        return _choose_own(Path(file[1]), file[2] or "", terminal)
    choice = find_net(text, weights, terminal.remark)
    if is_timm:
        terminal.remark(f"weights: {choice.origin}")
    return choice


def choose_data(source: str | None, preparation: Preparation, terminal: Terminal, *, is_again: bool = False) -> Dataset:
    """The data set of that name or path; by default CIFAR-10 where it is available, else the built-in shapes.

    Of one that is loaded again, at another size, nothing is printed but progress.
    """
    from lamina.data import NAMES, find_default_data, load_data

    reason = "as requested"
    if source is None:
        source, reason = find_default_data()
    if is_again:
        with warnings.catch_warnings(action="ignore", category=LaminaWarning), _preparing(terminal) as progress:
            return load_data(source, preparation, progress=progress)
    with _preparing(terminal) as progress:
        dataset = load_data(source, preparation, progress=progress)
    _print_dataset(dataset, reason, terminal)
    if source not in NAMES:
        terminal.remark(f"targets: {dataset.target_reason}")
    if preparation.size_px is None and dataset.size_px is not None:
        terminal.remark(
            f"size: {dataset.size_px} px squares by {dataset.resize} "
            "(pictures differ in size, or are over 256 px; --size sets another)"
        )
    return dataset


def choose_run_data(run: Run, source: str | None, terminal: Terminal) -> Dataset:
    """The data set of a run, from where it was, or from its new place, ``source``."""
    from lamina.runs.resume import find_source

    return choose_data(str(find_source(run.folder, run.record, source)), run.record.data.preparation, terminal)


def is_moved_to(run: Run, source: str, terminal: Terminal) -> bool:
    """Whether a run's data set, where it is no longer where it was, has moved to ``source``."""
    from lamina.data import NAMES, load_data

    own = run.record.data
    if {own.source, source} & set(NAMES) or Path(own.source).exists():
        return False
    terminal.remark(f"data: {own.source} is no longer there; reading {source} to see whether it has moved")
    try:
        with warnings.catch_warnings(action="ignore", category=LaminaWarning), _preparing(terminal) as progress:
            return load_data(source, own.preparation, progress=progress).fingerprint == own.fingerprint
    except DataError:
        return False


def choose_evaluated_data(
    run: Run, source: str | None, predictor: Predictor, terminal: Terminal
) -> tuple[Dataset, bool]:
    """The data set to use a run's model on, and whether it is the run's own; by default its own."""
    from lamina.data.load import full_source

    own = run.record.data
    if source is not None and full_source(source) != own.source and not is_moved_to(run, source, terminal):
        task = predictor.task
        preparation = dataclasses.replace(own.preparation, size_px=predictor.size_px, task=task.kind.name)
        return choose_other_data(source, preparation, task.target_names, terminal), False
    data = choose_run_data(run, source, terminal)
    if data.fingerprint != own.fingerprint:
        terminal.remark(
            f"warning: {own.source} has changed since the run was trained: these may include images it was trained on"
        )
    return data, True


def choose_other_data(
    source: str, preparation: Preparation, target_names: tuple[str, ...], terminal: Terminal
) -> Dataset:
    """The data set of that name or path, to evaluate a model that was trained on another one."""
    from lamina.data import load_to_evaluate

    with _preparing(terminal) as progress:
        dataset = load_to_evaluate(source, preparation, target_names, progress=progress)
    _print_dataset(dataset, "as requested", terminal)
    return dataset


def open_predictor(run: Run, net: str | None, device: str, terminal: Terminal) -> Predictor:
    """A run's model on a device; ``net`` is the file that makes a user's own module; a run stores only its weights."""
    from lamina.training.device import choose_device

    module, place = make_module(run, net, terminal), choose_device(device)
    terminal.remark(f"device: {place}")
    return run.predictor(module, device=place.value)


def choose_layer(model: Model, layer: str) -> str:
    """The module path of a layer that is given by its place in the net, from 1, or by its path in the module."""
    from lamina.training.activations import find_path, module_paths

    if not layer.isdecimal():
        return find_path(model, layer if layer.startswith("body.") else f"body.{layer}")
    paths = module_paths(model)
    if paths and not 1 <= int(layer) <= len(paths):
        raise NetError(f"There is no layer {layer}: the net has layers 1 to {len(paths)}.")
    return paths[int(layer) - 1] if paths else find_path(model, int(layer))


def make_folder(folder: Path) -> Path:
    """The folder that ``--output`` names, made if it is missing, and checked that files can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"Cannot create the folder {folder}: {error.strerror}. Give another with --output.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"Cannot write in the folder {folder}. Give another with --output.")
    return folder


def make_module(run: Run, net: str | None, terminal: Terminal) -> nn.Module | None:
    """The user's own module in the file that ``net`` names, with weights drawn from the run's seed."""
    if net is None:
        return None
    record = run.record
    is_own = not net.startswith(TIMM)
    body = choose_net(net, terminal).make(record.recipe.seed, record.in_shape, record.task.outputs) if is_own else None
    if body is None or isinstance(body, Net):
        raise NetError(f"--net is for a module of your own, but {net} defines a net that the run already stores.")
    return body


@contextmanager
def _preparing(terminal: Terminal) -> Iterator[Callable[[int, int], None]]:
    """Call what this gives with (done, total) to show progress."""
    with terminal.progress() as show_progress:
        yield lambda done, total: show_progress("preparing pictures", done, total)


def _print_dataset(dataset: Dataset, reason: str, terminal: Terminal) -> None:
    from lamina.data.splits import OWN_RULE

    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.splits.items())
    shape = "×".join(map(str, dataset.train.shape))
    terminal.remark(f"data: {dataset.name} ({reason}): {counts}; {shape}")
    if dataset.split_rule != OWN_RULE:
        terminal.remark(f"splits: {dataset.split_rule}")


def _choose_own(file: Path, name: str, terminal: Terminal) -> NetChoice:
    terminal.remark(f"net: running {file}, which can do anything you can")
    found = _find_own(file, name)
    made = found if isinstance(found, Net) else _call_own(file, found)
    recipes = {"default": Recipe()}
    if isinstance(made, Net):
        return NetChoice(file.stem, made, recipes)
    from lamina.runs.record import OwnModule

    # Called again for each training, after its seed is set.
    return NetChoice(file.stem, lambda *_: _call_own(file, found), recipes, OwnModule(str(file.resolve()), name))


def _find_own(path: Path, name: str) -> Any:
    """The only net, function or class of a Python file, or the one called ``name``; the file is run."""
    if not path.is_file():
        raise NetError(f"There is no file {path}. Give the path of a Python file that holds a Net.")
    module = _run_file(path)
    named = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    own = {key: value for key, value in named.items() if getattr(value, "__module__", "") == module.__name__}
    values = {key: value for key, value in named.items() if isinstance(value, Net)}
    functions = {key: value for key, value in own.items() if inspect.isfunction(value)}
    classes = {key: value for key, value in own.items() if inspect.isclass(value)}
    candidates = values | functions or classes
    chosen = (candidates | classes).get(name) if name else next(iter(candidates.values()), None)
    held = f"It holds: {', '.join(candidates | classes)}." if candidates | classes else "It holds none."
    if name and chosen is None:
        raise NetError(f"{path} holds no net, and no function or class that makes one, called {name!r}. {held}")
    if chosen is None or not (name or len(candidates) == 1):
        raise NetError(
            f"{path} should hold one Net, or one function that makes a module, or be given as {path}:NAME. {held}"
        )
    return chosen


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise NetError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # The file can import its neighbours, as when Python runs it, and its classes look up their module by name.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(path, error) from error
    return module


def _call_own(path: Path, make: Callable[[], Any]) -> Any:
    """The net or module that a file's function or class makes."""
    from torch import nn

    try:
        made = make()
    except Exception as error:
        raise _failed(path, error) from error
    if not isinstance(made, Net | nn.Module):
        raise NetError(f"{path}: {make.__name__}() should give a Net or an nn.Module, but gave {type(made).__name__}.")
    return made


def _failed(path: Path, error: Exception) -> NetError:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
    where = f" in line {lines[-1]}" if lines else ""
    return NetError(f"{path} failed{where}: {type(error).__name__}: {error}.")
