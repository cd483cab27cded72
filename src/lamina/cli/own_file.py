"""A person's own net or module, from a Python file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lamina.errors import NetError
from lamina.nets import Net


def find_net(path: Path, name: str) -> Any:
    """The only net, function or class of a Python file, or the one called ``name``. The file is run.

    Raises:
        NetError: there is no such file, it fails, or it holds none or several.
    """
    if not path.is_file():
        raise NetError(f"There is no file {path}. Give the path of a Python file that holds a Net.")
    module = _run_file(path)
    named = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    values = {key: value for key, value in named.items() if isinstance(value, Net)}
    functions = {key: value for key, value in named.items() if _is_own(value, module, inspect.isfunction)}
    classes = {key: value for key, value in named.items() if _is_own(value, module, inspect.isclass)}
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
    # What lies beside the file can be imported, as when Python runs it; and its classes look their module up by name.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(path, error) from error
    return module


def _is_own(value: Any, module: ModuleType, kind: Callable[[Any], bool]) -> bool:
    return kind(value) and value.__module__ == module.__name__


def call_net(path: Path, make: Callable[[], Any]) -> Any:
    """The net or module that a file's function or class makes.

    Raises:
        NetError: it fails, or makes something else.
    """
    from torch import nn

    try:
        made = make()
    except Exception as error:
        raise _failed(path, error) from error
    if not isinstance(made, Net | nn.Module):
        raise NetError(f"{path}: {make.__name__}() should give a Net or an nn.Module, but gave {type(made).__name__}.")
    return made


def _failed(path: Path, error: Exception) -> NetError:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path.resolve()
    ]
    where = f" in line {lines[-1]}" if lines else ""
    return NetError(f"{path} failed{where}: {type(error).__name__}: {error}.")
