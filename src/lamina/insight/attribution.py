"""Attribution maps: how much the prediction depends on each pixel.

The functions accept a model, uint8 images (N, H, W, C) and, for each image, the index of the output
to explain (a class or label, the index of a number, or 0 for binary). They return maps (N, H, W)
for the logit of this output: positive values are evidence for the output, negative values evidence
against it. They change neither the model nor torch's random generators.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import ceil, prod
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lamina.data.arrays import to_array
from lamina.errors import DataError, NetError
from lamina.nets.window import Pair
from lamina.targets import MULTI_LABEL, SINGLE_LABEL
from lamina.training.hooks import call_order, layer_gradients, module_paths
from lamina.training.model import PREDICTED_PIXELS, Model, check_input, eval_mode
from lamina.training.randomness import seeded
from lamina.training.task import Pixels, Task

Indices: TypeAlias = Int64[np.ndarray, " n"]
Map: TypeAlias = Float32[np.ndarray, "h w"]
Maps: TypeAlias = Float32[np.ndarray, "n h w"]

STEPS = 32  # of integrated gradients in commands and servers
FOR = (178, 24, 43)  # red
AGAINST = (33, 102, 172)  # blue
# differentiated at once: a backward pass keeps the outputs of all layers
GRADIENT_PIXELS = 100 * 32 * 32


def occlusion(
    model: Model,
    pixels: Pixels,
    targets: Indices,
    *,
    window_px: Pair | None = None,
    stride_px: Pair | None = None,
) -> Maps:
    """Occlusion: cover the image with a window, and measure how much the logit falls.

    The window has the mean color. A pixel's value is the mean over all windows that cover it.

    Args:
        model: the model to explain.
        pixels: uint8 images (N, H, W, C).
        targets: index of the output to explain, for each image.
        window_px: height and width of the window; by default an eighth of the image's shorter side.
        stride_px: vertical and horizontal step of the window; by default half of the window.

    Returns:
        The maps (N, H, W), in units of the logit.

    Raises:
        DataError: a target is not the index of an output.
        NetError: the images do not have the model's input shape.

    Zeiler and Fergus, Visualizing and understanding convolutional networks, arXiv 1311.2901,
    section 4.2.

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> shapes = load_data("shapes")
    >>> model = build_model(load_net("mlp"), shapes.train, Recipe())
    >>> occlusion(model, shapes.test.pixels[:2], shapes.test.targets[:2]).shape
    (2, 32, 32)
    """
    pixels, targets = _check(model, pixels, targets)
    height, width = pixels.shape[1:3]
    side = window_side_px(height, width)
    window = window_px or (side, side)
    stride = stride_px or (max(1, window[0] // 2), max(1, window[1] // 2))
    rows = _cut(height, window[0], stride[0])
    columns = _cut(width, window[1], stride[1])
    windows = list(product(rows, columns))
    totals = np.zeros(pixels.shape[:3])
    with torch.inference_mode(), float_inputs(model, pixels) as inputs:
        before = model.body(inputs)
        for row, target in enumerate(targets.tolist()):
            for chunk in _chunks(len(windows), PREDICTED_PIXELS // (height * width)):
                chosen = windows[chunk]
                covered = inputs[row].repeat(len(chosen), 1, 1, 1)
                for copy, place in zip(covered, chosen, strict=True):
                    copy[:, *place] = 0  # the mean color, normalized
                falls = (before[row, target] - model.body(covered)[:, target]).tolist()
                for place, fall in zip(chosen, falls, strict=True):
                    totals[row][place] += fall
    counts = np.zeros((height, width))
    for place in windows:
        counts[place] += 1
    maps = totals / np.maximum(counts, 1)
    return maps.astype(np.float32)


def _cut(size: int, length: int, step: int) -> list[slice]:
    """Slices of ``length`` that cover a side of an image."""
    starts = range(0, step * ceil(max(0, size - length) / step) + 1, step)
    return [slice(start, start + length) for start in starts]


def integrated_gradients(
    model: Model,
    pixels: Pixels,
    targets: Indices,
    *,
    steps: int = 50,
    baseline: Sequence[float] | None = None,
) -> Maps:
    """Integrated gradients: the difference from a baseline image, times the mean gradient.

    The mean is over the path between the two images. With enough ``steps``, a map sums to the
    difference of the logit between the image and the baseline.

    Args:
        model: the model to explain.
        pixels: uint8 images (N, H, W, C).
        targets: index of the output to explain, for each image.
        steps: number of gradients on the path (Gauss-Legendre quadrature).
        baseline: color of the baseline image, 0 to 255 for each channel; by default the mean of the
            training images.

    Returns:
        The maps (N, H, W), summed over the channels, in units of the logit.

    Raises:
        DataError: a target is not the index of an output.
        NetError: the images do not have the model's input shape, or ``steps`` is not a positive
            integer.

    Sundararajan, Taly, Yan, Axiomatic attribution for deep networks, arXiv 1703.01365, equation 1.

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> shapes = load_data("shapes")
    >>> model = build_model(load_net("mlp"), shapes.train, Recipe())
    >>> integrated_gradients(model, shapes.test.pixels[:2], shapes.test.targets[:2], steps=4).shape
    (2, 32, 32)
    """
    pixels, targets = _check(model, pixels, targets)
    if not isinstance(steps, int) or steps < 1:
        raise NetError(
            f"steps is {steps!r:.60}; it must be an integer of at least 1. Use steps=50."
        )
    places, weights = np.polynomial.legendre.leggauss(steps)  # on -1 to 1
    maps = np.empty(pixels.shape[:3], np.float32)
    with torch.enable_grad(), float_inputs(model, pixels) as inputs:
        color = (np.array(baseline or model.mean) - model.mean) / model.std
        empty = inputs.new_tensor(color).view(-1, 1, 1)
        fractions = inputs.new_tensor((1 + places) / 2).view(-1, 1, 1, 1)
        shares = inputs.new_tensor(weights / 2).view(-1, 1, 1, 1)
        for number, target in enumerate(targets.tolist()):
            difference = inputs[number] - empty
            mean_gradient = torch.zeros_like(difference)
            for chunk in _chunks(steps, GRADIENT_PIXELS // difference[0].numel()):
                on_the_way = (empty + fractions[chunk] * difference).requires_grad_()
                (gradients,) = torch.autograd.grad(
                    model.body(on_the_way)[:, target].sum(), on_the_way
                )
                mean_gradient += (shares[chunk] * gradients).sum(dim=0)
            maps[number] = (difference * mean_gradient).sum(dim=0).cpu().numpy()
    return maps


def grad_cam(
    model: Model,
    pixels: Pixels,
    targets: Indices,
    layer: int | str | None = None,
) -> Maps:
    """Grad-CAM: the channels of a layer's output, weighted by the logit's mean gradient.

    Unlike the paper, this keeps negative values: they are evidence against the output.

    Args:
        model: the model to explain.
        pixels: uint8 images (N, H, W, C).
        targets: index of the output to explain, for each image.
        layer: number of the layer in the net, from 1, or its module path; by default the last layer
            whose output has height and width.

    Returns:
        The maps (N, H, W), enlarged bilinearly to the size of the images.

    Raises:
        DataError: a target is not the index of an output.
        NetError: the images do not have the model's input shape, or the layer's output has no
            height and width.

    Selvaraju et al., Grad-CAM, arXiv 1610.02391, equations 1 and 2, without the ReLU.

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> shapes = load_data("shapes")
    >>> model = build_model(load_net("cnn-s"), shapes.train, Recipe())
    >>> grad_cam(model, shapes.test.pixels[:2], shapes.test.targets[:2]).shape
    (2, 32, 32)
    """
    pixels, targets = _check(model, pixels, targets)
    chosen = find_spatial_layer(model) if layer is None else layer
    if chosen is None:
        raise NetError(
            "No layer of this net has an output with height and width, which Grad-CAM needs. "
            "Use integrated gradients or occlusion instead."
        )
    maps = np.empty(pixels.shape[:3], np.float32)
    for rows in _chunks(len(pixels), GRADIENT_PIXELS // pixels[0, ..., 0].size):
        output, gradient = layer_gradients(
            model, torch.from_numpy(pixels[rows]), chosen, torch.from_numpy(targets[rows])
        )
        if output.ndim != 4:
            shape = "×".join(map(str, output.shape[1:]))
            raise NetError(
                f"The output of layer {chosen!r} has shape {shape}, but Grad-CAM needs channels,"
                " height and width. Use another layer."
            )
        summed = (gradient.mean(dim=(2, 3), keepdim=True) * output).sum(dim=1, keepdim=True)
        enlarged = functional.interpolate(summed, pixels.shape[1:3], mode="bilinear")
        maps[rows] = enlarged[:, 0].cpu().numpy()
    return maps


def _check(model: Model, pixels: Any, targets: Any) -> tuple[Pixels, Indices]:
    pixels = check_input(model, pixels, "pixels")
    indices = to_array(targets, "targets")
    outputs = model.task.outputs
    is_fit = indices.shape == (len(pixels),) and indices.dtype.kind in "iu"
    if not is_fit or not ((indices >= 0) & (indices < outputs)).all():
        raise DataError(
            f"targets is {reprlib.repr(indices.tolist())}; it must contain the index of an output,"
            f" from 0 to {outputs - 1}, for each of {len(pixels)} images."
        )
    return pixels, indices.astype(np.int64)


def measure_strength(values: Map) -> tuple[Map, float]:
    """The opacity of each pixel of a map, from 0 to 1, and the lowest magnitude with opacity 1."""
    magnitudes = np.abs(values)
    # A quantile, because single pixels may be far stronger than all others.
    most = float(np.quantile(magnitudes, 0.99)) or float(magnitudes.max()) or 1.0
    return np.clip(magnitudes / most, 0, 1) ** 0.7, most


def paint_map(values: Map) -> UInt8[np.ndarray, "h w 4"]:
    """A map as RGBA pixels: red for the output, blue against it; stronger is more opaque."""
    painted = np.empty((*values.shape, 4), np.uint8)
    painted[..., :3] = np.where(values[..., None] >= 0, FOR, AGAINST)
    painted[..., 3] = np.rint(measure_strength(values)[0] * 230)
    return painted


def choose_target(task: Task, logits: Float[np.ndarray, " k"]) -> int:
    """The output to explain by default: the most likely class or label, or the first number."""
    if task.kind not in (SINGLE_LABEL, MULTI_LABEL):
        return 0
    # Not from the logits: each label may have its own temperature.
    return int(task.probabilities(torch.from_numpy(np.array(logits)[None])).argmax())


def find_spatial_layer(model: Model) -> str | None:
    """The module path of the last layer whose output has channels and several positions, if any."""
    paths = module_paths(model) or [path for path, _ in model.named_modules() if path]
    last = None
    for path, shape in call_order(model, paths).items():
        if len(shape) == 3 and prod(shape[1:]) > 1:
            last = path
    return last


def window_side_px(height: int, width: int) -> int:
    return max(1, round(min(height, width) / 8))


@contextmanager
def float_inputs(model: Model, pixels: Pixels) -> Iterator[Float[Tensor, "n c h w"]]:
    """The normalized images, with the model in eval mode."""
    with eval_mode(model), seeded(0, model.device):
        yield model.normalize(torch.from_numpy(pixels).to(model.device))


def _chunks(count: int, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(start, start + size) for start in range(0, count, size)]
