"""Ablations: a net or recipe without one of its parts at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from lamina import nets
from lamina.errors import NetError, RecipeError, suggest
from lamina.nets import Layer, Net
from lamina.studies.experiments import Experiment
from lamina.training.recipe import Recipe, overlay
from lamina.training.task import task_of

KEPT = ("epochs", "seed", "lanes", "precision", "compile", "patience", "metric")
"""Settings that are no parts: how long, where and how exactly to train, and the score."""
DEFAULTS = {one.name: one.default for one in dataclasses.fields(Recipe) if one.name not in KEPT}


def remove_parts(
    name: str, whole: Experiment, without: Sequence[str], *, each: bool = False
) -> list[tuple[str, Experiment]]:
    """The experiment without each part, by name, and the whole last.

    Args:
        name: Name of the whole experiment.
        whole: The experiment.
        without: Classes of layers, which are removed, and settings of the recipe, which get their defaults.
        each: Whether to add every setting that differs from its default, except epochs.
    """
    parts = list(dict.fromkeys([*without, *(field for field in whole.recipe.changes() if each and field in DEFAULTS)]))
    if not parts:
        raise RecipeError(f"There is no part to remove from {name}. Use --without BatchNorm or --each.")
    return [*((f"without {part}", _remove(part, whole)) for part in parts), (name, whole)]


def _remove(part: str, whole: Experiment) -> Experiment:
    field = part.replace("-", "_")
    if field in DEFAULTS:
        if getattr(whole.recipe, field) == DEFAULTS[field]:
            raise RecipeError(f"{part} has its default already, {DEFAULTS[field]}. Leave it out of --without.")
        metric = whole.recipe.find_metric(whole.dataset.train.kind)  # class weights may have chosen it
        changed = {field: DEFAULTS[field]} | ({"metric": metric} if field == "class_weights" else {})
        return replace(whole, recipe=overlay(whole.recipe, changed))
    net, train = whole.net.net, whole.dataset.train
    kinds = {kind.__name__: kind for kind in vars(nets).values() if isinstance(kind, type) and issubclass(kind, Layer)}
    del kinds[Layer.__name__]
    if part not in kinds:
        raise NetError(f"{part!r} is neither a layer nor a setting of the recipe. {suggest(part, [*kinds, *DEFAULTS])}")
    if not isinstance(net, Net):
        raise NetError(f"{whole.net.name} is not a lamina net, so its layers cannot be removed. Remove only settings.")
    rest = net.without(kinds[part])
    if rest == net:
        raise NetError(f"{whole.net.name} has no {part}. Leave it out of --without.")
    rest.check(train.shape, task_of(train).outputs)
    return replace(whole, net=replace(whole.net, net=rest))
