"""lamina data --duplicates: near-duplicates and outliers, and the score without near-duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from lamina.cli.options.data_options import DataOptions
from lamina.cli.output import save_table
from lamina.cli.terminal import QUIET_SECONDS, Terminal
from lamina.data import Dataset, Images
from lamina.errors import plural
from lamina.insight.similarity import (
    DuplicatePair,
    compute_signatures,
    find_near_duplicates,
    find_overlap,
    group_copies,
    measure_isolation,
    shrink,
)
from lamina.training.task import Task


class Sight(NamedTuple):
    """An image: its split and its row in it."""

    images: Images
    row: int

    @property
    def name(self) -> str:
        return self.images.names[self.row]

    def to_json(self) -> dict[str, object]:
        return {"image": self.name, "split": self.images.split}


def list_sights(splits: Iterable[Images]) -> list[Sight]:
    return [Sight(images, row) for images in splits for row in range(len(images))]


def show_outliers(
    sights: Sequence[Sight], isolation: Float32[np.ndarray, " n"], top: int, terminal: Terminal
) -> list[dict[str, object]]:
    outliers = np.argsort(-isolation, kind="stable")[:top].tolist()
    rows = [
        (sights[row].name, sights[row].images.split, f"{isolation[row]:.3f}") for row in outliers
    ]
    terminal.tabulate(("image", "split", "isolation"), rows, texts=2)
    return [
        sights[row].to_json() | {"isolation": round(float(isolation[row]), 4)} for row in outliers
    ]


def list_duplicates(dataset: Dataset, options: DataOptions, terminal: Terminal) -> None:
    """Report near-duplicates and outliers."""
    # Split by split, because all images together may not fit into memory.
    pixels = np.concatenate([shrink(images.pixels) for images in dataset.splits.values()])
    sights = list_sights(dataset.splits.values())
    with terminal.progress(QUIET_SECONDS) as show_progress:
        pairs = find_near_duplicates(pixels, partial(show_progress, "comparing images"))
        isolation = measure_isolation(compute_signatures(pixels))
    across = sum(sights[pair.first].images is not sights[pair.second].images for pair in pairs)
    terminal.say(
        f"{plural(len(pairs), 'pair', 'pairs')} of near-duplicates, {across:,} of them across"
        " splits"
    )
    rows = []
    values = []
    for pair in pairs:
        first = sights[pair.first]
        second = sights[pair.second]
        splits = [first.images.split, second.images.split]
        mirrored = "yes" if pair.mirrored else "no"
        distance = f"{pair.distance:.3f}"
        rows.append((first.name, splits[0], second.name, splits[1], mirrored, distance))
        value = {"first": first.name, "second": second.name}
        values.append(value | {"distance": pair.distance, "splits": splits})
    heads = ("image", "split", "near-duplicate", "split", "mirrored", "distance")
    terminal.tabulate(heads, rows, texts=5, top=options.top)
    counts = _offer_groups(sights, pixels, pairs, options.groups, terminal)
    terminal.say("outliers (images unlike all others):")
    outliers = show_outliers(sights, isolation, options.top, terminal)
    terminal.emit("duplicates", pairs=values, outliers=outliers, near_train=counts)


def _offer_groups(
    sights: Sequence[Sight],
    pixels: np.ndarray,
    pairs: Sequence[DuplicatePair],
    file: Path | None,
    terminal: Terminal,
) -> dict[str, int]:
    """Count held-out images with near-duplicates in ``train``; save near-duplicates as groups."""
    near = {
        row
        for first, second, *_ in pairs
        for row, other in ((first, second), (second, first))
        if sights[row].images.split != "train" == sights[other].images.split
    }
    counts: dict[str, int] = Counter(sights[row].images.split for row in near)
    for split, count in counts.items():
        total = sum(sight.images.split == split for sight in sights)
        terminal.say(
            f"{count:,} of the {total:,} images of {split} have near-duplicates in train, which"
            f" inflates the score on {split}; lamina evaluate RUN prints the score without them"
        )
    if file is not None:
        known = [images.groups[row] for images, row in sights if images.groups]
        groups = group_copies(pixels, pairs, known)
        sizes = Counter(groups)
        rows = [
            (sight.name, sights[group].name)
            for sight, group in zip(sights, groups, strict=True)
            if sizes[group] > 1
        ]
        save_table(file, [("image", "group"), *rows])
        several = plural(sum(size > 1 for size in sizes.values()), "group", "groups")
        advice = f"; train with --group-from {file}" if rows else ""
        terminal.say(f"{file}: {len(rows):,} images in {several}{advice}")
    elif counts:
        terminal.say(
            "to keep near-duplicates in one split, save them as groups with --groups groups.csv"
        )
    return counts


def report_overlap(
    task: Task,
    logits: Float32[np.ndarray, "n k"],
    images: Images,
    train: Images,
    terminal: Terminal,
) -> dict[str, Any]:
    """Report the near-duplicates of training images, and the score without them, as JSON values."""
    with terminal.progress(QUIET_SECONDS) as show_progress:
        overlap = find_overlap(
            task, logits, images, train, partial(show_progress, "comparing images")
        )
    if len(overlap.rows):
        terminal.say("", str(overlap))
        terminal.remark(
            "near-duplicates: to keep them in one split, see lamina data DATA --duplicates --groups"
            " FILE.csv"
        )
    score = None if overlap.report is None else overlap.report.score.value
    return {"near_duplicates": len(overlap.rows), "score_without": score}
