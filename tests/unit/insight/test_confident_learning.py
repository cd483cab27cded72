"""Likely wrong labels: the same as cleanlab's, and injected ones are found."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues as find_by_cleanlab
from cleanlab.rank import get_normalized_margin_for_each_label
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lamina.data import Images
from lamina.errors import DataError
from lamina.insight.confident_learning import (
    LabelIssue,
    count_confident,
    estimate_joint,
    find_disagreements,
    find_label_issues,
    judge_labels,
    measure_agreement,
    select_by_confident_learning,
)


def make_case(
    seed: int, count: int, classes: int, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a middling net, the labels with some flipped, and which were flipped."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=count)
    truth[: 2 * classes] = np.arange(2 * classes) % classes
    logits = random.normal(size=(count, classes)) + 2.5 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = random.random(count) < noise
    labels = np.where(flipped, (truth + random.integers(1, classes, size=count)) % classes, truth)
    return probabilities, labels, flipped


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(60, 600), st.integers(2, 12), st.floats(0, 0.4))
def test_joint_issues_and_order_are_cleanlabs(seed, count, classes, noise):
    probabilities, labels, _ = make_case(seed, count, classes, noise)
    # of a class with one image, cleanlab warns
    assume(np.bincount(labels, minlength=classes).min() > 1)
    raw = compute_confident_joint(labels, probabilities, calibrate=False)
    assert np.array_equal(count_confident(probabilities, labels), raw)
    joint, theirs = (
        estimate_joint(probabilities, labels),
        compute_confident_joint(labels, probabilities),
    )
    # Of equal remainders in a row, which are rounded up depends on numpy's sorting.
    assert np.array_equal(joint.sum(axis=1), theirs.sum(axis=1))
    assert np.abs(joint - theirs).max() <= 1
    assume(theirs.diagonal().all())  # where all labels of a class seem wrong, cleanlab keeps one
    issues = select_by_confident_learning(probabilities, labels, theirs)
    expected = find_by_cleanlab(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    assert np.array_equal(np.sort(issues), np.flatnonzero(expected))
    quality = get_normalized_margin_for_each_label(labels, probabilities)[issues]
    assert (np.diff(quality) >= -1e-12).all()


def test_joint_and_issues_are_cleanlabs_without_equal_remainders():
    same = 0
    for seed in range(40):
        probabilities, labels, _ = make_case(seed, 997, 3, 0.2)
        raw = count_confident(probabilities, labels)
        if any(len(set(row)) < 3 for row in raw.tolist()):
            continue
        same += 1
        assert np.array_equal(
            estimate_joint(probabilities, labels), compute_confident_joint(labels, probabilities)
        )
        expected = find_by_cleanlab(
            labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1
        )
        assert np.array_equal(
            np.sort(select_by_confident_learning(probabilities, labels)),
            np.flatnonzero(expected),
        )
    assert same > 10


def test_planted_flips_are_found():
    probabilities, labels, flipped = make_case(3, 4000, 5, 0.2)
    issues = select_by_confident_learning(probabilities, labels)
    found = flipped[issues].sum()
    assert found / flipped.sum() > 0.8
    assert found / len(issues) > 0.8
    plain = find_disagreements(probabilities, labels)
    assert set(issues) <= set(plain)
    assert np.array_equal(np.sort(plain), np.flatnonzero(probabilities.argmax(axis=1) != labels))


def test_nothing_is_found_where_net_and_labels_agree():
    probabilities = np.eye(3)[[0, 1, 2, 0, 1, 2]] * 0.7 + 0.1
    assert len(select_by_confident_learning(probabilities, np.array([0, 1, 2, 0, 1, 2]))) == 0


def test_the_only_image_of_a_class_is_never_a_suspect():
    probabilities = np.array([[0.9, 0.1, 0.0]] * 10 + [[0.95, 0.05, 0.0]])
    given = np.array([0] * 10 + [2])
    assert len(select_by_confident_learning(probabilities, given)) == 0


def test_labels_are_judged_one_by_one():
    targets = np.array([[True, False]] * 6 + [[False, True]] * 6)
    probabilities = np.where(targets, 0.9, 0.1)
    targets = targets.copy()
    targets[2, 1] = True  # wrong: yes instead of no
    targets[8, 1] = False
    images = Images.from_arrays(np.zeros((12, 2, 2), np.uint8), targets, ("wet", "warm"))
    found = find_label_issues(images, probabilities)
    assert [(one.row, one.column, one.given, one.likely, one.score) for one in found] == [
        (2, 1, "warm: yes", "warm: no", 0.9),
        (8, 1, "warm: no", "warm: yes", 0.9),
    ]
    assert found[0].explain("the model") == "the model: 90.0 % warm: no, 10.0 % warm: yes"


def test_binary_targets_are_two_classes():
    targets = np.array([True] * 6 + [False] * 6)
    probabilities = np.where(targets, 0.8, 0.2)[:, None]
    targets[1] = False
    images = Images.from_arrays(np.zeros((12, 2, 2), np.uint8), targets, ("is it wet?",))
    assert find_label_issues(images, probabilities) == (
        LabelIssue("00001", "train", 1, 0, "no", "yes", 1 - 0.8, 0.8),
    )


def test_the_labels_of_all_splits_are_in_one_list():
    splits = {}
    probabilities = {}
    for split, wrong in (("train", [2, 9]), ("test", [5])):
        truth = np.arange(40) % 2
        given = truth.copy()
        given[wrong] = 1 - given[wrong]
        pixels = np.zeros((40, 2, 2), np.uint8)
        splits[split] = Images.from_arrays(pixels, given, ("cat", "dog"), split=split)
        sure = np.where(np.arange(40) == 5, 0.95, 0.9)
        of_dog = np.where(truth == 1, sure, 1 - sure)
        probabilities[split] = np.stack([1 - of_dog, of_dog], axis=1)
    found = judge_labels(splits, probabilities, "two nets")
    # the likeliest first, whatever its split
    assert [(issue.split, issue.row) for issue in found.issues] == [
        ("test", 5),
        ("train", 2),
        ("train", 9),
    ]
    values = found.to_json()
    assert values["agreement"] == {
        "train": pytest.approx(38 / 40),
        "test": pytest.approx(39 / 40, abs=0.01),
    }
    heads, rows = found.table()
    assert [dict(zip(heads, row, strict=True))["image"] for row in rows] == [
        issue["image"] for issue in values["label_issues"]
    ]
    assert found.summary_lines()[0] == (
        "train: 2 of 40 labels are worth checking (5.0 %); for 2, another label is more probable"
    )
    assert found.corrections()[0][5].startswith("two nets: 95.0 % dog")
    assert found.warnings() == []
    assert "Look at each image before you correct its label." in str(found)
    assert "3 labels worth checking" in found._repr_html_()


def agree(probabilities: np.ndarray, targets: np.ndarray):
    names = (
        None if targets.dtype == bool else [str(number) for number in range(probabilities.shape[1])]
    )
    images = Images.from_arrays(np.zeros((len(targets), 1, 1), np.uint8), targets, names)
    return measure_agreement(images, probabilities)


def test_a_net_that_knows_little_is_weak_however_rare_a_class_is():
    probabilities, labels, _ = make_case(0, 2000, 10, 0)
    agreement = agree(probabilities, labels)
    right = probabilities.argmax(axis=1) == labels
    assert agreement.value == pytest.approx(
        np.mean([right[labels == label].mean() for label in range(10)])
    )
    assert not agreement.is_weak
    assert agree(
        probabilities[np.arange(2000) // 2 * 2], labels
    ).is_weak  # every other image is mistaken
    constant = np.tile([0.9, 0.1], (100, 1))
    assert agree(constant, (np.arange(100) < 5).astype(int)) == (0.5, 0.5)
    tags = np.arange(100)[:, None] < [5, 20]
    half = np.where(np.arange(100)[:, None] < [4, 12], 0.9, 0.2)
    assert agree(half, tags) == (pytest.approx((0.8 + 1 + 0.6 + 1) / 4), 0.5)
    assert not agree(half, tags).is_weak
    assert agree(np.where(np.arange(100)[:, None] < [1, 4], 0.9, 0.2), tags).is_weak
    assert agree(probabilities, np.full(2000, 9)).guessed == 0.1
    assert not measure_agreement(
        Images.from_arrays(np.zeros((2, 1, 1), np.uint8), tags[:2]).take([]), half[:0]
    ).is_weak


def test_numbers_are_refused():
    images = Images.from_arrays(np.zeros((3, 2, 2), np.uint8), np.array([0.5, 1.0, 2.0]))
    with pytest.raises(DataError, match="The targets are numbers; label checking needs"):
        find_label_issues(images, np.zeros((3, 1)))
