"""``load_to_judge``: a name or a path, to a data set that a model is judged on and does not learn from."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from lamina.data.images import Dataset, Images, Progress
from lamina.data.load import describe_problems, read_source
from lamina.data.preparation import Preparation
from lamina.errors import DataError, LaminaWarning, name_some
from lamina.targets import MULTI_LABEL, SINGLE_LABEL

WHOLE_RULE = "all of it, to judge by"


def load_to_judge(
    source: str | Path, preparation: Preparation, target_names: tuple[str, ...], *, progress: Progress | None = None
) -> Dataset:
    """Load a data set to judge a model on that learned from another; its targets are numbered as the model's are.

    It may hold some of the classes alone, and no training pictures. Nothing is drawn from it: where it has no ``val``
    or ``test`` of its own, all its images are the ``test`` split.

    Args:
        source: as for ``load_data``.
        preparation: how it is read; its fractions are left aside, and its ``task`` is the model's.
        target_names: the classes or labels that the model tells, in its order.
        progress: called as by ``load_data``.

    Warns:
        LaminaWarning: pictures could not be read and were left out.

    Raises:
        DataError: it can't be read, or has a class or a label that the model does not tell.

    >>> from lamina.data import load_data
    >>> backwards = load_data("shapes").train.target_names[::-1]
    >>> load_to_judge("shapes", Preparation(task="single-label"), backwards).test.target_names == backwards
    True
    """
    undrawn = replace(preparation, val_fraction=None, test_fraction=0.0)
    dataset = read_source(source, undrawn, progress or (lambda *_: None))
    if dataset.problems:
        warnings.warn(describe_problems(dataset.problems), LaminaWarning, stacklevel=2)
    if dataset.val is None and dataset.test is None:
        judged = replace(dataset.train, split="test")
        dataset = replace(dataset, train=dataset.train.take([]), test=judged, split_rule=WHOLE_RULE)
    if dataset.train.kind.name != preparation.task or dataset.train.kind not in (SINGLE_LABEL, MULTI_LABEL):
        return dataset
    if unknown := [name for name in _present_names(dataset) if name not in target_names]:
        raise DataError(
            f"{source} has pictures of {name_some(unknown)}, which the model does not tell: it tells "
            f"{', '.join(target_names)}. Name them as the model does, or take them out."
        )
    return replace(
        dataset,
        train=_renumber(dataset.train, target_names),
        val=dataset.val and _renumber(dataset.val, target_names),
        test=dataset.test and _renumber(dataset.test, target_names),
    )


def _present_names(dataset: Dataset) -> list[str]:
    """The classes or labels that an image has; a source may list more."""
    counts = [images.target_counts() for images in dataset.splits.values()]
    return [name for name in dataset.train.target_names if any(count[name] for count in counts)]


def _renumber(images: Images, target_names: tuple[str, ...]) -> Images:
    """The same images with their targets in the order of ``target_names``; a label that none has is answered no."""
    places = [target_names.index(name) if name in target_names else -1 for name in images.target_names]
    if images.kind is SINGLE_LABEL:
        return replace(images, targets=np.array(places, np.int64)[images.targets], target_names=target_names)
    targets = np.zeros((len(images), len(target_names)), np.bool_)
    for column, place in enumerate(places):
        if place >= 0:
            targets[:, place] = images.targets[:, column]
    return replace(images, targets=targets, target_names=target_names)
