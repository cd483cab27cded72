"""Injected faults are found, each by its name, and healthy trainings are not disturbed."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lamina import Epoch, Recipe, Training, load_data, load_net, load_recipe
from lamina.data import Images
from lamina.nets import (
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Sigmoid,
)
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.checkpoint import Standing, digest_tensors
from lamina.training.diagnosis import (
    DoctorState,
    Observation,
    baseline_loss,
    diagnose,
    find_overfitting,
    measure_activity,
)
from lamina.training.events import Diagnosis, LayerStatistics, Step
from lamina.training.hooks import activations
from lamina.training.task import task_of
from lamina.values import fields_to_json, from_json_values
from lamina.zoo import stack_blocks

MLP = load_net("mlp")
SMALL = Net(
    Conv2d(8, 3), BatchNorm(), ReLU(), MaxPool2d(4), Flatten(), Linear(32), ReLU(), Output()
)
DEEP = Net(Flatten(), *(layer for _ in range(20) for layer in (Linear(32), Sigmoid())), Output())
RECIPE = dataclasses.replace(load_recipe("mlp"), epochs=2, batch_size=20)


@pytest.fixture(scope="module")
def images() -> Images:
    """Enough for all rules."""
    return load_data("shapes").train


def list_diagnoses(
    net: Net, images: Images, recipe: Recipe, inject: Callable[[nn.Module], None] | None = None
) -> list[Diagnosis]:
    training = Training(net, images, recipe)
    if inject is not None:
        with torch.no_grad():
            inject(training.model.body)
    return [found for event in training if isinstance(event, Epoch) for found in event.diagnoses]


def scale_weights(body: nn.Module) -> None:
    for module in body.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.mul_(30)


def lower_biases(body: nn.Module) -> None:
    *hidden, _ = [module for module in body.modules() if getattr(module, "bias", None) is not None]
    for module in hidden:
        module.bias.fill_(-10)


@pytest.mark.parametrize(
    ("kind", "net", "change", "inject"),
    [
        ("learning-rate-too-high", MLP, {"lr": 0.1}, None),
        ("learning-rate-too-high", SMALL, {"lr": 0.1}, None),
        ("learning-rate-too-low", MLP, {"lr": 1e-6}, None),
        ("dying-relu", MLP, {}, lower_biases),
        ("dying-relu", SMALL, {}, lower_biases),
        ("vanishing-gradients", DEEP, {}, None),
        ("exploding-gradients", MLP, {}, scale_weights),
    ],
)
def test_an_injected_fault_is_found(kind, net, change, inject, images):
    recipe = dataclasses.replace(RECIPE, **change)
    (diagnosis,) = list_diagnoses(net, images, recipe, inject)
    assert diagnosis.kind == kind
    assert diagnosis.evidence
    assert str(diagnosis).startswith(f"diagnosis: {kind}: {diagnosis.finding} {diagnosis.advice}")
    for name, value in diagnosis.change.items():
        assert f" Try {name} {value}." in str(diagnosis)
        assert name not in diagnosis.advice.split()  # pages show a change by its field


def test_layer_statistics_are_those_of_the_last_step(images):
    some, recipe = (
        images.take(range(500)),
        Recipe(epochs=1, batch_size=100, lr=0.01, precision="fp32"),
    )
    training = Training(MLP, some, recipe, steps_per_record=1)
    weights = [
        module.weight for module in training.model.body.modules() if isinstance(module, nn.Linear)
    ]
    before: list[torch.Tensor] = []
    for event in training:
        if isinstance(event, Epoch):
            break
        before = [weight.detach().clone() for weight in weights]
    layers, seen = event.layers, some.take_evenly(64).pixels
    assert layers.names == ["2 Linear", "3 ReLU", "4 Output"]

    def is_close(figures, expected):
        assert figures[1] is None  # a ReLU has neither
        assert [figures[0], figures[2]] == pytest.approx(list(expected), rel=1e-3, abs=1e-4)

    is_close(layers.weight_norms, (float(old.norm()) for old in before))
    is_close(
        layers.update_norms,
        (float((new.detach() - old).norm()) for new, old in zip(weights, before, strict=True)),
    )
    is_close(layers.gradient_norms, (float(weight.grad.norm()) for weight in weights))
    hidden = activations(training.model, seen, [3])[3].numpy()
    is_close(layers.input_means, (part.mean() for part in (seen / 127.5 - 1, hidden)))
    is_close(layers.input_standard_deviations, (part.std() for part in (seen / 127.5 - 1, hidden)))
    assert layers.dead_fractions[1] == pytest.approx(np.mean(hidden.max(axis=0) == 0), abs=1e-4)
    assert layers.dead_fractions[::2] == [None, None]


def say(events: Iterable[Step | Epoch]) -> list[tuple[object, ...]]:
    return [
        (event.epoch, event.layers, event.diagnoses) for event in events if isinstance(event, Epoch)
    ]


def make_dying(images: Images) -> Training:
    """A training at a low rate on wrong labels; most units are dead from the first epoch."""
    some = dataclasses.replace(images, targets=np.roll(images.targets, 1))
    recipe = dataclasses.replace(RECIPE, epochs=6, batch_size=25, lr=3e-5, schedule="constant")
    training = Training(MLP, some, recipe)
    with torch.no_grad():
        training.model.body[1].bias[:95] = -50.0
    return training


@pytest.fixture(scope="module")
def said(images) -> list[tuple[object, ...]]:
    """What a dying training says that nobody stops."""
    return say(make_dying(images))


@pytest.mark.parametrize("stop", [4, 9])
def test_a_training_that_was_stopped_and_resumed_says_the_same(images, said, stop):
    first = make_dying(images)
    before = say(itertools.islice(first, stop))
    checkpoint = first.checkpoint()
    standing = from_json_values(
        Standing, json.loads(json.dumps(fields_to_json(checkpoint.standing))), "checkpoint"
    )
    second = make_dying(images)
    second.restore(dataclasses.replace(checkpoint, standing=standing))
    assert before + say(second) == said
    kinds = [found.kind for _, _, diagnoses in said for found in diagnoses]
    assert kinds == ["dying-relu"]
    assert said[0][1].names == ["2 Linear", "3 ReLU", "4 Output"]


@pytest.mark.parametrize(
    ("net", "recipe"),
    [
        (MLP, RECIPE),
        (SMALL, RECIPE),
        (
            stack_blocks(8, 8, 16),
            dataclasses.replace(load_recipe("cnn-s"), epochs=2, batch_size=20),
        ),
    ],
    ids=["mlp", "small", "blocks"],
)
def test_a_healthy_training_gives_no_diagnosis(net, recipe, images):
    assert list_diagnoses(net, images, recipe) == []


HEALTHY = Observation(
    epoch=2,
    steps=200,
    recipe=Recipe(),
    lr=0.001,
    lr_fraction=1.0,
    loss=2.35,
    initial_loss=2.4,
    baseline_loss=2.3,
    growth=1.2,
    images=64,
    layers=LayerStatistics(
        names=["1 Linear", "2 ReLU", "3 Output"],
        gradient_norms=[1.0, None, 1.5],
        weight_norms=[5.0, None, 1.0],
        update_norms=[0.05, None, 0.02],
        input_means=[0.0, None, 0.3],
        input_standard_deviations=[0.6, None, 0.5],
        dead_fractions=[None, 0.7, None],
    ),
)


def see(layers: dict[str, list[float | None]] | None = None, **changes: Any) -> Observation:
    statistics = dataclasses.replace(HEALTHY.layers, **layers or {})
    return dataclasses.replace(HEALTHY, layers=statistics, **changes)


@pytest.mark.parametrize(
    ("kind", "layer", "seen"),
    [
        ("learning-rate-too-high", None, see(loss=3.0)),
        ("learning-rate-too-high", None, see(growth=30.0)),
        (
            "exploding-gradients",
            "3 Output",
            see({"gradient_norms": [10.0, None, 30.0]}, loss=50, initial_loss=90),
        ),
        ("dying-relu", "2 ReLU", see({"dead_fractions": [None, 0.95, None]})),
        ("vanishing-gradients", "1 Linear", see({"gradient_norms": [1e-5, None, 0.1]})),
        ("learning-rate-too-low", None, see({"update_norms": [1e-4, None, 2e-4]})),
    ],
)
def test_each_rule_needs_its_evidence_and_enough_steps(kind, layer, seen):
    assert diagnose(HEALTHY) is None
    found = diagnose(seen)
    assert (found.kind, found.epoch, found.layer) == (kind, 2, layer)
    assert diagnose(dataclasses.replace(seen, steps=40)) is None


@pytest.mark.parametrize(
    "seen",
    [
        see(growth=30.0, loss=1.8),  # learns with large weights
        see({"gradient_norms": [10.0, None, 30.0]}),  # the loss is not worse than the baseline's
        see({"gradient_norms": [1e-5, None, 0.1]}, loss=0.1),
        see({"update_norms": [1e-4, None, 2e-4]}, lr_fraction=0.1),  # the schedule's end
        see({"update_norms": [1e-4, None, 2e-4]}, loss=0.1),
    ],
)
def test_what_does_no_harm_is_no_problem(seen):
    assert diagnose(seen) is None


class Absent:
    """No doctor."""

    state = DoctorState()

    def watch(self, *_: object, **__: object) -> AbstractContextManager[None]:
        return nullcontext()

    def examine(self, epoch: Epoch, _lr: float) -> Epoch:
        return epoch


def test_the_weights_are_those_of_a_training_without_a_doctor(images):
    recipe = Recipe(epochs=2, batch_size=15, dropout=0.3, initial_fraction=0.5)
    net = Net(Conv2d(4, 3, stride=2), BatchNorm(), ReLU(), Flatten(), *load_net("cnn").layers[-2:])
    some = images.take(range(600))
    digests = []
    for has_doctor in (True, False):
        training = Training(net, some, recipe)
        if not has_doctor:
            training._doctor = Absent()
        assert [event.epoch for event in training if isinstance(event, Epoch)] == [1, 2]
        digests.append(digest_tensors(training.checkpoint().tensors))
    assert digests[0] == digests[1]


def test_what_is_seen_of_a_net_built_by_hand(images):
    training = Training(Net(Flatten(), Linear(4), ReLU(), Output()), images, Recipe())
    linear = training.model.body[1]
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([-1.0, 1.0, -2.0, -3.0]))
    measured = measure_activity(training.model, images.take(range(50)))
    inputs = images.pixels[:50] / 127.5 - 1
    assert list(measured) == ["body.1", "body.2", "body.3"]
    assert measured["body.1"]["input_means"] == pytest.approx(inputs.mean(), abs=1e-4)
    assert measured["body.1"]["input_standard_deviations"] == pytest.approx(inputs.std(), rel=1e-3)
    assert measured["body.2"] == {"dead_fractions": 0.75}
    # one unit of four is 1, the others 0
    assert measured["body.3"] == pytest.approx(
        {"input_means": 0.25, "input_standard_deviations": 0.75**0.5 / 2}
    )


def overfitting_rows() -> list[dict[str, float]]:
    val = [1.0, 0.8, 0.9, 0.95, 1.0]
    return [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "train_accuracy": 0.9,
            "val_loss": loss,
            "val_accuracy": 1 - loss / 2,
        }
        for epoch, loss in enumerate(val, start=1)
    ]


def test_overfitting_needs_a_falling_loss_and_worse_epochs():
    rows = overfitting_rows()
    found = find_overfitting(rows)
    assert (found.kind, found.epoch) == ("overfitting", 5)
    assert "rose from 0.8 after epoch 2 to 1, while the training loss fell to 0.2" in found.finding
    assert found.change == {"patience": "5"}
    assert find_overfitting(rows[:4]) is None
    assert find_overfitting([row | {"train_loss": 1.0} for row in rows]) is None
    assert (
        find_overfitting([row | {"val_loss": min(0.85, row["val_loss"])} for row in rows]) is None
    )
    assert find_overfitting([]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"val_accuracy": 0.98},  # at its best
        {"train_accuracy": 0.55},  # hardly better than on val
        {"train_loss": 1.1},  # has fallen, but is above the loss on val, because of label smoothing
    ],
)
def test_a_rising_loss_on_val_alone_is_no_overfitting(change):
    *others, before, last = [
        row | {"train_loss": 4 * row["train_loss"]} for row in overfitting_rows()
    ]
    assert find_overfitting([*others, before, last]) is not None
    assert find_overfitting([*others, before, last | change]) is None


def test_overfitting_of_numbers_is_judged_by_loss_and_score():
    rows = [
        row | {"train_accuracy": None, "val_mean_absolute_error": row["val_loss"]}
        for row in overfitting_rows()
    ]
    assert find_overfitting(rows, "mean_absolute_error", 1) is not None
    assert (
        find_overfitting(
            [*rows[:4], rows[4] | {"val_mean_absolute_error": 0.7}], "mean_absolute_error", 1
        )
        is None
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    "targets",
    [
        np.arange(60) % 7 % 3,
        np.arange(60) % 5 == 0,
        np.stack([np.arange(60) % 3 == 0, np.arange(60) % 7 == 0], axis=1),
        np.linspace(-3, 5, 60, dtype=np.float32)[:, None],
    ],
)
def test_the_baseline_loss_is_that_over_all_images(targets, smoothing):
    images = Images.from_arrays(np.zeros((60, 2, 2), np.uint8), targets)
    task, given = task_of(images), torch.from_numpy(images.targets)
    if images.kind is SINGLE_LABEL:
        logits = (torch.bincount(given) / 60).log()
    elif images.kind is REGRESSION:
        logits = torch.zeros(1)
    else:
        logits = given.float().view(60, -1).mean(dim=0).logit()
    expected = float(task.loss(logits.expand(60, -1), given, smoothing))
    assert baseline_loss(task, images, Recipe(label_smoothing=smoothing)) == pytest.approx(
        expected, rel=1e-5
    )
