"""A small net that has learned the shapes, stored with what trained it.

``python -m support.trained_nets`` in ``tests`` trains it again, which takes half a minute.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from lamina import Recipe, Training, load_data, load_recipe
from lamina.training.model import Model, build_model
from lamina.zoo import stack_blocks
from support.trainings import finish

FILE = Path(__file__).with_name("trained-on-shapes.safetensors")
NET = stack_blocks(12, 24, 24)
RECIPE = replace(load_recipe("cnn-s"), epochs=8, batch_size=100, normalization="unit")


def load_trained_on_shapes() -> Model:
    """The net, which predicts all of the few test images correctly."""
    model = build_model(NET, load_data("shapes").train, Recipe(normalization="unit"))
    model.load_state_dict(load_file(FILE))
    return model


def store() -> None:
    """Train the net on all shapes."""
    training = finish(Training(NET, load_data("shapes").train, RECIPE))
    weights = training.model.state_dict()
    save_file({name: weight.contiguous() for name, weight in weights.items()}, FILE)


if __name__ == "__main__":
    store()
