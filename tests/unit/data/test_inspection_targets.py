"""What an inspection finds in classes, labels and numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lamina.data import Dataset
from lamina.data.findings import Finding, imbalance
from lamina.data.inspection import inspect
from support.inspected import CLEAN, make_dataset, make_split, only_finding


def test_a_class_missing_in_test_is_a_warning_in_train_an_error() -> None:
    names = ("cat", "dog", "owl")
    train, val = make_split("train", (20, 20, 20), names), make_split("val", (5, 5, 5), names)
    test = make_split("test", (10, 0, 10), names)
    assert only_finding(make_dataset(train=train, val=val, test=test)) == Finding(
        "class-missing",
        "warning",
        "test has no images of dog, so scores on test do not cover it. Add some.",
        1,
    )
    assert only_finding(
        make_dataset(train=make_split("train", (20, 0, 20), names), val=val, test=train)
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
def test_classes_of_few_images_are_tiny(counts: tuple[int, ...], tiny: str | None) -> None:
    names = tuple("abcdefg"[: len(counts)])
    findings = inspect(Dataset("set", "0", make_split("train", counts, names, side_px=3))).findings
    found = [finding.message for finding in findings if finding.kind == "class-tiny"]
    remedy = "Add images, or merge classes that belong together."
    assert found == ([f"train has few images of {tiny}. {remedy}"] if tiny else [])


def test_classes_of_very_different_size_are_noted() -> None:
    train = make_split("train", (10, 100, 30), ("cat", "dog", "owl"))
    inspection = inspect(Dataset("set", "0", train))
    assert imbalance(train) == 10
    assert inspection.findings == (
        Finding(
            "imbalance",
            "note",
            "train has 10 times as many images of dog (100) as of cat (10).",
            3,
            remedy="To weight the classes equally, train with --class-weights (in Python,"
            " Recipe(class_weights=True)).",
        ),
    )
