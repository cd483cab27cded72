"""Every knob of a training, with its unit, default and range, as one value."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from lamina.errors import RecipeError, suggest

Value = TypeVar("Value")


def knob(default: Value, *, low: float = -math.inf, below: float = math.inf) -> Value:
    """A number of a recipe: its default and its range, ``low`` or more and less than ``below``."""
    found: Value = field(default=default, metadata={"low": low, "below": below})
    return found


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a net is trained.

    Raises:
        RecipeError: a value is of the wrong type or out of its range.

    >>> Recipe(epochs=5, optimizer="sgd", lr=0.1)
    Recipe(epochs=5, optimizer='sgd', lr=0.1)
    """

    epochs: int = knob(10, low=1)
    """passes over the training images"""
    batch_size: int = knob(100, low=1)
    """images a step"""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd", "muon"] = "adam"
    """how a gradient becomes a step"""
    lr: float = knob(1e-3, low=0)
    """learning rate at its peak"""
    momentum: float = knob(0.9, low=0, below=1)
    """share of the last step kept in the next (sgd and muon)"""
    weight_decay: float = knob(0.0, low=0)
    """pull of weights towards zero (adamw and muon: of the weights themselves; the others: in the gradient); not of
    biases and norms"""
    schedule: Literal["constant", "cosine", "linear", "one-cycle"] = "constant"
    """how the learning rate goes from its peak to the end"""
    warmup_fraction: float = knob(0.0, low=0, below=1)
    """share of all steps in which the learning rate rises (one-cycle takes 0.3 where it is 0)"""
    label_smoothing: float = knob(0.0, low=0, below=1)
    """share of the target spread evenly over all classes"""
    balance: Literal["off", "on"] = "off"
    """whether the loss of rare classes, and of rare labels and answers, weighs more, so that all count alike"""
    dropout: float | None = knob(None, low=0, below=1)
    """share dropped by each of the net's Dropout layers; by default each layer's own"""
    flip: Literal["off", "random", "alternating"] = "off"
    """mirror images left to right: at random, or each image every other epoch"""
    translate_px: int = knob(0, low=0)
    """furthest random shift of an image, in pixels; it is reflected at its border"""
    cutout_px: int = knob(0, low=0)
    """side of the square blanked at a random place, in pixels"""
    grow_from_fraction: float = knob(0.0, low=0, below=1)
    """share of their side, in eighths (others are rounded), to which pictures are shrunk in the first epoch; they grow
    back over three quarters of the epochs; 0 for none. Only for nets that take any size, and more epochs than one"""
    normalization: Literal["unit", "channel"] = "unit"
    """pixels to -1 … 1, or each channel to mean 0 and deviation 1 over the training images"""
    ema_decay: float = knob(0.0, low=0, below=1)
    """share kept, a step, of a moving average of the weights, which is then what is judged; 0 for none"""
    gradient_clip: float = knob(0.0, low=0)
    """longest gradient, all weights together; 0 for no limit"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """number format that convolutions and linear layers multiply in"""
    compile: Literal["off", "auto", "on"] = "off"
    """whether torch first compiles the net, which takes 10 to 30 seconds and makes steps a little faster on some
    machines and slower on others; auto tries that where the training is long enough"""
    freeze: int = knob(0, low=0)
    """epochs at the beginning in which the head alone learns (timm's nets), over layers that have learned before"""
    seed: int = knob(0, low=0, below=2**63)
    """where all random choices come from"""

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for knob_field in dataclasses.fields(self):
            value = _check(knob_field, kinds[knob_field.name], getattr(self, knob_field.name))
            object.__setattr__(self, knob_field.name, value)

    def __repr__(self) -> str:
        changed = (f"{name}={value!r}" for name, value in self.changes().items())
        return f"Recipe({', '.join(changed)})"

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their default.

        >>> Recipe(epochs=5, batch_size=100).changes()
        {'epochs': 5}
        """
        fields = ((knob_field, getattr(self, knob_field.name)) for knob_field in dataclasses.fields(self))
        return {knob_field.name: value for knob_field, value in fields if value != knob_field.default}

    def to_json(self) -> dict[str, Any]:
        """Every field, also those at their default."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that :meth:`to_json` wrote; absent fields take their default.

        Raises:
            RecipeError: a field is unknown, of the wrong type or out of its range.
        """
        known = [knob_field.name for knob_field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise RecipeError(f"A recipe has no field {name!r}. {suggest(name, known)}")
        return cls(**values)


def _check(knob_field: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    name = knob_field.name
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise RecipeError(
                f"{name} was {value!r}, but takes one of {', '.join(get_args(kind))}. "
                f"{suggest(str(value), get_args(kind))}"
            )
        return value
    if NoneType in get_args(kind):
        if value is None:
            return None
        kind = get_args(kind)[0]
    if kind is float and type(value) is int:
        value = float(value)
    low, below = knob_field.metadata["low"], knob_field.metadata["below"]
    if type(value) is not kind or not low <= value < below:
        number = "a whole number" if kind is int else "a number"
        limit = f" and less than {below:g}" if math.isfinite(below) else ""
        raise RecipeError(f"{name} was {value!r}, but takes {number} of {low:g} or more{limit}.")
    return value


USUAL_LR: dict[str, float] = {"adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3, "sgd": 0.05, "muon": 2e-3}
"""A learning rate to begin with, by optimizer: for one who chose the optimizer and nothing else."""
