"""Test-time augmentation: average an uncertain image's logits over mirrored, translated views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from lamina.training.augment import Choices, gather_batch
from lamina.training.features import predict_logits
from lamina.training.group import ALONE, Group
from lamina.training.model import Model
from lamina.training.recipe import Recipe
from lamina.training.task import SingleLabel, Task

UNCERTAIN_BELOW = 0.5  # difference of the two highest probabilities
PIXELS_AT_ONCE = 2000 * 32 * 32


@dataclass(frozen=True)
class View:
    """One view of an image for test-time augmentation."""

    weight: float  # of its logits in the mean; the weights of all views sum to 1
    is_mirrored: bool = False
    translate_px: int = 0  # down and to the right; negative for up and left


ONE_VIEW = (View(1.0),)


def views_of(recipe: Recipe) -> tuple[View, ...]:
    """The views that match the augmentation of ``recipe`` (Jordan, arXiv 2404.00498, section 3.5).

    Args:
        recipe: the recipe that the model was trained with.

    Returns:
        One, two, three or six views: mirrored if the recipe flips, and moved by 1 px if it
        translates.

    >>> from lamina import Recipe
    >>> len(views_of(Recipe(flip="random", translate_px=2)))
    6
    """
    translations = ((0, 0.5), (-1, 0.25), (1, 0.25)) if recipe.translate_px else ((0, 1.0),)
    sides = (False,) if recipe.flip == "off" else (False, True)
    return tuple(
        View(weight / len(sides), side, translate_px)
        for translate_px, weight in translations
        for side in sides
    )


def predict_views(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"],
    views: tuple[View, ...],
    group: Group = ALONE,
) -> tuple[Float32[np.ndarray, "n k"], int]:
    """The logits, averaged over ``views`` for uncertain images, and the number of these images."""
    logits = predict_logits(model, pixels, group=group)
    if len(views) == 1:
        return logits, 0
    uncertain = np.flatnonzero(_is_uncertain(model.task, logits))
    images_at_once = max(1, PIXELS_AT_ONCE // (pixels.shape[1] * pixels.shape[2]))
    for rows in np.split(uncertain, range(images_at_once, len(uncertain), images_at_once)):
        chosen = torch.from_numpy(np.ascontiguousarray(pixels[rows]))
        logits[rows] = sum(
            view.weight * predict_logits(model, _show(chosen, view)) for view in views
        )
    return logits, len(uncertain)


def _is_uncertain(task: Task, logits: Float32[np.ndarray, "n k"]) -> Bool[np.ndarray, " n"]:
    # for other tasks, all predictions count as uncertain
    if not isinstance(task, SingleLabel) or logits.shape[1] < 2:
        return np.ones(len(logits), np.bool_)
    # without temperatures
    likeliest = torch.from_numpy(logits).softmax(dim=1).topk(2, dim=1).values
    return (likeliest[:, 0] - likeliest[:, 1] < UNCERTAIN_BELOW).numpy()


def _show(pixels: UInt8[torch.Tensor, "n h w c"], view: View) -> UInt8[np.ndarray, "n h w c"]:
    choices = Choices(
        flips=torch.full((len(pixels),), view.is_mirrored),
        translations_px=torch.full((len(pixels), 2), view.translate_px),
    )
    return gather_batch(pixels, torch.arange(len(pixels)), choices).numpy()
