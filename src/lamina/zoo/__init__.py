"""Ready-made nets, one per file: the layers, the training recipes and the measured results.

A file holds ``NET`` and ``RECIPES``, the first of which is the default. Adding a file adds a net.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module

from lamina.errors import NetError, RecipeError, check_type, suggest
from lamina.nets import Net
from lamina.training.recipe import Recipe
from lamina.values import explain_call

NAMES: tuple[str, ...] = tuple(sorted(file.name.replace("_", "-") for file in pkgutil.iter_modules(__path__)))
LADDER: tuple[str, ...] = ("cnn-s", "cnn-m", "cnn-l")
"""Nets of one kind that ``lamina train`` chooses from, from the fastest to the most accurate."""
PHOTO_LADDER: tuple[str, ...] = ("photo-s", "photo-m", "photo-l")  # the same for images with detail beyond 64 px
LEAST_CONVOLVED_PX = 12
"""Smallest side for convolutional nets: of smaller images, the last block of ``cnn-s`` sees a pixel or none."""
PUBLISHED = "article"
"""Name of the recipes that reproduce a published result: given by name, they are not fitted and have no ``val``."""


@explain_call
def load_net(name: str) -> Net:
    """A net of the zoo by name; ``NetError`` if there is none.

    >>> load_net("mlp")
    Net(Flatten(), Linear(100), ReLU(), Output())
    """
    check_type(name, (str,), "name", "the name of a net, such as cnn", is_optional=False)
    if name not in NAMES:
        raise NetError(f"There is no net {name!r} in the zoo. {suggest(name, NAMES)}")
    net: Net = import_module(f"lamina.zoo.{name.replace('-', '_')}").NET
    return net


def load_recipes(name: str) -> dict[str, Recipe]:
    """The recipes of a net by name; the first is the default."""
    load_net(name)
    recipes: dict[str, Recipe] = import_module(f"lamina.zoo.{name.replace('-', '_')}").RECIPES
    return recipes


@explain_call
def load_recipe(net_name: str, recipe_name: str | None = None) -> Recipe:
    """A recipe of a net in the zoo by name, by default the first; ``NetError`` or ``RecipeError`` if there is none.

    >>> load_recipe("cnn").epochs, load_recipe("cnn", "best").epochs
    (10, 25)
    """
    return choose_recipe(net_name, load_recipes(net_name), recipe_name)


def choose_recipe(net_name: str, recipes: Mapping[str, Recipe], recipe_name: str | None = None) -> Recipe:
    """A net's recipe by name, by default the first; ``RecipeError`` if it has none of that name."""
    check_type(recipe_name, (str,), "recipe_name", "the name of a recipe")
    chosen = recipe_name or next(iter(recipes))
    if chosen not in recipes:
        raise RecipeError(f"{net_name} has no recipe {chosen!r}. {suggest(chosen, recipes)}")
    return recipes[chosen]
