"""The layers of a model to inspect: names, receptive fields of units, and the first filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from lamina.nets import Net, Shape
from lamina.nets.window import Field, Pair
from lamina.training.hooks import call_order, module_paths, name_layer, watch
from lamina.training.model import FAILURES, Model, eval_mode
from lamina.training.randomness import seeded

NOISE_IMAGES = 4  # their gradients show the receptive fields of a module
# size of the noise relative to the model's input, for receptive fields that the border cuts off
SCALES = (1, 2, 4)
MOST_SIDE_PX = 256  # of enlarged noise, which needs a backward pass for each layer


def choose_layers(model: Model) -> tuple[str, ...]:
    """The module paths to inspect: layers with weights, after normalization and activation."""
    if model.net is not None:
        return tuple(f"body.{place}" for place in _choose_places(model.net, model.in_shape))
    name, module = "body", model.body
    while len(children := list(module.named_children())) == 1 and list(children[0][1].children()):
        name, module = f"{name}.{children[0][0]}", children[0][1]
    parts = [each for child, own in children for each in _divide(f"{name}.{child}", own)]
    shapes = call_order(model, [path for path, own in parts if _has_weights(own)])
    return tuple(path for path, shape in shapes.items() if len(shape) > 0) or (name,)


def _divide(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks of a sequence of blocks; anything else is one part."""
    children = list(module.named_children())
    if isinstance(module, nn.Sequential) and all(list(own.children()) for _, own in children):
        return [each for child, own in children for each in _divide(f"{path}.{child}", own)]
    return [(path, module)]


def _has_weights(module: nn.Module) -> bool:
    return any(weight.ndim > 1 for weight in module.parameters())


def _choose_places(net: Net, in_shape: Shape) -> dict[int, int]:
    """The indices of the layers to inspect, each with the index of its layer with weights."""
    chosen: dict[int, int] = {}
    for place, (layer, shape) in enumerate(zip(net, net.shapes(in_shape), strict=False)):
        if layer.parameter_count(shape) and not layer.is_normalization:
            chosen[place] = place
        elif chosen and layer.is_activation:
            _, learned = chosen.popitem()
            chosen[place] = learned
    return chosen


def name_stage(model: Model, path: str) -> str:
    """The name of a layer in :func:`choose_layers`: number and parts, as in ``3 Linear, ReLU``."""
    paths = module_paths(model)
    if model.net is None or path not in paths:
        return name_layer(model, path)
    place = paths.index(path)
    learned = _choose_places(model.net, model.in_shape).get(place, place)
    kinds = [type(model.net[each]).__name__ for each in dict.fromkeys((learned, place))]
    return f"{place + 1} {', '.join(kinds)}"


def find_field(model: Model, path: str) -> Field | None:
    """The receptive field of a layer's units; ``None`` is the whole image."""
    return find_fields(model, [path])[path]


def find_fields(model: Model, paths: Sequence[str]) -> dict[str, Field | None]:
    """The receptive fields by path, from layers or gradients; ``None`` for the whole image."""
    found: dict[str, Field | None] = dict.fromkeys(paths)
    known = module_paths(model)
    if model.net is not None:
        fields = model.net.fields(model.in_shape)
        found |= {path: fields[known.index(path)] for path in paths if path in known}
    sought = [path for path in paths if path not in known]
    for scale in SCALES:
        if not sought or (scale > 1 and scale * max(model.in_shape[1:]) > MOST_SIDE_PX):
            break
        try:
            measured = _measure_fields(model, sought, scale)
        except FAILURES:  # many modules accept one size only
            break
        found |= {path: field for path, field in measured.items() if field != "cut off"}
        sought = [path for path, field in measured.items() if field == "cut off"]
    return found


def _measure_fields(
    model: Model, paths: Sequence[str], scale: int
) -> dict[str, Field | Literal["cut off"] | None]:
    """The fields on noise of ``scale`` times the input's size; ``None`` for the whole image."""
    channels, height, width = model.in_shape
    shape = (NOISE_IMAGES, channels, scale * height, scale * width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    kept: dict[str, Tensor] = {}

    def keep(path: str, _: Tensor, output: Tensor) -> None:
        kept[path] = output

    with torch.enable_grad(), eval_mode(model), seeded(0, model.device), watch(model, paths, keep):
        inputs = noise.requires_grad_()
        model.body(inputs)
        return {
            path: _measure_field(inputs, kept[path]) if path in kept else None for path in paths
        }


def _measure_field(
    inputs: Float[Tensor, "n c h w"], output: Float[Tensor, "n ..."]
) -> Field | Literal["cut off"] | None:
    if output.ndim != 4 or output.shape[2:].numel() == 1:
        return None
    middle = [places // 2 for places in output.shape[2:]]
    neighbor = [max(0, place - 1) for place in middle]
    boxes = []
    for row, column in (middle, neighbor):
        (gradient,) = torch.autograd.grad(
            output[:, :, row, column].sum(), inputs, retain_graph=True
        )
        is_seen = gradient.abs().sum(dim=(0, 1)) > 0
        if not is_seen.any():
            return None
        boxes.append(_find_box(is_seen))
    sides = []
    for (first, after), (before, end), place, next_place, size in zip(
        *boxes, middle, neighbor, inputs.shape[2:], strict=True
    ):
        if min(first, before) <= 0 or max(after, end) >= size or place == next_place:
            return "cut off"
        step = first - before
        sides.append((after - first, step, first - place * step))
    (height_px, down, top), (width_px, across, left) = sides
    return Field((height_px, width_px), (down, across), (top, left))


def _find_box(is_seen: Bool[Tensor, "h w"]) -> tuple[Pair, Pair]:
    places = (is_seen.any(dim=1 - axis).nonzero() for axis in range(2))
    rows, columns = ((int(found.min()), int(found.max()) + 1) for found in places)
    return rows, columns


def read_filters(model: Model, path: str) -> Float32[np.ndarray, "u c y x"] | None:
    """The weights at ``path`` as small images; ``None`` unless the layer's input is the image."""
    with_weights = [
        each for each, module in model.named_modules() if list(module.parameters(recurse=False))
    ]
    called = next(iter(call_order(model, with_weights)), "")
    first = model.get_submodule(called)
    paths, place = module_paths(model), path
    if model.net is not None and path in paths:
        place = paths[
            _choose_places(model.net, model.in_shape).get(paths.index(path), paths.index(path))
        ]
    others = [each for each in with_weights if each.startswith(f"{place}.") and each != called]
    is_alone = not any(_has_weights(model.get_submodule(each)) for each in others)
    if not (called == place or (called.startswith(f"{place}.") and is_alone)):
        return None
    if not isinstance(first, nn.Conv2d | nn.Linear):
        return None
    filters: Float32[np.ndarray, "u ..."] = first.weight.detach().float().cpu().numpy()
    if isinstance(first, nn.Conv2d):
        return filters if filters.shape[1] == model.in_shape[0] else None
    return (
        filters.reshape(-1, *model.in_shape)
        if filters[0].size == math.prod(model.in_shape)
        else None
    )
