"""Masks of the built-in set's shapes."""

from __future__ import annotations

import numpy as np

from lamina.data.sources.drawn import (
    COUNTS,
    SEEDS,
    choose_figures,
    count_chunk,
    draw_figures,
    place_figures,
)


def mask_shapes(target, split, count, size_px=32):
    """Masks of the first images of a split: pixels whose center lies in the shape or its hollow."""
    random = np.random.default_rng(SEEDS[split])
    masks = np.empty((count, size_px, size_px), np.bool_)
    chunk = count_chunk(size_px)
    for start in range(0, len(masks), chunk):
        figures = choose_figures(
            random, min(chunk, COUNTS[split] - start), posed=target == "shapes-pose"
        )
        masks[start : start + chunk] = (place_figures(figures, size_px)[0] <= 0)[
            : len(masks) - start
        ]
        draw_figures(random, figures, size_px)  # consumes random numbers, as drawing the set does
    return masks
