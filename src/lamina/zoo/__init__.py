"""Predefined nets, one per module: layers, training recipes and measured results.

Each module defines ``NET`` and ``RECIPES``; the first recipe is the default. If an accuracy of the
net was published, ``PUBLISHED_RESULT`` contains it. To add a net, add a module.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from lamina.errors import NetError, RecipeError, check_type, suggest
from lamina.nets import Net
from lamina.training.recipe import Recipe

NAMES: tuple[str, ...] = tuple(
    sorted(file.name.replace("_", "-") for file in pkgutil.iter_modules(__path__))
)
LADDER: tuple[str, ...] = ("cnn-s", "cnn-m", "cnn-l")
"""The nets that ``lamina train`` chooses from, from the fastest to the most accurate."""
# for images that need more than 64 px
PHOTO_LADDER: tuple[str, ...] = ("photo-s", "photo-m", "photo-l")
LEAST_CONVOLVED_PX = 12
"""Smallest image side for convolutional nets: below it, at most one pixel reaches the last block of
``cnn-s``."""
PUBLISHED = "article"
"""Name of the recipes that reproduce a published result: requested by name, they are not adapted
and use no ``val``."""


@dataclass(frozen=True)
class Published:
    """The published test accuracy of a net with its recipe ``article``."""

    accuracy: float  # from 0 to 1
    data: str  # name of the data set
    source: str


def load_net(name: str) -> Net:
    """Load a net from the zoo, untrained.

    Args:
        name: such as ``cnn`` or ``mlp``; ``lamina.zoo.NAMES`` lists all.

    Returns:
        The net.

    Raises:
        NetError: the zoo has no net with that name.

    >>> load_net("mlp")
    Net(Flatten(), Linear(100), ReLU(), Output())
    """
    check_type(name, (str,), "name", "the name of a net, such as cnn", is_optional=False)
    if name not in NAMES:
        raise NetError(f"No net named {name!r} in the zoo. {suggest(name, NAMES)}")
    net: Net = import_module(f"lamina.zoo.{name.replace('-', '_')}").NET
    return net


def load_recipes(name: str) -> dict[str, Recipe]:
    load_net(name)
    recipes: dict[str, Recipe] = import_module(f"lamina.zoo.{name.replace('-', '_')}").RECIPES
    return recipes


def load_published(name: str) -> Published | None:
    """The published result of a net in the zoo; ``None`` if there is none."""
    load_net(name)
    module = import_module(f"lamina.zoo.{name.replace('-', '_')}")
    return getattr(module, "PUBLISHED_RESULT", None)


def load_recipe(net_name: str, recipe_name: str | None = None) -> Recipe:
    """Load a training recipe of a net in the zoo.

    Args:
        net_name: the name of the net.
        recipe_name: the name of the recipe; by default the first. ``cnn`` and ``mlp`` have
            ``article``, which reproduces the published result.

    Returns:
        The recipe.

    Raises:
        NetError: the zoo has no such net.
        RecipeError: the net has no such recipe.

    >>> load_recipe("cnn").epochs, load_recipe("cnn", "best").epochs
    (10, 25)
    """
    return choose_recipe(net_name, load_recipes(net_name), recipe_name)


def choose_recipe(
    net_name: str, recipes: Mapping[str, Recipe], recipe_name: str | None = None
) -> Recipe:
    """Return the recipe with that name, by default the first; ``RecipeError`` if there is none."""
    check_type(recipe_name, (str,), "recipe_name", "the name of a recipe")
    chosen = recipe_name or next(iter(recipes))
    if chosen not in recipes:
        raise RecipeError(f"{net_name} has no recipe {chosen!r}. {suggest(chosen, recipes)}")
    return recipes[chosen]
