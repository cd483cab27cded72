"""Normalization layers of any model, and whether training gives them enough values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from lamina.errors import RecipeError
from lamina.training.augment import shrunk_size
from lamina.training.hooks import describe_layer, record_calls
from lamina.training.model import Model
from lamina.training.recipe import Recipe
from lamina.training.schedule import list_size_fractions

NORMALIZATIONS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def normalizes(model: Model) -> bool:
    """Whether a model has a normalization layer."""
    if model.net is not None:
        return any(layer.is_normalization for layer in model.net.all_layers)
    return any(isinstance(module, NORMALIZATIONS) for module in model.modules())


def check_normalization(model: Model, recipe: Recipe, images: int) -> None:
    """Raise ``RecipeError`` if a layer would normalize one value; training has so many images."""
    batch = min(recipe.batch_size, images)
    paths = _find_trained(model, recipe)
    if batch > 1:  # enough for all but layers that normalize each image
        paths = [path for path in paths if isinstance(model.get_submodule(path), _InstanceNorm)]
    if not paths:
        return
    channels, *side_px = model.in_shape
    for fraction in list_size_fractions(recipe):
        height, width = (shrunk_size(side, fraction) for side in side_px)
        pair = torch.zeros(2, height, width, channels, dtype=torch.uint8)
        for path, call in record_calls(model, pair, paths).items():
            if _count_values(model.get_submodule(path), call.input, batch) > 1:
                continue
            layer = f"{describe_layer(model, path)}, gets a single value per channel"
            if batch > 1:
                raise RecipeError(f"In training, {layer}. Remove it, or use larger images.")
            cause = "batch_size is 1" if recipe.batch_size == 1 else "there is 1 training image"
            raise RecipeError(f"{cause}, so {layer} to normalize. Use 2 or more.")


def _find_trained(model: Model, recipe: Recipe) -> list[str]:
    """The modules that normalize by the values of a batch in training."""
    model.train()  # a custom module may keep some layers in eval mode
    paths = []
    for path, module in model.named_modules():
        has_own_statistics = isinstance(module, _BatchNorm) and recipe.head == "fitted"
        if isinstance(module, NORMALIZATIONS[:3]) and module.training and not has_own_statistics:
            paths.append(path)
    model.eval()
    return paths


def _count_values(module: nn.Module, pair: Tensor, batch: int) -> int:
    """The values that a module normalizes together, from its input for two images."""
    pixels = pair.shape[2:].numel()
    if isinstance(module, _InstanceNorm):
        return pixels
    values = batch * pair.shape[0] // 2 * pixels
    if isinstance(module, nn.GroupNorm):
        return values * (pair.shape[1] // module.num_groups)
    return values
