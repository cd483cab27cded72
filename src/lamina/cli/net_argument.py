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
from typing import Any

from torch import nn

from lamina.cli.terminal import Terminal
from lamina.errors import NetError
from lamina.files import read_bytes
from lamina.nets import Layer, Net
from lamina.runs.record import OwnModule
from lamina.runs.start import TIMM, NetChoice, find_net


def choose_net(text: str, terminal: Terminal, weights: str | None = None) -> NetChoice:
    """Find a net as :func:`find_net` does, or execute ``file.py`` or ``file.py:NAME``."""
    is_timm = text.startswith(TIMM)
    if weights is not None:
        for folder in (Path(weights), Path(weights).parent):
            if (folder / "run.json").exists():
                raise NetError(
                    f"--weights is {weights}, the weights of a run. Use lamina train --start-from"
                    f" {folder}."
                )
        if not is_timm:
            raise NetError(
                f"--weights is {weights!r}, but only timm:NAME has pretrained weights. Leave out"
                " --weights."
            )
    file = re.fullmatch(r"(.+\.py)(?::(\w+))?", text)
    if file is not None and not is_timm:
        return _choose_own(Path(file[1]), file[2] or "", terminal)
    choice = find_net(text, weights, terminal.remark)
    if is_timm:
        terminal.remark(f"weights: {choice.origin}")
    return choice


def _choose_own(file: Path, name: str, terminal: Terminal) -> NetChoice:

    if not file.is_file():
        raise NetError(
            f"The file {file} does not exist. Use the path of a Python file that defines a Net."
        )
    terminal.remark(f"net: executing {file} with your permissions")
    source = _find_own(file, name)
    digest = sha256(read_bytes(file)).hexdigest()[:16]
    net = source
    if not isinstance(source, Net):
        _call_own(file, source)
        # Call the file's function again for each run, after setting its seed.
        net = lambda *_: _call_own(file, source)  # noqa: E731
    title = file.stem
    if name:
        title = f"{file.stem}-{name}"  # a file may define several nets
    return NetChoice(title, net, origin=OwnModule(str(file.resolve()), name, digest))


def _find_own(path: Path, name: str) -> Any:
    """Execute a Python file; returns its only net, function or class, or the one named ``name``."""
    module_name, variables = _run_file(path)
    makers: dict[str, Any] = {}
    classes: dict[str, Any] = {}
    modules: list[str] = []
    for key, value in variables.items():
        if key.startswith("_"):
            continue
        is_defined_here = getattr(value, "__module__", "") == module_name
        if isinstance(value, Net) or (is_defined_here and inspect.isfunction(value)):
            makers[key] = value
        elif is_defined_here and inspect.isclass(value) and not issubclass(value, Layer):
            classes[key] = value
        elif hasattr(value, "state_dict") and not inspect.isclass(value):
            modules.append(key)
    known = makers | classes
    choices = makers or classes
    if name in known:
        return known[name]
    if len(choices) == 1 and not name:
        return next(iter(choices.values()))
    advice = "It defines none."
    if known:
        advice = f"It defines {', '.join(known)}. Use {path}:NAME."
    elif modules:
        advice = (
            f"{modules[0]} is a module that has its weights already; each run needs a new one."
            f" Write a function that returns it, as in def {modules[0]}(): return …"
        )
    if name:
        raise NetError(f"{path} defines no net, function or class called {name!r}. {advice}")
    raise NetError(
        f"{path} must define exactly one Net, or one function that returns a module. {advice}"
    )


def _run_file(path: Path) -> tuple[str, dict[str, Any]]:
    """The name and the variables of a file's module."""
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
    return module.__name__, vars(module)


def _call_own(path: Path, make: Callable[[], Any]) -> Any:

    for argument in inspect.signature(make).parameters.values():
        is_variadic = argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
        if argument.default is argument.empty and not is_variadic:
            raise NetError(
                f"{path}: {make.__name__} needs the argument {argument.name}, but lamina calls it"
                " without arguments. Give it a default, or leave it out."
            )
    try:
        net = make()
    except Exception as error:
        raise _failed(path, error) from error
    if not isinstance(net, Net | nn.Module):
        raise NetError(
            f"{path}: {make.__name__}() returned {type(net).__name__}; it must return a Net or an"
            " nn.Module."
        )
    return net


def _failed(path: Path, error: Exception) -> NetError:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.resolve()]
    where = ""
    if lines:
        where = f" in line {lines[-1]}"
    return NetError(f"{path} failed{where}: {type(error).__name__}: {error}. Correct the file.")
