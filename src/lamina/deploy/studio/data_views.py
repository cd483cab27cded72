"""What the page shows of a data set, and how long each layer takes on this machine, as JSON values.

These functions run in the torch process.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from lamina.data import Dataset, Preparation, load_data
from lamina.deploy.studio.data_folder import check_is_here
from lamina.deploy.web.explanation import encode_png
from lamina.errors import DataError, NetError
from lamina.nets import Shape, parse_net
from lamina.nets.costs import summarize_layers
from lamina.targets import BINARY, SINGLE_LABEL
from lamina.training.task import task_of

SHOWN_CLASSES, SHOWN_IMAGES = 12, 6
TIMED_IMAGES, TURNS = 64, 3
NICENESS = 5  # the training comes first
# for all images whose layers are timed: a gigabyte, seconds
MOST_VALUES, MOST_MULTIPLY_ADDS = (10**8, 64 * 10**8)


def prepare() -> None:
    """Prepare the process: trainings come first, and nothing is downloaded without a question."""
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
            f"val is {val}; it must be a number of at least 0 and below 1. Use 0.1."
        ) from None
    tables = (corrections,) if corrections else ()
    return load_data(
        source, Preparation(size_px=size_px, val_fraction=fraction, labels_from=tables)
    )


def preview_data(source: str, size_px: int | None, val: str, corrections: str) -> dict[str, Any]:
    """The shape and the outputs that a net needs, and some training images of each class."""
    dataset = load_source(source, size_px, val, corrections)
    images = dataset.train
    samples, counts = images.choose_samples(SHOWN_IMAGES), images.target_counts()
    # to choose from in a correction
    return {
        "shape": list(images.shape),
        "outputs": task_of(images).outputs,
        "kind": images.kind.name,
        "classes": len(samples),
        "labels": (list(samples) if images.kind in (SINGLE_LABEL, BINARY) else []),
        "corrections": dataset.corrections.corrected + dataset.corrections.excluded,
        "split_rule": dataset.split_rule,
        "images": {split: len(images) for split, images in dataset.splits.items()},
        "groups": [
            {
                "name": name,
                "count": counts.get(name, len(images)),
                "images": [{"row": row, "png": encode_png(images.pixels[row])} for row in rows],
            }
            for name, rows in list(samples.items())[:SHOWN_CLASSES]
        ],
    }


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


def time_layers(layers: str, shape: Shape, outputs: int) -> list[float]:
    """Milliseconds of each layer for 64 images, forward and backward, on one core, after a warmup.

    Large nets get fewer images, and their times are scaled.
    """
    net = parse_net(layers).check(shape, outputs)
    summary = summarize_layers(net.layers, shape)
    values = (
        summary.parameters
        + 2 * math.prod(shape)
        + sum(math.prod(row.out_shape) for row in summary.rows)
    )
    images = min(
        TIMED_IMAGES, MOST_MULTIPLY_ADDS // max(1, summary.multiply_adds), MOST_VALUES // values
    )
    if not images:
        raise NetError("The net is too large to measure its layers while it is edited.")
    x = torch.randn(images, *shape).contiguous(memory_format=torch.channels_last)
    durations_ms = []
    for module in net.module(shape):
        times = []
        for _ in range(TURNS + 1):
            inputs = x.detach().requires_grad_()
            began = time.perf_counter()
            y = module(inputs)
            y.backward(torch.ones_like(y))
            times.append(time.perf_counter() - began)
        durations_ms.append(round(1000 * min(times[1:]) * TIMED_IMAGES / images, 3))
        x = y.detach()
    return durations_ms
