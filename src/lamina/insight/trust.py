"""Tests of attribution maps: the map must depend on the weights, and the prediction on the pixels that it marks.

The first test redraws the weights (Adebayo et al., arXiv 1810.03292). The second covers the image cell by cell in the
map's order (after Samek et al., arXiv 1509.06321). Its control moves the map to random places, rather than covering
random cells: many holes confuse a net more than one covered area.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from lamina.evaluation.scores import mean_ranks
from lamina.insight.attribution import float_inputs
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.activations import learned_modules
from lamina.training.model import PREDICTED_PIXELS, Model
from lamina.training.randomness import derive_seed, seeded

Explain: TypeAlias = Callable[
    [Model, UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"]], Float32[np.ndarray, "n h w"]
]
"""An attribution function of a model, images and targets; ``functools.partial`` sets its other arguments."""

MOST_SIMILAR = 0.7
"""Upper limit of the smallest absolute rank correlation with the maps of redrawn weights. For `cnn-s` on the built-in
shapes, 95 % of the maps had less than 0.51 with each method (benchmarks/attribution.py)."""
LEAST_ADVANTAGE = 0.05
"""Lower limit of the map's advantage over random places, and upper limit of its disadvantage compared
with the order from the center: differences of the mean probability (or number, in standard deviations) while cells are
covered."""
LEAST_GAIN = 2.0
"""Lower limit of that advantage as a multiple of the redrawn net's. For integrated gradients, 30 images and 12
untrained nets (three kinds, two targets, two seeds), all had less than 1.9."""
CASCADE = (0.0, 0.5, 1.0)
"""Fractions of the layers whose weights are redrawn, from the last layer backward; 0 is the last layer only."""
CELLS = 8  # along the shorter side
LEVELS = 12  # steps in which the cells are covered
RANDOM_ORDERS = 6  # random places that the map is moved to, mirrored at random
GOLDEN_FRACTION = 0.6180339887498949


@dataclass(frozen=True)
class Trust:
    """The result of the two tests for one map.

    Attributes:
        is_trusted: whether the map passes both tests.
        reason: why, as text.
        similarity: rank correlation with the maps of redrawn weights (the last layer, half of the layers, all layers).
        before: probability of the explained output; for regression, the number in standard deviations from the mean.
        kept: mean of that value while the cells are covered in the map's order.
    """

    is_trusted: bool
    reason: str
    similarity: tuple[float, ...]
    before: float
    kept: float


def judge(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"],
    targets: Int64[np.ndarray, " n"],
    maps: Float32[np.ndarray, "n h w"],
    explain: Explain,
) -> tuple[Trust, ...]:
    """Test attribution maps.

    Args:
        model: the model that the maps explain.
        pixels: uint8 images (N, H, W, C).
        targets: index of the explained output, for each image.
        maps: the maps (N, H, W).
        explain: the attribution function that computed the maps, or a coarser version of it.

    Returns:
        The result for each map.
    """
    similarities = []
    for fraction in CASCADE:
        redrawn = redraw(model, fraction)
        redrawn_maps = explain(redrawn, pixels, targets)
        similarities.append([rank_correlation(*pair) for pair in zip(maps, redrawn_maps, strict=True)])
    covered = _cover_cells(model, pixels, targets, maps)
    controls = _cover_cells(redrawn, pixels, targets, redrawn_maps)
    return tuple(
        _decide(*parts, is_number=model.task.kind is REGRESSION)
        for parts in zip(maps, zip(*similarities, strict=True), covered, controls, strict=True)
    )


def redraw(model: Model, fraction: float, seed: int = 0) -> Model:
    """A copy of the model with new random weights in the last ``fraction`` of its layers, in calling order."""
    copied = copy.deepcopy(model)
    layers = learned_modules(copied)
    with torch.no_grad(), seeded(derive_seed(seed, "redraw"), model.device):
        for layer in layers[len(layers) - max(1, round(fraction * len(layers))) :]:
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
            else:
                for weight in layer.parameters(recurse=False):  # normal, with the standard deviation of the weights
                    weight.normal_(0, float(weight.std(correction=0)) or 1.0)
    return copied


def rank_correlation(one: Float[np.ndarray, "*shape"], other: Float[np.ndarray, "*shape"]) -> float:
    """Spearman's rank correlation, from -1 to 1; 0 if one of the two is constant."""
    ranks = np.stack([mean_ranks(one), mean_ranks(other)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=1).prod())
    return float(ranks.prod(axis=0).sum() / spread) if spread else 0.0


class _Covered(NamedTuple):
    """The explained output, and its mean while cells are covered in the order of map, moved map and center."""

    before: float
    kept: float
    kept_random: float
    kept_center: float


def _cover_cells(
    model: Model,
    pixels: UInt8[np.ndarray, "n h w c"],
    targets: Int64[np.ndarray, " n"],
    maps: Float32[np.ndarray, "n h w"],
) -> list[_Covered]:
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
            # If the model predicts no, or a number below the mean, the evidence for that is negative in the map.
            is_against = model.task.kind is not SINGLE_LABEL and own[target] < 0
            sign = -1 if is_against else 1
            moved = (
                np.roll(values, move, (0, 1))[::down, ::across]
                for move, (down, across) in zip(moves, flips, strict=True)
            )
            by_map, *at_random = (np.bincount(cells.ravel(), -sign * one.ravel()) / sizes for one in (values, *moved))
            orders = [by_map, from_center, *at_random]
            ranks = torch.from_numpy(np.stack([np.argsort(np.argsort(order, kind="stable")) for order in orders]))
            levels = torch.arange(1, LEVELS) * count / LEVELS
            masks = (ranks[:, None, :] < levels[:, None])[:, :, torch.from_numpy(cells)].flatten(0, 1).to(image.device)
            kept = torch.cat(
                [
                    _signed_output(model, model.body(torch.where(part[:, None], cover, image)), target, sign)
                    for part in masks.split(max(1, PREDICTED_PIXELS // cells.size))
                ]
            ).view(len(orders), -1)
            by_map, by_center, *by_random = kept.mean(dim=1).tolist()
            before = float(_signed_output(model, own[None], target, sign))
            covered.append(_Covered(before, by_map, float(np.mean(by_random)), by_center))
    return covered


def _divide(height: int, width: int) -> Int64[np.ndarray, "h w"]:
    """The number of the cell that each pixel is in."""
    side = max(1.0, min(height, width) / CELLS)
    rows, columns = ((np.arange(size) / side).astype(np.int64) for size in (height, width))
    cells: Int64[np.ndarray, "h w"] = rows[:, None] * (columns[-1] + 1) + columns
    return cells


def _signed_output(model: Model, logits: Float[Tensor, "n k"], target: int, sign: int) -> Float[Tensor, " n"]:
    if model.task.kind is SINGLE_LABEL:
        return model.task.probabilities(logits)[:, target]
    if model.task.kind is REGRESSION:
        return sign * logits[:, target]
    probabilities = model.task.probabilities(logits)[:, target]
    return probabilities if sign > 0 else 1 - probabilities


def _decide(
    values: Float32[np.ndarray, "h w"],
    similarity: tuple[float, ...],
    covered: _Covered,
    control: _Covered,
    *,
    is_number: bool,
) -> Trust:
    def show(value: float) -> str:
        return f"{value:.2f}" if is_number else f"{100 * value:.0f} %"

    before, kept, kept_random, kept_center = covered
    what = "number, in standard deviations from the mean," if is_number else "probability"
    curves = (
        f"covering the image in the map's order changes the {what} from {show(before)} to {show(kept)} on average, "
        f"covering random places to {show(kept_random)}, covering from the center to {show(kept_center)}"
    )
    advantage, redrawn_advantage = min(before, kept_random) - kept, control.kept_random - control.kept
    least = min(map(abs, similarity))
    correlation = f"rank correlation {least:.2f}"
    is_trusted = False
    if values.min() == values.max():
        reason = "the map is constant"
    elif least >= MOST_SIMILAR:
        reason = f"the map hardly depends on the weights: with random weights it is similar ({correlation})"
    elif advantage < LEAST_ADVANTAGE:
        reason = f"the prediction hardly depends on the marked pixels: {curves}"
    elif advantage < LEAST_GAIN * redrawn_advantage:
        reason = f"the prediction depends on the marked pixels no more than it does with random weights: {curves}"
    elif kept - kept_center > LEAST_ADVANTAGE:
        reason = f"the center of the image matters more than the marked pixels: {curves}"
    else:
        is_trusted = True
        reason = f"{curves}; with random weights the map differs ({correlation})"
    return Trust(is_trusted, reason, similarity, before, kept)
