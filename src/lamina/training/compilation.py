"""A net compiled by torch: the layers between its convolutions become one pass over memory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from lamina.errors import RecipeError
from lamina.training.model import Model
from lamina.training.recipe import Recipe
from lamina.training.schedule import sizes_shown

COMPILER = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
"""What torch calls unless the environment variable CXX names another."""


def compile_model(model: Model, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """The model's forward pass, compiled at its first call if the recipe says so.

    Raises:
        RecipeError: ``compile`` is ``on``, but the recipe shows images of several sizes, or torch needs a C++ compiler,
            as it does on a CPU, and there is none.
    """
    if recipe.compile == "off":
        return model
    if len(sizes_shown(recipe)) > 1:
        raise RecipeError(
            "compile was 'on', but grow_from_fraction shows images of many sizes, each of which would be compiled. "
            "Set compile to 'off', or grow_from_fraction to 0."
        )
    if misses_compiler(next(model.parameters()).device.type):
        raise RecipeError(
            "compile was 'on', which takes a C++ compiler, but "
            f"{os.environ.get('CXX') or COMPILER} is not on the PATH. "
            "Install it (Debian and Ubuntu: apt install g++), or leave compile off."
        )
    # A kernel for each batch size: a general one could round differently, depending on which size came first.
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False)
    return compiled


def misses_compiler(device: str) -> bool:
    """Whether torch needs a C++ compiler to compile for such a device, and there is none."""
    return device == "cpu" and shutil.which(os.environ.get("CXX") or COMPILER) is None
