"""Measures the layers of a model, without changing weights or statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from lamina.data import Images
from lamina.training.events import LayerStatistics
from lamina.training.hooks import innermost_paths, name_layer, watch
from lamina.training.model import Model, eval_mode, split_pixels
from lamina.training.randomness import seeded

Rows: TypeAlias = dict[str, dict[str, float]]
"""Values of :class:`LayerStatistics` by column, for each module path."""

LEAST_MEASURED = 64
MOST_MEASURED = 256
MEASURED_FRACTION = 1 / 100
"""Limits of the number of images for layer statistics, and their fraction of the training images.
With fewer, a unit that is 0 for all of them may not be dead."""


def choose_measured(images: Images) -> Images:
    """The fixed images that show the inputs and dead units of layers."""
    affordable = min(MOST_MEASURED, round(MEASURED_FRACTION * len(images)))
    return images.take_evenly(max(LEAST_MEASURED, affordable))


def find_trained(model: Model) -> dict[str, Tensor]:
    """The weights of two or more dimensions that the step trains."""
    return {
        name: weight.detach()
        for name, weight in model.named_parameters()
        if weight.ndim >= 2 and weight.grad is not None
    }


def measure_norm(weights: Mapping[str, Tensor]) -> float:
    """The norm of all weights together."""
    return math.hypot(*measure_norms(weights).values())


def measure_norms(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    if not tensors:
        return {}
    norms = torch.stack(torch._foreach_norm(list(tensors.values()))).tolist()
    return dict(zip(tensors, norms, strict=True))


def measure_layers(
    model: Model, before: Mapping[str, Tensor], images: Images | None
) -> LayerStatistics:
    """The statistics of layers after a step, from the trained weights as they were ``before`` it.

    Without ``images``, inputs and dead units are not measured.
    """
    rows = {} if images is None else measure_activity(model, images)
    gradients: dict[str, Any] = {name: model.get_parameter(name).grad for name in before}
    updates = {name: model.get_parameter(name).detach() - before[name] for name in before}
    columns = {"gradient_norms": gradients, "weight_norms": before, "update_norms": updates}
    for column, tensors in columns.items():
        for name, norm in measure_norms(tensors).items():
            row = rows.setdefault(name.rpartition(".")[0], {})
            row[column] = math.hypot(row.get(column, 0.0), norm)  # attention has several weights
    names = [name_layer(model, path) for path in rows]
    known = [field.name for field in fields(LayerStatistics)[1:]]
    return LayerStatistics(
        names, *([round_value(row.get(column)) for row in rows.values()] for column in known)
    )


def round_value(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


@torch.no_grad()
def measure_activity(model: Model, images: Images) -> Rows:
    """Mean and standard deviation of layers' inputs, and fractions of dead units, in call order."""
    modules = {path: model.get_submodule(path) for path in innermost_paths(model)}
    rows: Rows = {}
    sums: dict[str, Tensor] = {}
    largest: dict[tuple[str, int], Tensor] = {}  # by call, as a module may be called twice
    calls: Counter[str] = Counter()

    def note(path: str, entering: Tensor, output: Tensor) -> None:
        module = modules[path]
        has_weights = any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
        if has_weights and entering.is_floating_point() and entering.numel():
            mean = entering.mean()
            moments = torch.stack([mean, entering.square().mean(), torch.ones_like(mean)])
            rows.setdefault(path, {})
            sums[path] = sums.get(path, 0.0) + len(entering) * moments
        is_relu = isinstance(module, nn.ReLU | nn.ReLU6)
        if is_relu and output.ndim >= 2 and output.numel():
            units_axis = output.ndim - 1 if output.ndim == 3 else 1  # the last axis for tokens
            units = output.amax(dim=[axis for axis in range(output.ndim) if axis != units_axis])
            rows.setdefault(path, {})
            call = (path, calls[path])
            largest[call] = torch.maximum(largest.get(call, units), units)
            calls[path] += 1

    with eval_mode(model), seeded(0, model.device), watch(model, modules, note):
        for batch in split_pixels(np.ascontiguousarray(images.pixels)):
            calls.clear()
            model(torch.from_numpy(batch).to(model.device))
    for path, moments in sums.items():
        mean, square, _ = (moments / moments[-1]).tolist()
        rows[path]["input_means"] = mean
        rows[path]["input_standard_deviations"] = max(0.0, square - mean**2) ** 0.5
    for path in {path for path, _ in largest}:
        units = torch.cat([part for (caller, _), part in largest.items() if caller == path])
        rows[path]["dead_fractions"] = float((units == 0).float().mean())
    return rows
