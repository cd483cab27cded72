"""Measure how faithful attribution maps are.

The image is covered cell by cell in the map's order (after Samek et al., arXiv 1509.06321). The
control moves the map to random places, rather than covering random cells: many holes confuse a net
more than one covered area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lamina.insight.attribution import Indices, Map, Maps, float_inputs
from lamina.targets import REGRESSION, SINGLE_LABEL
from lamina.training.model import PREDICTED_PIXELS, Model
from lamina.training.randomness import derive_seed
from lamina.training.task import Pixels, Task

CELLS = 8  # along the shorter side
LEVELS = 12  # steps in which the cells are covered
RANDOM_ORDERS = 6  # random places that the map is moved to, mirrored at random
GOLDEN_FRACTION = 0.6180339887498949


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
    model: Model,
    pixels: Pixels,
    targets: Indices,
    maps: Maps,
) -> tuple[Faithfulness, ...]:
    """Measure how faithful attribution maps are.

    Args:
        model: the model that the maps explain.
        pixels: uint8 images (N, H, W, C).
        targets: index of the explained output, for each image.
        maps: the maps (N, H, W).

    Returns:
        The measurements for each map.
    """
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
            by_map, *by_random = values.view(-1, LEVELS - 1).mean(dim=1).tolist()
            measured.append(
                Faithfulness(
                    before=_find_values(model.task, predicted, target).item(),
                    by_map=by_map,
                    by_random_map=float(np.mean(by_random)),
                    is_against=is_against,
                    is_number=model.task.kind is REGRESSION,
                )
            )
    return tuple(measured)


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
