"""Parts of a training that are the user's own functions: loss, optimizer, augmentation, schedule and metrics."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lamina.errors import RecipeError
from lamina.training.recipe import Recipe
from lamina.values import explain_arguments


class Parameters(list[nn.Parameter]):
    """The trained parameters of a net, in its order.

    Attributes:
        named: the same by name, such as ``0.weight``.
    """

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        super().__init__(named.values())
        self.named = dict(named)

    @property
    def layers(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each layer, by the layer's path in the net, such as ``0``."""
        found: dict[str, list[nn.Parameter]] = {}
        for name, weight in self.named.items():
            found.setdefault(name.rpartition(".")[0], []).append(weight)
        return found


IGNORED = {
    "label_smoothing": ("loss", 0.0),
    "class_weights": ("loss", False),
    "schedule": ("schedule", "constant"),
    "warmup_fraction": ("schedule", 0.0),
}
"""Fields of a recipe that a part of the user's own takes the place of, and their value where they are unset."""
TAKEN_NAMES = ("loss", "accuracy", "mean_average_precision", "mean_absolute_error")
"""Metrics that lamina writes into a run's history itself."""
ARGUMENTS = {
    "loss": ("logits, targets", "functional.cross_entropy(logits, targets)"),
    "optimizer": ("parameters, recipe", "torch.optim.SGD(parameters, lr=recipe.lr)"),
    "augment": ("images, targets", "(images.flip(3), targets)"),
    "schedule": ("done", "1 - done"),
    "metrics": ("logits, targets", "(logits.argmax(1) == targets).float().mean()"),
}
"""What each part is called with, and an example of what it returns."""

OwnLoss = Callable[[Tensor, Any], Tensor]
OwnOptimizer = Callable[[Parameters, Recipe], Optimizer]
OwnAugment = Callable[[Tensor, Any], tuple[Tensor, Any]]
OwnSchedule = Callable[[float], float]
OwnMetric = Callable[[Tensor, Tensor], Any]
OwnMetrics = Mapping[str, OwnMetric] | Iterable[OwnMetric]


def _name_metrics(metrics: OwnMetrics | None) -> Mapping[str, OwnMetric]:
    """Metrics by name; those without one have that of their function."""
    given: Any = () if metrics is None else metrics
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise RecipeError(f"metrics must be a list of functions, or functions by name, got {metrics!r:.60}.")
    if isinstance(given, Mapping):
        return given
    named = [(describe_part(metric).rpartition(".")[2], metric) for metric in given]
    if len(dict(named)) < len(named):
        name = next(name for place, (name, _) in enumerate(named) if name in dict(named[:place]))
        raise RecipeError(f"metrics has two functions named {name}. Name them, as in metrics={{'{name}_2': …}}.")
    return dict(named)


@explain_arguments(RecipeError)
@dataclass(frozen=True, init=False)
class Parts:
    """Functions of the user's own, in place of what a recipe names.

    Random numbers of torch, NumPy and Python inside ``loss`` and ``augment`` follow from the recipe's seed, the step
    and the lane, so that a resumed training draws the same. Generators that you make yourself are not seeded.

    Attributes:
        loss: from the logits of a batch, float32 (N, K), and its targets to their mean loss, a scalar. The targets are
            a tensor in the form of the logits: class numbers (N,), 0.0 or 1.0 (N, K) for labels and questions, or
            standardized numbers (N, K); or what ``augment`` returned.
        optimizer: from the trained :class:`Parameters`, a list, and the recipe to a torch optimizer. The schedule
            multiplies the learning rate of each of its groups.
        augment: from the images of a batch, float32 (N, C, H, W) from 0 to 1, after the recipe's augmentation, and
            their targets to images of the same shape and targets of any form that the loss takes.
        schedule: from the fraction of the steps that are done, from 0 to below 1, to the factor of the learning rate,
            0 or more; in place of ``Recipe.schedule``.
        metrics: by name, or several named as they are: functions from the logits, float32 (N, K), and targets of a
            whole split, as in ``Images``, to a number; for regression, from predictions in the targets' units. Computed
            on the CPU wherever ``val`` or ``test`` is evaluated.

    Raises:
        RecipeError: a part is no function of such arguments, or a metric has a name that is taken.

    >>> def largest(logits, targets):
    ...     return logits.max()
    >>> list(Parts(loss=nn.CrossEntropyLoss(), metrics=[largest]).metrics)
    ['largest']
    """

    loss: OwnLoss | None
    optimizer: OwnOptimizer | None
    augment: OwnAugment | None
    schedule: OwnSchedule | None
    metrics: Mapping[str, OwnMetric]

    def __init__(
        self,
        loss: OwnLoss | None = None,
        optimizer: OwnOptimizer | None = None,
        augment: OwnAugment | None = None,
        schedule: OwnSchedule | None = None,
        metrics: OwnMetrics = (),
    ) -> None:
        named = _name_metrics(metrics)
        vars(self).update(loss=loss, optimizer=optimizer, augment=augment, schedule=schedule, metrics=named)
        for name in self.metrics:
            if not isinstance(name, str) or not name.isidentifier() or name in TAKEN_NAMES:
                raise RecipeError(
                    f"metrics must have names such as top_2, which lamina does not use for its own, got {name!r:.60}."
                )
        for name, part in self._functions().items():
            if not callable(part) or isinstance(part, type):
                what = f"the class {part.__name__}" if isinstance(part, type) else f"{part!r:.60}"
                raise RecipeError(f"{name} must be a function, got {what}. See docs/extend.md for its arguments.")
            _check_arguments(name, part)
        if isinstance(self.loss, nn.Module) and any(weight.requires_grad for weight in self.loss.parameters()):
            raise RecipeError(
                f"loss must not have parameters to train, but {describe_part(self.loss)} has. Put them into the net."
            )

    def _functions(self) -> dict[str, Any]:
        given = {"loss": self.loss, "optimizer": self.optimizer, "augment": self.augment, "schedule": self.schedule}
        metrics = {f"metrics.{name}": metric for name, metric in self.metrics.items()}
        return {name: part for name, part in given.items() if part is not None} | metrics

    def describe(self) -> dict[str, str]:
        """Each part's module and name, such as ``{"loss": "losses.focal"}``, as a run records them."""
        return {name: describe_part(part) for name, part in self._functions().items()}


NO_PARTS = Parts()


def _check_arguments(name: str, part: Callable[..., Any]) -> None:
    """Raise ``RecipeError`` if a part cannot be called as it will be."""
    arguments, example = ARGUMENTS[name.partition(".")[0]]
    try:
        signature = inspect.signature(part)
    except (TypeError, ValueError):  # of some built-in functions
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        raise RecipeError(
            f"{name} is called with {arguments}, but {describe_part(part)} does not take them ({error}). Write, for "
            f"example, lambda {arguments}: {example}."
        ) from error


def describe_part(part: Callable[..., Any]) -> str:
    """A function's module and name, as in ``losses.focal``; of an object, those of its class."""
    while isinstance(part, functools.partial):
        part = part.func
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}".replace("<locals>.", "")


def describe_arguments(described: Mapping[str, str]) -> str:
    """Parts, as :meth:`Parts.describe` gives them, as the arguments of a call.

    >>> describe_arguments({"loss": "losses.focal", "metrics.top_2": "scores.top_2", "metrics.f1": "scores.<lambda>"})
    'loss=focal, metrics={"top_2": top_2, "f1": …}'
    """
    names = {
        name: last if (last := place.rpartition(".")[2]).isidentifier() else "…" for name, place in described.items()
    }
    metrics = [f'"{name.partition(".")[2]}": {last}' for name, last in names.items() if name.startswith("metrics.")]
    others = [f"{name}={last}" for name, last in names.items() if not name.startswith("metrics.")]
    return ", ".join(others + [f"metrics={{{', '.join(metrics)}}}"] * bool(metrics))


def check_parts(parts: Parts, recipe: Recipe) -> None:
    """Raise ``RecipeError`` if the recipe sets what a part of the user's own would ignore."""
    for name, (part, unset) in IGNORED.items():
        if getattr(parts, part) is not None and (value := getattr(recipe, name)) != unset:
            raise RecipeError(
                f"{name} was {value!r}, but a {part} of your own does not use it. Do what it does in your {part}, and "
                f"leave it out of the recipe: dataclasses.replace(recipe, {name}={unset!r})."
            )


def drop_ignored(recipe: Recipe, parts: Parts) -> Recipe:
    """A recipe that lamina chose, without what a part of the user's own would ignore."""
    unset: dict[str, Any] = {name: value for name, (part, value) in IGNORED.items() if getattr(parts, part) is not None}
    return dataclasses.replace(recipe, **unset)
