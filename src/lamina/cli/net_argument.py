"""The NET argument: a net by name, as layers, or from a Python file."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from lamina.cli.terminal import Terminal
from lamina.errors import NetError
from lamina.nets import Layer, Net
from lamina.runs.nets_by_name import TIMM, NetChoice, find_net
from lamina.training.recipe import Recipe


def choose_net(text: str, terminal: Terminal, weights: str | None = None) -> NetChoice:
    """Find a net as :func:`find_net` does, or execute ``file.py`` or ``file.py:NAME``."""
    is_timm = text.startswith(TIMM)
    for folder in () if weights is None else (Path(weights), Path(weights).parent):
        if (folder / "run.json").exists():
            raise NetError(
                f"--weights is {weights}, the weights of a run. Use lamina train --start-from"
                f" {folder}."
            )
    if weights is not None and not is_timm:
        raise NetError(
            f"--weights is {weights!r}, but only timm:NAME has pretrained weights. Leave out"
            " --weights."
        )
    if not is_timm and (file := re.fullmatch(r"(.+\.py)(?::(\w+))?", text)):
        return _choose_own(Path(file[1]), file[2] or "", terminal)
    choice = find_net(text, weights, terminal.remark)
    if is_timm:
        terminal.remark(f"weights: {choice.origin}")
    return choice


def _choose_own(file: Path, name: str, terminal: Terminal) -> NetChoice:
    terminal.remark(f"net: executing {file} with your permissions")
    found = _find_own(file, name)
    made = found if isinstance(found, Net) else _call_own(file, found)
    recipes = {"default": Recipe()}
    title = f"{file.stem}-{name}" if name else file.stem  # a file may define several nets
    from lamina.files import read_bytes
    from lamina.runs.record import OwnModule

    digest = sha256(read_bytes(file)).hexdigest()[:16]
    # Call the file's function again for each run, after setting its seed.
    net = made if isinstance(made, Net) else lambda *_: _call_own(file, found)
    return NetChoice(title, net, recipes, OwnModule(str(file.resolve()), name, digest))


def _find_own(path: Path, name: str) -> Any:
    """Execute a Python file; returns its only net, function or class, or the one named ``name``."""
    if not path.is_file():
        raise NetError(
            f"The file {path} does not exist. Use the path of a Python file that defines a Net."
        )
    module = _run_file(path)
    named = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    own = {
        key: value
        for key, value in named.items()
        if getattr(value, "__module__", "") == module.__name__
    }
    values = {key: value for key, value in named.items() if isinstance(value, Net)}
    functions = {key: value for key, value in own.items() if inspect.isfunction(value)}
    classes = {
        key: value
        for key, value in own.items()
        if inspect.isclass(value) and not issubclass(value, Layer)
    }
    candidates = values | functions or classes
    chosen = (candidates | classes).get(name) if name else next(iter(candidates.values()), None)
    held = (
        f"It defines {', '.join(candidates | classes)}."
        if candidates | classes
        else "It defines none."
    )
    if name and chosen is None:
        raise NetError(f"{path} defines no net, function or class called {name!r}. {held}")
    if chosen is None or not (name or len(candidates) == 1):
        raise NetError(
            f"{path} must define exactly one Net, or one function that returns a module. {held} Use"
            f" {path}:NAME."
        )
    return chosen


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise NetError(f"{path} is not a Python file. Use the path of a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    # As when Python runs the file, it can import its neighbors, and its classes find their module
    # by name.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(path, error) from error
    return module


def _call_own(path: Path, make: Callable[[], Any]) -> Any:
    from torch import nn

    try:
        made = make()
    except Exception as error:
        raise _failed(path, error) from error
    if not isinstance(made, Net | nn.Module):
        raise NetError(
            f"{path}: {make.__name__}() returned {type(made).__name__}; it must return a Net or an"
            " nn.Module."
        )
    return made


def _failed(path: Path, error: Exception) -> NetError:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
    where = f" in line {lines[-1]}" if lines else ""
    return NetError(f"{path} failed{where}: {type(error).__name__}: {error}. Correct the file.")
