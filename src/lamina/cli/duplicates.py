"""lamina data --duplicates: images that are nearly copies of others."""

from __future__ import annotations

from functools import partial

import numpy as np

from lamina.cli.options.data import DataOptions
from lamina.cli.outliers import list_sights, show_outliers
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset
from lamina.errors import plural
from lamina.insight.duplicates import compute_signatures, find_near_duplicates, measure_isolation, shrink


def list_duplicates(dataset: Dataset, options: DataOptions, terminal: Terminal) -> None:
    """Say which images are near-duplicates, and which are least like any other."""
    # Shrunk split by split, as all pictures together may not fit into memory.
    pixels = np.concatenate([shrink(images.pixels) for images in dataset.splits.values()])
    sights = list_sights(dataset.splits.values())
    with terminal.progress(QUIET_SECONDS) as show_progress:
        pairs = find_near_duplicates(pixels, partial(show_progress, "comparing pictures"))
        isolation = measure_isolation(compute_signatures(pixels))
    across = sum(sights[pair.first].images is not sights[pair.second].images for pair in pairs)
    terminal.say(f"{plural(len(pairs), 'pair', 'pairs')} of near-duplicates, {across:,} of them in two splits")
    rows, values = [], []
    for pair in pairs:
        first, second = sights[pair.first], sights[pair.second]
        splits, mirrored = [first.images.split, second.images.split], "yes" if pair.mirrored else "no"
        rows.append((first.name, splits[0], second.name, splits[1], mirrored, f"{pair.distance:.3f}"))
        values.append({"first": first.name, "second": second.name, "distance": pair.distance, "splits": splits})
    heads = ("image", "split", "near-duplicate", "split", "mirrored", "distance")
    terminal.tabulate(heads, rows, texts=5, top=options.top)
    terminal.say("least like any other picture:")
    outliers = show_outliers(sights, isolation, options.top, terminal)
    terminal.emit("duplicates", pairs=values, outliers=outliers)
