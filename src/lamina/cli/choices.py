"""What NET, DATA and RUN mean on the command line."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lamina import zoo
from lamina.cli.terminal import Terminal, warnings_as_remarks
from lamina.errors import DataError, LaminaWarning, NetError, suggest
from lamina.nets import Net, Shape, parse_net
from lamina.training.fit import PRETRAINED_HOME, ZOO_HOME, Home
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.data import Dataset, Preparation
    from lamina.runs.record import OwnModule
    from lamina.runs.run import Run
    from lamina.training.model import Model
    from lamina.training.pretrained import TimmNet


TIMM = "timm:"
"""How the names of timm's nets begin."""


@dataclass(frozen=True)
class NetChoice:
    """The net that the user named.

    Attributes:
        name: in tables and in the run's name.
        net: a net, or a function from the shape of an image and the number of outputs to a module.
        recipes: how to train it, the default first.
        origin: where a module comes from: the user's file, or timm's net and its initial weights.
        home: the images that the recipes were found on.
    """

    name: str
    net: Net | Callable[[Shape, int], nn.Module]
    recipes: dict[str, Recipe]
    origin: OwnModule | TimmNet | None = None
    home: Home = ZOO_HOME

    def make(self, seed: int, shape: Shape, outputs: int) -> Net | nn.Module:
        """The net, or a module for images of that shape and ``outputs`` logits, with weights drawn from ``seed``."""
        if isinstance(self.net, Net):
            return self.net
        import torch

        from lamina.training.randomness import derive_seed, seeded

        with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
            return self.net(shape, outputs)


def choose_net(text: str, terminal: Terminal, weights: str | None = None) -> NetChoice:
    """The net that ``text`` names: one of the zoo, ``timm:NAME``, ``file.py``, ``file.py:NAME``, or layers as Python.

    ``weights`` are the initial weights of timm's net: ``none``, ``pretrained``, ``packaged`` or a safetensors file; by
    default ``packaged`` where it has them and the hub's cache has not, else ``pretrained``.
    """
    if text.startswith(TIMM):
        return _choose_timm(text, weights, terminal)
    if weights is not None:
        raise NetError(f"--weights was {weights!r}, but only timm:NAME takes weights. Leave it out.")
    if text in zoo.NAMES:
        return NetChoice(text, zoo.load_net(text), zoo.load_recipes(text))
    if file := re.fullmatch(r"(.+\.py)(?::(\w+))?", text):
        return _choose_own(Path(file[1]), file[2] or "", terminal)
    if "(" not in text:
        raise NetError(
            f"There is no net {text!r} in the zoo. {suggest(text, zoo.NAMES)} "
            'Or give layers, as in "Flatten(), Linear(200), ReLU(), Output()", or a file.py.'
        )
    return NetChoice("net", parse_net(text), {"default": Recipe()})


def choose_data(source: str | None, preparation: Preparation, terminal: Terminal, *, is_again: bool = False) -> Dataset:
    """The data set of that name or path; by default CIFAR-10 where it is available, else the built-in shapes.

    Of one that is loaded again, at another size, nothing is printed but progress.
    """
    from lamina.data import NAMES, find_default_data, load_data

    reason = "as requested"
    with _preparing(terminal) as progress:
        if source is None:
            source, reason = find_default_data()
        dataset = load_data(source, preparation, progress=progress)
    if is_again:
        return dataset
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

    return choose_data(str(find_source(run, source)), run.record.data.preparation, terminal)


def is_moved_to(run: Run, source: str) -> bool:
    """Whether a run's data set has moved to ``source``."""
    from lamina.data import NAMES, load_data

    own = run.record.data
    if own.source in NAMES or Path(own.source).exists():
        return False
    try:
        with warnings.catch_warnings(action="ignore", category=LaminaWarning):
            return load_data(source, own.preparation).fingerprint == own.fingerprint
    except DataError:
        return False


def choose_other_data(
    source: str, preparation: Preparation, target_names: tuple[str, ...], terminal: Terminal
) -> Dataset:
    """The data set of that name or path, to evaluate a model that was trained on another one."""
    from lamina.data import load_to_evaluate

    with _preparing(terminal) as progress:
        dataset = load_to_evaluate(source, preparation, target_names, progress=progress)
    _print_dataset(dataset, "as requested", terminal)
    return dataset


def load_run_model(run: Run, net: str | None, device: str, terminal: Terminal) -> Model:
    """A run's model on a device; ``net`` is the file that makes a user's own module; a run stores only its weights."""
    from lamina.training.device import choose_device

    body = make_module(run, net, terminal)
    place = choose_device(device)
    terminal.remark(f"device: {place}")
    return run.load_model(body).to(place.value)


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
    """Print warnings as remarks; call what this gives with (done, total) to show progress."""
    with warnings_as_remarks(terminal), terminal.progress() as show_progress:
        yield lambda done, total: show_progress("preparing pictures", done, total)


def _print_dataset(dataset: Dataset, reason: str, terminal: Terminal) -> None:
    from lamina.data.splits import OWN_RULE

    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.splits.items())
    shape = "×".join(map(str, dataset.train.shape))
    terminal.remark(f"data: {dataset.name} ({reason}): {counts}; {shape}")
    if dataset.split_rule != OWN_RULE:
        terminal.remark(f"splits: {dataset.split_rule}")


def _choose_timm(text: str, weights: str | None, terminal: Terminal) -> NetChoice:
    from lamina.training.pretrained import open_timm_net

    timm_net = open_timm_net(text.removeprefix(TIMM), weights, terminal.remark)
    terminal.remark(f"weights: {timm_net}")
    return choice_of_timm(timm_net)


def choice_of_timm(net: TimmNet) -> NetChoice:
    """One of timm's nets, with its recipes."""
    from lamina.training.pretrained import FRESH_RECIPES, NONE, RECIPES

    if net.weights == NONE:
        return NetChoice(net.net_name, net.module, FRESH_RECIPES, net)
    return NetChoice(net.net_name, net.module, RECIPES, net, PRETRAINED_HOME)


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
