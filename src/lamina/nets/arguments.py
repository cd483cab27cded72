"""Checks of the arguments of layers, made when a layer is made: whoever gave them, they are right afterwards."""

from __future__ import annotations

import reprlib
from typing import TypeGuard

from lamina.errors import NetError, suggest
from lamina.nets.layer import Layer

LARGEST = 1_000_000
"""The largest size or number of channels, so that a slip of a digit is told before memory runs out."""


def check_whole(layer: Layer, *names: str) -> None:
    """Raise ``NetError`` unless each argument is a whole number from 1 to ``LARGEST``."""
    for name in names:
        if not _is_whole(getattr(layer, name), 1):
            _refuse(layer, name, f"a whole number from 1 to {LARGEST:,}")


def check_pair(layer: Layer, *names: str, smallest: int = 1) -> None:
    """Raise ``NetError`` unless each argument is a whole number from ``smallest`` or two of them."""
    for name in names:
        if not _is_pair(getattr(layer, name), smallest):
            _refuse(layer, name, f"a whole number from {smallest} to {LARGEST:,} or two, (height, width)")


def check_padding(layer: Layer, name: str) -> None:
    """Raise ``NetError`` unless the argument is ``"valid"``, ``"same"``, a whole number or two of them."""
    padding = getattr(layer, name)
    if padding not in ("valid", "same") and not _is_pair(padding, 0):
        allowed = f"'valid', 'same', a whole number from 0 to {LARGEST:,} or two, (height, width)"
        hint = f" {suggest(padding, ['valid', 'same'])}" if isinstance(padding, str) else ""
        _refuse(layer, name, allowed, hint)


def check_number(layer: Layer, name: str, smallest: float, largest: float) -> None:
    """Raise ``NetError`` unless the argument is a number from ``smallest`` to ``largest``."""
    value = getattr(layer, name)
    if not (_is_number(value) and smallest <= value <= largest):
        _refuse(layer, name, f"a number from {smallest:g} to {largest:g}")


def check_probability_below_one(layer: Layer, name: str) -> None:
    """Raise ``NetError`` unless the argument is a number from 0 to below 1."""
    value = getattr(layer, name)
    if not (_is_number(value) and 0 <= value < 1):
        _refuse(layer, name, "a number from 0 to below 1")


def check_flag(layer: Layer, name: str) -> None:
    """Raise ``NetError`` unless the argument is ``True`` or ``False``."""
    if not isinstance(getattr(layer, name), bool):
        _refuse(layer, name, "True or False")


def _refuse(layer: Layer, name: str, allowed: str, hint: str = "") -> None:
    got = reprlib.repr(getattr(layer, name))
    raise NetError(f"{type(layer).__name__}: {name} must be {allowed}, got {got}.{hint}")


def _is_whole(value: object, smallest: int) -> bool:
    # Python's bool is an int, but True is no size.
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= LARGEST


def _is_pair(value: object, smallest: int) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and all(_is_whole(item, smallest) for item in value)
    return _is_whole(value, smallest)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
