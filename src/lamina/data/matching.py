"""Load other data for a trained model, and map its classes to the model's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from lamina.data.images import Dataset, Images, Progress
from lamina.data.load import describe_problems, read_dataset
from lamina.data.preparation import Preparation
from lamina.errors import DataError, LaminaWarning, find_nearest, name_some
from lamina.targets import MULTI_LABEL, SINGLE_LABEL

WHOLE_RULE = "none; all images are test"


@dataclass(frozen=True)
class ClassMatch:
    """How the classes of other data map to a model's, and what happens to unknown classes."""

    # with "keep", the data keeps its own classes
    unknown: Literal["error", "ignore", "keep"] = "error"
    renamed: Mapping[str, str] = field(default_factory=dict)

    def place(self, names: Sequence[str], target_names: tuple[str, ...]) -> list[int]:
        """The index of each class among the model's classes; -1 if absent."""
        places = {name: place for place, name in enumerate(target_names)}
        return [places.get(self.renamed.get(name, name), -1) for name in names]


def load_to_evaluate(
    source: str | Path,
    preparation: Preparation,
    target_names: tuple[str, ...],
    match: ClassMatch = ClassMatch(),  # immutable
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
        match: how names of the source correspond to names of the model.
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
        resample_seed=None,
    )
    check = None
    if match.unknown != "keep" and preparation.task in (SINGLE_LABEL.name, MULTI_LABEL.name):
        check = partial(_find_unknown, source, target_names, match)
    dataset = read_dataset(source, preparation, progress, check=check)
    for message in describe_problems(dataset.problems):
        warnings.warn(message, LaminaWarning, stacklevel=2)
    if dataset.val is None and dataset.test is None:
        whole = replace(dataset.train, split="test")
        dataset = replace(dataset, train=dataset.train.take([]), test=whole, split_rule=WHOLE_RULE)
    if check is None or dataset.train.kind.name != preparation.task:
        return dataset
    if unknown := check(dataset.list_classes()):
        named = [f"{name} ({dataset.count_class(name):,})" for name in unknown]
        what = "images of classes" if dataset.train.kind is SINGLE_LABEL else "labels"
        message = f"Left out {what} that the model does not have: {name_some(named)}"
        warnings.warn(message, LaminaWarning, stacklevel=2)
    return replace(
        dataset,
        train=_renumber(dataset.train, target_names, match),
        val=dataset.val and _renumber(dataset.val, target_names, match),
        test=dataset.test and _renumber(dataset.test, target_names, match),
    )


def _find_unknown(
    source: str | Path, target_names: tuple[str, ...], match: ClassMatch, names: Sequence[str]
) -> list[str]:
    """The classes of other data that a model lacks; ``DataError`` unless these may be left out."""
    places = match.place(names, target_names)
    unknown = [name for name, place in zip(names, places, strict=True) if place < 0]
    if unknown and (match.unknown == "error" or unknown == list(names)):
        nearest = {name: find_nearest(name, target_names) for name in unknown}
        named = [
            f"{name} (did you mean {near}?)" if near else name for name, near in nearest.items()
        ]
        raise DataError(
            f"{source} has labels that are not among the classes of the model"
            f" ({', '.join(target_names)}): {name_some(named)}. Leave them out with --unknown"
            " ignore, or map them to classes of the model with --rename FILE."
        )
    return unknown


def _renumber(images: Images, target_names: tuple[str, ...], match: ClassMatch) -> Images:
    """Renumber targets in the order of ``target_names``; labels that the images lack are absent."""
    places = match.place(images.target_names, target_names)
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
