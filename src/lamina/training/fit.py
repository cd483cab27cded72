"""Adapts a recipe to the images' number, size and targets, by rules tuned on held-out images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lamina.targets import REGRESSION, Kind
from lamina.training.recipe import Recipe

LEAST_BATCH = 16  # smallest batch size; batch norm needs as many images for useful statistics
LR_EXPONENTS = {"sgd": 1.0, "adam": 0.5, "adamw": 0.5, "rmsprop": 0.5, "muon": 0.25}
"""Exponent of the batch size in the learning rate: Goyal et al., arXiv 1706.02677, section 2.1, for
SGD; Malladi et al., arXiv 2205.10287, for Adam; measured for Muon."""
FEW_SHARE = 0.1  # of the images that a recipe was tuned on; with fewer, cutout helps
CUTOUT_PX = 8  # in images of 32 px
MOST_PIXELS = 2000 * 32 * 32  # per batch, because activations of larger images need more memory


@dataclass(frozen=True)
class Home:
    """The images that a recipe was tuned on."""

    images: int
    side_px: int


ZOO_HOME = Home(50_000, 32)
PRETRAINED_HOME = Home(500, 96)


def fit_recipe(
    recipe: Recipe, images: int, side_px: int, kind: Kind, home: Home = ZOO_HOME
) -> Recipe:
    """Adapt a recipe that was tuned on ``home`` to a number of ``images`` of ``side_px``.

    For regression, it switches off label smoothing and every augmentation except translation.
    """
    share = images / home.images
    batch_size = recipe.batch_size
    if share < 1:
        batch_size = max(min(batch_size, LEAST_BATCH), round(batch_size * share**0.5))
    batch_size = max(1, min(batch_size, MOST_PIXELS // side_px**2))
    # 1/100 of the images gets three times the epochs, which at a tenth of the batch size is a third
    # of the steps.
    epochs = max(1, round(recipe.epochs * share**-0.25))
    scale, augments = side_px / home.side_px, recipe.flip != "off"
    strength = min(2.0, share**-0.15) if share < 1 and augments else 1.0
    cutout_px = (
        max(recipe.cutout_px, CUTOUT_PX) if share < FEW_SHARE and augments else recipe.cutout_px
    )
    fitted = dataclasses.replace(
        recipe,
        epochs=epochs,
        batch_size=batch_size,
        lr=_scale_lr(recipe, batch_size),
        translate_px=round(recipe.translate_px * strength * scale),
        cutout_px=round(cutout_px * scale),
    )
    if kind is not REGRESSION:
        return fitted  # below: numbers have no labels to smooth, and augmentation may change them
    return dataclasses.replace(
        fitted,
        label_smoothing=0.0,
        flip="off",
        cutout_px=0,
        crop_from_fraction=0.0,
    )


def describe_fit(
    recipe: Recipe,
    fitted: Recipe,
    images: int,
    side_px: int,
    home: Home = ZOO_HOME,
    used: Recipe | None = None,
) -> tuple[str, str]:
    """What the recipe was fitted to, and the changed fields that ``used`` does not override."""
    before, last = vars(recipe), vars(used or fitted)
    changed = ", ".join(
        f"{name} {before[name]} → {value}"
        for name, value in vars(fitted).items()
        if before[name] != value == last[name]
    )
    if not changed:
        return "", ""
    tuned = f"the recipe was tuned on {home.images:,} of {home.side_px} px"
    return f"fitted to {images:,} images of {side_px} px ({tuned})", changed


def _scale_lr(recipe: Recipe, batch_size: int) -> float:
    ratio = batch_size / recipe.batch_size
    if ratio == 1:
        return recipe.lr
    return float(f"{recipe.lr * ratio ** LR_EXPONENTS[recipe.optimizer]:.2g}")
