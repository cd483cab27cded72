"""Checks and choices before the first training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from lamina.data import Images
from lamina.errors import check_type
from lamina.nets import Net
from lamina.training.batches import check_images
from lamina.training.device import Choice, choose_device, keep_freed_memory
from lamina.training.head import find_linear_head
from lamina.training.model import Initial, Model, build_model, check_model
from lamina.training.normalizing import check_normalization
from lamina.training.optim import build_optimizer
from lamina.training.parts import NO_PARTS, Parts, check_parts
from lamina.training.precision import Precision, choose_precision
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe

AnyNet: TypeAlias = Net | nn.Module


@dataclass(frozen=True)
class Prepared:
    """A model before its first step, with its optimizer, device and number format."""

    model: Model
    optimizer: Optimizer
    recipe: Recipe
    device: Choice
    precision: Precision


def prepare_training(
    net: AnyNet,
    images: Images,
    recipe: Recipe | None = None,
    precision: Precision | None = None,
    parts: Parts = NO_PARTS,
    initial: Initial | None = None,
) -> Prepared:
    """Check training's arguments, choose device and number format, build model and optimizer.

    Raises:
        NetError: The net does not accept these images or does not return one logit per target.
        RecipeError: The recipe does not fit the images or the net, or the device is
            missing.
        DataError: There are no images.
    """
    check_type(
        net,
        (Net, nn.Module),
        "net",
        "a Net or a module (load_net(NAME) returns a Net)",
        is_optional=False,
    )
    check_type(images, (Images,), "images", "Images, such as dataset.train", is_optional=False)
    check_type(
        recipe, (Recipe,), "recipe", "a Recipe, such as Recipe(epochs=5) or load_recipe(NET, NAME)"
    )
    recipe = recipe or Recipe()
    device = choose_device(recipe.device)
    check_parts(parts, recipe)
    check_images(images, recipe)
    keep_freed_memory()
    with seeded(derive_seed(recipe.seed, "weights"), torch.device("cpu")):
        model = build_model(net, images, recipe, initial).to(device.value)
    check_model(model, recipe)
    check_normalization(model, recipe, len(images))
    if recipe.head == "fitted":
        find_linear_head(model)
    precision = precision or choose_precision(recipe.precision, model)
    return Prepared(
        model,
        build_optimizer(model, recipe, precision.value, parts.optimizer),
        recipe,
        device,
        precision,
    )
