"""How much of a figure rests on near-duplicates of the images that the model was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int64

from lamina.data import Images
from lamina.data.images import Progress
from lamina.errors import DataError
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.reports import Report
from lamina.insight.duplicates import SIDE_PX, find_copies
from lamina.training.task import Task


@dataclass(frozen=True, eq=False)
class Overlap:
    """The images of a split that are near-duplicates of training images, and the figures without them.

    Attributes:
        split: the split.
        images: how many it has.
        rows: of those that are near-duplicates.
        report: on the others; ``None`` if none is left that can be scored.
    """

    split: str
    images: int
    rows: Int64[np.ndarray, " m"]
    report: Report | None

    def __str__(self) -> str:
        are = "is a near-duplicate" if len(self.rows) == 1 else "are near-duplicates"
        found = f"{len(self.rows):,} of {self.images:,} {self.split} images {are} of training images"
        if not len(self.rows):
            return found
        return f"{found}; without them: {'none is left' if self.report is None else self.report.figures()[0]}"


def estimate_seconds(images: int, train_images: int, image_bytes: int) -> float:
    """About how long :func:`find_overlap` takes on one core, for images of that many bytes that are in memory.

    Larger images than those of 32 px are all read and shrunk first: 3 seconds for each gigabyte.

    >>> small, large = 32 * 32 * 3, 224 * 224 * 3
    >>> round(estimate_seconds(10_000, 50_000, small)), round(estimate_seconds(500, 50_000, large))
    (10, 23)
    """
    shrunk_bytes = max(0, image_bytes - SIDE_PX**2 * 3) * (images + train_images)
    return 3.5e-4 * images + 1.3e-8 * images * train_images + 3e-9 * shrunk_bytes


def find_overlap(
    task: Task, logits: Float32[np.ndarray, "n k"], images: Images, train: Images, progress: Progress | None = None
) -> Overlap:
    """Find the images that are near-duplicates of training images, and score the logits of the others.

    >>> from lamina import load_data, load_net, Recipe, predict_logits
    >>> from lamina.training.model import build_model
    >>> data = load_data("shapes")
    >>> model = build_model(load_net("mlp"), data.train, Recipe())
    >>> images = data.train.take(range(3))
    >>> str(find_overlap(model.task, predict_logits(model, images.pixels), images, data.train))
    '3 of 3 train images are near-duplicates of training images; without them: none is left'
    """
    pairs = find_copies(images.pixels, train.pixels, progress)
    rows = np.unique(np.array([pair.first for pair in pairs], np.int64))
    rest = np.setdiff1d(np.arange(len(images)), rows)
    others = replace(images, pixels=images.pixels[:, :1, :1]).take(rest)  # a score needs no pixels
    try:
        report = score_logits(task, logits[rest], others, 0.0)
    except DataError:  # none is left, or none with a label
        report = None
    return Overlap(images.split, len(images), rows, report)
