"""Problems of a data set: what they are, how they harm training or scores, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool

from lamina.data.arrays import has_only_0_and_1
from lamina.data.images import DARK, EMPTY_FOLDER, OTHER_FILE, Dataset, Images, Problem, list_gaps
from lamina.data.splits import LEAKS, SPLITS, Split
from lamina.errors import name_some, plural
from lamina.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Targets

if TYPE_CHECKING:
    import polars as pl

Severity = Literal["error", "warning", "note"]

# A class is tiny if it has fewer training images than this, or than this fraction of the median
# class.
TINY_CLASS_IMAGES, TINY_CLASS_FRACTION = 10, 1 / 20
COARSE_FRACTION = 1 / 100  # rounding error of float32 as a fraction of the standard deviation
IMBALANCE_RATIO = 10.0  # largest class ÷ smallest class
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
    message: str
    count: int  # of images or classes
    # all images; empty if it is about classes
    images: tuple[Sighting, ...] = field(default=(), repr=False)
    # for each image, the first identical one
    twins: tuple[Sighting, ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class Facts:
    """A data set, its frame with the columns ``blank``, ``gray``, ``enlarged`` and ``oblong``.

    ``copies``, ``leaks`` and ``duplicates`` are the identical images that are not blank: blank
    images of one color are identical too; they are reported once.
    """

    dataset: Dataset
    frame: pl.DataFrame
    copies: pl.DataFrame
    leaks: pl.DataFrame
    duplicates: Sequence[tuple[int, ...]]

    @cached_property
    def targets(self) -> Targets:
        return np.concatenate([images.targets for images in self.dataset.splits.values()])

    def have_same_target(self, place: int, other: int) -> bool:
        return bool((self.targets[place] == self.targets[other]).all())

    def sight(self, places: Sequence[int]) -> tuple[Sighting, ...]:
        train = self.dataset.train
        rows = self.frame["split", "name"][list(places)].rows()
        return tuple(
            Sighting(split, name, train.kind.format(self.targets[place], train.target_names))
            for place, (split, name) in zip(places, rows, strict=True)
        )


def find_faults(facts: Facts) -> tuple[Finding, ...]:
    """All findings: errors, then warnings, then notes; the most important first within each."""
    blank = "blank (nearly uniform color). Check or remove blank images."
    gray = "gray, while the others have color. Check that being gray does not reveal the target."
    has_color = not (facts.frame["gray"] | facts.frame["blank"]).all()
    train = facts.dataset.train
    found = [
        *_find_leaks(facts),
        *find_group_leaks(facts.dataset),
        _find_conflicts(facts),
        *_find_only_class(train),
        *find_gaps(facts.dataset),
        *find_dark(train),
        *_find_unreadable(facts.dataset),
        *_find_duplicates(facts),
        _find_marked(facts, "blank", "warning", blank),
        *_find_constant(train),
        *_find_coarse(train),
        _find_tiny(train),
        *_find_imbalance(train),
        *_find_misfits(facts),
        *([_find_marked(facts, "gray", "note", gray)] if has_color else []),
    ]
    present = [finding for finding in found if finding.count]
    return tuple(sorted(present, key=lambda finding: get_args(Severity).index(finding.severity)))


def imbalance(images: Images) -> float | None:
    """The largest class ÷ the smallest non-empty class, in images; ``None`` for regression."""
    counts = [count for count in images.target_counts().values() if count]
    return max(counts) / min(counts) if counts else None


def _find_marked(facts: Facts, kind: str, severity: Severity, what: str) -> Finding:
    """A finding about the images that have a mark in the column of this name."""
    places = facts.frame[kind].arg_true().to_list()
    message = f"{plural(len(places), 'image is', 'images are')} {what}"
    return Finding(kind, severity, message, len(places), facts.sight(places))


def _find_twins(
    facts: Facts, twins: dict[int, int], kind: str, severity: Severity, what: str
) -> Finding:
    """A finding about the keys of ``twins``, images that are identical to the value's image."""
    message = f"{plural(len(twins), 'image is', 'images are')} {what}"
    images = facts.sight(list(twins))
    firsts = facts.sight(list(twins.values()))
    return Finding(kind, severity, message, len(twins), images, firsts)


def _find_leaks(facts: Facts) -> list[Finding]:
    found = []
    for split, earlier in LEAKS:
        pair = facts.leaks.filter(split=split, twin_split=earlier)
        twins = dict(pair["place", "twin"].rows())
        what = (
            f"in both {split} and {earlier} (identical pixels), which inflates the score on"
            f" {split}. Keep each image in one split only."
        )
        found.append(_find_twins(facts, twins, "leak", "error", what))
    return found


def find_group_leaks(dataset: Dataset) -> list[Finding]:
    """Groups that are in two splits, for each held-out split and an earlier one."""
    of_split = {split: {*images.groups} for split, images in dataset.splits.items()}
    found = []
    for split, earlier in LEAKS:
        if both := of_split.get(split, set()) & of_split.get(earlier, set()):
            images = dataset.splits[split]
            which = name_some(sorted(both))
            count = sum(group in both for group in images.groups)
            message = (
                f"{plural(len(both), 'group is', 'groups are')} in both {split} and {earlier}:"
                f" {which}. This is about {count:,} of the {len(images):,} images of {split}, and"
                f" may inflate the score on {split}. Let lamina draw the splits, or move each group"
                " to one split."
            )
            found.append(Finding("group-leak", "error", message, len(both)))
    return found


def _find_conflicts(facts: Facts) -> Finding:
    twins: dict[int, int] = {}
    for first, *others in facts.duplicates:
        differing = [place for place in others if not facts.have_same_target(place, first)]
        twins |= dict.fromkeys(differing[:1], first)
    what = (
        "pixel-identical to an image with a different target, so no net can learn both. "
        "Keep the one with the correct target."
    )
    return _find_twins(facts, twins, "conflict", "error", what)


def find_gaps(dataset: Dataset) -> list[Finding]:
    """Classes or labels missing from ``train``, or from a split although ``train`` has them."""
    return [
        Finding("class-missing", "error" if split == "train" else "warning", message, count)
        for split, count, message in list_gaps(dataset)
    ]


def find_dark(train: Images) -> list[Finding]:
    """Training images whose largest pixel value is 1."""
    message = f"train has {DARK} Scale them to 0 to 255."
    return (
        [Finding("dark", "warning", message, len(train))] if has_only_0_and_1(train.pixels) else []
    )


def _find_only_class(train: Images) -> list[Finding]:
    message = (
        f"the only class is {train.target_names[0]}, so there is nothing to learn."
        f" {SINGLE_CLASS_REMEDY}"
    )
    is_alone = train.kind is SINGLE_LABEL and len(train.target_names) == 1
    return [Finding("class-missing", "error", message, 1)] if is_alone else []


def _find_unreadable(dataset: Dataset) -> list[Finding]:
    # The text after a colon differs by file, as in "damaged: broken data stream".
    groups: dict[str, list[Problem]] = {}
    for problem in dataset.problems:
        groups.setdefault(problem.reason.split(":")[0], []).append(problem)
    found = []
    for reason, problems in sorted(groups.items(), key=lambda group: -len(group[1])):
        count, them = (
            plural(len(problems), "file was", "files were"),
            "it" if len(problems) == 1 else "them",
        )
        sighted = tuple(Sighting(None, problem.path, None) for problem in problems)
        message = f"{count} left out: {reason}."
        if reason == OTHER_FILE:
            found.append(Finding("unused", "note", message, len(problems), sighted))
        elif reason == EMPTY_FOLDER:
            folders = plural(len(problems), "folder has", "folders have")
            which = "it is not a class" if len(problems) == 1 else "they are not classes"
            message = f"{folders} no images, so {which}. Add images, or remove {them}."
            found.append(Finding("empty-folder", "warning", message, len(problems), sighted))
        else:
            message += f" Repair, replace or remove {them}."
            found.append(Finding("unreadable", "warning", message, len(problems), sighted))
    return found


def _find_duplicates(facts: Facts) -> list[Finding]:
    found = []
    for split in SPLITS:
        part = facts.copies.filter(split=split)
        firsts = part.unique("digest", keep="first").select("digest", "place")
        pairs = part.join(firsts, on="digest", maintain_order="left")["place", "place_right"].rows()
        # With different targets, they are conflicts.
        twins = {
            place: twin
            for place, twin in pairs
            if place != twin and facts.have_same_target(place, twin)
        }
        what = (
            f"pixel-identical to another image in {split}, which then counts more than once. Keep"
            " one of each."
        )
        found.append(_find_twins(facts, twins, "duplicate", "warning", what))
    return found


def _find_constant(train: Images) -> list[Finding]:
    if train.kind is MULTI_LABEL and len(train) > 1:
        everywhere = [name for name, count in train.target_counts().items() if count == len(train)]
        kind, have, remedy = (
            "label-constant",
            f"the label {name_some(everywhere)}",
            "Add images without it",
        )
    elif train.kind is REGRESSION and len(train):
        everywhere = _select(train, (train.targets == train.targets[0]).all(axis=0))
        kind, have, remedy = (
            "number-constant",
            f"the same value of {name_some(everywhere)}",
            "Check the table",
        )
    else:
        return []
    message = (
        f"all images in train have {have}, so there is nothing to learn. {remedy}, or leave the"
        " column out."
    )
    return [Finding(kind, "warning", message, len(everywhere))]


def _find_coarse(train: Images) -> list[Finding]:
    """Numbers so far from 0 that float32 rounds away their differences."""
    if train.kind is not REGRESSION or not len(train):
        return []
    steps = np.spacing(np.abs(train.targets).max(axis=0)).astype(np.float64)
    deviations = train.targets.std(axis=0, dtype=np.float64)
    coarse = (deviations > 0) & (steps > COARSE_FRACTION * deviations)
    names = _select(train, coarse)
    message = (
        f"the values of {name_some(names)} are so far from 0 that float32 rounds them to multiples"
        f" of {steps[coarse].max(initial=0):.3g}, which hides much of their variation. Subtract a"
        " constant from them in the table."
    )
    return [Finding("number-coarse", "warning", message, len(names))]


def _select(train: Images, columns: Bool[np.ndarray, " k"]) -> list[str]:
    return [
        name for name, is_selected in zip(train.target_names, columns, strict=True) if is_selected
    ]


def _find_tiny(train: Images) -> Finding:
    counts = {name: count for name, count in train.target_counts().items() if count}
    median = float(np.median(list(counts.values()))) if counts else 0.0
    least = max(TINY_CLASS_IMAGES, TINY_CLASS_FRACTION * median)
    tiny = [f"{name} ({count})" for name, count in counts.items() if count < least]
    message = (
        f"train has few images of {name_some(tiny)}; the median class has {median:,.0f}. "
        "Add images, or merge classes that belong together."
    )
    return Finding("class-tiny", "warning", message, len(tiny))


def _find_imbalance(train: Images) -> list[Finding]:
    ratio = imbalance(train)
    if ratio is None or ratio < IMBALANCE_RATIO:
        return []
    counts = {name: count for name, count in train.target_counts().items() if count}
    largest, smallest = (
        max(counts, key=lambda name: counts[name]),
        min(counts, key=lambda name: counts[name]),
    )
    message = (
        f"train has {ratio:,.0f} times as many images of {largest} ({counts[largest]:,}) as of"
        f" {smallest} ({counts[smallest]:,}). To weight the classes equally, train with"
        " --class-weights (in Python, Recipe(class_weights=True))."
    )
    return [Finding("imbalance", "note", message, len(counts))]


def _find_misfits(facts: Facts) -> list[Finding]:
    _, height, width = facts.dataset.train.shape
    effect = {
        "crop": (
            "keeps less than half. To keep everything, use --resize pad (in Python, resize='pad')."
        ),
        "pad": "adds more black bars than image. Crop the images to what matters.",
        "stretch": (
            "distorts them badly. To keep the proportions, use --resize pad (in Python,"
            " resize='pad')."
        ),
    }[facts.dataset.resize]
    long = f"so wide or tall that resizing to {height}×{width} by {facts.dataset.resize} {effect}"
    small = (
        f"smaller than {height}×{width}; enlarging adds no detail, and a smaller size trains"
        " faster."
    )
    return [
        _find_marked(facts, "oblong", "note", long),
        _find_marked(facts, "enlarged", "note", small),
    ]
