"""The values of a request, checked by the types of the function that they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, make_dataclass
from functools import cache
from inspect import signature
from typing import Annotated, Any, TypeAlias

from lamina.errors import RunError
from lamina.values import Range, from_json_values

Side: TypeAlias = Annotated[int, Range(1, 4096)]  # of images in pixels
Texts: TypeAlias = dict[str, str] | None  # fields of a recipe


def read_arguments(
    function: Callable[..., Any], name: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of an action after its first.

    ``RunError`` if the values do not have the types of the function.
    """
    try:
        return dict(vars(from_json_values(_describe_values(function), values, name)))
    except ValueError as error:
        raise RunError(f"{error}. Change it, or reload the page.") from None


@cache
def _describe_values(function: Callable[..., Any]) -> type:
    """A dataclass of the values of a request, by the parameters of a function except the first."""
    fields: list[tuple[str, Any, Any]] = []
    for parameter in list(signature(function, eval_str=True).parameters.values())[1:]:
        default = MISSING if parameter.default is parameter.empty else parameter.default
        fields.append((parameter.name, parameter.annotation, field(default=default)))
    return make_dataclass("Values", fields, kw_only=True)


def describe_bad_value(error: OSError | UnicodeEncodeError) -> str:
    """What is wrong with a path or another text of a request."""
    if isinstance(error, UnicodeEncodeError):
        return "The request contains a character that cannot be used. Leave it out."
    reason = f"{str(error.filename)[:100]}: {str(error.strerror or error).lower()}"
    return f"Cannot use {reason}. Check the path and its permissions."
