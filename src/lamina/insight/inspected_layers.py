"""The layers of a model to inspect: names, receptive fields of units, and the first filters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from lamina.nets.window import Field
from lamina.training.hooks import call_order, module_paths, name_layer, watch
from lamina.training.model import FAILURES, Model, eval_mode
from lamina.training.randomness import seeded

CUT_OFF = Field((0, 0))  # of receptive fields that reach beyond the border
NOISE_IMAGES = 4  # their gradients show the receptive fields of a module
# size of the noise relative to the model's input, for receptive fields that the border cuts off
SCALES = (1, 2, 4)
MOST_SIDE_PX = 256  # of enlarged noise, which needs a backward pass for each layer


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
        if layer.parameter_count(shape) and not layer.is_normalization:
            chosen[path] = path
        elif chosen and layer.is_activation:
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
    """The receptive fields by path, from layers or gradients; ``None`` for the whole image."""
    fields: dict[str, Field | None] = dict.fromkeys(paths)
    known = {}
    if model.net is not None:
        known = dict(zip(module_paths(model), model.net.fields(model.in_shape), strict=False))
    fields |= {path: known[path] for path in paths if path in known}
    sought = [path for path in paths if path not in known]
    for scale in SCALES:
        if not sought or (scale > 1 and scale * max(model.in_shape[1:]) > MOST_SIDE_PX):
            break
        try:
            measured = _measure_fields(model, sought, scale)
        except FAILURES:  # many modules accept one size only
            break
        fields |= {path: field for path, field in measured.items() if field != CUT_OFF}
        sought = [path for path, field in measured.items() if field == CUT_OFF]
    return fields


def describe_field(field: Field | None) -> str:
    return "the whole image" if field is None else str(field)


def list_size(field: Field | None) -> list[int] | None:
    """The height and width of a receptive field in pixels; ``None`` for the whole image."""
    return None if field is None else list(field.size_px)


def _measure_fields(model: Model, paths: Sequence[str], scale: int) -> dict[str, Field | None]:
    """The fields on noise of ``scale`` times the input's size; ``None`` for the whole image."""
    channels, height, width = model.in_shape
    shape = (NOISE_IMAGES, channels, scale * height, scale * width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    outputs: dict[str, Tensor] = {}

    def keep(path: str, _: Tensor, output: Tensor) -> None:
        outputs[path] = output

    with torch.enable_grad(), eval_mode(model), seeded(0, model.device), watch(model, paths, keep):
        inputs = noise.requires_grad_()
        model.body(inputs)
        fields: dict[str, Field | None] = dict.fromkeys(paths)
        for path, output in outputs.items():
            fields[path] = _measure_field(inputs, output)
        return fields


def _measure_field(
    inputs: Float[Tensor, "n c h w"], output: Float[Tensor, "n ..."]
) -> Field | None:
    """The field of the unit in the middle, and its distance from the field of a neighbor."""
    if output.ndim != 4 or output.shape[2:].numel() == 1:
        return None
    middle = torch.tensor(output.shape[2:]) // 2
    neighbor = (middle - 1).clamp(min=0)
    starts = []
    ends = []
    for row, column in (middle.tolist(), neighbor.tolist()):
        total = output[:, :, row, column].sum()
        (gradient,) = torch.autograd.grad(total, inputs, retain_graph=True)
        seen = (gradient.abs().sum(dim=(0, 1)) > 0).nonzero().cpu()
        if not len(seen):
            return None
        starts.append(seen.amin(dim=0))
        ends.append(seen.amax(dim=0) + 1)
    is_inside = (torch.stack(starts) > 0) & (torch.stack(ends) < torch.tensor(inputs.shape[2:]))
    if not is_inside.all() or (middle == neighbor).any():
        return CUT_OFF
    step = starts[0] - starts[1]
    sides = (ends[0] - starts[0], step, starts[0] - middle * step)
    return Field(*(tuple(side.tolist()) for side in sides))


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
