"""Where the figures of the built-in set are."""

from __future__ import annotations

import numpy as np

from lamina.data.sources.drawn import CHUNK, COUNTS, SEEDS, choose_figures, draw_figures, place_figures


def mask_shapes(target, split, count, size_px=32):
    """The pixels whose centre lies in the figure or its hollow, of the first images of a split."""
    random = np.random.default_rng(SEEDS[split])
    masks = np.empty((count, size_px, size_px), np.bool_)
    for start in range(0, len(masks), CHUNK):
        figures = choose_figures(random, min(CHUNK, COUNTS[split] - start), posed=target == "shapes-pose")
        masks[start : start + CHUNK] = (place_figures(figures, size_px)[0] <= 0)[: len(masks) - start]
        draw_figures(random, figures, size_px)  # takes the random numbers before those of the next figures
    return masks
