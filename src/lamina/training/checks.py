"""Checks, before the first step, that a recipe can train a model."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from lamina.errors import NetError, RecipeError
from lamina.training.augment import shrink_batch
from lamina.training.hooks import black_images, describe_layer, record_calls
from lamina.training.model import FAILURES, Model, first_line
from lamina.training.recipe import Recipe
from lamina.training.schedule import list_size_fractions
from lamina.training.task import Regression

BATCH_NORMALIZATIONS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
NORMALIZATIONS = (*BATCH_NORMALIZATIONS, nn.LayerNorm)


def normalizes(model: Model) -> bool:
    """Whether a model has a normalization layer."""
    return any(isinstance(module, NORMALIZATIONS) for module in model.modules())


def check_model(model: Model, recipe: Recipe, images: int) -> None:
    """Raise ``NetError`` or ``RecipeError`` if the recipe cannot train on so many images."""
    if not any(weight.requires_grad for weight in model.parameters()):
        raise NetError(
            "The net has no trainable weights. Add a layer that has some, such as Output()."
        )
    if recipe.label_smoothing and isinstance(model.task, Regression):
        raise RecipeError(
            f"label_smoothing is {recipe.label_smoothing:g}, but the targets are numbers, not"
            " classes. Set it to 0."
        )
    batch = min(recipe.batch_size, images)
    paths = _find_normalizing(model, recipe, batch)
    fractions = list_size_fractions(recipe)
    if not paths:
        fractions.pop()  # the full size, which the model was built for
    for fraction in fractions:
        pair = shrink_batch(black_images(model, 2), fraction)
        _, height, width, _ = pair.shape
        try:
            calls = record_calls(model, pair, paths)
        except FAILURES as error:
            raise RecipeError(
                f"start_size_fraction is {recipe.start_size_fraction:g}, but the net does not"
                f" accept images of {height}×{width} px: {first_line(error)}. Use a larger"
                " fraction, or a net with GlobalMaxPool() or GlobalAvgPool() before Output(),"
                " which accepts several sizes."
            ) from error
        for path, call in calls.items():
            if _count_values(model.get_submodule(path), call.input, batch) > 1:
                continue
            layer = f"{describe_layer(model, path)}, gets a single value per channel"
            if batch > 1:
                raise RecipeError(f"In training, {layer}. Remove it, or use larger images.")
            cause = "batch_size is 1" if recipe.batch_size == 1 else "there is 1 training image"
            raise RecipeError(f"{cause}, so {layer} to normalize. Use 2 or more.")


def _find_normalizing(model: Model, recipe: Recipe, batch: int) -> list[str]:
    """The modules that may get a single value to normalize in training."""
    # Two images are enough for all but layers that normalize each image.
    kinds = BATCH_NORMALIZATIONS if batch == 1 else _InstanceNorm
    model.train()  # a custom module may keep some layers in eval mode
    paths = []
    for path, module in model.named_modules():
        keeps_statistics = isinstance(module, _BatchNorm) and recipe.head == "fitted"
        if isinstance(module, kinds) and module.training and not keeps_statistics:
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
