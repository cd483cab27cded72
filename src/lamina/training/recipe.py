"""The recipe: every training setting, and how it adapts to the images. Does not import torch."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from lamina.errors import RecipeError
from lamina.markup import card, note, table
from lamina.metrics import METRICS
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, Kind
from lamina.values import (
    Fraction,
    Range,
    check_fields,
    document_fields,
    explain_arguments,
    read_texts,
)

AIM = re.compile(r"f1|(recall|precision)=0?\.\d*[1-9]\d*|miss=(?=.*[1-9])\d*\.?\d+")


@dataclass(frozen=True)
class Aim:
    """The highest F1, a minimum recall or precision, or the lowest cost of errors.

    For the cost, a miss is as bad as ``value`` false alarms.
    """

    name: Literal["f1", "recall", "precision", "miss"]
    value: float = 1.0

    def __str__(self) -> str:
        return self.name if self.name == "f1" else f"{self.name}={self.value:g}"


def parse_aim(text: str) -> Aim:
    """The aim that a recipe names; ``RecipeError`` if invalid."""
    if not AIM.fullmatch(text):
        raise RecipeError(
            f"aim is {text!r}; it must be f1, recall or precision between 0 and 1, or the cost of a"
            " miss in false alarms, above 0. Use f1, recall=0.95, precision=0.9 or miss=10.",
            field="aim",
        )
    name, _, value = text.partition("=")
    return Aim(name, float(value or 1))  # type: ignore[arg-type]


@dataclass(frozen=True)
class NamedOptimizer:
    """An optimizer that a recipe can name.

    Attributes:
        kind: Import path of its class, which accepts parameter groups, ``lr`` and ``options``.
        usual_lr: Learning rate if the user chooses this optimizer without one.
        options: Further arguments of the class.
        takes_momentum: Whether the class accepts ``Recipe.momentum``.
        batch_exponent: Exponent of the batch size in the learning rate: Malladi et al., arXiv
            2205.10287, for Adam; Goyal et al., arXiv 1706.02677, section 2.1, for SGD; measured
            for Muon.
    """

    kind: str
    usual_lr: float
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_momentum: bool = False
    batch_exponent: float = 0.5


OPTIMIZERS = {
    "adam": NamedOptimizer("torch.optim.Adam", 1e-3, {"fused": True}),
    "adamw": NamedOptimizer("torch.optim.AdamW", 1e-3, {"fused": True}),
    "rmsprop": NamedOptimizer("torch.optim.RMSprop", 1e-3, {"foreach": True}),
    "sgd": NamedOptimizer(
        "lamina.training.optim.SGD", 0.05, takes_momentum=True, batch_exponent=1.0
    ),
    "muon": NamedOptimizer(
        "lamina.training.optim.Muon", 2e-3, takes_momentum=True, batch_exponent=0.25
    ),
}


MOST_EPOCHS = 100_000
DEVICES = ("auto", "cpu", "cuda", "mps")


def half_cosine(fraction: float) -> float:
    return (1 - math.cos(math.pi * fraction)) / 2


@dataclass(frozen=True)
class NamedSchedule:
    """A schedule of the learning rate: it rises to its peak, stays there, and falls.

    Attributes:
        fall_fraction: Fraction of all steps, at the end, in which the rate falls to zero; 1 for all
            steps after the warmup.
        shape: From the completed fraction of the fall to the fraction of the peak that is lost.
        warmup_steps: Most steps for the warmup, which takes a tenth of the recipe's steps. Then the
            end of training can be decided late: no step before the fall depends on it.
    """

    fall_fraction: float = 1.0
    shape: Callable[[float], float] = lambda passed: passed
    warmup_steps: int | None = None


SCHEDULES = {
    "constant": NamedSchedule(fall_fraction=0.0),
    "cosine": NamedSchedule(shape=half_cosine),
    "linear": NamedSchedule(),
    "trapezoid": NamedSchedule(fall_fraction=0.4, warmup_steps=50),
}
"""``cosine`` is from Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts;
``trapezoid`` warms up, stays constant, and falls linearly: Hägele et al., arXiv 2405.18392."""


OptimizerName: TypeAlias = Literal[*OPTIMIZERS]  # type: ignore[valid-type]
ScheduleName: TypeAlias = Literal[*SCHEDULES]  # type: ignore[valid-type]
DeviceName: TypeAlias = Literal[*DEVICES]  # type: ignore[valid-type]


# ``metadata`` names the part of one's own, in ``Parts``, that replaces a setting.
@document_fields
@explain_arguments(RecipeError)
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings. Immutable; ``dataclasses.replace`` returns a changed copy.

    Raises:
        RecipeError: A value has the wrong type or is out of range.

    >>> Recipe(epochs=5, optimizer="sgd", lr=0.1)
    Recipe(epochs=5, optimizer='sgd', lr=0.1)
    """

    epochs: Annotated[int, Range(1, MOST_EPOCHS)] = 10
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
    schedule: ScheduleName = field(default="constant", metadata={"part": "schedule"})
    """schedule of the learning rate after the warmup"""
    warmup_fraction: Fraction = field(default=0.0, metadata={"part": "schedule"})
    """fraction of all steps in which the learning rate rises to its peak"""
    label_smoothing: Fraction = field(default=0.0, metadata={"part": "loss"})
    """fraction of each target that is spread evenly over all classes"""
    class_weights: bool = field(default=False, metadata={"part": "loss"})
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
    net, by regression with a cross-validated L2 penalty; batch-norm layers then keep their
    statistics"""
    initial_fraction: Fraction = 0.0
    """fraction of the initial weights in the final weights, which are the mean of initial and
    trained weights (WiSE-FT)"""
    metric: str | None = None
    """metric to use as the score: for early stopping, for the comparison with the baseline and in
    the output; by default balanced_accuracy with class_weights, otherwise accuracy,
    mean_average_precision or mean_absolute_error; in Python, also the name of a metric in Parts"""
    aim: str | None = None
    """yes-or-no and multi-label models: choose the decision thresholds on val for the highest f1,
    for at least a given recall or precision, as in recall=0.95, or for the lowest cost if a miss
    costs as much as a number of false alarms, as in miss=10; by default, the thresholds are 0.5"""
    patience: Annotated[int, Range(1)] | None = None
    """early stopping: stop after this many evaluations of val without a better score (lamina
    evaluates val after each epoch, or less often if it is large); keeps the last epoch's weights"""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """seed of all random choices: initial weights, image order, augmentation and dropout"""

    def __post_init__(self) -> None:
        check_fields(self, RecipeError)
        if self.aim is not None:
            parse_aim(self.aim)
        if self.warmup_fraction and SCHEDULES[self.schedule].warmup_steps is not None:
            raise RecipeError(
                f"warmup_fraction is {self.warmup_fraction:g}, but the schedule {self.schedule}"
                f" warms up in a tenth of the steps, at most"
                f" {SCHEDULES[self.schedule].warmup_steps}. Leave warmup_fraction out.",
                field="warmup_fraction",
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

    def find_metric(self, kind: Kind) -> str:
        """The name of the metric that is the score for this kind of target.

        Raises ``RecipeError`` if :attr:`metric` names a metric for other kinds of target.
        """
        if self.metric in METRICS and self.metric not in kind.metrics:
            raise RecipeError(
                f"metric is {self.metric}, which does not fit {kind} targets; it must be one of "
                f"{', '.join(kind.metrics)}. Use metric {kind.metrics[0]}.",
                field="metric",
            )
        if self.metric is None and self.class_weights and "balanced_accuracy" in kind.metrics:
            return "balanced_accuracy"
        return self.metric or kind.metrics[0]

    def find_aim(self, kind: Kind) -> Aim | None:
        """The aim of the decision thresholds; ``RecipeError`` if it does not suit the targets."""
        if self.aim is None:
            return None
        if kind not in (BINARY, MULTI_LABEL):
            raise RecipeError(
                f"Thresholds for {self.aim} need yes-or-no or multi-label targets, but these are"
                f" {kind}. Leave out aim."
            )
        return parse_aim(self.aim)

    def changes(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as a dictionary."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in vars(self).items() if value != defaults[name]}


def overlay(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with the fields in ``changes`` replaced.

    Changing the optimizer also sets its usual learning rate, unless ``changes`` sets it too.

    >>> overlay(Recipe(lr=0.01), {"optimizer": "sgd"}).lr
    0.05
    """
    optimizer = changes.get("optimizer", recipe.optimizer)
    schedule = changes.get("schedule", recipe.schedule)
    if optimizer not in OPTIMIZERS or schedule not in SCHEDULES:
        return dataclasses.replace(recipe, **changes)  # which refuses them
    usual: dict[str, Any] = {}
    if optimizer != recipe.optimizer:
        usual["lr"] = OPTIMIZERS[optimizer].usual_lr
    if SCHEDULES[schedule].warmup_steps is not None:
        usual["warmup_fraction"] = 0.0
    return dataclasses.replace(recipe, **usual | changes)


LEAST_BATCH = 16  # smallest batch size; batch norm needs as many images for useful statistics
FEW_SHARE = 0.1  # of the images that a recipe was tuned on; with fewer, cutout helps
CUTOUT_PX = 8  # in images of 32 px
MOST_PIXELS = 2000 * 32 * 32  # per batch, because activations of larger images need more memory


@dataclass(frozen=True)
class Home:
    """The images that a recipe was tuned on."""

    images: int
    side_px: int


ZOO_HOME = Home(50_000, 32)
PRETRAINED_HOME = Home(500, 96)


def fit_recipe(
    recipe: Recipe, images: int, side_px: int, kind: Kind, home: Home = ZOO_HOME
) -> Recipe:
    """Adapt a recipe that was tuned on ``home`` to a number of ``images`` of ``side_px``.

    For regression, it switches off label smoothing and every augmentation except translation.
    """
    share = images / home.images
    batch_size = recipe.batch_size
    if share < 1:
        batch_size = max(min(batch_size, LEAST_BATCH), round(batch_size * share**0.5))
    batch_size = max(1, min(batch_size, MOST_PIXELS // side_px**2))
    lr = recipe.lr
    if batch_size != recipe.batch_size:
        ratio = batch_size / recipe.batch_size
        lr = float(f"{lr * ratio ** OPTIMIZERS[recipe.optimizer].batch_exponent:.2g}")
    translate_px = recipe.translate_px
    cutout_px = recipe.cutout_px
    if share < 1 and recipe.flip != "off":
        translate_px = translate_px * min(2.0, share**-0.15)
        if share < FEW_SHARE:
            cutout_px = max(cutout_px, CUTOUT_PX)
    scale = side_px / home.side_px
    fitted = dataclasses.replace(
        recipe,
        # 1/100 of the images gets three times the epochs, which at a tenth of the batch size is a
        # third of the steps.
        epochs=max(1, round(recipe.epochs * share**-0.25)),
        batch_size=batch_size,
        lr=lr,
        translate_px=round(translate_px * scale),
        cutout_px=round(cutout_px * scale),
    )
    if kind is not REGRESSION:
        return fitted
    # Numbers have no labels to smooth, and augmentation may change them.
    return dataclasses.replace(fitted, label_smoothing=0.0, flip="off", cutout_px=0)


def describe_fit(
    recipe: Recipe,
    fitted: Recipe,
    images: int,
    side_px: int,
    home: Home = ZOO_HOME,
    used: Recipe | None = None,
) -> tuple[str, str]:
    """The images that the recipe was fitted to, and the changes that ``used`` does not override."""
    changes = []
    for name, value in vars(fitted).items():
        before = getattr(recipe, name)
        if value != before and value == getattr(used or fitted, name):
            changes.append(f"{name} {before} → {value}")
    if not changes:
        return "", ""
    tuned = f"the recipe was tuned on {home.images:,} of {home.side_px} px"
    return f"fitted to {images:,} images of {side_px} px ({tuned})", ", ".join(changes)
