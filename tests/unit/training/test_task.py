import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina.data import Images
from lamina.errors import RecipeError, RunError
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.training.loop import Training
from lamina.training.prediction import predict_logits
from lamina.training.recipe import Recipe
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel, Task, task_of

ONE = SingleLabel(("a", "b", "c"), shares=(0.5, 0.25, 0.25))
MANY = MultiLabel(("a", "b", "c"), shares=(0.5, 0.0, 1.0))
YES_NO = Binary(("is it?",), shares=(0.25,))
NUMBERS = Regression(
    ("degrees", "mm"), medians=(85.0, 0.5), means=(90.0, 0.5), standard_deviations=(30.0, 0.1)
)
TASKS = [ONE, MANY, YES_NO, NUMBERS]


def images_with(targets, names):
    count = len(targets)
    return Images(
        np.zeros((count, 4, 4, 3), np.uint8), targets, names, tuple(map(str, range(count))), "train"
    )


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
        {"kind": "regression", "target_names": ["a"]},
        {"kind": ["single-label"]},
        {"kind": "single-label", "target_names": "abc"},
    ],
)
def test_values_that_are_no_task_are_rejected(values):
    with pytest.raises(RunError):
        Task.from_json(values)


@pytest.mark.parametrize(
    ("targets", "names", "kind", "outputs"),
    [
        (np.array([0, 2, 1]), ("a", "b", "c"), SingleLabel, 3),
        (np.array([[True, False], [True, True]]), ("a", "b"), MultiLabel, 2),
        (np.array([True, False]), ("is it?",), Binary, 1),
        (np.array([[1.0, 2.0], [3.0, 2.0]], np.float32), ("x", "y"), Regression, 2),
    ],
)
def test_the_targets_set_the_task(targets, names, kind, outputs):
    task = task_of(images_with(targets, names))
    assert type(task) is kind
    assert task.outputs == outputs


def test_a_task_has_the_statistics_of_the_best_constant():
    assert task_of(images_with(np.array([2, 0, 2, 2]), ("a", "b", "c"))).shares == (0.25, 0.0, 0.75)
    labels = np.array([[True, False, True], [False, False, True]])
    assert task_of(images_with(labels, ("a", "b", "c"))).shares == (0.5, 0.0, 1.0)
    assert task_of(images_with(np.array([True, False, False, False]), ("is it?",))).shares == (
        0.25,
    )
    numbers = np.array([[1, -3e38], [2, 0], [4, 3e38], [9, 3e38]], np.float32)
    assert task_of(images_with(numbers, ("x", "y"))).medians == (3.0, pytest.approx(1.5e38))


def train_on(targets):
    """The state of a small net after 20 steps on numbers, its task, and its logits."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (len(targets), 4, 4, 1), np.uint8)
    images = Images(pixels, targets, ("x", "y"), tuple(map(str, range(len(targets)))), "train")
    training = Training(
        Net(Flatten(), Linear(8), ReLU(), Output()), images, Recipe(epochs=5, batch_size=16)
    )
    for _ in training:
        pass
    return training.model.state_dict(), training.model.task, predict_logits(training.model, pixels)


def test_no_training_depends_on_the_unit_of_its_numbers():
    numbers = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    weights, _, logits = train_on(numbers)
    # Powers of two change no digit of a float, so that the weights are the same to the last bit.
    for name, tensor in train_on(numbers * np.float32(2**20))[0].items():
        assert torch.equal(tensor, weights[name])
    for changed in (
        numbers * np.float32(1e6),
        numbers / np.float32(1e30),
        numbers + np.float32(1e4),
    ):
        _, task, found = train_on(changed)
        assert found == pytest.approx(logits, abs=0.02)
        own_unit = task.probabilities(torch.from_numpy(found)).numpy().astype(np.float64)
        assert (own_unit - task.means) / task.standard_deviations == pytest.approx(logits, abs=0.02)


def test_numbers_are_learned_in_standard_deviations():
    task = task_of(images_with(np.array([[1.0, 2.0], [3.0, 2.0]], np.float32), ("x", "y")))
    assert task.means == (2.0, 2.0)
    assert task.standard_deviations == (1.0, 1.0)
    assert NUMBERS.probabilities(torch.tensor([[1.0, -1.0]])).tolist() == [
        [120.0, pytest.approx(0.4)]
    ]
    assert NUMBERS.loss(
        torch.tensor([[0.0, 0.0]]), NUMBERS.prepare(torch.tensor([[120.0, 0.5]]))
    ).item() == pytest.approx(0.5)


@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_cross_entropy_is_the_published_formula(seed, label_smoothing):
    logits, targets = logits_and(seed, 3), np.random.default_rng(seed).integers(0, 3, 8)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smoothed = np.eye(3)[targets] * (1 - label_smoothing) + label_smoothing / 3
    expected = -(smoothed * np.log(probabilities)).sum(axis=1).mean()
    loss = ONE.loss(torch.from_numpy(logits), torch.from_numpy(targets), label_smoothing)
    assert loss.item() == pytest.approx(expected)
    assert ONE.probabilities(torch.from_numpy(logits)).numpy() == pytest.approx(probabilities)
    assert (
        ONE.correct(torch.from_numpy(logits), torch.from_numpy(targets))
        == (logits.argmax(1) == targets).sum()
    )


@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_binary_cross_entropy_is_the_published_formula(seed, label_smoothing):
    logits, targets = (
        logits_and(seed, 3),
        np.random.default_rng(seed).integers(0, 2, (8, 3)).astype(bool),
    )
    yes = 1 / (1 + np.exp(-logits))
    smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
    expected = -(smoothed * np.log(yes) + (1 - smoothed) * np.log(1 - yes))
    loss = MANY.loss(
        torch.from_numpy(logits),
        MANY.prepare(torch.from_numpy(targets), torch.float64),
        label_smoothing,
    )
    assert loss.item() == pytest.approx(expected.mean())
    one = YES_NO.loss(
        torch.from_numpy(logits[:, :1]),
        YES_NO.prepare(torch.from_numpy(targets[:, 0]), torch.float64),
        label_smoothing,
    )
    assert one.item() == pytest.approx(expected[:, 0].mean())
    right = ((yes > 0.5) == targets).mean(axis=1).sum()
    assert MANY.correct(
        torch.from_numpy(logits), torch.from_numpy(targets)
    ).item() == pytest.approx(right)


def test_weights_are_the_mean_count_over_the_count_of_the_class():
    # 6 a, 3 b and 1 c: the mean count is 10 / 3.
    targets = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    assert ONE.weigh(targets).tolist() == pytest.approx([10 / 18] * 6 + [10 / 9] * 3 + [10 / 3])
    # 1 yes and 3 no: 2 over each; the second label has no image, and the third all.
    yes_no = torch.tensor([True, False, False, False])
    assert YES_NO.weigh(yes_no).tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    labels = torch.stack(
        [yes_no, torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)], dim=1
    )
    assert MANY.weigh(labels).numpy() == pytest.approx(
        np.array([[2, 1, 1], [2 / 3, 1, 1], [2 / 3, 1, 1], [2 / 3, 1, 1]])
    )


@given(st.integers(0, 10_000))
def test_with_weights_all_classes_count_alike(seed):
    generator = np.random.default_rng(seed)
    targets = torch.from_numpy(generator.choice(3, 40, p=[0.7, 0.25, 0.05]))
    weights = ONE.weigh(targets).double()
    assert weights.mean().item() == pytest.approx(1)
    sums = [weights[targets == place].sum().item() for place in targets.unique()]
    assert sums == pytest.approx([sums[0]] * len(sums))
    labels = torch.from_numpy(generator.random((40, 3)) < [0.5, 0.1, 0.02])
    weights = MANY.weigh(labels).double()
    assert weights.mean(dim=0).numpy() == pytest.approx(np.ones(3))
    for column, truth in zip(weights.T, labels.T, strict=True):
        if 0 < truth.sum() < 40:
            assert column[truth].sum().item() == pytest.approx(20)


@given(st.integers(0, 10_000), st.floats(0, 0.9))
def test_a_weighted_loss_is_the_mean_of_losses_times_weights(seed, label_smoothing):
    generator = np.random.default_rng(seed)
    logits, weights = logits_and(seed, 3), generator.random((8, 3))
    targets, labels = generator.integers(0, 3, 8), generator.integers(0, 2, (8, 3)).astype(bool)
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    smoothed = np.eye(3)[targets] * (1 - label_smoothing) + label_smoothing / 3
    expected = (-(smoothed * log_shares).sum(axis=1) * weights[:, 0]).mean()
    tensors = [torch.from_numpy(array) for array in (logits, targets, labels, weights)]
    loss = ONE.loss(tensors[0], tensors[1], label_smoothing, tensors[3][:, 0])
    assert loss.item() == pytest.approx(expected)
    yes = 1 / (1 + np.exp(-logits))
    smoothed = labels * (1 - label_smoothing) + label_smoothing / 2
    entropy = -(smoothed * np.log(yes) + (1 - smoothed) * np.log(1 - yes))
    loss = MANY.loss(tensors[0], tensors[2].double(), label_smoothing, tensors[3])
    assert loss.item() == pytest.approx((entropy * weights).mean())
    loss = YES_NO.loss(
        tensors[0][:, :1], tensors[2][:, :1].double(), label_smoothing, tensors[3][:, 0]
    )
    assert loss.item() == pytest.approx((entropy * weights)[:, 0].mean())


def test_numbers_have_nothing_to_weigh_by():
    with pytest.raises(RecipeError) as rejected:
        NUMBERS.weigh(torch.zeros(2, 2))
    assert (
        str(rejected.value)
        == "class_weights is True, but the targets are numbers; only classes have weights. Remove"
        " class_weights from the recipe."
    )
