"""The units of a layer (channels or numbers): what excites them, which classes they separate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from lamina.data import Dataset, Images
from lamina.data.images import Progress
from lamina.errors import DataError, plural
from lamina.evaluation.scores import mean_ranks
from lamina.insight.inspected_layers import (
    describe_field,
    find_fields,
    list_size,
    name_stage,
    read_filters,
)
from lamina.markup import Table
from lamina.nets.window import Field, Pair
from lamina.shown import Shown
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL
from lamina.text import shorten
from lamina.training.hooks import activations, find_paths
from lamina.training.model import Model, check_input, split_pixels
from lamina.training.randomness import derive_seed
from lamina.training.task import Pixels

# Maximum numbers of images, taken evenly, for each measurement.
SEEN_IMAGES = 10_000  # training images that are searched for patches
SEEN_PIXELS = 40_000_000
PROBE_IMAGES = 4000
SCORED_IMAGES = 2000
LEAST_IMAGES = 50
# instead of SEEN_PIXELS for torch modules, which run completely for each layer
MODULE_PIXELS = 5_000_000
SHOWN_UNITS = 24
SHUFFLES = 20  # of the labels, to measure chance
PATCHES = 9  # of a unit, each from a different image
OUTSIDE = 216  # gray level of a patch beyond the border of the image


Areas: TypeAlias = Float64[np.ndarray, "u k"]
Members: TypeAlias = Float64[np.ndarray, "n k"]
Output: TypeAlias = Float[Tensor, "n ..."]
Strengths: TypeAlias = Float32[np.ndarray, "n u"]


@dataclass(frozen=True, eq=False)
class Responses:
    """The maximum output of each unit of a layer for each image, and its position."""

    strengths: Strengths = field(repr=False)
    # row * width + column in the layer's output
    places: Int64[np.ndarray, "n u"] = field(repr=False)
    size: Pair  # height and width of the output; (1, 1) for a vector
    field: Field | None  # receptive field; ``None`` is the whole image

    @cached_property
    def ranks(self) -> Float64[np.ndarray, "u n"]:
        """The ranks of the images by each unit's strength."""
        return np.stack([mean_ranks(column) for column in self.strengths.T])


@dataclass(frozen=True)
class Patch:
    """The part of an image that excites a unit; ``rows`` and ``columns`` may exceed the image."""

    row: int
    rows: Pair
    columns: Pair
    strength: float


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit of a layer: the patches that excite it most, and how well it separates each class."""

    number: int
    patches: tuple[Patch, ...] = field(repr=False)
    aucs: Mapping[str, float] = field(repr=False)  # area under the ROC curve, by class

    @property
    def best(self) -> str:
        """The class that the unit separates best, by responding to it or to all other classes."""
        return max(self.aucs, key=lambda name: abs(self.aucs[name] - 0.5))

    def describe_best(self) -> str:
        if not self.aucs:
            return ""
        auc = self.aucs[self.best]
        if auc < 0.5:
            return f"not {shorten(self.best)} {1 - auc:.2f}"
        return f"{shorten(self.best)} {auc:.2f}"


@dataclass(frozen=True, eq=False)
class LayerUnits(Shown):
    """The units of a layer that separate a class best, and what each responds to.

    Attributes:
        layer: the module path of the layer.
        name: its number and parts, such as ``3 Conv2d, ReLU``.
        count: the number of units in the layer: channels, or numbers of a vector.
        receptive_field: the receptive field of a unit; ``None`` for the whole image.
        units: the units, those that separate a class best first, with the patches of ``images``
            that excite each most, and the area under the ROC curve for each class.
        chance: the area under the ROC curve that the best unit reaches by chance.
        images: the images that were searched for patches.
        filters: the weights (U, C, Y, X) of all units, if the layer's input is the image.
    """

    texts: ClassVar[int] = 2
    layer: str
    name: str
    count: int
    receptive_field: Field | None
    units: tuple[Unit, ...]
    chance: float
    images: Images = field(repr=False)
    filters: Float32[np.ndarray, "u c y x"] | None = field(default=None, repr=False)

    def table(self) -> Table:
        """The column heads, and a row of texts for each unit."""
        rows = [(str(unit.number + 1), unit.describe_best()) for unit in self.units]
        return ("unit", "separates best (AUC)"), rows

    def to_json(self) -> dict[str, Any]:
        """JSON values: ``layer``, ``name``, ``units`` (their number), ``sees_px`` and ``shown``."""
        return {
            "layer": self.layer,
            "name": self.name,
            "units": self.count,
            "sees_px": list_size(self.receptive_field),
            "chance": self.chance,
            "shown": [self._list(unit) for unit in self.units],
        }

    def _list(self, unit: Unit) -> dict[str, Any]:
        patches = []
        for patch in unit.patches:
            name = self.images.names[patch.row]
            box_px = np.transpose([patch.columns, patch.rows]).ravel().tolist()
            patches.append({"image": name, "box_px": box_px, "strength": patch.strength})
        return {"unit": unit.number + 1, "auc": dict(unit.aucs), "patches": patches}

    def headline(self) -> str:
        """The layer, its number of units and their receptive field, as text."""
        units = plural(self.count, "unit", "units")
        return f"layer {self.name}: {units}, receptive field {describe_field(self.receptive_field)}"


class InspectedImages(NamedTuple):
    """The images to inspect a model with."""

    train: Images  # searched for patches; probes are fitted to some of them
    held_out: Images  # for scores

    @property
    def fitted(self) -> Images:
        """Fewer training images, to fit probes to."""
        return self.train.take_evenly(PROBE_IMAGES)


def choose_images(model: Model, dataset: Dataset) -> InspectedImages:
    """Images of the ``train`` split, and of ``val`` or ``test`` if they have labels.

    Raises:
        DataError: the images do not have the model's shape.
    """
    if dataset.train.shape != model.in_shape:
        shapes = ["×".join(map(str, shape)) for shape in (model.in_shape, dataset.train.shape)]
        raise DataError(
            f"The model's images have shape {shapes[0]}, but the images of {dataset.name} have"
            f" {shapes[1]}. Use the data set that the run was trained on."
        )
    held_out = dataset.train
    for images in (dataset.val, dataset.test):
        if images is not None and (images.kind is not MULTI_LABEL or images.targets.any()):
            held_out = images
            break
    pixels = MODULE_PIXELS if model.net is None else SEEN_PIXELS
    return InspectedImages(
        _take(dataset.train, SEEN_IMAGES, pixels), _take(held_out, SCORED_IMAGES, pixels)
    )


def _take(images: Images, most: int, pixels: int) -> Images:
    _, height, width = images.shape
    return images.take_evenly(min(most, max(LEAST_IMAGES, pixels // (height * width))))


def inspect_layers(
    model: Model,
    images: Images,
    layers: Sequence[str],
    most: int = SHOWN_UNITS,
    progress: Progress | None = None,
) -> tuple[LayerUnits, ...]:
    """Inspect the units of some layers that separate a class best.

    Args:
        model: the model.
        images: the images to search for patches.
        layers: the module paths of the layers.
        most: the number of units of each layer: the units that separate a class best.
        progress: called with the images done, and their number.

    Returns:
        The units of each layer.
    """
    inspected = []
    for path, responses in measure_responses(model, images.pixels, layers, progress).items():
        numbers = rank_units(responses, images)[:most]
        layer = LayerUnits(
            layer=path,
            name=name_stage(model, path),
            count=responses.strengths.shape[1],
            receptive_field=responses.field,
            units=inspect_units(responses, images, numbers),
            chance=measure_chance(responses, images),
            images=images,
            filters=read_filters(model, path),
        )
        inspected.append(layer)
    return tuple(inspected)


def measure_responses(
    model: Model,
    pixels: Pixels,
    layers: Iterable[int | str],
    progress: Progress | None = None,
) -> dict[str, Responses]:
    """The responses of the units of some layers, by module path."""
    pixels = check_input(model, pixels, "pixels")
    paths = list(find_paths(model, layers).values())
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in paths}
    sizes: dict[str, Pair] = {}
    done = 0
    for batch in split_pixels(pixels):
        for path, output in activations(model, np.ascontiguousarray(batch), paths).items():
            strengths, places = units_first(output.float()).max(dim=2)
            sizes[path] = (1, 1)
            if output.ndim == 4:
                sizes[path] = (output.shape[2], output.shape[3])
            else:
                places = torch.zeros_like(places)
            parts[path].append((strengths.cpu(), places.cpu()))
        done += len(batch)
        if progress is not None:
            progress(done, len(pixels))
    responses = {}
    for path, receptive_field in find_fields(model, paths).items():
        strengths, places = map(torch.cat, zip(*parts[path], strict=True))
        responses[path] = Responses(strengths.numpy(), places.numpy(), sizes[path], receptive_field)
    return responses


def units_first(output: Output) -> Float[Tensor, "n u p"]:
    """A layer's output as images × units × positions; tokens (N, T, D) have D units."""
    if output.ndim == 3:
        output = output.transpose(1, 2)
    return output.reshape(*output.shape[:2], -1)


def find_patches(
    responses: Responses, unit: int, in_size: Pair, most: int = PATCHES
) -> tuple[Patch, ...]:
    """The patches that excite a unit most, each from another image; none for a constant unit."""
    strengths = responses.strengths[:, unit]
    if strengths.min() == strengths.max():
        return ()
    patches = []
    for row in np.argsort(-strengths, kind="stable")[:most].tolist():
        rows = (0, in_size[0])
        columns = (0, in_size[1])
        if responses.field is not None:
            down, across = divmod(int(responses.places[row, unit]), responses.size[1])
            rows, columns = responses.field.box(down, across)
        patches.append(Patch(row, rows, columns, float(strengths[row])))
    return tuple(patches)


def cut_patch(images: Images, patch: Patch) -> UInt8[np.ndarray, "y x c"]:
    """The pixels of a patch, gray beyond the image; at most the image's height and width."""
    margins = [(0, 0)] * 3
    parts = [slice(None)] * 2
    for axis, (start, end) in enumerate((patch.rows, patch.columns)):
        side = images.shape[axis + 1]
        if end - start < side:
            before = max(0, -start)
            margins[axis] = (before, max(0, end - side))
            parts[axis] = slice(start + before, end + before)
    padded = np.pad(images.pixels[patch.row], margins, constant_values=OUTSIDE)
    return padded[tuple(parts)]


def inspect_units(responses: Responses, images: Images, numbers: Sequence[int]) -> tuple[Unit, ...]:
    """Inspect units of a layer by ``responses`` to ``images``."""
    names = name_memberships(images)
    all_aucs = measure_aucs(responses, images)[numbers]
    _, height, width = images.shape
    units = []
    for number, values in zip(numbers, all_aucs, strict=True):
        aucs = {
            name: float(auc) for name, auc in zip(names, values, strict=True) if np.isfinite(auc)
        }
        patches = find_patches(responses, number, (height, width))
        units.append(Unit(number, patches, aucs))
    return tuple(units)


def rank_units(responses: Responses, images: Images) -> list[int]:
    """The indices of a layer's units, from the best separation of a class to the worst."""
    distances = np.nan_to_num(np.abs(measure_aucs(responses, images) - 0.5)).max(axis=1)
    order: list[int] = np.argsort(-distances, kind="stable").tolist()
    return order


def measure_aucs(responses: Responses, images: Images) -> Areas:
    """The ROC AUC of each unit for each class, or numbers above the median; NaN if undefined."""
    return _area(responses.ranks, memberships(images))


def _area(ranks: Float64[np.ndarray, "u n"], truth: Members) -> Areas:
    inside = truth.sum(axis=0)
    pairs = inside * (len(truth) - inside)
    above = ranks @ truth - inside * (inside + 1) / 2
    aucs: Areas = above / np.where(pairs > 0, pairs, np.nan)
    return aucs


def measure_chance(responses: Responses, images: Images) -> float:
    """The AUC of a layer's best unit by chance: the 95 % quantile of 20 shuffles of the labels."""
    truth = memberships(images)
    generator = np.random.default_rng(derive_seed(0, "chance"))
    reached = [
        np.nan_to_num(np.abs(_area(responses.ranks, generator.permutation(truth)) - 0.5)).max()
        for _ in range(SHUFFLES)
    ]
    return 0.5 + float(np.quantile(reached, 0.95))


def name_memberships(images: Images) -> tuple[str, ...]:
    """The names of the columns of :func:`measure_aucs`."""
    if images.kind is REGRESSION:
        return tuple(f"high {name}" for name in images.target_names)
    return ("yes",) if images.kind is BINARY else images.target_names


def memberships(images: Images) -> Members:
    """1 for each class or label that an image has, or each number above its median, else 0."""
    targets = images.targets
    if images.kind is REGRESSION:
        targets = targets > np.median(targets, axis=0)
    elif images.kind is SINGLE_LABEL:
        targets = targets[:, None] == np.arange(len(images.target_names))
    return np.where(targets.reshape(len(images), -1), 1.0, 0.0)
