"""Explanations: the attribution maps of the prediction for an image, and how faithful they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8

from lamina.data.thumbnails import encode_png, make_tile
from lamina.errors import DataError, NetError, suggest
from lamina.evaluation.predictions import (
    Prediction,
    check_finite,
    describe,
    make_prediction,
)
from lamina.insight.attribution import (
    STEPS,
    Indices,
    Map,
    Maps,
    choose_target,
    find_spatial_layer,
    grad_cam,
    integrated_gradients,
    occlusion,
    paint_map,
)
from lamina.insight.faithfulness import Faithfulness, measure_faithfulness
from lamina.insight.shown_result import ShownResult
from lamina.markup import Markup, Table, card, image, table, wrap
from lamina.targets import MULTI_LABEL, SINGLE_LABEL
from lamina.training.hooks import find_path
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.task import Pixels, Task
from lamina.values import to_json_values

METHODS = ("occlusion", "gradients", "grad-cam")
TILE_PX = 160


Explain: TypeAlias = Callable[[Model, Pixels, Indices], Maps]
"""An attribution function of a model, images and targets; ``functools.partial`` sets its other
arguments."""


@dataclass(frozen=True, eq=False)
class AttributionMap:
    """A map (H, W) of the evidence for an output, in units of the logit, and its faithfulness."""

    values: Map = field(repr=False)
    faithfulness: Faithfulness | None


@dataclass(frozen=True, eq=False)
class Explanation(ShownResult):
    """Which pixels the prediction for an image depends on.

    Attributes:
        prediction: the prediction, with the name of the image.
        target: the explained class, label or number.
        pixels: the image (H, W, C), uint8, as the model sees it.
        maps: a map for each method, by its name.
    """

    texts: ClassVar[int] = 2
    prediction: Prediction
    target: str
    pixels: UInt8[np.ndarray, "h w c"] = field(repr=False)
    maps: Mapping[str, AttributionMap]

    def headline(self) -> str:
        """The prediction and the explained output, as text."""
        prediction = self.prediction
        return f"{prediction.name}: {describe(prediction)}; evidence for {self.target}"

    def table(self) -> Table:
        """The column heads, and a row for each method with the measurements of its map."""
        rows = []
        for method, attribution in self.maps.items():
            rows.append((method, str(attribution.faithfulness or "not measured")))
        return ("method", "faithfulness"), rows

    def to_json(self) -> dict[str, Any]:
        """JSON values: ``image``, ``predicted``, ``target``, and the measurements by method."""
        maps = {}
        for method, attribution in self.maps.items():
            maps[method] = to_json_values(attribution.faithfulness)
        return {
            "image": self.prediction.name,
            "predicted": self.prediction.predicted,
            "target": self.target,
            "maps": maps,
        }

    def _repr_html_(self) -> str:
        figures = [_show("image", self.pixels)]
        for method, attribution in self.maps.items():
            painted = paint_map(attribution.values).astype(np.float32)
            on_white = 255 - (255 - painted[..., :3]) * painted[..., 3:] / 255
            figures.append(_show(method, on_white.astype(np.uint8)))
        images = wrap("div", *figures, kind="images")
        return card(self.headline(), images, table(*self.table(), texts=2))


def _show(title: str, pixels: UInt8[np.ndarray, "h w c"]) -> Markup:
    tile = encode_png(make_tile(pixels, TILE_PX))
    return wrap("figure", image(tile, title), wrap("figcaption", title))


def choose_methods(
    model: Model, method: str | None = None, layer: int | str | None = None
) -> dict[str, Explain]:
    """The methods by name; all methods that the model allows if ``method`` is ``None``.

    Args:
        model: the model to explain.
        method: ``occlusion``, ``gradients`` or ``grad-cam``.
        layer: the layer for Grad-CAM, by its number from 1 or its module path; by default the last
            layer whose output has height and width.

    Raises:
        NetError: there is no such method or layer, or the layer is not suitable.
    """
    if method is not None and method not in METHODS:
        raise NetError(f"There is no method {method!r}. {suggest(method, METHODS)}")
    channels, height, width = model.in_shape
    methods: dict[str, Explain] = {
        "occlusion": occlusion,
        "gradients": partial(integrated_gradients, steps=STEPS),
    }
    if method in methods:
        return {method: methods[method]}
    place = find_spatial_layer(model) if layer is None else find_path(model, layer)
    cam = partial(grad_cam, layer=place)
    if place is not None or method is not None:
        # rejects an unsuitable layer before any image is explained
        cam(model, np.zeros((1, height, width, channels), np.uint8), np.zeros(1, np.int64))
        methods["grad-cam"] = cam
    return methods if method is None else {method: methods[method]}


def find_output(task: Task, target: str) -> int:
    """The index of the output for a class, label or number; ``DataError`` if there is none."""
    if target not in task.target_names:
        what = {SINGLE_LABEL: "class", MULTI_LABEL: "label"}.get(task.kind, "target")
        raise DataError(f"The model has no {what} {target!r}. {suggest(target, task.target_names)}")
    return task.target_names.index(target)


def explain_pixels(
    model: Model,
    pixels: Pixels,
    methods: Mapping[str, Explain],
    *,
    target: int | None = None,
    name: str = "image",
    is_measured: bool = True,
) -> Explanation:
    """Explain the prediction for an image.

    Args:
        model: the model.
        pixels: the image (1, H, W, C), uint8, of the model's shape.
        methods: the methods, from :func:`choose_methods`.
        target: the index of the output; by default the most likely class or label, or the first
            number.
        name: the name of the image.
        is_measured: whether to measure how faithful the maps are.

    Raises:
        NotFiniteError: the logits are NaN or infinite.
    """
    task = model.task
    logits = predict_logits(model, pixels)
    check_finite(logits)
    if target is None:
        target = choose_target(task, logits[0])
    targets = np.array([target])
    maps = {}
    for method, explain in methods.items():
        values = explain(model, pixels, targets)
        faithfulness = None
        if is_measured:
            (faithfulness,) = measure_faithfulness(model, pixels, targets, values)
        maps[method] = AttributionMap(values[0], faithfulness)
    probabilities = task.probabilities(torch.from_numpy(logits))[0].tolist()
    prediction = make_prediction(task, name, probabilities)
    return Explanation(prediction, task.target_names[target], pixels[0], maps)
