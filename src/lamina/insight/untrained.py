"""The outputs of a net for an image before training."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32

from lamina.data import Images
from lamina.nets import Net
from lamina.training.hooks import module_paths, record_calls
from lamina.training.layer_times import count_affordable
from lamina.training.model import build_model
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.task import task_of

SAME = 1e-3  # relative difference of inputs and outputs that look the same


def run_untrained(net: Net, images: Images, row: int) -> list[Float32[np.ndarray, ...] | None]:
    """The output of each layer for an image, with the weights of seed 0.

    ``None`` for a layer whose output looks like its input.
    """
    count_affordable(net.with_outputs(task_of(images).outputs), images.shape, 1)
    with seeded(derive_seed(0, "weights"), torch.device("cpu")):
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
