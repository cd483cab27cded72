"""Injected faults are found, each by its name, and healthy trainings are not disturbed."""

import dataclasses
import itertools
import json
from collections.abc import Callable
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
from lamina.targets import Score
from lamina.training.checkpoint import Standing
from lamina.training.diagnosis import Start, diagnose, find_overfitting
from lamina.training.events import Diagnosis
from lamina.training.hooks import activations
from lamina.training.layer_statistics import (
    choose_measured,
    find_trained,
    measure_activity,
    measure_layers,
)
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


Rows = list[dict[str, Any]]


def follow(training: Training, rows: Rows, stop: int | None = None) -> list[Diagnosis]:
    """Train, append each epoch with its diagnoses to the history, and return them all."""
    diagnoses: list[Diagnosis] = []
    for event in itertools.islice(training, stop):
        if isinstance(event, Epoch):
            rows.append(event.to_json())
            problems = diagnose(rows, training.start)
            rows[-1]["diagnoses"] = [dataclasses.asdict(problem) for problem in problems]
            diagnoses += problems
    return diagnoses


def list_diagnoses(
    net: Net, images: Images, recipe: Recipe, inject: Callable[[nn.Module], None] | None = None
) -> list[Diagnosis]:
    training = Training(net, images, recipe)
    if inject is not None:
        with torch.no_grad():
            inject(training.model.body)
    return follow(training, [])


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


def make_dying(images: Images) -> Training:
    """A training at a low rate on wrong labels; most units are dead from the first epoch."""
    some = dataclasses.replace(images, targets=np.roll(images.targets, 1))
    recipe = dataclasses.replace(RECIPE, epochs=6, batch_size=25, lr=3e-5, schedule="constant")
    training = Training(MLP, some, recipe)
    with torch.no_grad():
        training.model.body[1].bias[:95] = -50.0
    return training


@pytest.mark.parametrize("stop", [4, 9])
def test_a_resumed_training_has_the_same_diagnoses(images, stop):
    whole_rows: Rows = []
    whole = follow(make_dying(images), whole_rows)
    first = make_dying(images)
    rows: Rows = []
    diagnoses = follow(first, rows, stop)
    checkpoint = first.checkpoint()
    standing = from_json_values(
        Standing, json.loads(json.dumps(fields_to_json(checkpoint.standing))), "checkpoint"
    )
    second = make_dying(images)
    second.restore(dataclasses.replace(checkpoint, standing=standing))
    assert second.start == first.start
    assert diagnoses + follow(second, rows) == whole
    assert [row["layers"] for row in rows] == [row["layers"] for row in whole_rows]
    assert [diagnosis.kind for diagnosis in whole] == ["dying-relu"]
    assert rows[0]["layers"]["names"] == ["2 Linear", "3 ReLU", "4 Output"]


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


START = Start(loss=2.4, untrained_loss=2.3, norm=5.0, lr=0.001, steps_per_epoch=100, images=64)
HEALTHY = {
    "epoch": 2,
    "lr": 0.001,
    "train_loss": 2.35,
    "layers": {
        "names": ["1 Linear", "2 ReLU", "3 Output"],
        "gradient_norms": [1.0, None, 1.5],
        "weight_norms": [6.0, None, 1.0],
        "update_norms": [0.05, None, 0.02],
        "input_means": [0.0, None, 0.3],
        "input_standard_deviations": [0.6, None, 0.5],
        "dead_fractions": [None, 0.7, None],
    },
}


def see(**changes: Any) -> dict[str, Any]:
    """The healthy epoch with other values or columns."""
    columns = {name: value for name, value in changes.items() if name in HEALTHY["layers"]}
    rest = {name: value for name, value in changes.items() if name not in columns}
    return HEALTHY | rest | {"layers": HEALTHY["layers"] | columns}


LARGE_WEIGHTS = [150.0, None, 1.0]  # 30 times as large
LARGE_GRADIENTS = [10.0, None, 30.0]
SMALL_GRADIENTS = [1e-5, None, 0.1]
SMALL_UPDATES = [1e-4, None, 2e-4]


@pytest.mark.parametrize(
    ("kind", "layer", "row", "start"),
    [
        ("learning-rate-too-high", None, see(train_loss=3.0), START),
        ("learning-rate-too-high", None, see(train_loss=None), START),  # infinity in JSON
        ("learning-rate-too-high", None, see(weight_norms=LARGE_WEIGHTS), START),
        (
            "exploding-gradients",
            "3 Output",
            see(gradient_norms=LARGE_GRADIENTS, train_loss=50.0),
            dataclasses.replace(START, loss=90.0),
        ),
        ("dying-relu", "2 ReLU", see(dead_fractions=[None, 0.95, None]), START),
        ("vanishing-gradients", "1 Linear", see(gradient_norms=SMALL_GRADIENTS), START),
        ("learning-rate-too-low", None, see(update_norms=SMALL_UPDATES), START),
    ],
)
def test_each_rule_needs_its_evidence_and_enough_steps(kind, layer, row, start):
    assert diagnose([HEALTHY], start) == ()
    (diagnosis,) = diagnose([HEALTHY, row], start)
    assert (diagnosis.kind, diagnosis.epoch, diagnosis.layer) == (kind, 2, layer)
    assert diagnose([row], dataclasses.replace(start, steps_per_epoch=20)) == ()


def test_the_first_problem_is_named_once():
    named = HEALTHY | {"diagnoses": [{"kind": "dying-relu"}]}
    assert diagnose([named, see(train_loss=3.0)], START) == ()
    named = HEALTHY | {"diagnoses": [{"kind": "overfitting"}]}
    (diagnosis,) = diagnose([named, see(train_loss=3.0)], START)
    assert diagnosis.kind == "learning-rate-too-high"


@pytest.mark.parametrize(
    "row",
    [
        see(weight_norms=LARGE_WEIGHTS, train_loss=1.8),  # learns with large weights
        see(gradient_norms=LARGE_GRADIENTS),  # the loss is no worse than with logits of 0
        see(gradient_norms=SMALL_GRADIENTS, train_loss=0.1),
        see(update_norms=SMALL_UPDATES, lr=0.0001),  # the schedule's end
        see(update_norms=SMALL_UPDATES, train_loss=0.1),
    ],
)
def test_what_does_no_harm_is_no_problem(row):
    assert diagnose([row], START) == ()


@pytest.mark.parametrize("loss", [-1.0, 0.0])
def test_a_custom_loss_that_starts_at_zero_or_below_is_not_compared(loss):
    start = dataclasses.replace(START, loss=loss, untrained_loss=float("nan"))
    assert diagnose([see(train_loss=0.1)], start) == ()


def test_measuring_layers_changes_nothing(images):
    net = Net(Conv2d(4, 3, stride=2), BatchNorm(), ReLU(), Flatten(), *load_net("cnn").layers[-2:])
    some = images.take(range(600))
    training = Training(net, some, Recipe(epochs=1, batch_size=15, dropout=0.3))
    next(iter(training))
    model = training.model.train()
    generator = torch.get_rng_state()
    digest = training.digest()
    before = {name: weight.clone() for name, weight in find_trained(model).items()}
    gradients = [weight.grad.clone() for weight in model.parameters()]
    statistics = measure_layers(model, before, choose_measured(some))
    assert statistics.update_norms[0] == 0
    assert training.digest() == digest
    assert torch.equal(generator, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(weight.grad, gradient)


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


def test_overfitting_is_named_beside_another_problem_once():
    rows = [HEALTHY | row for row in overfitting_rows()]
    rows[0] = rows[0] | {"diagnoses": [{"kind": "dying-relu"}]}
    score = Score("accuracy", 0.5)
    (diagnosis,) = diagnose(rows, START, score)
    assert diagnosis == find_overfitting(rows)
    assert diagnose(rows, START) == ()
    rows[3] = rows[3] | {"diagnoses": [dataclasses.asdict(diagnosis)]}
    assert diagnose(rows, START, score) == ()


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
def test_the_untrained_loss_is_that_of_logits_of_zero(targets, smoothing):
    images = Images.from_arrays(np.zeros((60, 2, 2), np.uint8), targets)
    task = task_of(images)
    logits = torch.zeros(60, task.outputs)
    prepared = task.prepare(torch.from_numpy(images.targets))
    expected = float(task.loss(logits, prepared, smoothing))
    assert task.untrained_loss == pytest.approx(expected, rel=1e-5)
