"""Every setting of a training, with its unit, default and range, as one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from lamina.errors import RecipeError
from lamina.values import Fraction, Range, check_fields


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a net is trained.

    Raises:
        RecipeError: a value is of the wrong type or out of its range.

    >>> Recipe(epochs=5, optimizer="sgd", lr=0.1)
    Recipe(epochs=5, optimizer='sgd', lr=0.1)
    """

    epochs: Annotated[int, Range(1)] = 10
    """passes over the training images"""
    batch_size: Annotated[int, Range(1)] = 100
    """images per step"""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd", "muon"] = "adam"
    """how gradients become steps"""
    lr: Annotated[float, Range(0)] = 1e-3
    """peak learning rate"""
    momentum: Fraction = 0.9
    """fraction of the last step kept in the next (sgd and muon)"""
    weight_decay: Annotated[float, Range(0)] = 0.0
    """pull of weights towards zero, biases and norms excluded: decoupled for adamw and muon, added to the gradient for
    the others"""
    schedule: Literal["constant", "cosine", "linear", "one-cycle"] = "constant"
    """how the learning rate falls from its peak to the end"""
    warmup_fraction: Fraction = 0.0
    """fraction of all steps in which the learning rate rises (for one-cycle 0 means 0.3)"""
    label_smoothing: Fraction = 0.0
    """fraction of the target spread evenly over all classes"""
    balance: Literal["off", "on"] = "off"
    """on: weight the loss so that all classes, labels or answers count equally"""
    dropout: Fraction | None = None
    """fraction dropped by each Dropout layer of the net; None keeps each layer's own"""
    flip: Literal["off", "random", "alternating"] = "off"
    """mirror images left to right: at random, or each image every other epoch"""
    translate_px: Annotated[int, Range(0)] = 0
    """largest random shift of an image, in pixels, filled by reflection"""
    cutout_px: Annotated[int, Range(0)] = 0
    """side of the square blanked at a random place, in pixels"""
    crop_from_fraction: Fraction = 0.0
    """show a random part of each image, of this fraction of its area or more, enlarged to the image's size; its sides
    are stretched against each other by 4/3 at most. 0 for none"""
    jitter_fraction: Fraction = 0.0
    """largest random change of brightness, contrast and (of colours) saturation, each by a factor of 1 - this to
    1 + this; 0 for none"""
    grow_from_fraction: Fraction = 0.0
    """start with images shrunk to this fraction of their side (rounded to eighths), which grow to full size over three
    quarters of the epochs; 0 for none. Needs a net that takes any size, and several epochs"""
    normalization: Literal["unit", "channel"] = "unit"
    """pixels to -1 … 1, or each channel to mean 0 and standard deviation 1 over the training images"""
    ema_decay: Fraction = 0.0
    """decay per step of a moving average of the weights, which is evaluated in their place; 0 for none"""
    gradient_clip: Annotated[float, Range(0)] = 0.0
    """clip the global gradient norm to this; 0 for no limit"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """number format of convolutions and linear layers"""
    compile: Literal["off", "on"] = "off"
    """compile the net first (10 to 30 seconds); steps get faster on some machines, slower on others"""
    freeze: Annotated[int, Range(0)] = 0
    """epochs at the start in which only the head of a pretrained net learns, from images as they are (timm's nets)"""
    patience: Annotated[int, Range(0)] = 0
    """epochs without a better score on val after which a run ends, with the weights of its last epoch; 0 for none"""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """seed of every random choice"""

    def __post_init__(self) -> None:
        check_fields(self, RecipeError)

    def __repr__(self) -> str:
        changed = (f"{name}={value!r}" for name, value in self.changes().items())
        return f"Recipe({', '.join(changed)})"

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their default."""
        values = [(field, getattr(self, field.name)) for field in dataclasses.fields(self)]
        return {field.name: value for field, value in values if value != field.default}


USUAL_LR: dict[str, float] = {"adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-3, "sgd": 0.05, "muon": 2e-3}
"""The learning rate of each optimizer where the user gives an optimizer and no learning rate."""


def overlay(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """The recipe with the given fields, and what follows from them unless it is given too.

    Another optimizer has its usual learning rate, and of another number of epochs the same share is frozen.

    >>> overlay(Recipe(lr=0.01), {"optimizer": "sgd"}).lr
    0.05
    >>> overlay(Recipe(epochs=24, freeze=16), {"epochs": 3}).freeze
    2
    """
    optimizer = given.get("optimizer", recipe.optimizer)
    usual = {} if optimizer == recipe.optimizer else {"lr": USUAL_LR[optimizer]}
    return dataclasses.replace(scale_epochs(recipe, given.get("epochs", recipe.epochs)), **usual | given)


def scale_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with another number of epochs, of which the same share is frozen.

    >>> scale_epochs(Recipe(epochs=24, freeze=16), 12)
    Recipe(epochs=12, freeze=8)
    """
    return dataclasses.replace(recipe, epochs=epochs, freeze=round(recipe.freeze * epochs / recipe.epochs))
