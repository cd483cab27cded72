"""Clean data sets of each kind of target, for tests that put faults into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lamina.data import Dataset, Images, Problem
from lamina.data.findings import Finding
from lamina.data.inspection import inspect

CLASSES = ("cat", "dog")


def make_split(
    split: str,
    counts: tuple[int, ...] = (20, 20),
    names: tuple[str, ...] = CLASSES,
    side_px: int = 6,
) -> Images:
    """Images of noise, so many of each class, in the order of the classes."""
    total = sum(counts)
    generator = np.random.default_rng([*split.encode(), total])
    return Images(
        pixels=generator.integers(0, 256, (total, side_px, side_px, 3), np.uint8),
        targets=np.repeat(np.arange(len(counts)), counts),
        target_names=names,
        names=tuple(f"{split}/{place:03d}.png" for place in range(total)),
        split=split,
    )


def make_dataset(**parts: Images | tuple[Problem, ...]) -> Dataset:
    """A clean data set of two classes, with other splits or problems if they are given."""
    splits = {
        "train": make_split("train"),
        "val": make_split("val", (10, 10)),
        "test": make_split("test", (12, 12)),
    }
    return Dataset("set", "0", **splits | parts)


def with_targets(make: Callable[[int], np.ndarray], names: tuple[str, ...]) -> Dataset:
    """The clean data set with other targets, of which ``make`` makes so many for a split."""
    splits = make_dataset().splits
    return make_dataset(
        **{
            split: replace(images, targets=make(len(images)), target_names=names)
            for split, images in splits.items()
        }
    )


def make_labels(count: int) -> np.ndarray:
    places = np.arange(count)
    return np.stack([places % 2 == 0, places % 3 == 0, places % 2 == 1], axis=1)


def make_numbers(count: int) -> np.ndarray:
    return np.stack([np.arange(count), -np.arange(count) / 4], axis=1).astype(np.float32)


CLEAN = {
    "classes": make_dataset(),
    "labels": with_targets(make_labels, ("wet", "warm", "wild")),
    "binary": with_targets(lambda count: np.arange(count) % 2 == 0, ("open",)),
    "numbers": with_targets(make_numbers, ("x", "y")),
}


def only_finding(dataset: Dataset) -> Finding:
    """What an inspection finds, which must be one thing."""
    (finding,) = inspect(dataset).findings
    return finding
