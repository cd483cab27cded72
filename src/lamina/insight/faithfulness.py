"""Measure how faithful attribution maps are.

The first test checks whether maps depend on the weights: it draws new weights (Adebayo et al.,
arXiv 1810.03292). The second checks whether the prediction depends on the pixels that a map marks:
it covers the image cell by cell in the map's order (after Samek et al., arXiv 1509.06321). Its
control moves the map to random places, rather than covering random cells: many holes confuse a net
more than one covered area.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lamina.evaluation.scores import mean_ranks
from lamina.insight.attribution import Indices, Map, Maps, float_inputs
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.hooks import learned_modules
from lamina.training.model import PREDICTED_PIXELS, Model
from lamina.training.randomness import derive_seed, seeded
from lamina.training.task import Pixels, Task

Explain: TypeAlias = Callable[[Model, Pixels, Indices], Maps]
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

    The smaller the differences from the controls, the less the map is worth.

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
        correlations = ", ".join(f"{value:.2f}" for value in self.correlations)
        return (
            f"covering the image in the map's {order} changes the {measured} from"
            f" {show(self.before)} to {show(self.by_map)} on average, covering random places to"
            f" {show(self.by_random_map)}{warning}, covering from the center to"
            f" {show(self.by_center)}; rank correlation with maps of random weights: {correlations}"
        )


def measure_faithfulness(
    model: Model,
    pixels: Pixels,
    targets: Indices,
    maps: Maps,
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
    redrawn_maps = [explain(redraw(model, fraction), pixels, targets) for fraction in CASCADE]
    measured = []
    with torch.inference_mode(), float_inputs(model, pixels) as inputs:
        logits = model.body(inputs)
        for row, target in enumerate(targets.tolist()):
            predicted = logits[row : row + 1]
            is_against = _is_against(model.task, predicted, target)
            # the evidence for what the model predicts is negative in the map
            evidence = -maps[row] if is_against else maps[row]
            masks = _build_masks(evidence)
            values = _measure_covered(model, inputs[row], masks, target)
            by_map, by_center, *by_random = values.view(-1, LEVELS - 1).mean(dim=1).tolist()
            correlations = [rank_correlation(maps[row], redrawn[row]) for redrawn in redrawn_maps]
            measured.append(
                Faithfulness(
                    correlations=tuple(correlations),
                    before=_find_values(model.task, predicted, target).item(),
                    by_map=by_map,
                    by_random_map=float(np.mean(by_random)),
                    by_center=by_center,
                    is_against=is_against,
                    is_number=model.task.kind is REGRESSION,
                )
            )
    return tuple(measured)


def redraw(model: Model, fraction: float, seed: int = 0) -> Model:
    """A copy with new random weights in the last ``fraction`` of its layers, in calling order."""
    copied = copy.deepcopy(model)
    layers = learned_modules(copied)
    with torch.no_grad(), seeded(derive_seed(seed, "redraw"), model.device):
        for layer in layers[len(layers) - max(1, round(fraction * len(layers))) :]:
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            # normal, with the standard deviation of the weights
            for weight in layer.parameters(recurse=False):
                weight.normal_(0, float(weight.std(correction=0)) or 1.0)
    return copied


def rank_correlation(
    first: Float[np.ndarray, "*shape"], second: Float[np.ndarray, "*shape"]
) -> float:
    """Spearman's rank correlation, from -1 to 1; 0 if one of the two is constant."""
    ranks = np.stack([mean_ranks(first), mean_ranks(second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=1).prod())
    if not spread:
        return 0.0
    return float(ranks.prod(axis=0).sum() / spread)


def _find_values(task: Task, logits: Float[Tensor, "m k"], target: int) -> Float[Tensor, " m"]:
    """The explained probability or, for regression, the standardized number."""
    if task.kind is REGRESSION:
        return logits[:, target]
    return task.probabilities(logits)[:, target]


def _is_against(task: Task, logits: Float[Tensor, "1 k"], target: int) -> bool:
    """Whether the model does not predict the label, or predicts a number below the mean."""
    if task.kind is SINGLE_LABEL:
        return False
    predicted = logits > 0 if task.kind is REGRESSION else task.decide(logits)
    return not predicted[0, target]


def _move_at_random(values: Map) -> Iterator[Map]:
    """The map at random places, mirrored at random."""
    generator = np.random.default_rng(derive_seed(0, "cover"))
    # A lattice spreads the places evenly.
    start = generator.random(2)
    steps = 1 - 2 * generator.integers(0, 2, (RANDOM_ORDERS, 2))
    for number, (step_down, step_right) in enumerate(steps.tolist()):
        offset = np.array([number / RANDOM_ORDERS, number * GOLDEN_FRACTION])
        place = (start + offset) % 1
        move = (place * values.shape).astype(np.int64).tolist()
        yield np.roll(values, move, (0, 1))[::step_down, ::step_right]


def _build_masks(evidence: Map) -> Bool[Tensor, "m h w"]:
    """The pixels covered at each level: in the map's order, from the center, and by moved maps."""
    height, width = evidence.shape
    side = max(1.0, min(height, width) / CELLS)
    rows = (np.arange(height) / side).astype(np.int64)
    columns = (np.arange(width) / side).astype(np.int64)
    cells = rows[:, None] * (columns[-1] + 1) + columns
    y, x = np.ogrid[:height, :width]
    distances = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    sizes = np.bincount(cells.ravel())
    ranks = []
    for values in (-evidence, distances, *_move_at_random(-evidence)):
        means = np.bincount(cells.ravel(), values.ravel()) / sizes
        ranks.append(np.argsort(np.argsort(means, kind="stable")))
    levels = torch.arange(1, LEVELS) * len(sizes) / LEVELS
    are_covered = torch.from_numpy(np.stack(ranks))[:, None, :] < levels[:, None]
    masks: Bool[Tensor, "m h w"] = are_covered[:, :, torch.from_numpy(cells)].flatten(0, 1)
    return masks


def _measure_covered(
    model: Model,
    image: Float[Tensor, "c h w"],
    masks: Bool[Tensor, "m h w"],
    target: int,
) -> Float[Tensor, " m"]:
    """The explained value while each mask covers the image with the mean color."""
    batches = masks.to(image.device).split(max(1, PREDICTED_PIXELS // masks[0].numel()))
    values = []
    for batch in batches:
        logits = model.body(image.masked_fill(batch[:, None], 0))
        values.append(_find_values(model.task, logits, target))
    return torch.cat(values)
