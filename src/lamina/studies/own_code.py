"""Digests of custom functions and modules, so that studies notice when code has changed."""

from __future__ import annotations

import functools
import inspect
import sysconfig
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from hashlib import sha256
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from torch import Tensor

from lamina.errors import warn
from lamina.nets import Net
from lamina.runs.record import OwnModule
from lamina.runs.start import NetChoice
from lamina.training.custom import Parts

TRAINING = ("loss", "optimizer", "augment", "schedule")
"""The parts that affect training; metrics do not."""
NAME_ALONE = "compared by its name alone"
"""Replaces the digest of code without source text, as in an interactive session."""
INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
SKIPPED = (*INSTALLED, str(Path(__file__).parents[1]))
"""Folders of code that is compared by its name: installed packages and lamina."""
DIGITS = 16  # of a digest


def describe_code(net: NetChoice | None, parts: Parts) -> dict[str, str]:
    """The digests of a custom module or layers, and of the functions that affect training."""
    functions = parts.functions()
    code: dict[str, Any] = {name: functions[name] for name in TRAINING if name in functions}
    if net is not None and isinstance(net.origin, OwnModule) and not net.origin.file:
        code["net"] = net.net
        if isinstance(net.net, Net):
            code["net"] = [type(layer) for layer in net.net.own_layers]
    return {name: digest_code(value) for name, value in code.items()}


def warn_of_names(code: Mapping[str, str]) -> None:
    """Warn that changes of some functions would not be noticed."""
    names = [name for name, digest in code.items() if digest == NAME_ALONE]
    if names:
        warn(
            f"The code of {' and '.join(names)} cannot be read, so the study would not notice a"
            " change. Define it in a file or a notebook, not in an interactive Python session."
        )


def digest_code(value: object) -> str:
    """The digest of the source text of a function, and of the values and custom code that it uses.

    Values are numbers, text, tensors, arrays and collections of these: in closures, global
    variables, defaults, arguments of ``functools.partial`` and attributes. If a function imports a
    custom module, the whole file counts.
    """
    texts = list(_iter_texts(value, set()))
    if NAME_ALONE in texts:
        return NAME_ALONE
    return sha256("\0".join(texts).encode()).hexdigest()[:DIGITS]


def _iter_texts(value: Any, seen: set[int]) -> Iterator[str]:
    """The texts and values that a value consists of."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}{sha256(value.tobytes()).hexdigest()}"
    elif isinstance(value, functools.partial):
        yield from _iter_texts([value.func, value.args, value.keywords], seen)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _iter_texts(item, seen)
    elif isinstance(value, set | frozenset):
        yield from sorted(map(repr, value))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _iter_texts(item, seen)
    elif inspect.ismodule(value):
        yield value.__name__
        if not _is_installed(value):
            yield Path(inspect.getfile(value)).read_text(encoding="utf-8")
    elif callable(value) or is_dataclass(value):
        if id(value) in seen:
            return
        seen.add(id(value))
        if is_code(value):
            yield from _iter_code(value, seen)
        else:
            yield from _iter_texts([type(value), getattr(value, "__dict__", {})], seen)
    else:
        text = repr(value)
        yield type(value).__name__ if " at 0x" in text else text


def is_code(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def _iter_code(code: Any, seen: set[int]) -> Iterator[str]:
    """The source text of a function or class, and the values and custom code that it uses."""
    if inspect.ismethod(code):
        yield from _iter_texts([code.__self__, code.__func__], seen)
        return
    if _is_installed(code):
        yield f"{getattr(code, '__module__', '')}.{code.__qualname__}"
        return
    yield _read_source(code)
    functions = [code]
    if inspect.isclass(code):
        yield from _iter_texts(code.__bases__, seen)
        functions = [member for member in vars(code).values() if inspect.isfunction(member)]
    for function in functions:
        used = inspect.getclosurevars(function)
        defaults = [function.__defaults__, function.__kwdefaults__]
        yield from _iter_texts([used.nonlocals, used.globals, defaults], seen)


def _is_installed(code: Any) -> bool:
    """Whether code is lamina's, or in an installed package."""
    try:
        return inspect.getfile(code).startswith(SKIPPED)
    except TypeError:  # built in
        return True
    except OSError:  # typed in
        return False


def _read_source(code: Any) -> str:
    """The source text; for a lambda function, only its body."""
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError, SyntaxError, TokenError):  # none, or other lines of its file
        return NAME_ALONE
    if getattr(code, "__name__", "") != "<lambda>":
        return textwrap.dedent(source)
    places = [place for place in code.__code__.co_positions() if place[3]]
    if not places:  # Python runs without positions
        return NAME_ALONE
    first, begin = min((line, column) for line, _, column, _ in places)
    last, end = max((line, column) for _, line, _, column in places)
    body = [line.encode() for line in inspect.findsource(code)[0][first - 1 : last]]
    body[-1] = body[-1][:end]  # columns count bytes
    body[0] = body[0][begin:]
    return f"{inspect.signature(code)} {b''.join(body).decode()}"
