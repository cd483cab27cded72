"""Errors and warnings for the user: what is wrong, what was expected, what to do next."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Sequence

# Control characters, line separators, bidirectional marks and lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escape(text: str) -> str:
    """Make text from files and data safe to print: one line, no terminal control characters."""
    return _UNSAFE.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text
    )


def end_sentence(problem: str) -> str:
    """A problem on its own, without the semicolon that joins it to its remedy."""
    return re.sub(";$", ".", problem)


class _AdvisedError(Exception):
    """A problem and its remedy, on the command line or in Python; together they are the message."""

    def __init__(self, problem: object, remedy: str = "", field: str = "") -> None:
        super().__init__(f"{problem} {remedy}" if remedy else problem)
        self.problem = escape(end_sentence(str(problem)))
        self.remedy = escape(remedy)
        self.field = field

    def __str__(self) -> str:
        return escape(super().__str__())

    def to_json(self) -> dict[str, str]:
        return {"problem": self.problem, "remedy": self.remedy, "field": self.field}


class LaminaError(_AdvisedError):
    """Base class of lamina's errors, with a one-line message that explains how to fix the input.

    Catch it to handle every error that lamina raises on purpose. Names that come from files are
    escaped in the message.

    Attributes:
        problem: What is wrong; the beginning of the message.
        remedy: What to do, on the command line or in Python; the end of the message, or empty.
        field: The name of the field, such as ``lr``, that the problem begins with; or empty.

    >>> from lamina import load_net
    >>> try:
    ...     load_net("cnn-xl")
    ... except LaminaError as error:
    ...     print(error)
    No net named 'cnn-xl' in the zoo. Did you mean cnn-l?
    """


class NetError(LaminaError):
    """An invalid net: layers whose shapes do not match, or text that does not describe a net."""


class DataError(LaminaError):
    """A data set or an image that cannot be loaded or used."""


class RecipeError(LaminaError):
    """A recipe is invalid or cannot be trained here: a value out of range, a missing device."""


class NotFiniteError(RecipeError):
    """A loss, weight or output contains NaN or infinity."""


class GroupError(LaminaError):
    """A process that trains in a group was lost, or differs from other processes."""


class LeaderError(GroupError):
    """An error in the process that leads a group; that process prints it."""


class RunError(LaminaError):
    """A run folder that is missing or damaged, or does not support the request."""


class LaminaWarning(_AdvisedError, UserWarning):  # noqa: N818
    """lamina left something out or replaced it, and continued.

    Use Python's ``warnings`` to hide these warnings or to turn them into errors.

    Attributes:
        problem: What happened; the beginning of the message.
        remedy: What to do, on the command line or in Python; the end of the message, or empty.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", LaminaWarning)  # in this block, they are errors
    """


def warn(problem: str, stacklevel: int = 4, *, remedy: str = "") -> None:
    """Warn the user; ``stacklevel`` counts from the caller of this function."""
    warnings.warn(LaminaWarning(problem, remedy), stacklevel=stacklevel + 1)


def name_some(names: Sequence[str], most: int = 5) -> str:
    """List the first names and count the rest: ``cat, dog and 1 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(count: int, singular: str, many: str) -> str:
    """Format a count with its noun: ``1 class``, ``1,200 classes``."""
    return f"{count:,} {singular if count == 1 else many}"


def find_nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice that ``name`` probably misspells, abbreviates or begins."""
    known = list(choices)
    initials = "".join(word[:1] for word in name.split("_"))
    for choice in known:
        if choice.startswith(f"{name}_") or ("_" in name and choice == initials):
            return choice
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def check_type(
    value: object, types: tuple[type, ...], name: str, expected: str, *, is_optional: bool = True
) -> None:
    """Raise ``LaminaError`` for a wrong type; ``None`` is allowed if ``is_optional``."""
    if not (is_optional and value is None) and not isinstance(value, types):
        raise LaminaError(f"{name} must be {expected}, got {describe_type(value)}.")


def describe_type(value: object) -> str:
    """Describe the type of an unexpected value for a message; for an array, with its shape."""
    shape = getattr(value, "shape", None)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(shape, tuple) and hasattr(value, "dtype"):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return "None" if value is None else type(value).__name__


def suggest(name: str, choices: Iterable[str]) -> str:
    """Suggest the choice nearest to a misspelled ``name``, or list the first choices."""
    known = list(choices)
    nearest = find_nearest(name, known)
    return f"Did you mean {nearest}?" if nearest else f"Choose from: {name_some(known, 50)}."
