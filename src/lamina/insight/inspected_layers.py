"""The layers of a model to inspect: names, receptive fields of units, and the first filters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from torch import nn

from lamina.nets.window import Field
from lamina.training.hooks import call_order, module_paths, name_layer
from lamina.training.model import Model


def choose_layers(model: Model) -> tuple[str, ...]:
    """The module paths to inspect: layers with weights, after normalization and activation."""
    if model.net is not None:
        return tuple(_find_learned(model))
    parts = _list_parts("body", model.body)
    path = "body"
    while len(parts) == 1:
        (inside,) = parts
        inner = _list_parts(inside, parts[inside])
        if not inner:
            break
        path = inside
        parts = inner
    blocks = _divide(parts)
    learned = [block_path for block_path, block in blocks.items() if _has_weights(block)]
    shapes = call_order(model, learned)
    return tuple(block_path for block_path, shape in shapes.items() if shape) or (path,)


def _list_parts(path: str, module: nn.Module) -> dict[str, nn.Module]:
    return {f"{path}.{name}": child for name, child in module.named_children()}


def _divide(parts: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The blocks of modules, by path: each block of a sequence; any other module is one block."""
    blocks: dict[str, nn.Module] = {}
    for path, module in parts.items():
        inner = _list_parts(path, module)
        is_sequence = isinstance(module, nn.Sequential)
        if is_sequence and all(list(child.children()) for child in inner.values()):
            blocks |= _divide(inner)
        else:
            blocks[path] = module
    return blocks


def _has_weights(module: nn.Module) -> bool:
    return any(weight.ndim > 1 for weight in module.parameters())


def _find_learned(model: Model) -> dict[str, str]:
    """The paths of the layers of a net to inspect, each with the path of its layer with weights."""
    chosen: dict[str, str] = {}
    if model.net is None:
        return chosen
    shapes = model.net.shapes(model.in_shape)
    for path, layer, shape in zip(module_paths(model), model.net, shapes, strict=False):
        if layer.parameter_count(shape) and layer.role != "normalization":
            chosen[path] = path
        elif chosen and layer.role == "activation":
            _, learned = chosen.popitem()
            chosen[path] = learned
    return chosen


def name_stage(model: Model, path: str) -> str:
    """The name of a layer in :func:`choose_layers`: number and parts, as in ``3 Linear, ReLU``."""
    number, _, kind = name_layer(model, path).partition(" ")
    learned = _find_learned(model).get(path, path)
    if learned != path:
        _, _, kind_of_learned = name_layer(model, learned).partition(" ")
        kind = f"{kind_of_learned}, {kind}"
    return f"{number} {kind}"


def find_fields(model: Model, paths: Sequence[str]) -> dict[str, Field | None]:
    """The receptive fields by path; ``None``, the whole image, for modules of one's own."""
    known: dict[str, Field | None] = {}
    if model.net is not None:
        known.update(zip(module_paths(model), model.net.fields(model.in_shape), strict=False))
    return {path: known.get(path) for path in paths}


def describe_field(field: Field | None) -> str:
    return "the whole image" if field is None else str(field)


def list_size(field: Field | None) -> list[int] | None:
    """The height and width of a receptive field in pixels; ``None`` for the whole image."""
    return None if field is None else list(field.size_px)


def read_filters(model: Model, path: str) -> Float32[np.ndarray, "u c y x"] | None:
    """The weights at ``path`` as small images; ``None`` unless the layer's input is the image."""
    with_weights = [
        name for name, module in model.named_modules() if list(module.parameters(recurse=False))
    ]
    called = next(iter(call_order(model, with_weights)), "")
    learned = _find_learned(model).get(path, path)
    inside = [name for name in with_weights if f"{name}.".startswith(f"{learned}.")]
    others = [model.get_submodule(name) for name in inside if name != called]
    if called not in inside or any(map(_has_weights, others)):
        return None
    first = model.get_submodule(called)
    if not isinstance(first, nn.Conv2d | nn.Linear):
        return None
    filters: Float32[np.ndarray, "u ..."] = first.weight.detach().float().cpu().numpy()
    if isinstance(first, nn.Linear) and first.in_features == math.prod(model.in_shape):
        filters = filters.reshape(-1, *model.in_shape)
    is_of_image = filters.ndim == 4 and filters.shape[1] == model.in_shape[0]
    return filters if is_of_image else None


def color_filters(filters: Float32[np.ndarray, "u c y x"]) -> UInt8[np.ndarray, "u y x k"]:
    """Filters as images: gray is zero, the largest weight of a filter is black or white."""
    limit = np.abs(filters).max(axis=(1, 2, 3), keepdims=True) + 1e-12
    scaled: UInt8[np.ndarray, "u c y x"] = np.rint(127.5 + 127.5 * filters / limit).astype(np.uint8)
    colors = slice(None) if scaled.shape[1] in (1, 3) else slice(1)
    return scaled[:, colors].transpose(0, 2, 3, 1)
