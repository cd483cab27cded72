"""Load other data for a trained model, and map its classes to the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from lamina.data.images import Dataset, Images, Progress
from lamina.data.load import describe_problems, read_dataset
from lamina.data.preparation import Preparation
from lamina.data.splits import SPLITS
from lamina.errors import DataError, find_nearest, name_some, warn
from lamina.targets import MULTI_LABEL, SINGLE_LABEL

WHOLE_RULE = "none; all images are test"


Unknown: TypeAlias = Literal["error", "ignore"]
"""What to do with classes that the model lacks: stop, or leave out their images."""


def load_to_evaluate(
    source: str | Path,
    preparation: Preparation,
    target_names: tuple[str, ...],
    unknown: Unknown = "error",
    *,
    progress: Progress | None = None,
) -> Dataset:
    """Load data to evaluate a trained model on, with the targets in the model's order.

    If the source has no splits, all images are ``test``.

    Args:
        source: as for :func:`load_data`.
        preparation: the preparation of the run that trained the model; for other data, usually
            ``replace(preparation, splits=(), labels_from=())``.
        target_names: the model's classes, labels or numbers.
        unknown: what to do with images of classes that the model does not have: ``error`` or
            ``ignore`` (leave them out).
        progress: as for :func:`load_data`.

    Returns:
        The data set.

    Raises:
        DataError: the data cannot be loaded, or its targets do not match the model's.
    """
    preparation = replace(
        preparation,
        val_fraction=0.0,
        test_fraction=0.0,
        group_from=None,
        group_column=None,
        fold=None,
    )
    dataset = read_dataset(source, preparation, progress)
    for message in describe_problems(dataset.problems):
        warn(message, stacklevel=2)
    if dataset.val is None and dataset.test is None:
        whole = replace(dataset.train, split="test")
        dataset = replace(dataset, train=dataset.train.take([]), test=whole, split_rule=WHOLE_RULE)
    kind = dataset.train.kind
    if kind.name != preparation.task or kind not in (SINGLE_LABEL, MULTI_LABEL):
        return dataset
    absent = [name for name in dataset.list_classes() if name not in target_names]
    if absent:
        _check_absent(source, absent, target_names, dataset, unknown)
        named = [f"{name} ({dataset.count_class(name):,})" for name in absent]
        what = "images of classes" if dataset.train.kind is SINGLE_LABEL else "labels"
        message = f"Left out {what} that the model does not have: {name_some(named)}"
        warn(message, stacklevel=2)
    renumbered: dict[str, Any] = {
        split: _renumber(images, target_names)
        for split in SPLITS
        if (images := getattr(dataset, split)) is not None
    }
    return replace(dataset, **renumbered)


def _check_absent(
    source: str | Path,
    absent: Sequence[str],
    target_names: tuple[str, ...],
    dataset: Dataset,
    unknown: Unknown,
) -> None:
    """Raise ``DataError`` unless classes that the model lacks may be left out."""
    if unknown == "ignore" and len(absent) < len(dataset.list_classes()):
        return
    named = []
    for name in absent:
        near = find_nearest(name, target_names)
        named.append(f"{name} (did you mean {near}?)" if near else name)
    raise DataError(
        f"{source} has labels that are not among the classes of the model"
        f" ({', '.join(target_names)}): {name_some(named)}. Rename them in {source}, or leave them"
        " out with --unknown ignore."
    )


def _renumber(images: Images, target_names: tuple[str, ...]) -> Images:
    """Renumber targets in the order of ``target_names``; labels that the images lack are absent."""
    known = {name: place for place, name in enumerate(target_names)}
    places = [known.get(name, -1) for name in images.target_names]
    if images.kind is SINGLE_LABEL:
        numbers = np.array(places, np.int64)[images.targets]
        renumbered = replace(images, targets=np.maximum(numbers, 0), target_names=target_names)
        is_known = numbers >= 0
        return renumbered if is_known.all() else renumbered.take(np.flatnonzero(is_known))
    targets = np.zeros((len(images), len(target_names)), np.bool_)
    for column, place in enumerate(places):
        if place >= 0:
            targets[:, place] |= images.targets[:, column]
    return replace(images, targets=targets, target_names=target_names)
