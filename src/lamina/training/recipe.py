"""Every setting of a training, with its unit, default and range, as one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from lamina.data.preparation import Preparation
from lamina.errors import RecipeError
from lamina.markup import card, note, table
from lamina.training.catalog import OPTIMIZERS, SCHEDULES
from lamina.values import Fraction, Range, check_fields, document_fields, explain_arguments, read_texts

if TYPE_CHECKING:
    OptimizerName: TypeAlias = str
    ScheduleName: TypeAlias = str
else:
    OptimizerName, ScheduleName = Literal[*OPTIMIZERS], Literal[*SCHEDULES]


@document_fields
@explain_arguments(RecipeError, elsewhere=(Preparation,))
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a net is trained.

    Raises:
        RecipeError: a value has the wrong type or is out of range.

    >>> Recipe(epochs=5, optimizer="sgd", lr=0.1)
    Recipe(epochs=5, optimizer='sgd', lr=0.1)
    """

    epochs: Annotated[int, Range(1)] = 10
    """passes over the training images"""
    batch_size: Annotated[int, Range(1)] = 100
    """images per step"""
    optimizer: OptimizerName = "adam"
    """optimizer"""
    lr: Annotated[float, Range(0)] = 1e-3
    """peak learning rate"""
    momentum: Fraction = 0.9
    """momentum (sgd and muon)"""
    weight_decay: Annotated[float, Range(0)] = 0.0
    """weight decay, except for biases and norms: decoupled in adamw and muon, added to the gradient in the others"""
    schedule: ScheduleName = "constant"
    """how the learning rate falls from its peak"""
    warmup_fraction: Fraction = 0.0
    """fraction of all steps in which the learning rate rises to its peak (for one-cycle, 0 means 0.3)"""
    label_smoothing: Fraction = 0.0
    """fraction of the target spread evenly over all classes"""
    class_weights: bool = False
    """class weights: weight the loss so that all classes, labels or sides of a question count equally"""
    dropout: Fraction | None = None
    """fraction dropped by every Dropout layer of the net; by default each layer's own"""
    flip: Literal["off", "random", "alternating"] = "off"
    """mirror images left to right: at random, or each image in every other epoch"""
    translate_px: Annotated[int, Range(0)] = 0
    """largest random shift of an image, in pixels, filled by reflection"""
    cutout_px: Annotated[int, Range(0)] = 0
    """side of a square blanked at a random place in each image, in pixels"""
    crop_from_fraction: Fraction = 0.0
    """random resized crop: smallest fraction of the area to keep; aspect ratio changes by at most 4/3"""
    jitter_fraction: Fraction = 0.0
    """largest random change of brightness, contrast and (in colour) saturation, each by a factor from 1 - this to
    1 + this"""
    start_size_fraction: Fraction = 0.0
    """start with images shrunk to this fraction of their side (rounded to eighths), and let them grow to full size over
    three quarters of the epochs; needs a net that accepts any size, and several epochs"""
    normalization: Literal["unit", "channel"] = "unit"
    """unit: pixels to -1 … 1; channel: each channel to mean 0 and standard deviation 1 over the training images"""
    ema_decay: Fraction = 0.0
    """decay per step of a moving average of the weights, which is evaluated instead of them: in step t, from 0, at most
    (1 + t) / (10 + t)"""
    gradient_clip: Annotated[float, Range(above=0)] | None = None
    """upper limit of the global gradient norm; by default none"""
    lanes: Annotated[int, Range(1)] = 1
    """parts of each batch, each with batch norms and dropout of its own, which the processes of torchrun share out: any
    number of processes, up to this, gives the same weights"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """number format of convolutions and linear layers; auto chooses by processor and layer size"""
    compile: bool = False
    """compile the net first (10 to 30 seconds); this makes steps faster on some machines and slower on others"""
    freeze: Annotated[int, Range(0)] = 0
    """epochs at the start in which only the head of a pretrained net (timm's) is trained, without augmentation"""
    patience: Annotated[int, Range(1)] | None = None
    """stop after this many epochs without a better score on val, and keep the weights of the last epoch"""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """seed of every random choice"""

    def __post_init__(self) -> None:
        check_fields(self, RecipeError)

    def __repr__(self) -> str:
        changed = (f"{name}={value!r}" for name, value in self.changes().items())
        return f"Recipe({', '.join(changed)})"

    def _repr_html_(self) -> str:
        texts = read_texts(Recipe)
        rows = [(name, repr(value), texts.get(name, "")) for name, value in self.changes().items()]
        rest = f"{'the other' if rows else 'all'} fields have their defaults; help(Recipe) explains them"
        return card("Recipe", *([table(("field", "value", ""), rows, texts=3)] if rows else []), note(rest))

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their default."""
        values = [(field, getattr(self, field.name)) for field in dataclasses.fields(self)]
        return {field.name: value for field, value in values if value != field.default}


def overlay(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """The recipe with the given fields, and what follows from them unless it is given too.

    Another optimizer gets its usual learning rate, and with another number of epochs the same share is frozen.

    >>> overlay(Recipe(lr=0.01), {"optimizer": "sgd"}).lr
    0.05
    >>> overlay(Recipe(epochs=24, freeze=16), {"epochs": 3}).freeze
    2
    """
    optimizer = given.get("optimizer", recipe.optimizer)
    usual = {} if optimizer == recipe.optimizer else {"lr": OPTIMIZERS[optimizer].usual_lr}
    return dataclasses.replace(scale_epochs(recipe, given.get("epochs", recipe.epochs)), **usual | given)


def scale_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with another number of epochs, the same share of them frozen."""
    return dataclasses.replace(recipe, epochs=epochs, freeze=round(recipe.freeze * epochs / recipe.epochs))
