"""Which pixels a prediction depends on: attribution maps, and how faithful they are.

A map (H, W) is for the logit of one output: positive values are evidence for the output, negative
values evidence against it. Computing maps changes neither the model nor torch's random generators.

How faithful a map is: the image is covered cell by cell in the map's order (after Samek et al.,
arXiv 1509.06321). The control moves the map to random places, rather than covering random cells:
many holes confuse a net more than one covered area.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, SupportsIndex, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from lamina.data.thumbnails import encode_png, make_tile
from lamina.errors import DataError, NetError, suggest
from lamina.evaluation.predictions import Prediction, check_finite, describe, make_prediction
from lamina.markup import Markup, Table, image, wrap
from lamina.shown import Shown
from lamina.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from lamina.training.hooks import NO_TENSOR, call_order, find_path, module_paths
from lamina.training.model import PREDICTED_PIXELS, Model, eval_mode
from lamina.training.prediction import predict_logits
from lamina.training.randomness import derive_seed, seeded
from lamina.training.task import Pixels, Task
from lamina.values import to_json_values

Map: TypeAlias = Float32[np.ndarray, "h w"]
Picture: TypeAlias = UInt8[np.ndarray, "h w c"]

METHODS = ("occlusion", "gradients", "grad-cam")
STEPS = 32  # of integrated gradients
# differentiated at once: a backward pass keeps the outputs of all layers
GRADIENT_PIXELS = 100 * 32 * 32
CELLS = 8  # along the shorter side
LEVELS = 12  # steps in which the cells are covered
RANDOM_PLACES = 6  # that the map is moved to, mirrored at random
GOLDEN_FRACTION = 0.6180339887498949
FOR = (178, 24, 43)  # red
AGAINST = (33, 102, 172)  # blue
PAINTED_SIDE_PX = 64  # larger maps are averaged in blocks: single pixels would be invisible
TILE_PX = 160  # of an image in a notebook


def choose_methods(
    model: Model, method: str | None = None, layer: int | str | None = None
) -> dict[str, str | None]:
    """The methods by name, with the module path of the layer that Grad-CAM uses.

    Args:
        model: the model to explain.
        method: ``occlusion``, ``gradients`` or ``grad-cam``; by default all that the model allows.
        layer: the layer for Grad-CAM, by its number from 1 or its module path; by default the last
            layer whose output has height and width.

    Raises:
        NetError: there is no such method or layer, or the layer is not suitable.
    """
    if method is not None and method not in METHODS:
        raise NetError(f"There is no method {method!r}. {suggest(method, METHODS)}")
    place = find_spatial_layer(model) if layer is None else _check_layer(model, layer)
    methods: dict[str, str | None] = {"occlusion": None, "gradients": None, "grad-cam": place}
    if place is None:
        del methods["grad-cam"]
    if method is None:
        return methods
    if method not in methods:
        raise NetError(
            "No layer of this net has an output with height and width, which Grad-CAM needs."
            " Use gradients or occlusion instead."
        )
    return {method: methods[method]}


def find_spatial_layer(model: Model) -> str | None:
    """The module path of the last layer whose output has channels and several positions, if any."""
    paths = module_paths(model) or [path for path, _ in model.named_modules() if path]
    last = None
    for path, shape in call_order(model, paths).items():
        if len(shape) == 3 and prod(shape[1:]) > 1:
            last = path
    return last


def _check_layer(model: Model, layer: int | str) -> str:
    path = find_path(model, layer)
    shapes = call_order(model, [path])
    if path not in shapes:
        raise NetError(NO_TENSOR.format(layer))
    if len(shapes[path]) != 3:
        shape = "×".join(map(str, shapes[path]))
        raise NetError(
            f"The output of layer {layer!r} has shape {shape}, but Grad-CAM needs channels, height"
            " and width. Use another layer."
        )
    return path


def compute_map(
    model: Model,
    pixels: Pixels,
    target: SupportsIndex,
    method: str = "gradients",
    layer: str | None = None,
    steps: int = STEPS,
) -> Map:
    """Compute the attribution map of an image with captum.

    - ``occlusion``: how far the logit falls when a window of the mean color covers the pixel, as
      the mean over all windows that cover it; a window is an eighth of the shorter side (Zeiler and
      Fergus, arXiv 1311.2901).
    - ``gradients``: integrated gradients from an image of the mean color, summed over the channels
      (Sundararajan et al., arXiv 1703.01365).
    - ``grad-cam``: the channels of a layer's output, weighted by the logit's mean gradient, without
      the ReLU of the paper (Selvaraju et al., arXiv 1610.02391).

    Args:
        model: the model to explain.
        pixels: the image (1, H, W, C), uint8, of the model's shape.
        target: the index of the output to explain.
        method: ``occlusion``, ``gradients`` or ``grad-cam``.
        layer: the module path of the layer for Grad-CAM.
        steps: number of gradients on the path of integrated gradients.

    Returns:
        The map (H, W), in units of the logit.

    >>> from lamina import Recipe, load_data, load_net
    >>> from lamina.training.model import build_model
    >>> images = load_data("shapes").test
    >>> model = build_model(load_net("mlp"), images, Recipe())
    >>> compute_map(model, images.pixels[:1], images.targets[0]).shape
    (32, 32)
    """
    # captum imports pyplot
    from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion

    target = operator.index(target)
    with _float_inputs(model, pixels) as normalized:
        inputs = normalized.contiguous()  # captum reshapes them
        _, channels, height, width = inputs.shape
        if method == "occlusion":
            side = max(1, round(min(height, width) / 8))
            step = max(1, side // 2)
            evidence = Occlusion(model.body).attribute(
                inputs,
                sliding_window_shapes=(channels, side, side),
                strides=(channels, step, step),
                target=target,
                perturbations_per_eval=max(1, PREDICTED_PIXELS // (height * width)),
            )[:, :1]  # the same for all channels
        elif method == "gradients":
            evidence = IntegratedGradients(model.body).attribute(
                inputs,
                target=target,
                n_steps=steps,
                internal_batch_size=max(1, GRADIENT_PIXELS // (height * width)),
            )
        else:
            watched = model.get_submodule(layer or "")
            small = LayerGradCam(model.body, watched).attribute(inputs, target)
            evidence = LayerAttribution.interpolate(small, (height, width), "bilinear")
    values: Map = evidence.detach().sum(dim=1)[0].float().cpu().numpy()
    return values


@contextmanager
def _float_inputs(model: Model, pixels: Pixels) -> Iterator[Float[Tensor, "n c h w"]]:
    """The normalized images, with the model in eval mode."""
    with eval_mode(model), seeded(0, model.device):
        yield model.normalize(torch.from_numpy(pixels).to(model.device))


@dataclass(frozen=True)
class Faithfulness:
    """The measurement of one map, with its control: the same map at random places.

    Attributes:
        before: probability of the explained class or label; for regression, the number in standard
            deviations from the mean.
        by_map: mean of that value while the cells are covered in the map's order.
        by_random_map: the same for the map moved to random places.
        is_against: whether the model does not predict the label, or predicts a number below the
            mean. Then the evidence against it is covered first, so that the value rises.
        is_number: whether the value is a number rather than a probability.
    """

    before: float
    by_map: float
    by_random_map: float
    is_against: bool
    is_number: bool

    def __str__(self) -> str:
        def show(value: float) -> str:
            if self.is_number:
                return f"{value:.2f}"
            return f"{100 * value:.0f} %"

        measured = "probability"
        if self.is_number:
            measured = "number, in standard deviations from the mean,"
        order = "order"
        gain = self.by_random_map - self.by_map
        if self.is_against:
            order = "order, evidence against it first,"
            gain = -gain
        warning = ""
        if gain <= 0:
            warning = " (the map is no better than random places: do not rely on it)"
        return (
            f"covering the image in the map's {order} changes the {measured} from"
            f" {show(self.before)} to {show(self.by_map)} on average, covering random places to"
            f" {show(self.by_random_map)}{warning}"
        )


def measure_faithfulness(
    model: Model, pixels: Pixels, target: SupportsIndex, values: Map
) -> Faithfulness:
    """Measure how faithful an attribution map is.

    Args:
        model: the model that the map explains.
        pixels: the image (1, H, W, C), uint8.
        target: the index of the explained output.
        values: the map (H, W).
    """
    task = model.task
    target = operator.index(target)
    with torch.inference_mode(), _float_inputs(model, pixels) as inputs:
        logits = model.body(inputs)
        is_against = False
        if task.kind is not SINGLE_LABEL:
            predicted = logits > 0 if task.kind is REGRESSION else task.decide(logits)
            is_against = not predicted[0, target]
        # the evidence for what the model predicts is negative in the map
        masks = _build_masks(-values if is_against else values).to(inputs.device)
        measured = []
        for batch in masks.split(max(1, PREDICTED_PIXELS // masks[0].numel())):
            covered = model.body(inputs.masked_fill(batch[:, None], 0))
            measured.append(_find_values(task, covered, target))
        by_map, *by_random = torch.cat(measured).view(-1, LEVELS - 1).mean(dim=1).tolist()
        before = _find_values(task, logits, target).item()
    return Faithfulness(
        before=before,
        by_map=by_map,
        by_random_map=float(np.mean(by_random)),
        is_against=is_against,
        is_number=task.kind is REGRESSION,
    )


def _find_values(task: Task, logits: Float[Tensor, "m k"], target: int) -> Float[Tensor, " m"]:
    """The explained probability or, for regression, the standardized number."""
    if task.kind is REGRESSION:
        return logits[:, target]
    return task.probabilities(logits)[:, target]


def _build_masks(evidence: Map) -> Bool[Tensor, "m h w"]:
    """The pixels covered at each level: in the map's order, and in that of moved maps."""
    height, width = evidence.shape
    side = max(1.0, min(height, width) / CELLS)
    rows = (np.arange(height) / side).astype(np.int64)
    columns = (np.arange(width) / side).astype(np.int64)
    cells = rows[:, None] * (columns[-1] + 1) + columns
    sizes = np.bincount(cells.ravel())
    ranks = []
    for values in (-evidence, *_move_at_random(-evidence)):
        means = np.bincount(cells.ravel(), values.ravel()) / sizes
        ranks.append(np.argsort(np.argsort(means, kind="stable")))
    levels = torch.arange(1, LEVELS) * len(sizes) / LEVELS
    are_covered = torch.from_numpy(np.stack(ranks))[:, None, :] < levels[:, None]
    masks: Bool[Tensor, "m h w"] = are_covered[:, :, torch.from_numpy(cells)].flatten(0, 1)
    return masks


def _move_at_random(values: Map) -> Iterator[Map]:
    """The map at random places, mirrored at random."""
    generator = np.random.default_rng(derive_seed(0, "cover"))
    # A lattice spreads the places evenly.
    start = generator.random(2)
    steps = 1 - 2 * generator.integers(0, 2, (RANDOM_PLACES, 2))
    for number, (step_down, step_right) in enumerate(steps.tolist()):
        offset = np.array([number / RANDOM_PLACES, number * GOLDEN_FRACTION])
        place = (start + offset) % 1
        move = (place * values.shape).astype(np.int64).tolist()
        yield np.roll(values, move, (0, 1))[::step_down, ::step_right]


@dataclass(frozen=True, eq=False)
class AttributionMap:
    """A map (H, W) of the evidence for an output, in units of the logit, and its faithfulness."""

    values: Map = field(repr=False)
    faithfulness: Faithfulness | None


@dataclass(frozen=True, eq=False)
class Explanation(Shown):
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
    pixels: Picture = field(repr=False)
    maps: Mapping[str, AttributionMap]

    def headline(self) -> str:
        """The prediction and the explained output, as text."""
        prediction = self.prediction
        return f"{prediction.name}: {describe(prediction)}; evidence for {self.target}"

    def table(self) -> Table:
        """The column heads, and a row for each method with the measurement of its map."""
        rows = []
        for method, attribution in self.maps.items():
            rows.append((method, str(attribution.faithfulness or "not measured")))
        return ("method", "faithfulness"), rows

    def pictures(self) -> dict[str, Picture]:
        """The image, and each map painted on it, by the method's name."""
        painted = {method: paint(found.values, self.pixels) for method, found in self.maps.items()}
        return {"image": self.pixels, **painted}

    def figures(self) -> Sequence[Markup]:
        """The image and the maps, for a notebook."""
        figures = []
        for title, pixels in self.pictures().items():
            tile = encode_png(make_tile(pixels, TILE_PX))
            figures.append(wrap("figure", image(tile, title), wrap("figcaption", title)))
        return [wrap("div", *figures, kind="images")]

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


def paint(values: Map, pixels: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """A map over its pale image: red for the output, blue against it; stronger is more opaque."""
    height, width = values.shape
    block = max(1, min(height, width) // PAINTED_SIDE_PX)
    blocks = Image.fromarray(values).reduce(block)
    averaged = np.asarray(blocks.resize((width, height), Image.Resampling.BILINEAR))
    magnitudes = np.abs(averaged)[..., None]
    # A quantile, because single pixels may be far stronger than all others.
    most = float(np.quantile(magnitudes, 0.99)) or float(magnitudes.max()) or 1.0
    opacity = 0.9 * np.clip(magnitudes / most, 0, 1) ** 0.7
    pale = 255 - 0.55 * (255 - pixels.mean(axis=2, keepdims=True))
    color = np.where(averaged[..., None] >= 0, FOR, AGAINST)
    painted: Picture = np.rint(opacity * color + (1 - opacity) * pale).astype(np.uint8)
    return painted


def find_output(task: Task, target: str) -> int:
    """The index of the output for a class, label or number; ``DataError`` if there is none."""
    if target not in task.target_names:
        what = {SINGLE_LABEL: "class", MULTI_LABEL: "label"}.get(task.kind, "target")
        raise DataError(f"The model has no {what} {target!r}. {suggest(target, task.target_names)}")
    return task.target_names.index(target)


def explain_pixels(
    model: Model,
    pixels: Pixels,
    methods: Mapping[str, str | None],
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
    probabilities = task.probabilities(torch.from_numpy(logits))[0]
    if target is None:
        target = 0
        if task.kind in (SINGLE_LABEL, MULTI_LABEL):
            target = int(probabilities.argmax())
    maps = {}
    for method, layer in methods.items():
        values = compute_map(model, pixels, target, method, layer)
        faithfulness = None
        if is_measured:
            faithfulness = measure_faithfulness(model, pixels, target, values)
        maps[method] = AttributionMap(values, faithfulness)
    prediction = make_prediction(task, name, probabilities.tolist())
    return Explanation(prediction, task.target_names[target], pixels[0], maps)
