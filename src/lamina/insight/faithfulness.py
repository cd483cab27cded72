"""Measure how faithful attribution maps are.

The first test checks whether maps depend on the weights: it redraws these (Adebayo et al., arXiv
1810.03292). The second checks whether the prediction depends on the pixels that a map marks: it
covers the image cell by cell in the map's order (after Samek et al., arXiv 1509.06321). Its control
moves the map to random places, rather than covering random cells: many holes confuse a net more
than one covered area.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from lamina.evaluation.scores import mean_ranks
from lamina.insight.attribution import float_inputs
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.hooks import learned_modules
from lamina.training.model import PREDICTED_PIXELS, Model
from lamina.training.randomness import derive_seed, seeded

Explain: TypeAlias = Callable[
    [Model, UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"]], Float32[np.ndarray, "n h w"]
]
"""An attribution function of a model, images and targets; ``functools.partial`` sets its other
arguments."""

CASCADE = (0.0, 0.5, 1.0)
"""Fractions of the layers whose weights are redrawn, from the last layer backward; 0 is the last
layer only."""
CELLS = 8  # along the shorter side
LEVELS = 12  # steps in which the cells are covered
RANDOM_ORDERS = 6  # random places that the map is moved to, mirrored at random
GOLDEN_FRACTION = 0.6180339887498949


@dataclass(frozen=True)
class Faithfulness:
    """The measurements of one map, with controls.

    The less the map is worth, the less its values differ from the controls' values.

    Attributes:
        correlations: rank correlations, from -1 to 1, with the maps for redrawn weights (in the
            last layer, in half of the layers, in all layers); near 1 or -1 if the map does not
            depend on the weights.
        before: probability of the explained class or label; for regression, the number in standard
            deviations from the mean.
        by_map: mean of that value while the cells are covered in the map's order.
        by_random_map: the same for the map moved to random places.
        by_center: the same from the center of the image outward.
        is_against: whether the model does not predict the label, or predicts a number below the
            mean. Then the evidence against it is covered first, so that the value rises.
        is_number: whether the value is a number rather than a probability.
    """

    correlations: tuple[float, ...]
    before: float
    by_map: float
    by_random_map: float
    by_center: float
    is_against: bool
    is_number: bool

    def __str__(self) -> str:
        def show(value: float) -> str:
            return f"{value:.2f}" if self.is_number else f"{100 * value:.0f} %"

        what = "number, in standard deviations from the mean," if self.is_number else "probability"
        order = "order, evidence against it first," if self.is_against else "order"
        gain = (
            self.by_map - self.by_random_map
            if self.is_against
            else self.by_random_map - self.by_map
        )
        verdict = (
            "" if gain > 0 else " (the map is no better than random places: do not rely on it)"
        )
        correlations = ", ".join(f"{value:.2f}" for value in self.correlations)
        return (
            f"covering the image in the map's {order} changes the {what} from {show(self.before)}"
            f" to {show(self.by_map)} on average, covering random places to"
            f" {show(self.by_random_map)}{verdict}, covering from the center to"
            f" {show(self.by_center)}; rank correlation with maps of random weights: {correlations}"
        )


def measure_faithfulness(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"],
    targets: Int64[np.ndarray, " n"],
    maps: Float32[np.ndarray, "n h w"],
    explain: Explain,
) -> tuple[Faithfulness, ...]:
    """Measure how faithful attribution maps are.

    Args:
        model: the model that the maps explain.
        pixels: uint8 images (N, H, W, C).
        targets: index of the explained output, for each image.
        maps: the maps (N, H, W).
        explain: the attribution function that computed the maps, or a coarser version of it.

    Returns:
        The measurements for each map.
    """
    correlations = []
    for fraction in CASCADE:
        redrawn_maps = explain(redraw(model, fraction), pixels, targets)
        correlations.append(
            [rank_correlation(*pair) for pair in zip(maps, redrawn_maps, strict=True)]
        )
    covered = _cover_cells(model, pixels, targets, maps)
    return tuple(
        Faithfulness(own, *parts)
        for own, parts in zip(zip(*correlations, strict=True), covered, strict=True)
    )


def redraw(model: Model, fraction: float, seed: int = 0) -> Model:
    """A copy with new random weights in the last ``fraction`` of its layers, in calling order."""
    copied = copy.deepcopy(model)
    layers = learned_modules(copied)
    with torch.no_grad(), seeded(derive_seed(seed, "redraw"), model.device):
        for layer in layers[len(layers) - max(1, round(fraction * len(layers))) :]:
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
            else:
                # normal, with the standard deviation of the weights
                for weight in layer.parameters(recurse=False):
                    weight.normal_(0, float(weight.std(correction=0)) or 1.0)
    return copied


def rank_correlation(one: Float[np.ndarray, "*shape"], other: Float[np.ndarray, "*shape"]) -> float:
    """Spearman's rank correlation, from -1 to 1; 0 if one of the two is constant."""
    ranks = np.stack([mean_ranks(one), mean_ranks(other)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=1).prod())
    return float(ranks.prod(axis=0).sum() / spread) if spread else 0.0


def _cover_cells(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"],
    targets: Int64[np.ndarray, " n"],
    maps: Float32[np.ndarray, "n h w"],
) -> list[tuple[float, float, float, float, bool, bool]]:
    """The fields of ``Faithfulness`` from ``before`` on, for each image."""
    task, is_number = model.task, model.task.kind is REGRESSION

    def find_values(logits: Float[Tensor, "m k"], target: int) -> Float[Tensor, " m"]:
        return (logits if is_number else task.probabilities(logits))[:, target]

    cells = _divide(pixels.shape[1], pixels.shape[2])
    count = int(cells.max()) + 1
    sizes = np.bincount(cells.ravel())
    height, width = cells.shape
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    from_center = np.bincount(cells.ravel(), distance.ravel()) / sizes
    generator = np.random.default_rng(derive_seed(0, "cover"))
    # A lattice spreads the places evenly.
    start, numbers = generator.random(2), np.arange(RANDOM_ORDERS)
    lattice = (start + np.stack([numbers / RANDOM_ORDERS, numbers * GOLDEN_FRACTION], axis=1)) % 1
    moves = (lattice * (height, width)).astype(np.int64).tolist()
    flips = 1 - 2 * generator.integers(0, 2, (RANDOM_ORDERS, 2))
    covered = []
    with torch.inference_mode(), float_inputs(model, pixels, None) as (inputs, cover):
        logits = model.body(inputs)
        for image, target, values, own in zip(inputs, targets.tolist(), maps, logits, strict=True):
            predicted = own[None] > 0 if is_number else task.decide(own[None])
            is_against = task.kind is not SINGLE_LABEL and not predicted[0, target]
            # the evidence for what the model predicts is negative in the map
            sign = -1 if is_against else 1
            moved = (
                np.roll(values, move, (0, 1))[::down, ::across]
                for move, (down, across) in zip(moves, flips, strict=True)
            )
            by_map, *at_random = (
                np.bincount(cells.ravel(), -sign * one.ravel()) / sizes for one in (values, *moved)
            )
            orders = [by_map, from_center, *at_random]
            ranks = torch.from_numpy(
                np.stack([np.argsort(np.argsort(order, kind="stable")) for order in orders])
            )
            levels = torch.arange(1, LEVELS) * count / LEVELS
            masks = (
                (ranks[:, None, :] < levels[:, None])[:, :, torch.from_numpy(cells)]
                .flatten(0, 1)
                .to(image.device)
            )
            kept = torch.cat(
                [
                    find_values(model.body(torch.where(part[:, None], cover, image)), target)
                    for part in masks.split(max(1, PREDICTED_PIXELS // cells.size))
                ]
            ).view(len(orders), -1)
            by_map, by_center, *by_random = kept.mean(dim=1).tolist()
            before, by_random_map = find_values(own[None], target).item(), float(np.mean(by_random))
            covered.append((before, by_map, by_random_map, by_center, is_against, is_number))
    return covered


def _divide(height: int, width: int) -> Int64[np.ndarray, "h w"]:
    """The number of the cell that each pixel is in."""
    side = max(1.0, min(height, width) / CELLS)
    rows, columns = ((np.arange(size) / side).astype(np.int64) for size in (height, width))
    cells: Int64[np.ndarray, "h w"] = rows[:, None] * (columns[-1] + 1) + columns
    return cells
