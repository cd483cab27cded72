"""A recipe fitted to the number, the size and the targets of the images.

What a net needs is steps, not epochs. A recipe that was found on one number of images becomes one for another by rules
that were chosen on held-out training pictures (docs/experiments.md, docs/measurements.md):

- **Epochs** grow as images become fewer, with the fourth root of their number, and fall as they become more.
- **Batches** shrink with the square root of the number, and stay where there are more images: a hundredth of the images
  gets a tenth of the batch and three times the epochs, so a third of the steps.
- **The learning rate** follows the batch: in proportion for SGD (Goyal et al., arXiv 1706.02677, section 2.1), by the
  square root for Adam and its like (Malladi et al., arXiv 2205.10287), and by the fourth root for Muon, as measured.
- **Augmentation** grows as images become fewer, if the recipe augments, and in proportion to their side.
- **A head on frozen features** gets 500 steps and 10 epochs at least, and a penalty that falls with the square root of
  the number of images.
- **Large images** are taken in smaller batches, so that a batch fits into memory.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lamina.targets import REGRESSION, Kind
from lamina.training.recipe import Recipe, scale_epochs

LEAST_BATCH = 16
"""Images that a batch norm needs for useful statistics; a recipe's own batch may be smaller."""
LR_EXPONENTS = {"sgd": 1.0, "adam": 0.5, "adamw": 0.5, "rmsprop": 0.5, "muon": 0.25}
"""Of the batch, in the learning rate."""
LEAST_HEAD_STEPS, LEAST_HEAD_EPOCHS, LEAST_HEAD_BATCH = 500, 10, 8
"""Of a training of the head alone on frozen features, whose steps cost next to nothing."""
FEW_SHARE = 0.1
"""Of the images that a recipe was found on: below it, blanked squares help."""
CUTOUT_PX = 8
"""Side of the blanked squares, on images of 32 px."""
MOST_PIXELS = 2000 * 32 * 32
"""In a batch: of larger images it has fewer, as their activations need more memory."""


@dataclass(frozen=True)
class Home:
    """The images that a recipe was found on: how many, and the side of their squares."""

    images: int
    side_px: int


ZOO_HOME = Home(50_000, 32)
PRETRAINED_HOME = Home(500, 96)


def fit_recipe(recipe: Recipe, images: int, side_px: int, kind: Kind, home: Home = ZOO_HOME) -> Recipe:
    """The recipe for another number of images, another size and a kind of target; the same where all are alike.

    Args:
        recipe: as it was found on the images of ``home``.
        images: how many there are to train on, at least 1.
        side_px: the smaller side of an image.
        kind: of target; numbers have no labels to smooth, and any augmentation but a shift may change them.
        home: the images that the recipe was found on.

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


def describe_fit(recipe: Recipe, fitted: Recipe, images: int, side_px: int, home: Home = ZOO_HOME) -> str:
    """What fitting has changed, and why, in one line; empty where nothing has.

    >>> recipe = Recipe(epochs=10, batch_size=500)
    >>> describe_fit(recipe, dataclasses.replace(recipe, epochs=32), 500, 32)
    'fitted to 500 images of 32 px (the recipe was found on 50,000 of 32 px): epochs 10 → 32'
    """
    changes = {field.name: (getattr(recipe, field.name), getattr(fitted, field.name))
               for field in dataclasses.fields(Recipe)}  # fmt: skip
    changed = ", ".join(f"{name} {old} → {new}" for name, (old, new) in changes.items() if old != new)
    if not changed:
        return ""
    found = f"the recipe was found on {home.images:,} of {home.side_px} px"
    return f"fitted to {images:,} images of {side_px} px ({found}): {changed}"


def _fit_head(recipe: Recipe, images: int, home: Home) -> Recipe:
    """A recipe for the head alone: enough steps for it to come to rest, and a penalty that more images need less."""
    batch_size = min(4 * recipe.batch_size, max(LEAST_HEAD_BATCH, round(recipe.batch_size * images / home.images)))
    epochs = max(LEAST_HEAD_EPOCHS, math.ceil(LEAST_HEAD_STEPS / math.ceil(images / batch_size)))
    decay = round(recipe.weight_decay * math.sqrt(home.images / images), 2)
    return dataclasses.replace(recipe, epochs=epochs, freeze=epochs, batch_size=batch_size, weight_decay=decay)


def _scale_lr(recipe: Recipe, batch_size: int) -> float:
    ratio = batch_size / recipe.batch_size
    if ratio == 1:
        return recipe.lr
    return float(f"{recipe.lr * ratio ** LR_EXPONENTS[recipe.optimizer]:.2g}")
