"""Problems of a data set: what they are, how they harm training or scores, and what to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from lamina.data.arrays import has_only_0_and_1
from lamina.data.images import (
    CONFLICT,
    COPY,
    DARK,
    EMPTY_FOLDER,
    OTHER_FILE,
    REPEATED,
    Dataset,
    Images,
    list_gaps,
)
from lamina.data.splits import LEAKS, Split
from lamina.errors import name_some, plural
from lamina.targets import SINGLE_LABEL, Targets

if TYPE_CHECKING:
    import polars as pl

Severity = Literal["error", "warning", "note"]

# A class is tiny if it has fewer training images than this, or than this fraction of the median
# class.
TINY_CLASS_IMAGES = 10
TINY_CLASS_FRACTION = 1 / 20
IMBALANCE_RATIO = 10.0  # largest class ÷ smallest class
# by the reason of a problem: kind and severity of the finding
LEFT_OUT: dict[str, tuple[str, Severity]] = {
    OTHER_FILE: ("unused", "note"),
    EMPTY_FOLDER: ("empty-folder", "warning"),
    REPEATED: ("repeated-row", "note"),
    COPY: ("held-out-copy", "note"),
    CONFLICT: ("held-out-conflict", "error"),
}
SINGLE_CLASS_REMEDY = (
    "Add images of another class, or choose other labels with --label-from or --label-column (in"
    " Python, label_from or label_columns)."
)


class Sighting(NamedTuple):
    """An image that a finding is about; ``split`` and ``target`` are ``None`` if unreadable."""

    split: Split | None
    name: str
    target: str | None


@dataclass(frozen=True)
class Finding:
    """A problem of a data set that distorts scores or harms training, or a note about it."""

    kind: str  # such as "leak" or "class-tiny"
    severity: Severity
    problem: str
    count: int  # of images or classes
    # all images; empty if it is about classes
    images: tuple[Sighting, ...] = field(default=(), repr=False)
    # for each image, the first identical one
    twins: tuple[Sighting, ...] = field(default=(), repr=False)
    remedy: str = ""  # on the command line or in Python

    @property
    def message(self) -> str:
        """The problem and its remedy."""
        return f"{self.problem} {self.remedy}".rstrip()


@dataclass(frozen=True, eq=False)
class Facts:
    """A data set, and its frame with the column ``blank``.

    The frame has no digests of blank images: if they share a color, they would be reported twice.
    """

    dataset: Dataset
    frame: pl.DataFrame

    @cached_property
    def targets(self) -> Targets:
        return np.concatenate([images.targets for images in self.dataset.splits.values()])

    def sight(self, places: Sequence[int] | pl.Series) -> tuple[Sighting, ...]:
        train = self.dataset.train
        rows = self.frame["split", "name"][list(places)].rows()
        return tuple(
            Sighting(split, name, train.kind.format(self.targets[place], train.target_names))
            for place, (split, name) in zip(places, rows, strict=True)
        )


def find_faults(facts: Facts) -> tuple[Finding, ...]:
    """All findings: errors, then warnings, then notes; the most important first within each."""
    from lamina.data.duplicates import find_conflicts, find_leaks, find_repeated

    dataset = facts.dataset
    train = dataset.train
    findings = [
        *_find_leaks(facts, find_leaks(facts.frame)),
        *find_group_leaks(dataset),
        _find_conflicts(facts, find_conflicts(facts.frame)),
        *_find_only_class(train),
        *find_gaps(dataset),
        *find_dark(dataset),
        *_find_left_out(dataset),
        *_find_duplicates(facts, find_repeated(facts.frame)),
        *_find_tiny(train),
        *_find_imbalance(train),
        _find_blank(facts),
    ]
    present = [finding for finding in findings if finding.count]
    return tuple(sorted(present, key=lambda finding: get_args(Severity).index(finding.severity)))


def imbalance(images: Images) -> float | None:
    """The largest class ÷ the smallest non-empty class, in images; ``None`` for regression."""
    counts = _count_present(images).values()
    return max(counts) / min(counts) if counts else None


def _report(
    facts: Facts,
    kind: str,
    severity: Severity,
    what: str,
    places: pl.Series,
    twins: Sequence[int] | pl.Series = (),
) -> Finding:
    """A finding about the images at these places, and the images that they are identical to."""
    problem = f"{plural(len(places), 'image is', 'images are')} {what}"
    return Finding(kind, severity, problem, len(places), facts.sight(places), facts.sight(twins))


def _find_leaks(facts: Facts, leaks: pl.DataFrame) -> list[Finding]:
    findings = []
    for split, earlier in LEAKS:
        pairs = leaks.filter(split=split, twin_split=earlier)
        what = (
            f"in both {split} and {earlier} (identical pixels), which inflates the score on"
            f" {split}. Keep each image in one split only."
        )
        findings.append(_report(facts, "leak", "error", what, pairs["place"], pairs["twin"]))
    return findings


def _find_conflicts(facts: Facts, pairs: pl.DataFrame) -> Finding:
    what = (
        "pixel-identical to an image with a different target, so no net can learn both. "
        "Keep the one with the correct target."
    )
    return _report(facts, "conflict", "error", what, pairs["place"], pairs["first"])


def _find_duplicates(facts: Facts, repeated: pl.DataFrame) -> list[Finding]:
    findings = []
    for split in facts.dataset.splits:
        what = (
            f"pixel-identical to another image in {split}, which then counts more than once. Keep"
            " one of each."
        )
        pairs = repeated.filter(split=split)
        findings.append(
            _report(facts, "duplicate", "warning", what, pairs["place"], pairs["first"])
        )
    return findings


def _find_blank(facts: Facts) -> Finding:
    what = "blank (nearly uniform color). Check or remove blank images."
    return _report(facts, "blank", "warning", what, facts.frame["blank"].arg_true())


def find_group_leaks(dataset: Dataset) -> list[Finding]:
    """Groups that are in two splits, for each held-out split and an earlier split."""
    groups = {split: {*images.groups} for split, images in dataset.splits.items()}
    findings = []
    for split, earlier in LEAKS:
        both = groups.get(split, set()) & groups.get(earlier, set())
        if not both:
            continue
        images = dataset.splits[split]
        count = sum(group in both for group in images.groups)
        message = (
            f"{plural(len(both), 'group is', 'groups are')} in both {split} and {earlier}:"
            f" {name_some(sorted(both))}. This is about {count:,} of the {len(images):,} images of"
            f" {split}, and may inflate the score on {split}. Let lamina draw the splits, or move"
            " each group to one split."
        )
        findings.append(Finding("group-leak", "error", message, len(both)))
    return findings


def find_gaps(dataset: Dataset) -> list[Finding]:
    """Classes or labels missing from ``train``, or from a split although ``train`` has them."""
    findings = []
    for split, count, message in list_gaps(dataset):
        severity: Severity = "error" if split == "train" else "warning"
        findings.append(Finding("class-missing", severity, message, count))
    return findings


def find_dark(dataset: Dataset) -> list[Finding]:
    """Training images whose largest pixel value is 1."""
    train = dataset.train
    if not has_only_0_and_1(train.pixels):
        return []
    message = f"train has {DARK} Scale them to 0 to 255."
    return [Finding("dark", "warning", message, len(train))]


def _find_only_class(train: Images) -> list[Finding]:
    if train.kind is not SINGLE_LABEL or len(train.target_names) > 1:
        return []
    message = f"the only class is {train.target_names[0]}, so there is nothing to learn."
    return [Finding("class-missing", "error", message, 1, remedy=SINGLE_CLASS_REMEDY)]


def _find_left_out(dataset: Dataset) -> list[Finding]:
    """Files that were left out, by reason; the reason with the most files first."""
    left_out: defaultdict[str, list[Sighting]] = defaultdict(list)
    for problem in dataset.problems:
        # The text after a colon differs by file, as in "damaged: broken data stream".
        reason = problem.reason.partition(":")[0]
        left_out[reason].append(Sighting(None, problem.path, None))
    findings = []
    for reason, images in sorted(left_out.items(), key=lambda pair: -len(pair[1])):
        count = len(images)
        kind, severity = LEFT_OUT.get(reason, ("unreadable", "warning"))
        them = "it" if count == 1 else "them"
        message = f"{plural(count, 'file was', 'files were')} left out: {reason}."
        if kind == "repeated-row":
            message = f"{plural(count, 'row was', 'rows were')} left out: {reason}."
        elif kind == "empty-folder":
            folders = plural(count, "folder has", "folders have")
            which = "it is not a class" if count == 1 else "they are not classes"
            message = f"{folders} no images, so {which}. Add images, or remove {them}."
        elif kind == "unreadable":
            message += f" Repair, replace or remove {them}."
        findings.append(Finding(kind, severity, message, count, tuple(images)))
    return findings


def _find_tiny(train: Images) -> list[Finding]:
    counts = _count_present(train)
    if not counts:
        return []
    median = np.median(list(counts.values()))
    least = max(TINY_CLASS_IMAGES, TINY_CLASS_FRACTION * median)
    tiny = [f"{name} ({count})" for name, count in counts.items() if count < least]
    message = (
        f"train has few images of {name_some(tiny)}; the median class has {median:,.0f}. "
        "Add images, or merge classes that belong together."
    )
    return [Finding("class-tiny", "warning", message, len(tiny))]


def _find_imbalance(train: Images) -> list[Finding]:
    ratio = imbalance(train)
    if ratio is None or ratio < IMBALANCE_RATIO:
        return []
    counts = _count_present(train)
    largest = max(counts, key=counts.__getitem__)
    smallest = min(counts, key=counts.__getitem__)
    message = (
        f"train has {ratio:,.0f} times as many images of {largest} ({counts[largest]:,}) as of"
        f" {smallest} ({counts[smallest]:,})."
    )
    remedy = (
        "To weight the classes equally, train with --class-weights (in Python,"
        " Recipe(class_weights=True))."
    )
    return [Finding("imbalance", "note", message, len(counts), remedy=remedy)]


def _count_present(train: Images) -> dict[str, int]:
    """The number of images of each class or label that images have."""
    return {name: count for name, count in train.target_counts().items() if count}
