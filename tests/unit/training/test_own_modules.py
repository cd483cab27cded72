"""Modules of the user's own: each trains, or gets one message that says what was expected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lamina.data import Images
from lamina.errors import NetError
from lamina.training.loop import Training
from lamina.training.prediction import predict_logits
from lamina.training.recipe import Recipe
from support.trainings import finish, random_images, same, weights

IMAGES = random_images(12, side_px=32)


def images_with_targets(kind: str) -> Images:
    generator = np.random.default_rng(0)
    targets, names = {
        "single-label": (IMAGES.targets, IMAGES.target_names),
        "multi-label": (generator.random((12, 3)) < 0.5, IMAGES.target_names),
        "binary": (np.arange(12) % 2 == 0, ("cat",)),
        "regression": (generator.random((12, 1), np.float32), ("weight",)),
    }[kind]
    return dataclasses.replace(IMAGES, targets=targets, target_names=names)


def head(*after: nn.Module, outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, outputs), *after)


def lazy() -> nn.Sequential:
    return nn.Sequential(
        nn.LazyConv2d(4, 3),
        nn.LazyBatchNorm2d(),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(5),
        nn.ReLU(),
        nn.LazyLinear(3),
    )


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, stride=8)
        self.place = nn.Parameter(torch.zeros(1, 16, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(
            self.encoder(self.embed(x).flatten(2).transpose(1, 2) + self.place).mean(dim=1)
        )


class Shared(nn.Module):
    """One layer used three times, and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(12, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.again = self.middle
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.middle.weight

    def forward(self, x):
        x = self.first(functional.adaptive_avg_pool2d(x, 2).flatten(1)).relu()
        return self.last(self.tied(self.again(self.middle(self.middle(x).relu()).relu())))


class Widths(nn.Module):
    """One activation at two widths, as torchvision's bottlenecks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.relu = nn.Linear(12, 9), nn.Linear(9, 3), nn.ReLU()

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.relu(self.narrow(self.relu(self.wide(x)))) - 1


class Returning(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.head, self.make = head(), make

    def forward(self, x):
        return self.make(self, self.head(x))


def make_mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=3)


def own(name: str) -> nn.Module:
    torch.manual_seed(0)
    return {
        "mobilenet": make_mobilenet,
        "transformer": Transformer,
        "shared": Shared,
        "widths": Widths,
        "lazy": lazy,
        "rectified": lambda: Returning(lambda _, logits: logits.relu()),
        "reshaped": lambda: Returning(
            lambda _, logits: logits.sigmoid().mean() + logits.view(-1, 3, 1).squeeze(2)
        ),
    }[name]()


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("mobilenet", "fp32"),
        ("transformer", "bf16"),
        ("shared", "fp32"),
        ("widths", "fp32"),
        ("lazy", "bf16"),
        ("rectified", "fp32"),
        ("reshaped", "fp32"),
    ],
)
def test_a_module_that_gives_logits_trains(name, precision):
    recipe = Recipe(epochs=1, batch_size=4, initial_fraction=0.5, precision=precision)
    training = Training(own(name), IMAGES, recipe)
    before = weights(training)
    after = weights(finish(training))
    assert not same(before, after)
    assert predict_logits(training.model, IMAGES.pixels).shape == (12, 3)


def test_lazy_layers_take_their_weights_from_the_seed():
    def draw(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        return weights(Training(lazy(), IMAGES, Recipe(epochs=1, seed=seed)))

    first = draw(0, noise=1)
    assert same(first, draw(0, noise=2))
    assert not same(first, draw(1, noise=1))


class WithState(nn.Flatten):
    """Keeps something that is no tensor."""

    def get_extra_state(self):
        return {"seen": 1}

    def set_extra_state(self, _): ...


END = "Remove the {0}."
LOGITS = (
    "The module must return logits, because the loss computes probabilities from them, but it ends"
    " in a {0}. " + END
)
NUMBERS = (
    "The module must return unbounded numbers, because targets are standardized, but it ends in a"
    " {0}. " + END
)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: Returning(lambda _, logits: (logits, logits)),
            "single-label",
            "The module must return one tensor of logits, but its forward returned a tuple. "
            "Return only the logits.",
        ),
        (
            lambda: Returning(lambda _, logits: {"logits": logits}),
            "single-label",
            "The module must return one tensor of logits, but its forward returned a dict. "
            "Return only the logits.",
        ),
        (
            lambda: Returning(lambda _, logits: logits.detach()),
            "single-label",
            "The module must return differentiable real logits, but returned torch.float32 "
            "without a gradient. "
            "Remove calls such as detach() or argmax().",
        ),
        (
            lambda: Returning(lambda module, logits: module.missing),
            "single-label",
            "The module failed on normalized images of shape (2, 3, 32, 32): "
            "AttributeError: 'Returning' object has no "
            "attribute 'missing'",
        ),
        (lambda: head(nn.Softmax(1)), "single-label", LOGITS.format("Softmax")),
        (
            lambda: Returning(lambda _, logits: logits.softmax(1)[:, :]),
            "single-label",
            LOGITS.format("Softmax"),
        ),
        (lambda: head(nn.LogSoftmax(1)), "single-label", LOGITS.format("LogSoftmax")),
        (lambda: head(nn.Sigmoid()), "multi-label", LOGITS.format("Sigmoid")),
        (
            lambda: Returning(lambda _, logits: logits.sigmoid().view(-1, 1, 3).squeeze(1)),
            "multi-label",
            LOGITS.format("Sigmoid"),
        ),
        (lambda: head(nn.Sigmoid(), outputs=1), "binary", LOGITS.format("Sigmoid")),
        (lambda: head(nn.Sigmoid(), outputs=1), "regression", NUMBERS.format("Sigmoid")),
        (lambda: head(nn.Tanh(), outputs=1), "regression", NUMBERS.format("Tanh")),
        (
            lambda: head().double(),
            "single-label",
            "The weights of the module must be torch.float32, but 2.weight is torch.float64. "
            "Call module.float() first.",
        ),
        (
            lambda: lazy().half(),
            "single-label",
            "The weights of the module must be torch.float32, but 0.weight is torch.float16. "
            "Call module.float() first.",
        ),
        (
            lambda: nn.Sequential(WithState(), nn.Linear(3072, 3)),
            "single-label",
            "0._extra_state of the module's state is not a tensor, but lamina stores only tensors. "
            "Keep the state in buffers with self.register_buffer(name, tensor).",
        ),
        (
            lambda: head().requires_grad_(False),
            "single-label",
            "The net has no trainable weights. Add a layer that has some, such as Output().",
        ),
        (
            lambda: nn.Sequential(nn.LazyConv2d(4, 50), nn.Flatten(), nn.LazyLinear(3)),
            "single-label",
            "The module failed on normalized images of shape (2, 3, 32, 32): RuntimeError: "
            "Calculated padded input size per channel: (32 x 32). Kernel size: (50 x 50). "
            "Kernel size can't be greater than actual input size",
        ),
    ],
)
def test_a_module_that_cannot_be_trained_gets_one_message(make, kind, message):
    with pytest.raises(NetError) as rejected:
        Training(make(), images_with_targets(kind), Recipe(epochs=1))
    assert str(rejected.value) == message


def test_a_module_that_returns_more_in_training_is_refused():
    module = Returning(lambda self, logits: (logits, logits) if self.training else logits)
    with pytest.raises(NetError) as rejected:
        list(Training(module, IMAGES, Recipe(epochs=1, precision="fp32")))
    assert (
        str(rejected.value)
        == "The module must return one tensor of logits, but its forward returned a tuple in"
        " training mode. Return only the logits."
    )
