"""The views of a data set on the page, as JSON values.

They run in the threads of the studio.
"""

from __future__ import annotations

from typing import Any

from lamina.data import Dataset, Preparation, load_data
from lamina.deploy.studio.arguments import Side
from lamina.deploy.studio.data_folder import DataFolder, check_is_here
from lamina.deploy.studio.explanation import encode_png
from lamina.errors import DataError
from lamina.targets import BINARY, SINGLE_LABEL
from lamina.text import order_naturally
from lamina.training.task import task_of

SHOWN_CLASSES = 12
SHOWN_IMAGES = 6


def load_source(
    folder: DataFolder, source: str, size_px: int | None, val: str, *, is_corrected: bool = True
) -> Dataset:
    """A data set as ``lamina train`` loads it, with the corrected labels of the studio."""
    path = folder.check(source)
    check_is_here(path)
    try:
        fraction = float(val) if val else None
    except ValueError:
        raise DataError(
            f"Part held out is {val}; it must be a number of at least 0 and below 1. Use 0.1."
        ) from None
    corrections = folder.find_corrected(source) if is_corrected else None
    tables = (str(corrections),) if corrections else ()
    return load_data(path, Preparation(size_px=size_px, val_fraction=fraction, labels_from=tables))


def preview_data(
    folder: DataFolder, source: str, size_px: Side | None = None, val: str = ""
) -> dict[str, Any]:
    """The shape and the outputs that a net needs, and some training images of each class."""
    dataset = load_source(folder, source, size_px, val)
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
    folder: DataFolder,
    source: str,
    images: tuple[str, ...],
    size_px: Side | None = None,
    val: str = "",
) -> list[str | None]:
    """Uncorrected images by name, as PNG; ``None`` for images that no longer exist."""
    drawn: dict[str, str | None] = dict.fromkeys(images)
    dataset = load_source(folder, source, size_px, val, is_corrected=False)
    for split in dataset.splits.values():
        for row, name in enumerate(split.names):
            if name in drawn:
                drawn[name] = encode_png(split.pixels[row])
    return [drawn[name] for name in images]
