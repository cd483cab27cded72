"""The outputs of a net for an image before training."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float32

from lamina.data import Images
from lamina.errors import NetError
from lamina.nets import Net, Shape
from lamina.nets.costs import summarize_layers
from lamina.training.hooks import module_paths, record_calls
from lamina.training.model import build_model
from lamina.training.randomness import drawing_weights
from lamina.training.recipe import Recipe
from lamina.training.task import task_of

SAME = 1e-3  # relative difference of inputs and outputs that look the same
# Limits of a net that is edited: a gigabyte, and some seconds.
MOST_VALUES = 10**8
MOST_MULTIPLY_ADDS = 64 * 10**8


def run_untrained(net: Net, images: Images, row: int) -> list[Float32[np.ndarray, ...] | None]:
    """The output of each layer for an image, with the weights of seed 0.

    ``None`` for a layer whose output looks like its input.
    """
    check_affordable(net.with_outputs(task_of(images).outputs), images.shape)
    with drawing_weights(seed=0):
        model = build_model(net, images, Recipe())
    pixels = np.ascontiguousarray(images.pixels[row : row + 1])
    paths = module_paths(model)
    calls = record_calls(model, torch.from_numpy(pixels), paths)
    outputs: list[Float32[np.ndarray, ...] | None] = []
    for path in paths:
        before, after = (values.flatten() for values in calls[path])
        is_same = len(before) == len(after) and torch.allclose(before, after, rtol=SAME)
        outputs.append(None if is_same else calls[path].output[0].float().numpy())
    return outputs


def check_affordable(net: Net, shape: Shape) -> None:
    """Raise ``NetError`` for a net that is too large to be tried while it is edited."""
    summary = summarize_layers(net.layers, shape)
    values = (
        summary.parameters
        + 2 * math.prod(shape)
        + sum(math.prod(row.out_shape) for row in summary.rows)
    )
    if summary.multiply_adds > MOST_MULTIPLY_ADDS or values > MOST_VALUES:
        raise NetError("The net is too large to be tried while it is edited.")
