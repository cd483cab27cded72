"""The recipe: every training setting, with its unit, default and range."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from lamina.data.preparation import Preparation
from lamina.errors import RecipeError
from lamina.markup import card, note, table
from lamina.targets import BINARY, MULTI_LABEL, Kind, MetricName
from lamina.training.aim import Aim, parse_aim
from lamina.training.catalog import OPTIMIZERS, SCHEDULES
from lamina.values import (
    Fraction,
    Range,
    check_fields,
    document_fields,
    explain_arguments,
    read_texts,
)

if TYPE_CHECKING:
    OptimizerName: TypeAlias = str
    ScheduleName: TypeAlias = str
    DeviceName: TypeAlias = str
else:
    OptimizerName, ScheduleName = Literal[*OPTIMIZERS], Literal[*SCHEDULES]
    DeviceName = Literal["auto", "cpu", "cuda", "mps"]


@document_fields
@explain_arguments(RecipeError, elsewhere=(Preparation,))
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings. Immutable; ``dataclasses.replace`` returns a changed copy.

    Raises:
        RecipeError: A value has the wrong type or is out of range.

    >>> Recipe(epochs=5, optimizer="sgd", lr=0.1)
    Recipe(epochs=5, optimizer='sgd', lr=0.1)
    """

    epochs: Annotated[int, Range(1)] = 10
    """number of passes over the training images"""
    batch_size: Annotated[int, Range(1)] = 100
    """number of images per step"""
    optimizer: OptimizerName = "adam"
    """optimizer that updates the weights"""
    lr: Annotated[float, Range(0)] = 1e-3
    """peak learning rate"""
    momentum: Fraction = 0.9
    """momentum of sgd and muon"""
    weight_decay: Annotated[float, Range(0)] = 0.0
    """weight decay; does not apply to biases and normalization layers; decoupled in adamw and muon,
    otherwise an L2 penalty"""
    schedule: ScheduleName = "constant"
    """schedule of the learning rate after the warmup"""
    warmup_fraction: Fraction = 0.0
    """fraction of all steps in which the learning rate rises to its peak; 0 means 0.3 for
    one-cycle"""
    label_smoothing: Fraction = 0.0
    """fraction of each target that is spread evenly over all classes"""
    class_weights: bool = False
    """weight the loss by inverse class frequency, so that all classes count equally"""
    dropout: Fraction | None = None
    """dropout probability of every Dropout layer in the net; default: each layer's own
    probability"""
    flip: Literal["off", "random", "alternating"] = "off"
    """horizontal flips: off, random, or alternating (flip each image in every other epoch)"""
    translate_px: Annotated[int, Range(0)] = 0
    """random translation by up to this many pixels; reflection fills the edges"""
    cutout_px: Annotated[int, Range(0)] = 0
    """cutout: side, in pixels, of a gray square at a random place in each image"""
    crop_from_fraction: Fraction = 0.0
    """random resized crop: smallest fraction of the area to keep; the aspect ratio changes by at
    most 4/3"""
    start_size_fraction: Fraction = 0.0
    """progressive resizing: initial image side, as a fraction of full size; it grows over 3/4 of
    the epochs"""
    normalization: Literal["unit", "channel"] = "unit"
    """unit scales pixels to -1 … 1; channel scales each channel to mean 0 and standard deviation
    1"""
    gradient_clip: Annotated[float, Range(above=0)] | None = None
    """upper limit of the global gradient norm; by default, no limit"""
    lanes: Annotated[int, Range(1)] = 1
    """micro-batches per step, each with a fixed place in the sum; up to this many torchrun
    processes share them"""
    device: DeviceName = "auto"
    """device to train on"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """number format of convolutions and linear layers; auto decides by processor and layer size"""
    head: Literal["random", "fitted"] = "random"
    """initial weights of the last linear layer: random, or fitted to the features of a pretrained
    net, by regression with a cross-validated L2 penalty; batch norms then keep their statistics"""
    initial_fraction: Fraction = 0.0
    """fraction of the initial weights in the final ones, which are the mean of initial and trained
    weights (WiSE-FT)"""
    metric: MetricName | None = None
    """metric that is the score: it decides early stopping, the comparison with the baseline and
    what is printed; by default balanced_accuracy with class_weights, otherwise accuracy,
    mean_average_precision or mean_absolute_error"""
    aim: str | None = None
    """yes-or-no and multi-label models: choose the decision thresholds on val for the highest f1,
    or for at least this recall or precision, as in recall=0.95; by default, the thresholds are
    0.5"""
    cost: str | None = None
    """as aim: the lowest cost if a miss costs as much as this number of false alarms, as in
    miss=10"""
    patience: Annotated[int, Range(1)] | None = None
    """early stopping: stop after this many epochs without a better val score; keeps the last
    epoch's weights"""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """seed of all random choices: initial weights, image order, augmentation and dropout"""

    def __post_init__(self) -> None:
        check_fields(self, RecipeError)
        parse_aim(self.aim, self.cost)
        if self.warmup_fraction and SCHEDULES[self.schedule].warmup_steps is not None:
            raise RecipeError(
                f"warmup_fraction is {self.warmup_fraction:g}, but the schedule {self.schedule}"
                f" warms up in its first {SCHEDULES[self.schedule].warmup_steps} steps. Leave"
                " warmup_fraction out."
            )

    def __repr__(self) -> str:
        changed = (f"{name}={value!r}" for name, value in self.changes().items())
        return f"Recipe({', '.join(changed)})"

    def _repr_html_(self) -> str:
        texts = read_texts(Recipe)
        rows = [(name, repr(value), texts.get(name, "")) for name, value in self.changes().items()]
        rest = (
            f"{'all other' if rows else 'all'} fields have their defaults; help(Recipe) explains"
            " them"
        )
        return card(
            "Recipe", *([table(("field", "value", ""), rows, texts=3)] if rows else []), note(rest)
        )

    def find_metric(self, kind: Kind) -> MetricName:
        """The score's metric for this kind of target; ``RecipeError`` if it does not fit."""
        if self.metric is not None and self.metric not in kind.metrics:
            raise RecipeError(
                f"metric is {self.metric}, which does not fit {kind} targets; it must be one of "
                f"{', '.join(kind.metrics)}. Use metric {kind.metrics[0]}."
            )
        if self.metric is None and self.class_weights and "balanced_accuracy" in kind.metrics:
            return "balanced_accuracy"
        return self.metric or kind.metrics[0]

    def find_aim(self, kind: Kind) -> Aim | None:
        """The aim of the decision thresholds; ``RecipeError`` if this kind of target has none."""
        aim = parse_aim(self.aim, self.cost)
        if aim is not None and kind not in (BINARY, MULTI_LABEL):
            raise RecipeError(
                f"Thresholds for {aim} need yes-or-no or multi-label targets, but these are {kind}."
                f" Leave out {'cost' if aim.name == 'miss' else 'aim'}."
            )
        return aim

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as a dictionary."""
        values = [(field, getattr(self, field.name)) for field in dataclasses.fields(self)]
        return {field.name: value for field, value in values if value != field.default}


def overlay(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """The recipe with the ``given`` fields replaced.

    Changing the optimizer also sets its usual learning rate, unless ``given`` sets it too.

    >>> overlay(Recipe(lr=0.01), {"optimizer": "sgd"}).lr
    0.05
    """
    optimizer, schedule = (
        given.get("optimizer", recipe.optimizer),
        given.get("schedule", recipe.schedule),
    )
    if optimizer not in OPTIMIZERS or schedule not in SCHEDULES:
        return dataclasses.replace(recipe, **given)  # which refuses them
    usual: dict[str, Any] = (
        {} if optimizer == recipe.optimizer else {"lr": OPTIMIZERS[optimizer].usual_lr}
    )
    if SCHEDULES[schedule].warmup_steps is not None:
        usual |= {"warmup_fraction": 0.0}
    return dataclasses.replace(recipe, **usual | given)
