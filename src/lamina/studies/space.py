"""Search spaces: the values that a tuning tries for each setting, as on the command line."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from jaxtyping import Float32
from torch import Tensor

from lamina.errors import NetError, RecipeError, suggest
from lamina.training.recipe import Recipe

FIXED = ("seed", "patience", "metric", "aim", "lanes", "device", "precision")
"""Settings that are not searched: chance, the score, and how exactly to compute."""
TUNED = {one.name: one.default for one in dataclasses.fields(Recipe) if one.name not in FIXED}


@dataclass(frozen=True)
class Span:
    """All numbers from ``low`` to ``high``, on a linear or logarithmic scale."""

    low: float
    high: float
    is_whole: bool
    is_log: bool = False

    @property
    def count(self) -> float:
        return self.high - self.low + 1 if self.is_whole else math.inf


Range: TypeAlias = Span | tuple[Any, ...]
"""A span of numbers, or the values to choose from."""


def parse_range(name: str, text: str, *, is_whole: bool | None = None) -> Range:
    """Parse ``1e-4..1e-1:log``, ``32..256`` or ``50,100,200``; by default, whole ends give ints."""
    expected = (
        f"Use a range, as in {name}=LOW..HIGH or {name}=LOW..HIGH:log, or values, as in"
        f" {name}=A,B,C."
    )
    if (found := re.fullmatch(r"(.+)\.\.([^:]+)(:log)?", text)) is None:
        if ".." in text or ":" in text:
            raise RecipeError(
                f"The range of {name} is {text!r}, which is neither a range nor a list. {expected}"
            )
        values = tuple(dict.fromkeys(map(_read_value, text.split(","))))
        if len(values) < 2:
            raise RecipeError(f"{name} has only one value to try, {text!r}. {expected}")
        return values
    ends = [_read_value(end) for end in found.groups()[:2]]
    if not all(
        isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end)
        for end in ends
    ):
        raise RecipeError(
            f"The range of {name} is {text!r}, whose ends are not both numbers. {expected}"
        )
    low, high = ends
    are_whole = all(isinstance(end, int) for end in ends)
    if is_whole and not are_whole:
        raise RecipeError(
            f"The range of {name} is {text!r}, but {name} takes whole numbers. {expected}"
        )
    if not low < high:
        raise RecipeError(
            f"The range of {name} is {text!r}; it must rise. Use {name}={high}..{low}."
        )
    if found[3] and low <= 0:
        raise RecipeError(
            f"The range of {name} is {text!r}; a logarithmic range must begin above 0. {expected}"
        )
    return Span(low, high, are_whole if is_whole is None else is_whole, bool(found[3]))


def _read_value(text: str) -> Any:
    """A number, ``True`` or ``False``, or the text itself."""
    text = text.strip()
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float) else text


def parse_settings(texts: Mapping[str, str]) -> dict[str, Range]:
    """The range of each setting of a recipe."""
    found = {}
    for name, text in texts.items():
        if name not in TUNED:
            reason = "cannot be tuned" if name in FIXED else "is not a setting of a recipe"
            raise RecipeError(f"{name} {reason}. {suggest(name, TUNED)}")
        is_whole = isinstance(TUNED[name], int) and not isinstance(TUNED[name], bool)
        found[name] = parse_range(name, text, is_whole=is_whole)
    return found


def parse_sizes(texts: Mapping[str, str], net: str) -> dict[str, Range]:
    """The range of each name that stands for a number in the layers ``net``."""
    if texts and "(" not in net:
        raise NetError(
            f"The net {net} has no sizes to search. Write its layers, with a name in place of each"
            " size, as in "
            f'lamina tune "Flatten(), Linear(width), ReLU(), Output()" --net-over width=32..256.'
        )
    for name in texts:
        if not re.search(rf"\b{re.escape(name)}\b(?!\s*[(=])", net):
            raise NetError(
                f"{name} does not stand for a number in the layers {net}. Write it in place of one."
            )
    return {name: parse_range(name, text) for name, text in texts.items()}


def insert_sizes(net: str, sizes: Mapping[str, Any]) -> str:
    """The layers with numbers in place of names."""
    for name, size in sizes.items():
        net = re.sub(rf"\b{re.escape(name)}\b(?!\s*[(=])", str(size), net)
    return net


def to_distribution(one: Range) -> Any:
    """The range as Optuna knows it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(one, Span):
        return CategoricalDistribution(one)
    kind: Any = IntDistribution if one.is_whole else FloatDistribution
    return kind(one.low, one.high, log=one.is_log)


def find_values(ranges: Mapping[str, Range], point: Float32[Tensor, "1 n"]) -> dict[str, Any]:
    """The values at a point in the unit cube, in which all listed values have equal shares."""
    values: dict[str, Any] = {}
    for (name, one), fraction in zip(ranges.items(), point.flatten().tolist(), strict=False):
        if isinstance(one, Span):
            low, high = one.low, one.high + one.is_whole
            value = low * (high / low) ** fraction if one.is_log else low + fraction * (high - low)
            values[name] = int(value) if one.is_whole else min(value, one.high)
        else:
            values[name] = one[int(fraction * len(one))]
    return values
