import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Images
from lamina.errors import RunError
from lamina.training.task import ManyLabels, Numbers, OneLabel, Task, YesNo, task_of

ONE = OneLabel(("a", "b", "c"))
MANY = ManyLabels(("a", "b", "c"))
YES_NO = YesNo(("is it?",))
NUMBERS = Numbers(("degrees", "mm"), means=(90.0, 0.5), deviations=(30.0, 0.1))
TASKS = [ONE, MANY, YES_NO, NUMBERS]


def images_with(targets, names):
    count = len(targets)
    return Images(np.zeros((count, 4, 4, 3), np.uint8), targets, names, tuple(map(str, range(count))), "train")


def logits_and(seed, outputs):
    return np.random.default_rng(seed).normal(0, 3, (8, outputs))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_task_survives_json(task):
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "guess"},
        {"kind": "numbers", "target_names": ["a"]},
        {"kind": ["one label"]},
        {"kind": "one label", "target_names": "abc"},
    ],
)
def test_values_that_are_no_task_are_refused(values):
    with pytest.raises(RunError):
        Task.from_json(values)


@pytest.mark.parametrize(
    ("targets", "names", "kind", "outputs"),
    [
        (np.array([0, 2, 1]), ("a", "b", "c"), OneLabel, 3),
        (np.array([[True, False], [True, True]]), ("a", "b"), ManyLabels, 2),
        (np.array([True, False]), ("is it?",), YesNo, 1),
        (np.array([[1.0, 2.0], [3.0, 2.0]], np.float32), ("x", "y"), Numbers, 2),
    ],
)
def test_the_targets_set_the_task(targets, names, kind, outputs):
    task = task_of(images_with(targets, names))
    assert type(task) is kind
    assert task.outputs == outputs


def test_numbers_are_learned_in_deviations_and_told_in_their_own_unit():
    task = task_of(images_with(np.array([[1.0, 2.0], [3.0, 2.0]], np.float32), ("x", "y")))
    assert task.means == (2.0, 2.0)
    assert task.deviations == (1.0, 1.0)
    assert NUMBERS.probabilities(torch.tensor([[1.0, -1.0]])).tolist() == [[120.0, pytest.approx(0.4)]]
    assert NUMBERS.loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[120.0, 0.5]])).item() == pytest.approx(0.5)


@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_cross_entropy_is_the_published_formula(seed, label_smoothing):
    logits, targets = logits_and(seed, 3), np.random.default_rng(seed).integers(0, 3, 8)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smoothed = np.eye(3)[targets] * (1 - label_smoothing) + label_smoothing / 3
    expected = -(smoothed * np.log(probabilities)).sum(axis=1).mean()
    loss = ONE.loss(torch.from_numpy(logits), torch.from_numpy(targets), label_smoothing)
    assert loss.item() == pytest.approx(expected)
    assert ONE.probabilities(torch.from_numpy(logits)).numpy() == pytest.approx(probabilities)
    assert ONE.correct(torch.from_numpy(logits), torch.from_numpy(targets)) == (logits.argmax(1) == targets).sum()


@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_binary_cross_entropy_is_the_published_formula(seed, label_smoothing):
    logits, targets = logits_and(seed, 3), np.random.default_rng(seed).integers(0, 2, (8, 3)).astype(bool)
    yes = 1 / (1 + np.exp(-logits))
    smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
    expected = -(smoothed * np.log(yes) + (1 - smoothed) * np.log(1 - yes))
    loss = MANY.loss(torch.from_numpy(logits), torch.from_numpy(targets), label_smoothing)
    assert loss.item() == pytest.approx(expected.mean())
    one = YES_NO.loss(torch.from_numpy(logits[:, :1]), torch.from_numpy(targets[:, 0]), label_smoothing)
    assert one.item() == pytest.approx(expected[:, 0].mean())
    right = ((yes > 0.5) == targets).mean(axis=1).sum()
    assert MANY.correct(torch.from_numpy(logits), torch.from_numpy(targets)).item() == pytest.approx(right)
