"""Ablations: a net or recipe without one of its parts at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from dataclasses import replace

from lamina import zoo
from lamina.errors import NetError, RecipeError, find_nearest
from lamina.nets import Net
from lamina.nets.layers import LAYERS
from lamina.studies.experiment import Experiment
from lamina.training.recipe import Recipe, overlay
from lamina.training.task import task_of

KEPT = ("epochs", "seed", "lanes", "device", "precision", "patience", "metric")
"""Settings that are no parts: how long, where and how exactly to train, and the score."""
DEFAULTS = {one.name: one.default for one in dataclasses.fields(Recipe) if one.name not in KEPT}
COUPLED = ("optimizer", "lr", "momentum")  # an optimizer has its own lr, so they are reset together


def find_settings(whole: Experiment, recipe_name: str | None, given: Container[str]) -> list[str]:
    """Settings that the recipe changes from their defaults before fitting, or are ``given``."""
    own = zoo.choose_recipe(whole.net.name, whole.net.recipes, recipe_name).changes()
    found = [
        one for one in whole.recipe.changes() if one in DEFAULTS and (one in own or one in given)
    ]
    return [one for one in found if one not in COUPLED[1:] or "optimizer" not in found]


def remove_parts(
    name: str, whole: Experiment, parts: Sequence[str]
) -> list[tuple[str, Experiment]]:
    """The experiment without each part (a layer class or a recipe setting), and the whole last."""
    if not parts:
        raise RecipeError(
            f"There is no part to remove from {name}. Use --without BatchNorm or --each."
        )
    fields = dict.fromkeys(part.replace("-", "_") for part in parts)
    return [
        *(_reset(one, whole) if one in DEFAULTS else _remove(one, whole) for one in fields),
        (name, whole),
    ]


def _reset(field: str, whole: Experiment) -> tuple[str, Experiment]:
    recipe = whole.recipe
    if getattr(recipe, field) == DEFAULTS[field]:
        raise RecipeError(
            f"{field} has its default already, {DEFAULTS[field]}. Leave it out of --without."
        )
    changed = {
        one: DEFAULTS[one]
        for one in (COUPLED if field == "optimizer" else (field,))
        if one in recipe.changes()
    }
    name = ", ".join(
        f"{one} {value} instead of {getattr(recipe, one)}" for one, value in changed.items()
    )
    if field == "class_weights":  # they may have chosen the metric
        changed["metric"] = recipe.find_metric(whole.dataset.train.kind)
    return name, replace(whole, recipe=overlay(recipe, changed))


def _remove(part: str, whole: Experiment) -> tuple[str, Experiment]:
    net, train = whole.net.net, whole.dataset.train
    if part in KEPT:
        raise RecipeError(f"All trainings share {part}. Leave it out of --without.")
    if part not in LAYERS:
        nearest = (
            find_nearest(part, [*LAYERS, *DEFAULTS])
            or "a layer such as BatchNorm, or a setting such as flip"
        )
        raise NetError(
            f"{part!r} is neither a layer nor a setting of the recipe. Did you mean {nearest}?"
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
