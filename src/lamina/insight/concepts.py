"""Units that detect a class: overlap of the images that excite a unit with those of a class.

After Bau et al., Network dissection, arXiv 1704.05796, but for whole images. Two controls measure
the overlap that chance reaches: the best unit for shuffled labels, and the best unit of nets with
random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from lamina.data import Images
from lamina.insight.units import memberships, name_memberships
from lamina.training.randomness import derive_seed

SHUFFLES = 50
LEAST_GAIN = 0.25
"""Lower limit of (overlap - control) / (1 - control) for a concept, for both controls. Random nets
reached up to 0.07, and 0.20 without recalibrated batch-norm statistics (36 nets, four data sets,
benchmarks/inside.py)."""


@dataclass(frozen=True)
class Concept:
    """The unit of a layer that overlaps most with a class or attribute."""

    name: str
    unit: int
    overlap: float  # intersection over union with the images that it responds to most
    shuffled: float  # the highest overlap of any unit in 50 shuffles of the labels
    untrained: float  # the highest overlap of any unit with random weights
    is_found: bool  # whether the overlap clearly exceeds both controls


def find_concepts(
    strengths: Float32[np.ndarray, "n u"],
    untrained: Sequence[Float32[np.ndarray, "n u"]],
    images: Images,
) -> tuple[Concept, ...]:
    """The best unit of each class or attribute; ``untrained`` has random nets' strengths."""
    truth = memberships(images) > 0
    generator = np.random.default_rng(derive_seed(0, "concepts"))
    own, *others = (RankedStrengths(each) for each in (strengths, *untrained))
    found = []
    for name, has in zip(name_memberships(images), truth.T, strict=True):
        if has.all() or not has.any():
            continue
        overlaps = own.overlap(has[None])[:, 0]
        shuffles = np.stack([generator.permutation(has) for _ in range(SHUFFLES)])
        shuffled = float(own.overlap(shuffles).max())
        control = max(float(other.overlap(has[None]).max()) for other in others)
        best = int(overlaps.argmax())
        reached = max(shuffled, control)
        is_found = overlaps[best] - reached > LEAST_GAIN * (1 - reached)
        found.append(Concept(name, best, float(overlaps[best]), shuffled, control, bool(is_found)))
    return tuple(found)


class RankedStrengths:
    """A layer's strengths with their order, which all classes share."""

    def __init__(self, strengths: Float32[np.ndarray, "n u"]) -> None:
        self._strengths, self._descending = strengths, -np.sort(-strengths, axis=0)

    def overlap(self, truth: Bool[np.ndarray, "s n"]) -> Float64[np.ndarray, "u s"]:
        """Intersection over union of units and rows of ``truth``, all with as many true values."""
        count = int(truth[0].sum())
        # The images with the greatest strengths, without those at the minimum, such as the 0 of a
        # ReLU.
        responds = (self._strengths >= self._descending[count - 1]) & (
            self._strengths > self._descending[-1]
        )
        both = responds.T.astype(np.float32) @ truth.T.astype(np.float32)
        overlaps: Float64[np.ndarray, "u s"] = both / (
            responds.sum(axis=0)[:, None] + count - both.astype(np.float64)
        )
        return overlaps
