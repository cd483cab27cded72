"""A data set in words: what it has, and how its source was read."""

from __future__ import annotations

from lamina.data.images import Dataset
from lamina.data.load import NAMES
from lamina.data.splits import OWN_RULE


def describe_data(dataset: Dataset, reason: str = "") -> list[str]:
    """What a data set has, and how it was split if it was, a line each."""
    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.splits.items())
    shape = "×".join(map(str, dataset.train.shape))
    lines = [f"data: {dataset.name}{f' ({reason})' * bool(reason)}: {counts}; {shape}"]
    return lines if dataset.split_rule == OWN_RULE else [*lines, f"splits: {dataset.split_rule}"]


def describe_reading(dataset: Dataset) -> list[str]:
    """How the targets and images of a source of one's own were read, a line each."""
    lines = [f"targets: {dataset.target_reason}"] if dataset.source and dataset.source not in NAMES else []
    if dataset.preparation.size_px is None and dataset.size_px is not None:
        lines.append(
            f"size: {dataset.size_px} px squares by {dataset.resize} (images differ in size, or are over 256 px; "
            "--size, or Preparation(size_px=…), sets another)"
        )
    return lines
