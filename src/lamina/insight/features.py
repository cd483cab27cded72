"""What the last layer of a model sees of a picture: the features by which it tells pictures apart."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from lamina.data.images import Progress
from lamina.errors import NetError
from lamina.training.activations import innermost_paths, record_calls, watch
from lamina.training.model import Model, predict_logits
from lamina.training.tracing import fold_model

PICTURES_AT_ONCE = 2000


def find_last_layer(model: Model) -> str:
    """The module path of the linear layer or convolution that is called last, which gives the logits.

    Raises:
        NetError: there is none.

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> find_last_layer(build_model(load_net("mlp"), load_data("shapes").train, Recipe()))
    'body.3'
    """
    paths = [path for path in innermost_paths(model) if isinstance(model.get_submodule(path), nn.Linear | nn.Conv2d)]
    channels, height, width = model.in_shape
    called: list[str] = []
    with watch(model, paths, lambda path, _, __: called.append(path)):
        record_calls(model, torch.zeros(2, height, width, channels, dtype=torch.uint8), ())
    if not called:
        raise NetError("The model has no linear layer or convolution that could give its logits.")
    return called[-1]


def predict_with_features(
    model: Model, pixels: UInt8[np.ndarray, "n h w c"], progress: Progress | None = None
) -> tuple[Float32[np.ndarray, "n k"], Float[Tensor, "n d"]]:
    """The logits of pictures, and what the last layer makes them of, from one pass.

    Raises:
        NetError: the pictures are not of the model's shape, or no layer gives the logits.
    """
    path, folded = find_last_layer(model), fold_model(model)
    logits, features = [np.empty((0, model.task.outputs), np.float32)], []
    with watch(folded, [path], lambda _, given, __: features.append(given.flatten(1).float().cpu())):
        for start in range(0, len(pixels), PICTURES_AT_ONCE):
            logits.append(predict_logits(folded, pixels[start : start + PICTURES_AT_ONCE]))
            if progress is not None:
                progress(min(start + PICTURES_AT_ONCE, len(pixels)), len(pixels))
    return np.concatenate(logits), torch.cat(features) if features else torch.empty(0, 1)
