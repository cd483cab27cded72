"""Losses and confusions match independent formulas; injected odd images are the most isolated."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from torch.nn import functional

from lamina.evaluation.outputs import Outputs
from lamina.insight.confusions import (
    Confusions,
    find_confusions,
    measure_losses,
)
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel, Task

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(300, 4)).astype(np.float32)
CLASSES = RANDOM.integers(0, 4, 300)
LABELS = RANDOM.random((300, 4)) < 0.4
SINGLE = SingleLabel(("ant", "bee", "cat", "dog"), shares=(0.25,) * 4)
MULTI = MultiLabel(("red", "wet", "big", "old"), shares=(0.4,) * 4)
BINARY = Binary(("spam",), shares=(0.4,))
NUMBERS = Regression(
    ("width", "height"), medians=(0.0, 0.0), means=(1.0, 2.0), standard_deviations=(2.0, 5.0)
)


def find(task: Task, logits: np.ndarray, targets: np.ndarray) -> Confusions:
    names = tuple(f"{row}.png" for row in range(len(targets)))
    return find_confusions(task, [Outputs("test", logits, targets, names)])


def test_losses_are_of_calibrated_probabilities():
    calibrated = SINGLE.with_temperatures((2.0,))
    tensor = torch.from_numpy(LOGITS).double()
    expected = functional.cross_entropy(tensor / 2, torch.from_numpy(CLASSES), reduction="none")
    assert np.allclose(measure_losses(calibrated, LOGITS, CLASSES), expected)
    found = find(calibrated, LOGITS, CLASSES)
    worst = np.argsort(-expected.numpy())[:24]
    assert [image.row for image in found.hardest] == worst.tolist()
    assert found.hardest[0].loss == pytest.approx(float(expected.max()), abs=1e-4)


def test_the_images_of_several_splits_are_in_one_list():
    parts = []
    for split, rows in (("val", slice(0, 100)), ("test", slice(100, 300))):
        names = tuple(f"{split}/{row}" for row in range(rows.stop - rows.start))
        parts.append(Outputs(split, LOGITS[rows], CLASSES[rows], names))
    found = find_confusions(SINGLE, parts)
    together = find(SINGLE, LOGITS, CLASSES)
    assert [pair.rows.tolist() for pair in found.pairs] == [
        pair.rows.tolist() for pair in together.pairs
    ]
    for image in found.hardest:
        number = image.row if image.split == "val" else image.row - 100
        assert image.image == f"{image.split}/{number}"
        assert image.true == SINGLE.target_names[CLASSES[image.row]]
    values = found.to_json()
    heads, rows = found.table()
    assert values["splits"] == ["val", "test"]
    assert len(values["pairs"]) == len(rows)
    for pair, row in zip(values["pairs"], rows, strict=True):
        line = dict(zip(heads, row, strict=True))
        assert (pair["true"], pair["predicted"]) == (line["true"], line["predicted"])
        assert f"{pair['images']:,}" == line["images"]
        assert pair["examples"][0]["image"] in line["largest losses"]
    assert str(found).startswith("12 confused pairs of classes among 300 images in val and test\n")
    assert "confused pairs of classes" in found._repr_html_()
    (table,) = found.tables
    assert table.names == SINGLE.target_names
    predicted = LOGITS.argmax(axis=1)
    assert np.array_equal(table.count(), sklearn.metrics.confusion_matrix(CLASSES, predicted))
    right = table.rows(2, 2)
    assert set(right.tolist()) == set(np.flatnonzero((CLASSES == 2) & (predicted == 2)).tolist())
    assert (np.diff(found.losses[right]) <= 0).all()


def test_cells_of_labels_hold_the_largest_loss_first():
    found = find(MULTI, LOGITS, LABELS)
    for column, table in enumerate(found.tables):
        assert table.names == (f"{MULTI.target_names[column]}: no", f"{table.names[0][:-2]}yes")
        missed = table.rows(1, 0)
        expected = np.flatnonzero(LABELS[:, column] & (LOGITS[:, column] <= 0))
        expected = expected[np.argsort(LOGITS[expected, column])]
        assert missed.tolist() == expected.tolist()


def test_many_labels_take_little_memory():
    """Correct predictions of all labels are many; their rows are not held."""
    labels = 300
    logits = RANDOM.normal(size=(2000, labels)).astype(np.float32)
    names = tuple(f"label {number}" for number in range(labels))
    task = MultiLabel(names, shares=(0.01,) * labels)
    targets = logits > 0
    targets[0] = ~targets[0]
    tracemalloc.start()
    found = find(task, logits, targets)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.pairs) == labels
    assert held < 6 * logits.size  # bytes; the logits take four


def test_losses_are_those_of_each_image():
    tensor = torch.from_numpy(LOGITS).double()
    expected = functional.cross_entropy(tensor, torch.from_numpy(CLASSES), reduction="none")
    assert np.allclose(measure_losses(SINGLE, LOGITS, CLASSES), expected)
    truth = torch.from_numpy(LABELS).double()
    expected = functional.binary_cross_entropy_with_logits(tensor, truth, reduction="none")
    assert np.allclose(measure_losses(MULTI, LOGITS, LABELS), expected.mean(dim=1))
    assert np.allclose(measure_losses(BINARY, LOGITS[:, :1], LABELS[:, 0]), expected[:, 0])
    numbers = RANDOM.normal(size=(300, 2)).astype(np.float32)
    outputs = LOGITS[:, :2] * (2, 5) + (1, 2)
    assert np.allclose(
        measure_losses(NUMBERS, LOGITS[:, :2], numbers),
        (((outputs - numbers) / (2, 5)) ** 2).mean(axis=1),
        rtol=1e-5,
    )
    assert measure_losses(SINGLE, LOGITS[:0], CLASSES[:0]).shape == (0,)


def test_confusions_are_the_cells_of_the_confusion_matrix():
    found = find(SINGLE, LOGITS, CLASSES)
    classes = found.classes
    pairs = found.pairs
    outputs = LOGITS.argmax(axis=1)
    matrix = sklearn.metrics.confusion_matrix(CLASSES, outputs)
    names = SINGLE.target_names
    counts = np.zeros((4, 4), int)
    losses = measure_losses(SINGLE, LOGITS, CLASSES)
    for pair in pairs:
        target, predicted = names.index(pair.target), names.index(pair.predicted)
        counts[target, predicted] = len(pair.rows)
        assert (CLASSES[pair.rows] == target).all()
        assert (outputs[pair.rows] == predicted).all()
        assert (np.diff(losses[pair.rows]) <= 0).all()
        assert pair.images == matrix[target].sum()
        wilson = scipy.stats.binomtest(len(pair.rows), pair.images).proportion_ci(method="wilson")
        assert (pair.interval.low, pair.interval.high) == pytest.approx((wilson.low, wilson.high))
    assert np.array_equal(counts, matrix - np.diag(matrix.diagonal()))
    wrong = {one.target: sorted(one.rows.tolist()) for one in classes}
    assert wrong == {
        name: np.flatnonzero((place == CLASSES) & (outputs != place)).tolist()
        for place, name in enumerate(names)
    }
    for ranked in (classes, pairs):
        lows = [one.interval.low for one in ranked]
        assert lows == sorted(lows, reverse=True)


def test_a_hundred_of_three_hundred_come_before_one_of_two():
    logits = np.eye(3, dtype=np.float32)[[1] * 100 + [0] * 200 + [2, 1]]
    task = SingleLabel(("a", "b", "c"), shares=(0.4, 0.3, 0.3))
    pairs = find(task, logits, np.array([0] * 300 + [1] * 2)).pairs
    assert [(pair.target, len(pair.rows), pair.images) for pair in pairs] == [
        ("a", 100, 300),
        ("b", 1, 2),
    ]


def test_each_label_is_judged_by_itself_and_numbers_not_at_all():
    pairs = find(MULTI, LOGITS, LABELS).pairs
    for place, name in enumerate(MULTI.target_names):
        matrix = sklearn.metrics.confusion_matrix(LABELS[:, place], LOGITS[:, place] > 0)
        missed = next(
            pair
            for pair in pairs
            if (pair.target, pair.predicted) == (f"{name}: yes", f"{name}: no")
        )
        invented = next(
            pair
            for pair in pairs
            if (pair.target, pair.predicted) == (f"{name}: no", f"{name}: yes")
        )
        assert [len(missed.rows), len(invented.rows)] == [matrix[1, 0], matrix[0, 1]]
        assert [missed.images, invented.images] == [matrix[1].sum(), matrix[0].sum()]
        assert (np.diff(LOGITS[missed.rows, place]) >= 0).all()  # the most certain mistake first
        assert (np.diff(LOGITS[invented.rows, place]) <= 0).all()
    found = find(BINARY, LOGITS[:, :1], LABELS[:, 0])
    pairs = {(pair.target, pair.predicted) for pair in found.pairs}
    assert pairs == {("no", "yes"), ("yes", "no")}
    assert {confusion.target for confusion in found.classes} == {"no", "yes"}
    numbers = find(NUMBERS, LOGITS[:, :2], LOGITS[:, :2])
    assert (numbers.classes, numbers.pairs, numbers.tables) == ((), (), ())
    assert numbers.hardest[0].loss == pytest.approx(0, abs=1e-4)
    right = find(SINGLE, np.eye(4, dtype=np.float32), np.arange(4))
    assert (right.classes, right.pairs) == ((), ())


def test_predictions_are_formatted():
    logits = np.array([[2, -1, 0.5, -3]], np.float32)
    numbers = np.array([[5, -3]], np.float32)
    for task, columns, targets, text in (
        (SINGLE, logits, np.array([1]), "ant"),
        (MULTI, logits, logits > 0, "red, big"),
        (BINARY, logits[:, 1:2], np.array([True]), "no"),
        (NUMBERS, numbers, numbers, "5, -3"),
    ):
        assert find(task, columns, targets).hardest[0].predicted == text
