"""Errors and warnings for people: what was expected, what was found, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# Controls, what ends a line, what reverses the direction of writing, and halves of characters.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    r"""Text from files and data as it may be shown: on one line, without anything that a terminal obeys.

    >>> print(escape("new\nline \x1b[31mred"))
    new\nline \x1b[31mred
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


class LaminaError(Exception):
    """The input is wrong. The message, one line, is for the person who gave it; no traceback is needed.

    Names from data are escaped where it is shown, as in :class:`LaminaWarning`.
    """

    def __str__(self) -> str:
        return escape(super().__str__())


class NetError(LaminaError):
    """An invalid net: layers whose shapes do not fit, or text that describes no net."""


class DataError(LaminaError):
    """A data set or image that cannot be read or used."""


class RecipeError(LaminaError):
    """An invalid recipe, or one that cannot be trained here: a value out of its range, a missing device."""


class NotFiniteError(RecipeError):
    """A loss, gradient, weight or output contains NaN or infinity."""


class GroupError(LaminaError):
    """A process of those that train together was lost, or differs from the others."""


class LeaderError(GroupError):
    """What went wrong in the process that leads a group, which shows it."""


class RunError(LaminaError):
    """A run folder that is missing, damaged or does not fit what is requested."""


class LaminaWarning(UserWarning):
    """Something was left out or replaced, and the work continued."""

    def __str__(self) -> str:
        return escape(super().__str__())


def name_some(names: Sequence[str], most: int = 5) -> str:
    """A few names, and how many more there are.

    >>> name_some(["cat", "dog", "owl"], most=2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(count: int, one: str, many: str) -> str:
    """A number with its noun.

    >>> plural(1, "class", "classes"), plural(1200, "class", "classes")
    ('1 class', '1,200 classes')
    """
    return f"{count:,} {one if count == 1 else many}"


def find_nearest(name: str, choices: Iterable[str]) -> str | None:
    """The one of ``choices`` that ``name`` may be a misspelling, the long form or the first word of.

    >>> [find_nearest(name, ["resize", "lr", "size_px"]) for name in ("learning_rate", "size", "rezise")]
    ['lr', 'size_px', 'resize']
    """
    known = list(choices)
    initials = "".join(word[:1] for word in name.split("_"))
    meant = [each for each in known if each.startswith(f"{name}_") or ("_" in name and each == initials)]
    return next(iter(meant or difflib.get_close_matches(name, known, n=1)), None)


def check_type(value: object, types: tuple[type, ...], name: str, expected: str, *, is_optional: bool = True) -> None:
    """Raise ``LaminaError`` unless an argument is of one of the types, or ``None`` where it ``is_optional``."""
    if not (is_optional and value is None) and not isinstance(value, types):
        raise LaminaError(f"{name} must be {expected}, got {describe_type(value)}.")


def describe_type(value: object) -> str:
    """What a value of a wrong type is, in a message: its class, an array's shape too."""
    shape = getattr(value, "shape", None)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(shape, tuple) and hasattr(value, "dtype"):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return "None" if value is None else type(value).__name__


def suggest(name: str, choices: Iterable[str]) -> str:
    """A sentence with the nearest of ``choices`` to a misspelt ``name``, else all of them.

    >>> suggest("cnm", ["cnn", "mlp"])
    'Did you mean cnn?'
    >>> suggest("zebra", ["cnn", "mlp"])
    'Choose from: cnn, mlp.'
    """
    known = list(choices)
    nearest = find_nearest(name, known)
    return f"Did you mean {nearest}?" if nearest else f"Choose from: {', '.join(known)}."
