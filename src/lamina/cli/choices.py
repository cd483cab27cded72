"""What NET and DATA on the command line stand for."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lamina import zoo
from lamina.cli.terminal import Terminal, warnings_as_remarks
from lamina.errors import NetError, suggest
from lamina.nets import Net, parse_net
from lamina.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from lamina.data import Dataset
    from lamina.record import OwnModule
    from lamina.runs import Run
    from lamina.training.model import Model


@dataclass(frozen=True)
class NetChoice:
    """A net as somebody named it.

    Attributes:
        name: for the run and for tables.
        net: the value, or a module of the user's own.
        recipes: how it is trained, the default first.
        own_module: the file and name that a module of the user's own came from.
    """

    name: str
    net: Net | nn.Module
    recipes: dict[str, Recipe]
    own_module: OwnModule | None = None


@dataclass(frozen=True)
class DataChoice:
    """A data set, and the name or whole path that it can be loaded by again."""

    source: str
    dataset: Dataset


def choose_net(text: str, terminal: Terminal) -> NetChoice:
    """The net that ``text`` names: one of the zoo, ``file.py``, ``file.py:NAME``, or layers as Python.

    Raises:
        NetError: it names none.
    """
    if text in zoo.NAMES:
        return NetChoice(text, zoo.load_net(text), zoo.load_recipes(text))
    file, _, name = text.partition(":")
    if file.endswith(".py"):
        return _choose_own(Path(file), name, terminal)
    if text.isidentifier() or "(" not in text:
        raise NetError(
            f"There is no net {text!r} in the zoo. {suggest(text, zoo.NAMES)} "
            'Or give layers, as in "Flatten(), Linear(200), ReLU(), Output()", or a file.py.'
        )
    return NetChoice("net", parse_net(text), {"default": Recipe()})


def choose_data(source: str | None, size_px: int | None, terminal: Terminal) -> DataChoice:
    """The data set of that name or path, or by default CIFAR-10 where it can be had, else the built-in shapes."""
    from lamina.data import NAMES, find_default_data, load_data

    reason = "as asked"
    with warnings_as_remarks(terminal), terminal.progress() as show_progress:
        if source is None:
            source, reason = find_default_data()
        dataset = load_data(
            source, size_px=size_px, progress=lambda done, total: show_progress("preparing pictures", done, total)
        )
    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.splits.items())
    channels, height, width = dataset.train.shape
    terminal.remark(f"data: {dataset.name} ({reason}): {counts}; {channels}×{height}×{width}")
    if dataset.split_rule != "the source's own":
        terminal.remark(f"splits: {dataset.split_rule}")
    return DataChoice(source if source in NAMES else str(Path(source).expanduser().resolve()), dataset)


def load_run_model(run: Run, net: str | None, device: str, terminal: Terminal) -> Model:
    """A run's model on a device; ``net`` is the file of a user's own module, which a run does not hold.

    Raises:
        LaminaError: the run's model is damaged, or does not go with ``net``.
    """
    from lamina.training.device import choose_device

    body = None if net is None else choose_net(net, terminal).net
    if isinstance(body, Net):
        raise NetError(f"--net is for a module of your own, but {net} gives a Net, which the run holds already.")
    return run.load_model(body).to(choose_device(device).value)


def _choose_own(file: Path, name: str, terminal: Terminal) -> NetChoice:
    terminal.remark(f"net: {file} is Python, and is run")
    net = _load_from_file(file, name)
    recipes = {"default": Recipe()}
    if isinstance(net, Net):
        return NetChoice(file.stem, net, recipes)
    from lamina.record import OwnModule

    return NetChoice(file.stem, net, recipes, OwnModule(str(file.resolve()), name))


def _load_from_file(path: Path, name: str) -> Net | nn.Module:
    if not path.is_file():
        raise NetError(f"There is no file {path}. Give the path of a Python file that holds a Net.")
    found = _run_file(path)
    candidates = {key: value for key, value in vars(found).items() if _may_be_net(key, value, found)}
    if name and name not in candidates:
        raise NetError(f"{path} holds no net or function {name!r}. {_list(candidates)}")
    if not name and len(candidates) != 1:
        raise NetError(f"{path} should hold one net or function, or be given as {path}:NAME. {_list(candidates)}")
    value = candidates[name or next(iter(candidates))]
    return value if isinstance(value, Net) else _call(path, value)


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise NetError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    # Classes of the file look their module up by name, dataclasses among them.
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise NetError(f"{path} failed: {type(error).__name__}: {error}.") from error
    return module


def _may_be_net(name: str, value: Any, module: ModuleType) -> bool:
    is_own_function = (
        callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") == module.__name__
    )
    return not name.startswith("_") and (isinstance(value, Net) or is_own_function)


def _call(path: Path, function: Callable[[], Any]) -> Net | nn.Module:
    from torch import nn

    try:
        made = function()
    except Exception as error:
        raise NetError(f"{path} failed in {function.__name__}(): {type(error).__name__}: {error}.") from error
    if not isinstance(made, Net | nn.Module):
        raise NetError(
            f"{path}: {function.__name__}() should give a Net or an nn.Module, but gave {type(made).__name__}."
        )
    return made


def _list(candidates: dict[str, Any]) -> str:
    return f"It holds: {', '.join(candidates)}." if candidates else "It holds none."
