"""Ablations: a net or recipe without one of its parts at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from lamina import zoo
from lamina.errors import NetError, RecipeError, suggest
from lamina.nets import Net
from lamina.nets.layers import LAYERS
from lamina.runs.run import Run
from lamina.studies.experiment import Experiment
from lamina.studies.experiment_text import Source
from lamina.training.recipe import Recipe, overlay
from lamina.training.task import task_of

KEPT = ("epochs", "seed", "lanes", "device", "precision", "patience", "metric")
"""Settings that are no parts: how long, where and how exactly to train, and the score."""
DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(Recipe) if field.name not in KEPT
}
COUPLED = ("optimizer", "lr", "momentum")  # an optimizer has its own lr, so they are reset together


def find_settings(whole: Experiment, source: Source) -> list[str]:
    """Settings that the recipe changes from their defaults before it is fitted to the images."""
    recipe = whole.recipe  # of a run, or as passed
    if not isinstance(source.origin, Run) and not isinstance(source.recipe, Recipe):
        recipe = zoo.choose_recipe(whole.net.name, whole.net.recipes, source.recipe)
    changed = recipe.changes().keys() | source.values.keys()
    fields = [name for name in whole.recipe.changes() if name in DEFAULTS and name in changed]
    coupled = COUPLED[1:] if "optimizer" in fields else ()
    return [name for name in fields if name not in coupled]


def remove_parts(
    name: str, whole: Experiment, parts: Sequence[str]
) -> list[tuple[str, Experiment]]:
    """The experiment without each part (a layer class or a recipe setting), and the whole last."""
    if not parts:
        raise RecipeError(
            f"There is no part to remove from {name}. Use --without BatchNorm or --each."
        )
    removed = dict.fromkeys(part.replace("-", "_") for part in parts)
    without = [
        _reset(part, whole) if part in DEFAULTS else _remove(part, whole) for part in removed
    ]
    return [*without, (name, whole)]


def _reset(field: str, whole: Experiment) -> tuple[str, Experiment]:
    recipe = whole.recipe
    if getattr(recipe, field) == DEFAULTS[field]:
        raise RecipeError(
            f"{field} has its default already, {DEFAULTS[field]}. Leave it out of --without."
        )
    fields = COUPLED if field == "optimizer" else (field,)
    changed = {name: DEFAULTS[name] for name in fields if name in recipe.changes()}
    changes = [
        f"{name} {value} instead of {getattr(recipe, name)}" for name, value in changed.items()
    ]
    if field == "class_weights":  # they may have chosen the metric
        changed["metric"] = recipe.find_metric(whole.dataset.train.kind)
    return ", ".join(changes), replace(whole, recipe=overlay(recipe, changed))


def _remove(part: str, whole: Experiment) -> tuple[str, Experiment]:
    net = whole.net.net
    train = whole.dataset.train
    if part in KEPT:
        raise RecipeError(f"All trainings share {part}. Leave it out of --without.")
    if part not in LAYERS:
        raise NetError(
            f"{part!r} is neither a layer nor a setting of the recipe."
            f" {suggest(part, [*LAYERS, *DEFAULTS])}"
        )
    if not isinstance(net, Net):
        raise NetError(
            f"{whole.net.name} is not a lamina net, so its layers cannot be removed. Remove only"
            " settings."
        )
    rest = net.without(LAYERS[part])
    if rest == net:
        raise NetError(f"{whole.net.name} has no {part}. Leave it out of --without.")
    rest.check(train.shape, task_of(train).outputs)
    return f"without {part}", replace(whole, net=replace(whole.net, net=rest))
