"""Injected faults are found, each by its name, and healthy trainings are not disturbed."""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

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
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Sigmoid,
    Tanh,
)
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.activations import activations
from lamina.training.checkpoint import Standing
from lamina.training.diagnosis import diagnose, find_overfitting, learns_nothing
from lamina.training.doctor import (
    LOSS_STEPS,
    constant_loss,
    fit_few,
    keep_buffers,
    measure_activity,
)
from lamina.training.events import Diagnosis, Step
from lamina.training.observation import Activity, Observation
from lamina.training.task import task_of
from lamina.training.tensors import digest_tensors
from lamina.values import fields_to_json, from_json_values
from support.trainings import same

MLP = load_net("mlp")
SMALL = Net(
    Conv2d(8, 3), BatchNorm(), ReLU(), MaxPool2d(4), Flatten(), Linear(32), ReLU(), Output()
)
DEEP = Net(Flatten(), *(layer for _ in range(8) for layer in (Linear(32), Sigmoid())), Output())
RECIPE = dataclasses.replace(load_recipe("mlp"), epochs=3, batch_size=50)


@pytest.fixture(scope="module")
def images() -> Images:
    return load_data("shapes").train.take(range(2000))


def list_diagnoses(
    net: Net, images: Images, recipe: Recipe, inject: Callable[[nn.Module], None] | None = None
) -> list[Diagnosis]:
    training = Training(net, images, recipe, device="cpu")
    if inject is not None:
        with torch.no_grad():
            inject(training.model.body)
    return [found for event in training if isinstance(event, Epoch) for found in event.diagnoses]


def scale_weights(body: nn.Module) -> None:
    for module in body.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.mul_(30)


def lower_biases(body: nn.Module) -> None:
    for module in body.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
            module.bias.fill_(-50)


def enlarge_head(body: nn.Module) -> None:
    list(body.modules())[-1].weight.mul_(100)


def shuffle(images: Images) -> Images:
    return dataclasses.replace(images, targets=np.random.default_rng(0).permutation(images.targets))


def darken(images: Images) -> Images:
    return dataclasses.replace(images, pixels=images.pixels // 64)


def make_lopsided(images: Images) -> Images:
    is_rare = np.random.default_rng(0).random(len(images)) < 0.02
    return dataclasses.replace(images, targets=np.where(is_rare, images.targets, 3))


def keep(images: Images) -> Images:
    return images


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "net", "change", "alter", "inject"),
    [
        ("learning-rate-too-high", MLP, {"lr": 0.1}, keep, None),
        ("learning-rate-too-high", SMALL, {"lr": 0.1}, keep, None),
        ("learning-rate-too-low", MLP, {"lr": 1e-6}, keep, None),
        ("dying-relu", SMALL, {}, keep, lower_biases),
        ("exploding-gradients", SMALL.without(BatchNorm), {}, keep, scale_weights),
        ("labels-look-shuffled", MLP, {"lr": 3e-4, "batch_size": 20}, shuffle, None),
        ("inputs-out-of-scale", SMALL, {}, darken, None),
        ("one-class-predicted", MLP, {}, make_lopsided, None),
        ("initial-loss-too-high", SMALL, {}, keep, enlarge_head),
    ],
)
def test_an_injected_fault_is_found(kind, net, change, alter, inject, images):
    found = list_diagnoses(net, alter(images), dataclasses.replace(RECIPE, **change), inject)
    assert kind in [diagnosis.kind for diagnosis in found]
    assert len({diagnosis.kind for diagnosis in found}) == len(found)  # each once
    diagnosis = next(one for one in found if one.kind == kind)
    assert diagnosis.evidence
    assert str(diagnosis) == f"diagnosis: {kind}: {diagnosis.finding} {diagnosis.advice}"


def test_flat_activations_vanish_and_large_weights_saturate(images):
    (vanishing,) = list_diagnoses(DEEP, images, RECIPE)
    assert (vanishing.kind, vanishing.layer) == ("vanishing-gradients", "layer 2 of 18, Linear(32)")
    found = list_diagnoses(MLP.replace(ReLU(), Tanh()), images, RECIPE, scale_weights)
    assert "saturation" in [diagnosis.kind for diagnosis in found]


def test_units_that_die_on_the_way_are_dated(images):
    training = Training(MLP, images, dataclasses.replace(RECIPE, epochs=6), device="cpu")
    biases = training.model.body[1].bias
    found = []
    for event in training:
        if isinstance(event, Epoch):
            found += event.diagnoses
            if event.epoch in (3, 5):  # looks are after epochs 1, 5 and 6
                with torch.no_grad():
                    biases[: 35 if event.epoch == 3 else 60].fill_(-50)
    (dying,) = [one for one in found if one.kind == "dying-relu"]
    assert (dying.epoch, dying.layer) == (6, "layer 3 of 4, ReLU()")
    assert dying.evidence["since_epoch"] == 5
    text = (
        r"In layer 3 of 4, ReLU\(\), 6\d % of the units are dead: 0 for all of 100 images\. "
        r"The fraction has been 25 % or more since epoch 5\. "
        r"One step changed the weights by up to [\d.]+ times their norm\."
    )
    assert re.fullmatch(text, dying.finding)


def test_layer_statistics_are_those_of_the_last_step_and_of_the_weights_after_it(images):
    some, recipe = (
        images.take(range(500)),
        Recipe(epochs=1, batch_size=100, lr=0.01, precision="fp32"),
    )
    training = Training(MLP, some, recipe, device="cpu", steps_per_record=1)
    weights = [
        module.weight for module in training.model.body.modules() if isinstance(module, nn.Linear)
    ]
    before: list[torch.Tensor] = []
    for event in training:
        if isinstance(event, Epoch):
            break
        before = [weight.detach().clone() for weight in weights]
    layers, seen = event.layers, some.take_evenly(100).pixels
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
    assert layers.inactive_fractions[1] == pytest.approx(np.mean(hidden.max(axis=0) == 0), abs=1e-4)
    assert layers.inactive_fractions[::2] == [None, None]


def say(events: Iterable[Step | Epoch]) -> list[tuple[object, ...]]:
    return [
        (event.epoch, event.layers, event.diagnoses) for event in events if isinstance(event, Epoch)
    ]


def make_dying(images: Images) -> Training:
    """A training at a low rate on wrong labels; most units are dead from the first epoch."""
    some = images.take(range(1000))
    some = Images(some.pixels, np.roll(some.targets, 1), some.target_names, some.names, "train")
    recipe = dataclasses.replace(RECIPE, epochs=6, batch_size=25, lr=3e-5, schedule="constant")
    training = Training(MLP, some, recipe, device="cpu")
    with torch.no_grad():
        training.model.body[1].bias[:80] = -50.0
    return training


@pytest.fixture(scope="module")
def said(images) -> list[tuple[object, ...]]:
    """What a dying training says that nobody stops."""
    return say(make_dying(images))


@pytest.mark.slow
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
    assert kinds[0] == "dying-relu"
    assert len(kinds) == len(set(kinds)) > 1
    assert said[0][1].names == ["2 Linear", "3 ReLU", "4 Output"]


@pytest.mark.slow
@pytest.mark.parametrize("net", [MLP, SMALL, load_net("cnn-s")], ids=["mlp", "small", "cnn-s"])
def test_a_healthy_training_gives_no_diagnosis(net, images):
    recipe = (
        dataclasses.replace(load_recipe("cnn-s"), epochs=2, batch_size=100)
        if len(net) > 10
        else RECIPE
    )
    assert list_diagnoses(net, images, recipe) == []


OBSERVED = Observation(
    epoch=1,
    steps=40,
    recipe=Recipe(),
    layers=[],
    names={},
    checks=[],
    raised=0,
    asked=0,
    activity=None,
    since={},
    losses=[2.0],
    initial_loss=2.4,
    constant_loss=2.3,
    guess_loss=2.3,
    lr=0.06,
    lr_fraction=0.5,
    kind=SINGLE_LABEL,
    classes=10,
    images_seen=2000,
)
"""What a doctor sees of a training in its first epoch."""


@pytest.mark.parametrize(("steps", "is_diagnosed"), [(8, False), (40, True)])
def test_a_loss_that_rises_in_the_first_steps_is_not_yet_a_fault(steps, is_diagnosed):
    seen = dataclasses.replace(OBSERVED, steps=steps, losses=[3.8])
    assert [one.kind for one in diagnose(seen, ())] == (
        ["learning-rate-too-high"] if is_diagnosed else []
    )


@pytest.mark.parametrize(("standard_errors", "has_learned"), [(2, False), (6, True)])
def test_a_first_accuracy_that_chance_explains_does_not_excuse_shuffled_labels(
    standard_errors, has_learned
):
    seen = dataclasses.replace(
        OBSERVED,
        epoch=2,
        steps=200,
        losses=[2.3, 2.3],
        images_seen=4000,
        baseline_accuracy=0.1,
        first_accuracy=0.1 + standard_errors * (0.1 * 0.9 / 2000) ** 0.5,
    )
    assert learns_nothing(seen) is not has_learned


@pytest.mark.parametrize(("steps", "is_diagnosed"), [(8, False), (40, True)])
def test_units_that_are_silent_while_batch_norms_have_seen_few_batches_are_not_yet_dead(
    steps, is_diagnosed
):
    activity = Activity(100, {}, {"body.2": 0.7}, {}, predicted_classes=10, classes=10)
    seen = dataclasses.replace(
        OBSERVED,
        steps=steps,
        names={"body.2": "layer 3"},
        activity=activity,
        since={"body.2": 1},
        images_seen=400,
    )
    assert [one.kind for one in diagnose(seen, ())] == (["dying-relu"] if is_diagnosed else [])


class Absent:
    """No doctor."""

    def watch(self, *_: object) -> AbstractContextManager[None]:
        return nullcontext()

    def examine(self, epoch: Epoch, _lr: float) -> Epoch:
        return epoch

    def to_json(self) -> dict[str, object]:
        return {}


@pytest.mark.slow
def test_the_weights_are_those_of_a_training_without_a_doctor(images):
    recipe = Recipe(epochs=2, batch_size=15, dropout=0.3, initial_fraction=0.5)
    net = Net(Conv2d(4, 3, stride=2), BatchNorm(), ReLU(), Flatten(), *load_net("cnn").layers[-2:])
    some = images.take(range(1600))  # 106 steps an epoch, one of which is asked about its loss
    assert len(some) // 15 >= LOSS_STEPS
    digests = []
    for has_doctor in (True, False):
        training = Training(net, some, recipe, device="cpu")
        if not has_doctor:
            training._doctor = Absent()
        assert [event.epoch for event in training if isinstance(event, Epoch)] == [1, 2]
        digests.append(digest_tensors(training.checkpoint().tensors))
    assert digests[0] == digests[1]


def test_what_is_seen_of_a_net_built_by_hand(images):
    training = Training(Net(Flatten(), Linear(4), ReLU(), Output()), images, Recipe(), device="cpu")
    linear = training.model.body[1]
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([-1.0, 1.0, -2.0, -3.0]))
    activity = measure_activity(training.model, images.take(range(50)))
    assert activity.dead == {"body.2": 0.75}
    assert activity.predicted_classes == 1
    assert activity.classes == len(np.unique(images.targets[:50]))
    inputs = images.pixels[:50] / 127.5 - 1
    assert list(activity.inputs) == ["body.1", "body.3"]
    assert activity.inputs["body.1"].mean == pytest.approx(inputs.mean(), abs=1e-4)
    assert activity.inputs["body.1"].standard_deviation == pytest.approx(inputs.std(), rel=1e-3)
    # one unit of four is 1, the others 0
    assert activity.inputs["body.3"] == pytest.approx((0.25, 0.75**0.5 / 2))


def test_buffers_are_put_back(images):
    model = Training(SMALL, images, Recipe(), device="cpu").model
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with keep_buffers(model):
        model.train()(torch.from_numpy(images.pixels[:8]))
        assert not all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


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


def test_overfitting_needs_a_falling_training_loss_and_several_worse_epochs():
    rows = overfitting_rows()
    found = find_overfitting(rows)
    assert (found.kind, found.epoch) == ("overfitting", 5)
    assert "rose from 0.8 after epoch 2 to 1, while the training loss fell to 0.2" in found.finding
    assert "Try patience 5" in found.advice
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
def test_the_loss_of_a_constant_prediction_is_that_over_all_images(targets, smoothing):
    images = Images.from_arrays(np.zeros((60, 2, 2), np.uint8), targets)
    task, given = task_of(images), torch.from_numpy(images.targets)
    if images.kind is SINGLE_LABEL:
        logits = (torch.bincount(given) / 60).log()
    elif images.kind is REGRESSION:
        logits = torch.zeros(1)
    else:
        logits = given.float().view(60, -1).mean(dim=0).logit()
    expected = float(task.loss(logits.expand(60, -1), given, smoothing))
    assert constant_loss(task, images, Recipe(label_smoothing=smoothing)) == pytest.approx(
        expected, rel=1e-5
    )


TINY = Net(Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "change"),
    [
        (TINY, {}),
        (TINY, {"lr": 3e-4}),
        (Net(Flatten(), Linear(4), ReLU(), Output()), {}),
        (Net(Conv2d(4, 3), ReLU(), MaxPool2d(4), Flatten(), Output()), {"lr": 3e-4}),
    ],
)
def test_a_small_net_that_has_not_learned_yet_does_not_blame_the_labels(net, change, images):
    recipe = dataclasses.replace(RECIPE, epochs=2, batch_size=20, **change)
    assert "labels-look-shuffled" not in [
        found.kind for found in list_diagnoses(net, images, recipe)
    ]


def test_the_labels_are_not_blamed_while_a_linear_net_is_better_than_the_baseline():
    recipe = Recipe(epochs=2, batch_size=40, lr=6.3e-4)
    training = Training(Net(Flatten(), Output()), load_data("shapes").train, recipe, device="cpu")
    _, second = [event for event in training if isinstance(event, Epoch)]
    # worse than a constant prediction, but its accuracy is better
    assert second.train_loss > math.log(10)
    assert second.train_accuracy > 0.13
    assert second.diagnoses == ()


def test_fitting_a_few_images_leaves_the_model_as_it_was(images):
    training = Training(SMALL, images, Recipe(lr=0.01), device="cpu")
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    torch.manual_seed(0)
    assert fit_few(training.model, images, training.recipe) < 0.1
    drawn = torch.rand(2)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(2), drawn)
    assert same(training.model.state_dict(), before)
    assert not any(module.training for module in training.model.modules())
