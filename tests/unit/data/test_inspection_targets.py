"""What an inspection finds in classes, labels and numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lamina.data import Dataset, Images, Problem
from lamina.data.findings import Finding, imbalance
from lamina.data.inspection import inspect

CLASSES = ("cat", "dog")


def make_images(
    split: str, counts: tuple[int, ...] = (20, 20), names: tuple[str, ...] = CLASSES, side: int = 6
) -> Images:
    total = sum(counts)
    pixels = np.random.default_rng([*split.encode(), total]).integers(
        0, 256, (total, side, side, 3), np.uint8
    )
    targets = np.repeat(np.arange(len(counts)), counts)
    return Images(
        pixels, targets, names, tuple(f"{split}/{place:03d}.png" for place in range(total)), split
    )


def make_dataset(**parts: Images | tuple[Problem, ...]) -> Dataset:
    splits = {
        "train": make_images("train"),
        "val": make_images("val", (10, 10)),
        "test": make_images("test", (12, 12)),
    }
    return Dataset("set", "0", **splits | parts)


def with_targets(images: Images, targets: np.ndarray, names: tuple[str, ...]) -> Images:
    return replace(images, targets=targets, target_names=names)


def of_every_split(targets_of: object, names: tuple[str, ...]) -> Dataset:
    data = make_dataset()
    return make_dataset(
        **{
            split: with_targets(images, targets_of(len(images)), names)
            for split, images in data.splits.items()
        }
    )


def only_finding(dataset: Dataset) -> Finding:
    (finding,) = inspect(dataset).findings
    return finding


def labels(count: int) -> np.ndarray:
    return np.stack(
        [np.arange(count) % 2 == 0, np.arange(count) % 3 == 0, np.arange(count) % 2 == 1], axis=1
    )


def numbers(count: int) -> np.ndarray:
    return np.stack([np.arange(count), -np.arange(count) / 4], axis=1).astype(np.float32)


CLEAN = {
    "classes": make_dataset(),
    "labels": of_every_split(labels, ("wet", "warm", "wild")),
    "binary": of_every_split(lambda count: np.arange(count) % 2 == 0, ("open",)),
    "numbers": of_every_split(numbers, ("x", "y")),
}


def test_a_class_that_is_missing_in_test_is_a_warning_and_in_train_an_error() -> None:
    names = ("cat", "dog", "owl")
    train, val = make_images("train", (20, 20, 20), names), make_images("val", (5, 5, 5), names)
    test = make_images("test", (10, 0, 10), names)
    assert only_finding(make_dataset(train=train, val=val, test=test)) == Finding(
        "class-missing",
        "warning",
        "test has no images of dog, so scores on test do not cover it. Add some.",
        1,
    )
    assert only_finding(
        make_dataset(train=make_images("train", (20, 0, 20), names), val=val, test=train)
    ) == Finding(
        "class-missing",
        "error",
        "train has no images of dog, so no net can learn it. Add some.",
        1,
    )


def test_labels_and_yes_or_no_without_images_are_missing() -> None:
    dataset = CLEAN["labels"]
    never = dataset.test.targets & np.array([False, False, True])
    found = only_finding(replace(dataset, test=replace(dataset.test, targets=never)))
    assert (
        found.message
        == "test has no images of wet, warm, so scores on test do not cover them. Add some."
    )
    dataset = CLEAN["binary"]
    found = only_finding(replace(dataset, val=replace(dataset.val, targets=np.ones(20, bool))))
    assert found.message == "val has no images of no, so scores on val do not cover it. Add some."


@pytest.mark.parametrize(
    ("counts", "tiny"),
    [
        ((9, 20, 20), "a (9); the median class has 20"),
        ((10, 20, 20), None),
        ((14, 300, 300, 3, 300), "a (14), d (3); the median class has 300"),
        ((15, 140, 140), None),
        ((8,) * 7, "a (8), b (8), c (8), d (8), e (8) and 2 more; the median class has 8"),
    ],
)
def test_classes_are_tiny_below_ten_images_or_a_twentieth_of_the_median(
    counts: tuple[int, ...], tiny: str | None
) -> None:
    names = tuple("abcdefg"[: len(counts)])
    findings = inspect(Dataset("set", "0", make_images("train", counts, names, side=3))).findings
    found = [finding.message for finding in findings if finding.kind == "class-tiny"]
    remedy = "Add images, or merge classes that belong together."
    assert found == ([f"train has few images of {tiny}. {remedy}"] if tiny else [])


def test_classes_of_very_different_size_are_noted() -> None:
    train = make_images("train", (10, 100, 30), ("cat", "dog", "owl"))
    inspection = inspect(Dataset("set", "0", train))
    assert imbalance(train) == 10
    assert inspection.findings == (
        Finding(
            "imbalance",
            "note",
            "train has 10 times as many images of dog (100) as of cat (10). To weight the classes"
            " equally, train with --class-weights (in Python, Recipe(class_weights=True)).",
            3,
        ),
    )


def test_a_number_that_never_changes_is_a_warning() -> None:
    dataset = CLEAN["numbers"]
    same = dataset.train.targets * np.array([1, 0], np.float32)
    assert only_finding(replace(dataset, train=replace(dataset.train, targets=same))) == Finding(
        "number-constant",
        "warning",
        "all images in train have the same value of y, so there is nothing to learn. Check the"
        " table, or leave the column out.",
        1,
    )


def test_a_label_of_all_images_is_a_warning() -> None:
    dataset = CLEAN["labels"]
    everywhere = dataset.train.targets | np.array([False, True, False])
    assert only_finding(
        replace(dataset, train=replace(dataset.train, targets=everywhere))
    ) == Finding(
        "label-constant",
        "warning",
        "all images in train have the label warm, so there is nothing to learn. Add images without"
        " it, or leave the column out.",
        1,
    )


def test_numbers_that_float32_rounds_to_much_of_how_they_differ_are_a_warning() -> None:
    dataset = CLEAN["numbers"]
    far = dataset.train.targets / np.ptp(dataset.train.targets, axis=0) + np.array(
        [0, 2**21], np.float32
    )
    assert only_finding(replace(dataset, train=replace(dataset.train, targets=far))) == Finding(
        "number-coarse",
        "warning",
        "the values of y are so far from 0 that float32 rounds them to multiples of 0.25, which"
        " hides much of their variation. Subtract a constant from them in the table.",
        1,
    )
    near = dataset.train.targets / np.ptp(dataset.train.targets, axis=0) + np.array(
        [0, 2**13], np.float32
    )
    assert inspect(replace(dataset, train=replace(dataset.train, targets=near))).findings == ()
