"""What lamina says when something is wrong: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class LaminaError(Exception):
    """The input is wrong; the message is one for the person who gave it, and needs no traceback."""


class NetError(LaminaError):
    """A net that cannot be: a shape that no layer takes, an expression that is no net."""


class DataError(LaminaError):
    """A data set or picture that cannot be read or used."""


class RecipeError(LaminaError):
    """A training that cannot be: a knob out of its range, a device that is not there."""


class NotFiniteError(RecipeError):
    """A loss, gradient, weight or output became infinite or no number; no checkpoint holds what came of it."""


class RunError(LaminaError):
    """A run folder that is missing, damaged or does not fit what is asked of it."""


class LaminaWarning(UserWarning):
    """Something was left out or replaced, and the work went on."""


def name_some(names: Sequence[str], most: int = 5) -> str:
    """A few names, and how many more there are.

    >>> name_some(["cat", "dog", "owl"], most=2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def suggest(name: str, choices: Iterable[str]) -> str:
    """A sentence with the nearest of ``choices`` to a mistyped ``name``, else all of them.

    >>> suggest("cnm", ["cnn", "mlp"])
    'Did you mean cnn?'
    >>> suggest("zebra", ["cnn", "mlp"])
    'Choose from: cnn, mlp.'
    """
    known = list(choices)
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {nearest[0]}?" if nearest else f"Choose from: {', '.join(known)}."
