"""Search spaces: ranges as on the command line, as Optuna's distributions, and their sampler."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch.quasirandom import SobolEngine

from lamina.errors import NetError, RecipeError, RunError, suggest
from lamina.training.randomness import derive_seed
from lamina.training.recipe import Recipe

FIXED = ("seed", "patience", "metric", "aim", "lanes", "device", "precision")
"""Settings that are not searched: chance, the score, and how exactly to compute."""
TUNED = {
    field.name: field.default for field in dataclasses.fields(Recipe) if field.name not in FIXED
}
FIRST = 10  # trials with evenly spread values, before TPE proposes any
MOST_DRAWS = 1000  # of values, until no other trial has them

Range: TypeAlias = Any
"""A distribution of Optuna: of numbers, of whole numbers, or of the values to choose from."""


def import_optuna() -> Any:
    """Import Optuna; ``RunError`` if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise RunError("lamina tune needs Optuna. Run pip install 'lamina[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def parse_range(name: str, text: str, *, is_whole: bool | None = None) -> Range:
    """Parse ``1e-4..1e-1:log``, ``32..256`` or ``50,100,200``; by default, whole ends give ints."""
    distributions = import_optuna().distributions
    expected = (
        f"Use a range, as in {name}=LOW..HIGH or {name}=LOW..HIGH:log, or values, as in"
        f" {name}=A,B,C."
    )
    match = re.fullmatch(r"(.+)\.\.([^:]+)(:log)?", text)
    if match is None:
        if ".." in text or ":" in text:
            raise RecipeError(
                f"The range of {name} is {text!r}, which is neither a range nor a list. {expected}"
            )
        values = tuple(dict.fromkeys(map(_read_value, text.split(","))))
        if len(values) < 2:
            raise RecipeError(f"{name} has only one value to try, {text!r}. {expected}")
        return distributions.CategoricalDistribution(values)
    low = _read_value(match[1])
    high = _read_value(match[2])
    if not (_is_number(low) and _is_number(high)):
        raise RecipeError(
            f"The range of {name} is {text!r}, whose ends are not both numbers. {expected}"
        )
    are_whole = isinstance(low, int) and isinstance(high, int)
    if is_whole and not are_whole:
        raise RecipeError(
            f"The range of {name} is {text!r}, but {name} takes whole numbers. {expected}"
        )
    if not low < high:
        raise RecipeError(
            f"The range of {name} is {text!r}; it must rise. Use {name}={high}..{low}."
        )
    is_log = match[3] is not None
    if is_log and low <= 0:
        raise RecipeError(
            f"The range of {name} is {text!r}; a logarithmic range must begin above 0. {expected}"
        )
    if is_whole is None:
        is_whole = are_whole
    if is_whole:
        return distributions.IntDistribution(low, high, log=is_log)
    return distributions.FloatDistribution(low, high, log=is_log)


def _read_value(text: str) -> Any:
    """A number, ``True`` or ``False``, or the text itself."""
    text = text.strip()
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        return text
    if isinstance(value, int | float):
        return value
    return text


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


def count_values(span: Range) -> float:
    """The number of values in a range."""
    distributions = import_optuna().distributions
    if isinstance(span, distributions.CategoricalDistribution):
        return len(span.choices)
    if isinstance(span, distributions.IntDistribution):
        return float(span.high - span.low + 1)
    return math.inf


def list_ends(span: Range) -> Sequence[Any]:
    """The ends of a range, or the values to choose from."""
    if isinstance(span, import_optuna().distributions.CategoricalDistribution):
        return tuple(span.choices)
    return span.low, span.high


def contains(span: Range, value: Any) -> bool:
    """Whether a value, which may come from anywhere, is in a range."""
    distributions = import_optuna().distributions
    if isinstance(span, distributions.CategoricalDistribution):
        return value in span.choices
    if isinstance(span, distributions.IntDistribution) and not isinstance(value, int):
        return False
    return _is_number(value) and span.low <= value <= span.high


def find_values(ranges: Mapping[str, Range], point: Sequence[float]) -> dict[str, Any]:
    """The values at a point in the unit cube, in which all listed values have equal shares."""
    return {
        name: _find_value(span, fraction)
        for (name, span), fraction in zip(ranges.items(), point, strict=True)
    }


def _find_value(span: Range, fraction: float) -> Any:
    distributions = import_optuna().distributions
    if isinstance(span, distributions.CategoricalDistribution):
        return span.choices[int(fraction * len(span.choices))]
    is_whole = isinstance(span, distributions.IntDistribution)
    end = span.high + is_whole
    value = span.low + fraction * (end - span.low)
    if span.log:
        value = span.low * (end / span.low) ** fraction
    if is_whole:
        return int(value)
    return min(value, span.high)


def make_sampler(ranges: Mapping[str, Range], seed: int) -> Any:
    """A sampler of values that no other trial has: first evenly spread (Sobol), then by TPE.

    Optuna's ``QMCSampler`` has no lists of values. All draws depend on the seed and the number of
    the trial, so that no two workers draw the same.
    """
    samplers = import_optuna().samplers

    def make_tpe(what: str) -> Any:
        number = derive_seed(seed, what) % 2**32
        return samplers.TPESampler(seed=number, n_startup_trials=FIRST, constant_liar=True)

    class Sampler(samplers.BaseSampler):  # type: ignore[misc, name-defined]
        def infer_relative_search_space(self, *_: Any) -> Mapping[str, Range]:
            return ranges

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            if not ranges:  # a function draws its values itself
                return {}
            points = SobolEngine(len(ranges), scramble=True, seed=seed)
            points.fast_forward(trial.number)
            others = [other.params for other in study.get_trials(deepcopy=False)]
            tpe = make_tpe(f"trial {trial.number}")
            # empty until so many trials have ended
            values: dict[str, Any] = tpe.sample_relative(study, trial, search_space)
            for _ in range(MOST_DRAWS):
                if values and values not in others:
                    break
                values = find_values(ranges, points.draw()[0].tolist())
            return values

        def sample_independent(
            self, study: Any, trial: Any, param_name: str, param_distribution: Any
        ) -> Any:
            tpe = make_tpe(f"trial {trial.number} {param_name}")
            return tpe.sample_independent(study, trial, param_name, param_distribution)

    return Sampler()
