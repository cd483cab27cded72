"""Diagnoses of injected faults and of healthy trainings.

The benchmark injects each fault into each net, with several seeds, on the built-in shapes: the
diagnosis must have the fault's kind. The zoo's recipes on CIFAR-10 must give no diagnosis.

    python benchmarks/diagnoses.py --seeds 3 --json diagnoses.json
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import tyro
from processes import append_row
from rich.console import Console
from torch import nn

from lamina import Epoch, Images, Recipe, Training, load_data, load_net
from lamina.errors import NotFiniteError
from lamina.nets import (
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Net,
    Output,
    ReLU,
    Sigmoid,
)
from lamina.training.diagnosis import diagnose
from lamina.zoo import load_recipe, load_recipes

ZOO = ("mlp", "cnn", "cnn-s", "cnn-m", "cnn-l", "mlp-l")
INJECTED_IN = ("mlp", "cnn", "cnn-s")


@dataclasses.dataclass(frozen=True)
class Row:
    """A training: the injected fault (or ``healthy``), and the kinds of its diagnoses."""

    net: str
    injected: str
    seed: int
    found: tuple[str, ...]
    losses: tuple[float, ...]


def scale_weights(body: nn.Module) -> None:
    """Multiply all weights by 30."""
    for module in body.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.requires_grad:
            module.weight.mul_(30)


def lower_biases(body: nn.Module) -> None:
    """Set all biases but the last to -10."""
    biased = [module for module in body.modules() if getattr(module, "bias", None) is not None]
    for module in biased[:-1]:
        module.bias.fill_(-10)


def inject(
    name: str, images: Images, seed: int
) -> dict[str, tuple[Net, Images, Recipe, Callable[[nn.Module], None] | None]]:
    """Make the faults, by the expected kind: net, images, recipe, and a change of the weights."""
    net = load_net(name)
    recipe = dataclasses.replace(load_recipe(name), epochs=3, batch_size=100, seed=seed)
    if name == "mlp":
        deep = Net(
            Flatten(), *(layer for _ in range(20) for layer in (Linear(64), Sigmoid())), Output()
        )
        plain = net
    else:
        convolutions = (
            layer for _ in range(7) for layer in (Conv2d(16, 3, padding="same"), Sigmoid())
        )
        deep = Net(
            *convolutions,
            *((MaxPool2d(4), Flatten()) if name == "cnn" else (GlobalAvgPool(),)),
            Output(),
        )
        plain = net.without(BatchNorm)
    rectified = net.replace(LeakyReLU(), ReLU()) if name == "cnn" else net
    return {
        "learning-rate-too-high": (
            net,
            images,
            dataclasses.replace(recipe, lr=100 * recipe.lr),
            None,
        ),
        "learning-rate-too-low": (
            net,
            images,
            dataclasses.replace(recipe, lr=recipe.lr / 1000),
            None,
        ),
        "dying-relu": (rectified, images, recipe, lower_biases),
        "vanishing-gradients": (deep, images, recipe, None),
        "exploding-gradients": (plain, images, recipe, scale_weights),
        "healthy": (net, images, recipe, None),
    }


def train(
    name: str, injected: str, training: Training, change: Callable[[nn.Module], None] | None = None
) -> Row:
    """Train to the end and collect the diagnoses."""
    if change is not None:
        with torch.no_grad():
            change(training.model.body)
    rows, found, losses = [], [], []
    try:
        for event in training:
            if isinstance(event, Epoch):
                problems = diagnose([*rows, event.to_json()], training.start)
                rows.append(dataclasses.replace(event, diagnoses=problems).to_json())
                found += [problem.kind for problem in problems]
                losses.append(event.train_loss)
    except NotFiniteError:
        losses.append(float("nan"))
    return Row(name, injected, training.recipe.seed, tuple(found), tuple(losses))


def main(
    seeds: int = 3,
    healthy: int = 10_000,
    parts: str = "injected,zoo",
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Train, and compare the diagnoses with the injected faults.

    Args:
        seeds: number of seeds of each training.
        healthy: number of CIFAR-10 training images for the zoo's recipes.
        parts: injected, zoo, separated by commas.
        json_path: file for the results, one JSON object per line.
    """
    console, rows = Console(width=160), []
    if "injected" in parts:
        shapes = load_data("shapes").train.take(range(4000))
        for name in INJECTED_IN:
            for seed in range(seeds):
                for injected, (net, images, recipe, change) in inject(name, shapes, seed).items():
                    rows.append(
                        train(
                            name,
                            injected,
                            Training(net, images, dataclasses.replace(recipe, device="cpu")),
                            change,
                        )
                    )
    if "zoo" in parts:
        some = load_data("cifar10").train.take_evenly(healthy)
        for name in ZOO:
            trainings = (
                Training(load_net(name), some, dataclasses.replace(recipe, device="cpu"))
                for recipe in load_recipes(name).values()
            )
            rows += [train(name, "healthy", training) for training in trainings]
    for row in rows:
        is_expected = not row.found if row.injected == "healthy" else row.injected in row.found
        console.print(
            "as expected" if is_expected else "NOT as expected",
            row.net,
            row.injected,
            row.seed,
            row.found,
        )
        if json_path is not None:
            append_row(json_path, row)


if __name__ == "__main__":
    tyro.cli(main)
