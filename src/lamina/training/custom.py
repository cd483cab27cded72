"""Custom functions for training: loss, optimizer, augmentation, schedule and metrics."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lamina.errors import RecipeError, check_type, suggest
from lamina.metrics import METRICS, SCORES
from lamina.training.randomness import seeded_everywhere
from lamina.training.recipe import Recipe


class Parameters(list[nn.Parameter]):
    """The trainable parameters of a net, as a list in the order of the net.

    Attributes:
        named: The parameters by name, such as ``0.weight``.
    """

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        super().__init__(named.values())
        self.named = dict(named)

    @property
    def layers(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each layer, by the path of the layer in the net, such as ``0``."""
        layers: dict[str, list[nn.Parameter]] = {}
        for name, weight in self.named.items():
            layers.setdefault(name.rpartition(".")[0], []).append(weight)
        return layers


TAKEN_NAMES = ("loss", *METRICS)
"""Metrics that lamina computes."""

OwnLoss = Callable[[Tensor, Any], Tensor]
OwnOptimizer = Callable[[Parameters, Recipe], Optimizer]
OwnAugment = Callable[[Tensor, Any], tuple[Tensor, Any]]
OwnSchedule = Callable[[float], float]
OwnMetric = Callable[[Tensor, Tensor], Any]
OwnMetrics = Mapping[str, OwnMetric]


@dataclass(frozen=True)
class LowerIsBetter:
    """Marks your own metric as one for which lower values are better, such as an error.

    Args:
        function: Function of logits and targets that returns a number, as in :class:`Parts`.

    >>> from lamina import Recipe
    >>> def largest_error(logits, targets):
    ...     return (logits - targets).abs().max()
    >>> parts = Parts(metrics={"largest_error": LowerIsBetter(largest_error)})
    >>> recipe = Recipe(metric="largest_error", patience=3)
    """

    function: OwnMetric

    def __call__(self, logits: Tensor, targets: Tensor) -> Any:
        return self.function(logits, targets)


@dataclass(frozen=True)
class Parts:
    """Your own loss, optimizer, augmentation, schedule and metrics, in place of the recipe's.

    In ``loss`` and ``augment``, the random generators of torch, NumPy and Python are seeded from
    the recipe's seed, the epoch, the step and the lane, so a resumed training draws the same
    numbers. Generators that you create yourself are not seeded.

    Args:
        loss: Function of logits, float32 (N, K), and targets of a batch that returns the mean loss,
            a scalar. Targets are class indices (N,), 0.0 or 1.0 (N, K) for multi-label and
            yes-or-no tasks, standardized numbers (N, K) for regression, or whatever ``augment``
            returned.
        optimizer: Function of the trainable :class:`Parameters`, a list, and the recipe that
            returns a torch optimizer. The schedule multiplies the learning rate of each parameter
            group.
        augment: Function of images, float32 (N, C, H, W) from 0 to 1, and targets of a batch that
            returns both. Called after the recipe's augmentation. Images must keep their shape;
            targets must fit the loss.
        schedule: Function of the completed fraction of steps, from 0 to below 1, that returns the
            factor of the learning rate, 0 or more. Replaces ``Recipe.schedule``.
        metrics: Functions by name. Each gets the logits, float32 (N, K), and the targets of a whole
            split, as in ``Images``, on the CPU, and returns a number. For regression, predictions
            in the units of the targets take the place of logits. Computed whenever ``val`` or
            ``test`` is evaluated. The metric that ``Recipe.metric`` names is the score, and must
            return a finite number; higher is better unless the function is wrapped in
            :class:`LowerIsBetter`.

    Raises:
        RecipeError: A part is not a function, or the name of a metric is taken.

    >>> def largest(logits, targets):
    ...     return logits.max()
    >>> list(Parts(loss=nn.CrossEntropyLoss(), metrics={"largest": largest}).metrics)
    ['largest']
    """

    loss: OwnLoss | None = None
    optimizer: OwnOptimizer | None = None
    augment: OwnAugment | None = None
    schedule: OwnSchedule | None = None
    metrics: OwnMetrics = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.metrics, Mapping):
            raise RecipeError(
                f"metrics must be a dictionary of functions by name, got {self.metrics!r:.60}. Use"
                " metrics={'name': function}."
            )
        for name in self.metrics:
            if not isinstance(name, str) or not name.isidentifier() or name in TAKEN_NAMES:
                raise RecipeError(
                    f"metrics has the name {name!r:.60}; a name must be an identifier that lamina"
                    " does not use. Use a name such as top_2."
                )
        for name, part in self.functions().items():
            if not callable(part) or isinstance(part, type):
                what = f"the class {part.__name__}" if isinstance(part, type) else f"{part!r:.60}"
                raise RecipeError(
                    f"{name} must be a function, got {what}. docs/howto/extend.md describes its"
                    " arguments."
                )
        if isinstance(self.loss, nn.Module) and any(
            weight.requires_grad for weight in self.loss.parameters()
        ):
            raise RecipeError(
                f"loss must not have trainable parameters, but {describe_part(self.loss)} has. Move"
                " them to the net."
            )

    def functions(self) -> dict[str, Any]:
        """Each part by its name, metrics as ``metrics.NAME``."""
        functions = {name: part for name, part in vars(self).items() if part is not None}
        metrics = functions.pop("metrics")
        return functions | {f"metrics.{name}": metric for name, metric in metrics.items()}

    def describe(self) -> dict[str, str]:
        """Each part's module and name, such as ``{"loss": "losses.focal"}``, for a run's record."""
        described = {name: describe_part(part) for name, part in self.functions().items()}
        for name, metric in self.metrics.items():
            if isinstance(metric, LowerIsBetter):
                described[f"metrics.{name}"] = f"LowerIsBetter({describe_part(metric)})"
        return described

    def digest(self) -> dict[str, str]:
        """The digest of each part's source text, if it has one."""
        digests = {name: digest_source(part) for name, part in self.functions().items()}
        return {name: digest for name, digest in digests.items() if digest}


NO_PARTS = Parts()


def describe_part(part: Callable[..., Any]) -> str:
    """The module and name of a function, such as ``losses.focal``, or of an object's class."""
    named = _find_named(part)
    return f"{named.__module__}.{named.__qualname__}".replace("<locals>.", "")


def digest_source(*parts: Any) -> str:
    """The digest of the source text of functions and classes; empty if one has no text of its own.

    The text of a lambda includes the code around it, so it does not count.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        named = _find_named(part)
        if named.__name__ == "<lambda>":
            return ""
        try:
            source = inspect.getsource(named)
        except (OSError, TypeError, SyntaxError, TokenError):  # typed in, or built in
            return ""
        digest.update(source.encode("utf-8", "surrogatepass"))
    return digest.hexdigest() if parts else ""


def _find_named(part: Any) -> Any:
    """The function that a part calls, or the class of an object."""
    while isinstance(part, functools.partial | LowerIsBetter):
        part = part.func if isinstance(part, functools.partial) else part.function
    return part if hasattr(part, "__qualname__") else type(part)


def compute_own_loss(function: OwnLoss, logits: Tensor, targets: Any, seed: int) -> Tensor:
    """The mean loss of a batch by a custom function, which draws its numbers from ``seed``."""
    with seeded_everywhere(seed, logits.device):
        loss: Any = function(logits, targets)
    name = describe_part(function)
    if not isinstance(loss, Tensor):
        raise RecipeError(
            f"loss must return a tensor, but {name} returned {type(loss).__name__}. Return the mean"
            " loss as a tensor."
        )
    if loss.ndim:
        raise RecipeError(
            f"loss must return a scalar, the mean over the batch, but {name} returned a tensor of"
            f" shape {tuple(loss.shape)}. Return loss.mean()."
        )
    if not loss.requires_grad and logits.requires_grad:
        raise RecipeError(
            f"loss must be differentiable, but {name} returned a tensor without a gradient. Compute"
            " it from the logits."
        )
    return loss.to(logits.dtype)


def check_parts_type(parts: Parts) -> None:
    check_type(
        parts, (Parts,), "parts", "your own functions, as in Parts(loss=focal)", is_optional=False
    )


def check_parts(parts: Parts, recipe: Recipe) -> None:
    """Raise ``RecipeError`` if the recipe sets a field that a custom part ignores.

    Raise it, too, if the recipe's metric is neither lamina's nor in the parts.
    """
    check_parts_type(parts)
    known = (*SCORES, *parts.metrics)
    if recipe.metric is not None and recipe.metric not in known:
        raise RecipeError(
            f"metric is {recipe.metric!r}, which is neither a metric of lamina nor one of your own,"
            f" parts=Parts(metrics={{name: function}}). {suggest(recipe.metric, known)}",
            field="metric",
        )
    for name, default in find_ignored(parts).items():
        value = getattr(recipe, name)
        if value != default:
            raise RecipeError(
                f"{name} is {value!r}, but one of your own parts replaces it. Implement it there if"
                f" you need it, and use dataclasses.replace(recipe, {name}={default!r})."
            )


def find_ignored(parts: Parts) -> dict[str, Any]:
    """The fields of a recipe that custom parts replace, with their defaults."""
    ignored = {}
    for setting in dataclasses.fields(Recipe):
        part = setting.metadata.get("part")
        if part is not None and getattr(parts, part) is not None:
            ignored[setting.name] = setting.default
    return ignored
