"""Where numbers go wrong, the layer is named and the weights are left as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lamina.errors import NotFiniteError
from lamina.nets import BatchNorm, Conv2d, Flatten, Linear, Net, Output, ReLU, Residual
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from support.trainings import random_images

HELP = "Try an lr below 0.001 or gradient_clip 1."
IMAGES = random_images(8, side_px=6)


class Root(nn.Module):
    """The root of what is positive: where nothing is, its value is 0 and its slope is no number."""

    def forward(self, x):
        return (x.relu() * 0).sqrt() + x


class Logarithm(nn.Module):
    def forward(self, x):
        return (x - 100).log()


class Own(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.flatten, self.first = nn.Flatten(), nn.Linear(108, 4)
        self.middle = middle
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.middle(self.first(self.flatten(x))))


NET = Net(
    Conv2d(2, 3),
    BatchNorm(),
    ReLU(),
    Residual(Conv2d(2, 3, padding="same")),
    Flatten(),
    Linear(4),
    Output(),
)


def poison(place: str, value: float):
    """A net with a weight that is a number, and too large for what comes after."""

    def make() -> Training:
        training = Training(NET, IMAGES, Recipe(precision="fp32"))
        with torch.no_grad():
            training.model.body.get_parameter(place).fill_(value)
        return training

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            poison("0.weight", 3e38),
            "The loss became NaN at step 1 of epoch 1. The first values that are not "
            "finite: the activations of layer 1 Conv2d.",
        ),
        (
            poison("5.weight", 3e38),
            "The loss became NaN at step 1 of epoch 1. The first values that are not "
            "finite: the activations of layer 6 Linear.",
        ),
        (
            poison("3.body.0.weight", 3e38),
            "The loss became NaN at step 1 of epoch 1. The first values that are not "
            "finite: the activations of layer 4.body.0 Conv2d.",
        ),
        (
            poison("6.bias", float("nan")),
            "The loss became NaN at step 1 of epoch 1. The first values that are "
            "not finite: the weights of layer 7 Output.",
        ),
        (
            lambda: Training(Own(Logarithm()), IMAGES, Recipe()),
            "The loss became NaN at step 1 of epoch 1. "
            "The first values that are not finite: the activations of layer middle Logarithm.",
        ),
    ],
    ids=[
        "first activations",
        "later activations",
        "inside a residual",
        "a weight",
        "own module",
    ],
)
def test_the_first_layer_that_goes_wrong_is_named(make, message):
    training = make()
    with pytest.raises(NotFiniteError) as stopped:
        next(iter(training))
    text = str(stopped.value)
    assert text.replace("The loss became infinity", "The loss became NaN") == f"{message} {HELP}"


def test_the_weights_are_those_before_the_step_that_went_wrong():
    class WrongInTheThird(Own):
        def forward(self, x):
            self.step = getattr(self, "step", 0) + self.training
            return super().forward(x) * (1e39 if self.step >= 3 else 1)

    training = Training(
        WrongInTheThird(nn.ReLU()), IMAGES, Recipe(batch_size=2), steps_per_record=1
    )
    steps = iter(training)
    next(steps), next(steps)
    before = training.checkpoint()
    with pytest.raises(NotFiniteError, match="at step 3 of epoch 1"):
        next(steps)
    after = training.checkpoint()
    assert after.standing == before.standing
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)


class Scaled(nn.Module):
    """A linear layer with scaled input and output: both scale its weight's gradient."""

    def __init__(self, before: float, after: float) -> None:
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(108, 3)
        self.before, self.after = before, after

    def forward(self, x):
        return self.linear(self.flatten(x) * self.before) * self.after


@pytest.mark.parametrize(
    ("before", "after", "unsound"),
    [
        (
            1e37,
            1e4,
            "body.linear.weight of the model",
        ),  # the weight's gradient overflows, and the bias's does not
        (1.0, 1e22, "0.exp_avg_sq of the optimizer's state"),  # its square does
    ],
)
def test_an_epoch_that_left_what_is_no_number_is_not_given(before, after, unsound):
    training = Training(Scaled(before, after), IMAGES, Recipe(precision="fp32"), steps_per_record=1)
    with torch.no_grad():
        for weight in training.model.parameters():
            weight.zero_()
    with pytest.raises(NotFiniteError) as rejected:
        list(training)
    assert (
        str(rejected.value)
        == f"{unsound} contains NaN or infinity, so no checkpoint was saved. Try an lr below 0.001"
        " or gradient_clip 1."
    )


def test_logits_too_large_for_the_loss_name_their_layer():
    training = Training(
        Net(Flatten(), Linear(4), ReLU(), Output()), IMAGES, Recipe(precision="fp32")
    )
    with torch.no_grad():
        training.model.body[-1].weight.zero_()
        training.model.body[-1].bias.copy_(torch.tensor([1e38, 0.0, -1e38]))
    with pytest.raises(NotFiniteError) as stopped:
        next(iter(training))
    expected = "The first values that are not finite: the loss, for logits up to 1.0e+38. "
    assert expected in str(stopped.value)


@pytest.mark.parametrize("initial_fraction", [0.0, 0.5])
@pytest.mark.parametrize("is_weight", [False, True])
def test_an_infinity_that_a_module_holds_on_purpose_is_no_fault(is_weight, initial_fraction):
    module, mask = Own(nn.ReLU()), torch.tensor([0.0, -float("inf")])
    if is_weight:
        module.mask = nn.Parameter(mask, requires_grad=False)
    else:
        module.register_buffer("mask", mask)
    recipe = Recipe(epochs=2, precision="fp32", initial_fraction=initial_fraction)
    training = Training(module, IMAGES, recipe)
    list(training)
    tensors = training.checkpoint().tensors
    for kind in ("live", "initial") if initial_fraction else ("live",):
        assert tensors[f"{kind}.body.mask"].tolist() == [0.0, -float("inf")]


def test_an_lr_of_a_thousand_times_too_much_is_found_by_training():
    training = Training(NET.without(BatchNorm), IMAGES, Recipe(lr=1e20, optimizer="sgd", epochs=50))
    with pytest.raises(
        NotFiniteError, match="The first values that are not finite: the activations of layer"
    ):
        list(training)
    assert all(torch.isfinite(weight).all() for weight in training.model.parameters())


def test_a_gradient_that_is_not_finite_shows_in_the_next_step_as_weights():
    training = Training(
        Own(Root()), IMAGES, Recipe(batch_size=4, precision="fp32"), steps_per_record=1
    )
    steps = iter(training)
    next(steps)
    with pytest.raises(NotFiniteError, match=r"so no checkpoint was saved"):
        training.checkpoint()
    with pytest.raises(
        NotFiniteError, match=r"step 2 of epoch 1.*the weights of layer first Linear"
    ):
        next(steps)
