"""The lines that commands print about a data set: its contents, and how lamina read its source."""

from __future__ import annotations

from lamina.data.groups import describe_groups
from lamina.data.images import EMPTY_FOLDER, OTHER_FILE, Dataset
from lamina.data.load import EXAMPLES, NAMES
from lamina.data.splits import OWN_RULE
from lamina.errors import name_some, plural


def describe_data(dataset: Dataset, reason: str = "") -> list[str]:
    """Describe the contents of a data set and, if lamina drew splits, how; one line each."""
    counts = ", ".join(f"{len(images):,} {split}" for split, images in dataset.splits.items())
    shape = "×".join(map(str, dataset.train.shape))
    origin = f" ({reason})" if reason else ""
    lines = [f"data: {dataset.name}{origin}: {counts}; {shape}"]
    if dataset.split_rule != OWN_RULE:
        lines.append(f"splits: {dataset.split_rule}")
    groups = [group for images in dataset.splits.values() for group in images.groups]
    if groups:
        lines.append(f"groups: {describe_groups(groups)}")
    others = [problem.path for problem in dataset.problems if problem.reason == OTHER_FILE]
    if others:
        count = plural(len(others), "file", "files")
        lines.append(f"not used: {count}: {name_some(others, EXAMPLES)}")
    empty = [problem.path for problem in dataset.problems if problem.reason == EMPTY_FOLDER]
    if empty:
        lines.append(f"folders without images: {name_some(empty, EXAMPLES)}")
    return lines


def describe_reading(dataset: Dataset) -> list[str]:
    """Describe how lamina read the targets and sized the images of your own data; one line each."""
    return [f"{line} {change}".rstrip() for line, change in explain_reading(dataset)]


def explain_reading(dataset: Dataset) -> list[tuple[str, str]]:
    """Lines about targets, corrections and size, each with how to change it, or an empty text."""
    lines = []
    if dataset.source and dataset.source not in NAMES:
        lines.append((f"targets: {dataset.target_reason}", ""))
    if dataset.preparation.labels_from:
        lines.append((f"corrections: {dataset.corrections}", ""))
    if dataset.preparation.size_px is None and dataset.size_px is not None:
        size = (
            f"size: resized to {dataset.size_px}×{dataset.size_px} px by {dataset.resize}, because"
            " the images differ in size or exceed 256 px"
        )
        lines.append((size, "(change with --size, in Python Preparation(size_px=…))"))
    return lines
