"""Likely wrong labels from one training: the area under the margin (Pleiss et al., 2020, arXiv 2001.10528).

Pictures that are alike teach a net the same label. A wrong label is learned against them, so its margin stays small
while the net learns. One training takes a third of the time of four folds, but finds fewer wrong labels, and judges
only the pictures that it is trained on, and not all of these.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Int64

from lamina.data import Images
from lamina.data.images import Progress
from lamina.errors import DataError
from lamina.nets import Net
from lamina.targets import SINGLE_LABEL
from lamina.training.events import Epoch
from lamina.training.loop import Training
from lamina.training.recipe import Recipe

THRESHOLD_QUANTILE = 0.99
"""Of the margins of pictures that are surely wrongly labelled: smaller ones are suspects."""


def find_small_margins(
    images: Images,
    *,
    net: Net,
    recipe: Recipe,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Int64[np.ndarray, " m"], Float32[np.ndarray, " n"]]:
    """The rows of likely wrong labels, the smallest margin first, and the area under the margin of each picture.

    A random share of the pictures, as many as a class has on average, is labelled as one more class, which is wrong for
    each of them. The 99th percentile of their margins is the threshold for the others. They are not judged themselves,
    one of K + 1 pictures for K classes: their area is NaN. (The paper trains twice, with other pictures each time.) A
    threshold from a few pictures is uncertain: give 100 of each class or more.

    Args:
        images: with single-label targets.
        net: with or without the number of its outputs.
        recipe: of the one training; the margins of all its epochs count alike, so it should end before the net
            remembers labels.
        device: as for :class:`~lamina.training.loop.Training`.
        progress: called with (epochs done, all epochs).

    Raises:
        DataError: the targets are not single-label, or there are fewer pictures than K + 1.
    """
    if images.kind is not SINGLE_LABEL:
        raise DataError(f"Expected single-label targets to measure margins, got {images.kind}. Use folds instead.")
    classes = len(images.target_names)
    if len(images) <= classes:
        raise DataError(
            f"Expected at least {classes + 1} pictures to measure margins among {classes} classes, got {len(images)}. "
            "Look at each of them yourself, or add some."
        )
    drawn = np.random.default_rng(recipe.seed).choice(len(images), len(images) // (classes + 1), replace=False)
    targets = np.array(images.targets)
    targets[drawn] = classes
    marked = dataclasses.replace(images, targets=targets, target_names=(*images.target_names, "one more class"))
    sums = np.zeros(len(images), np.float32)
    training = Training(net.with_outputs(classes + 1), marked, recipe, device=device)
    for event in training:
        if isinstance(event, Epoch):
            sums += _measure_margins(training.predict_logits(images.pixels), targets)
            if progress is not None:
                progress(event.epoch, event.epochs)
    area = sums / recipe.epochs
    threshold = np.quantile(area[drawn], THRESHOLD_QUANTILE)
    area[drawn] = np.nan
    rows = np.flatnonzero(area < threshold)
    return rows[np.argsort(area[rows], kind="stable")], area


def _measure_margins(logits: Float32[np.ndarray, "n k"], targets: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """The logit of each picture's label, less the largest of the others."""
    rows, others = np.arange(len(targets)), np.array(logits)
    others[rows, targets] = -np.inf
    return np.asarray(logits[rows, targets] - others.max(axis=1))
