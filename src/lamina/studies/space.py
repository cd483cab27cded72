"""Ranges of a search: as text on the command line, and as distributions of Optuna."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from lamina.errors import NetError, RecipeError, RunError, check_type, suggest
from lamina.studies.experiment_text import read_value
from lamina.training.recipe import Recipe

FIXED = ("seed", "patience", "metric", "aim", "lanes", "device", "precision")
"""Settings that cannot be searched, such as the seed, the metric and the device."""
TUNED = {
    field.name: field.default for field in dataclasses.fields(Recipe) if field.name not in FIXED
}

Range: TypeAlias = Any
"""A distribution of Optuna: of numbers, of whole numbers, or of the values to choose from."""


def import_optuna() -> Any:
    """Import Optuna; ``RunError`` if it is not installed."""
    try:
        with warnings.catch_warnings():
            # In a notebook, tqdm asks for a package whose bars lamina does not show.
            warnings.filterwarnings("ignore", message="IProgress not found")
            import optuna
    except ImportError as error:
        raise RunError("lamina tune needs Optuna. Run pip install 'lamina[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def parse_range(name: str, text: str, *, is_whole: bool | None = None) -> Range:
    """Parse ``1e-4..1e-1:log``, ``32..256`` or ``50,100,200``; by default, whole ends give ints."""
    expected = 'text, such as "0.01..0.1" or "50,100"'
    check_type(text, (str,), f"the range of {name}", expected, is_optional=False)
    distributions = import_optuna().distributions
    match = re.fullmatch(r"(.+)\.\.([^:]+)(:log)?", text)
    problem = ""
    if match is None:
        values = tuple(dict.fromkeys(read_value(part.strip()) for part in text.split(",")))
        if ".." not in text and ":" not in text and len(values) > 1:
            return distributions.CategoricalDistribution(values)
        problem = "it must be a range or a list of different values"
    else:
        low = read_value(match[1].strip())
        high = read_value(match[2].strip())
        is_log = match[3] is not None
        are_whole = isinstance(low, int) and isinstance(high, int)
        if not (_is_number(low) and _is_number(high)):
            problem = "its ends must be numbers"
        elif is_whole and not are_whole:
            problem = f"{name} takes whole numbers"
        elif low >= high:
            problem = "LOW must be less than HIGH"
        elif is_log and low <= 0:
            problem = "a logarithmic range must begin above 0"
    if problem:
        raise RecipeError(
            f"The range of {name} is {text!r}; {problem}. Use a range, as in {name}=LOW..HIGH or"
            f" {name}=LOW..HIGH:log, or values, as in {name}=A,B,C."
        )
    if is_whole or (is_whole is None and are_whole):
        return distributions.IntDistribution(low, high, log=is_log)
    return distributions.FloatDistribution(low, high, log=is_log)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def parse_settings(texts: Mapping[str, str]) -> dict[str, Range]:
    """The range of each setting of a recipe."""
    ranges = {}
    for name, text in texts.items():
        if name not in TUNED:
            reason = "cannot be tuned" if name in FIXED else "is not a setting of a recipe"
            raise RecipeError(f"{name} {reason}. {suggest(name, TUNED)}")
        is_whole = isinstance(TUNED[name], int) and not isinstance(TUNED[name], bool)
        ranges[name] = parse_range(name, text, is_whole=is_whole)
    return ranges


def parse_sizes(texts: Mapping[str, str], net: str) -> dict[str, Range]:
    """The range of each name that stands for a number in the layers ``net``."""
    for name in texts:
        if "(" not in net or not _find_size(name).search(net):
            raise NetError(
                f"The net {net} has no size with the name {name}. Write layers with the name"
                ' in place of a size, as in lamina tune "Flatten(), Linear(width), ReLU(),'
                ' Output()" --net-over width=32..256.'
            )
    return {name: parse_range(name, text) for name, text in texts.items()}


def insert_sizes(net: str, sizes: Mapping[str, Any]) -> str:
    """The layers with numbers in place of names."""
    for name, size in sizes.items():
        net = _find_size(name).sub(str(size), net)
    return net


def _find_size(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(name)}\b(?!\s*[(=])")


def list_ends(span: Range) -> Sequence[Any]:
    """The ends of a range, or the values to choose from."""
    return getattr(span, "choices", None) or (span.low, span.high)


def contains(span: Range, value: Any) -> bool:
    """Whether a value, which may come from anywhere, is in a range."""
    if hasattr(span, "choices"):
        return value in span.choices
    has_type = isinstance(value, int) or isinstance(span.low, float)
    return has_type and _is_number(value) and span.low <= value <= span.high


def draw(trial: Any, name: str, span: Range) -> Any:
    """The value of an Optuna trial in a range: stored with the trial, or drawn now."""
    if hasattr(span, "choices"):
        return trial.suggest_categorical(name, span.choices)
    suggest = trial.suggest_int if isinstance(span.low, int) else trial.suggest_float
    return suggest(name, span.low, span.high, log=span.log)
