"""The views of a data set on the page, as JSON values.

These functions run in the torch process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from lamina.data import Dataset, Preparation, load_data
from lamina.deploy.studio.data_folder import check_is_here
from lamina.deploy.studio.explanation import encode_png
from lamina.errors import DataError
from lamina.targets import BINARY, SINGLE_LABEL
from lamina.text import order_naturally
from lamina.training.task import task_of

SHOWN_CLASSES = 12
SHOWN_IMAGES = 6
NICENESS = 5  # training comes first


def prepare() -> None:
    """Prepare the process: training comes first, and nothing is downloaded without asking."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    os.environ["LAMINA_OFFLINE"] = "1"
    warnings.simplefilter("ignore")  # the page and the commands show what matters
    torch.set_num_threads(1)


def load_source(source: str, size_px: int | None, val: str, corrections: str) -> Dataset:
    """A data set as ``lamina train`` loads it, with a table of corrections."""
    check_is_here(source)
    try:
        fraction = float(val) if val else None
    except ValueError:
        raise DataError(
            f"Part held out is {val}; it must be a number of at least 0 and below 1. Use 0.1."
        ) from None
    tables = (corrections,) if corrections else ()
    return load_data(
        source, Preparation(size_px=size_px, val_fraction=fraction, labels_from=tables)
    )


def preview_data(source: str, size_px: int | None, val: str, corrections: str) -> dict[str, Any]:
    """The shape and the outputs that a net needs, and some training images of each class."""
    dataset = load_source(source, size_px, val, corrections)
    train = dataset.train
    samples = train.choose_samples(SHOWN_IMAGES)
    counts = train.target_counts()
    groups = []
    names = list(samples)
    if names == sorted(names):  # folders, which lamina sorts by letters
        names.sort(key=order_naturally)
    for name in names[:SHOWN_CLASSES]:
        images = [{"row": row, "png": encode_png(train.pixels[row])} for row in samples[name]]
        groups.append({"name": name, "count": counts.get(name, len(train)), "images": images})
    # to choose from in a correction
    labels = names if train.kind in (SINGLE_LABEL, BINARY) else []
    return {
        "shape": train.shape,
        "outputs": task_of(train).outputs,
        "kind": train.kind.name,
        "classes": len(samples),
        "labels": labels,
        "corrections": dataset.corrections.corrected + dataset.corrections.excluded,
        "split_rule": dataset.split_rule,
        "images": count_images(dataset),
        "groups": groups,
    }


def count_images(dataset: Dataset) -> dict[str, int]:
    """The number of images of each split."""
    return {split: len(images) for split, images in dataset.splits.items()}


def draw_images(
    source: str, size_px: int | None, val: str, names: Sequence[str]
) -> list[str | None]:
    """Uncorrected images by name, as PNG; ``None`` for images that no longer exist."""
    drawn: dict[str, str | None] = dict.fromkeys(names)
    for images in load_source(source, size_px, val, "").splits.values():
        for row, name in enumerate(images.names):
            if name in drawn:
                drawn[name] = encode_png(images.pixels[row])
    return [drawn[name] for name in names]
