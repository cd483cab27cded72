"""A recipe fitted to the number, the size and the targets of the images.

Steps matter to a net, not epochs. These rules adapt a recipe that was tuned on one number of images to another; they
were chosen on held-out training pictures (docs/experiments.md, docs/measurements.md):

- **Epochs** are inversely proportional to the fourth root of the number of images.
- **The batch size** shrinks with the square root of the number of images, and stays the same if there are more images
  than in tuning: with a hundredth of the images, batches have a tenth of the size and there are three times as many
  epochs, so a third of the steps.
- **The learning rate** follows the batch size: in proportion for SGD (Goyal et al., arXiv 1706.02677, section 2.1), by
  its square root for Adam and its variants (Malladi et al., arXiv 2205.10287), and by its fourth root for Muon, as
  measured.
- **Augmentation** gets stronger with fewer images, if the recipe augments, and scales with the side of the images.
- **A head on frozen features** is trained for at least 500 steps and 10 epochs. Its penalty is inversely proportional
  to the square root of the number of images.
- **Large images** come in smaller batches, so that a batch fits into memory.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lamina.targets import REGRESSION, Kind
from lamina.training.recipe import Recipe, scale_epochs

LEAST_BATCH = 16
"""Lower limit to which a batch is shrunk: batch norm needs as many images for useful statistics."""
LR_EXPONENTS = {"sgd": 1.0, "adam": 0.5, "adamw": 0.5, "rmsprop": 0.5, "muon": 0.25}
"""Exponent of the batch size in the learning rate, by optimizer."""
LEAST_HEAD_STEPS, LEAST_HEAD_EPOCHS, LEAST_HEAD_BATCH = 500, 10, 8
"""Lower limits of steps, epochs and batch size when only the head is trained on frozen features, which is cheap."""
FEW_SHARE = 0.1
"""Below this fraction of the images that a recipe was tuned on, cutout helps."""
CUTOUT_PX = 8
"""Side of the square that cutout blanks then, in images of 32 px."""
MOST_PIXELS = 2000 * 32 * 32
"""Upper limit of the pixels in a batch, because the activations of larger images need more memory."""


@dataclass(frozen=True)
class Home:
    """The images that a recipe was tuned on: how many, and their side."""

    images: int
    side_px: int


ZOO_HOME = Home(50_000, 32)
PRETRAINED_HOME = Home(500, 96)


def fit_recipe(recipe: Recipe, images: int, side_px: int, kind: Kind, home: Home = ZOO_HOME) -> Recipe:
    """The recipe adapted to another number of images, another size and a kind of target.

    Args:
        recipe: as it was tuned on the images of ``home``.
        images: number of training images, at least 1.
        side_px: the smaller side of an image.
        kind: kind of target; numbers have no labels to smooth, and any augmentation but a shift may change them.
        home: the images that the recipe was tuned on.

    >>> from lamina.targets import SINGLE_LABEL
    >>> recipe = Recipe(epochs=10, batch_size=500, optimizer="muon", lr=0.06)
    >>> fit_recipe(recipe, 500, 32, SINGLE_LABEL)
    Recipe(epochs=32, batch_size=50, optimizer='muon', lr=0.034)
    """
    if recipe.freeze >= recipe.epochs:
        return _fit_head(recipe, images, home)
    share = images / home.images
    batch_size = recipe.batch_size
    if share < 1:
        batch_size = max(min(batch_size, LEAST_BATCH), round(batch_size * share**0.5))
    batch_size = max(1, min(batch_size, MOST_PIXELS // side_px**2))
    epochs = max(1, round(recipe.epochs * share**-0.25))
    scale, augments = side_px / home.side_px, recipe.flip != "off"
    strength = min(2.0, share**-0.15) if share < 1 and augments else 1.0
    cutout_px = max(recipe.cutout_px, CUTOUT_PX) if share < FEW_SHARE and augments else recipe.cutout_px
    fitted = dataclasses.replace(
        scale_epochs(recipe, epochs),
        batch_size=batch_size,
        lr=_scale_lr(recipe, batch_size),
        translate_px=round(recipe.translate_px * strength * scale),
        cutout_px=round(cutout_px * scale),
    )
    if kind is not REGRESSION:
        return fitted
    return dataclasses.replace(
        fitted, label_smoothing=0.0, flip="off", cutout_px=0, crop_from_fraction=0.0, jitter_fraction=0.0
    )


def describe_fit(
    recipe: Recipe, fitted: Recipe, images: int, side_px: int, home: Home = ZOO_HOME, used: Recipe | None = None
) -> str:
    """What fitting changed, and why, in one line; without what was given, so that the recipe ``used`` differs."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    before, after, last = ([getattr(one, name) for name in names] for one in (recipe, fitted, used or fitted))
    changed = ", ".join(
        f"{name} {old} → {new}"
        for name, old, new, final in zip(names, before, after, last, strict=True)
        if old != new == final
    )
    if not changed:
        return ""
    tuned = f"the recipe was tuned on {home.images:,} of {home.side_px} px"
    return f"fitted to {images:,} images of {side_px} px ({tuned}): {changed}"


def _fit_head(recipe: Recipe, images: int, home: Home) -> Recipe:
    """A recipe for the head alone: enough steps for it to converge, and a smaller penalty for more images."""
    batch_size = min(4 * recipe.batch_size, max(LEAST_HEAD_BATCH, round(recipe.batch_size * images / home.images)))
    epochs = max(LEAST_HEAD_EPOCHS, math.ceil(LEAST_HEAD_STEPS / math.ceil(images / batch_size)))
    decay = round(recipe.weight_decay * math.sqrt(home.images / images), 2)
    return dataclasses.replace(recipe, epochs=epochs, freeze=epochs, batch_size=batch_size, weight_decay=decay)


def _scale_lr(recipe: Recipe, batch_size: int) -> float:
    ratio = batch_size / recipe.batch_size
    if ratio == 1:
        return recipe.lr
    return float(f"{recipe.lr * ratio ** LR_EXPONENTS[recipe.optimizer]:.2g}")
