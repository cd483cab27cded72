"""Groups of images, such as all images of a patient, which must stay in one split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lamina.data.option_files import read_pairs
from lamina.data.preparation import Pairs
from lamina.errors import DataError, plural
from lamina.targets import BINARY, SINGLE_LABEL, Targets, kind_of


def find_groups(names: Sequence[str], rule: str | Pairs) -> list[str]:
    """The groups by ``Preparation.group_from``; ``DataError`` if a rule gives an image none."""
    if not isinstance(rule, str):
        return _look_up(names, dict(rule))
    kind, _, pattern = rule.partition(":")
    groups = [_find_group(name, kind, pattern) for name in names]
    missing = [name for name, group in zip(names, groups, strict=True) if not group]
    if missing:
        what = "is in no folder" if kind == "parent" else "does not match"
        others = f", and {plural(len(missing) - 1, 'other', 'others')}" if missing[1:] else ""
        raise DataError(
            f"--group-from {rule} (in Python, group_from): {missing[0]} {what}{others}. Change the"
            " rule."
        )
    return groups


def _find_group(name: str, kind: str, pattern: str) -> str:
    """The group of an image by its path; empty if it has none."""
    if kind == "parent":
        return name.rpartition("/")[0].rpartition("/")[2]
    match = re.search(pattern, name)
    return (match and match[1]) or ""


def read_groups(file: str) -> Pairs:
    """The images and groups in a CSV file."""
    pairs = read_pairs(file, "group_from", "group", "Correct the first line.")
    if not pairs or not all(image and group for image, group in pairs):
        raise DataError(
            f"{file} must have an image and a group in each row, and at least one row. Complete it."
        )
    return pairs


def _look_up(names: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """The group of each image; each that is not listed forms its own group."""
    if unknown := sorted(groups.keys() - {*names}):
        count = plural(len(unknown), "image that is", "images that are")
        raise DataError(
            f"The file of --group-from (in Python, group_from) names {count} not in the data set;"
            f" the first is {unknown[0]}. Use paths in the data set, such as {names[0]}."
        )
    return [groups.get(name, name) for name in names]


def check_divisible(targets: Targets, target_names: Sequence[str], groups: Sequence[str]) -> None:
    """Raise ``DataError`` if a group has all images, or all images of a class: splits need two."""
    remedy = "Change --group-from or --group-column, or draw no splits with --val 0 --test 0."
    are_single = len(set(groups)) == len(groups)
    if len(set(groups)) == 1:
        raise DataError(
            f"All {len(groups):,} images are in one group, {groups[0]}, so they cannot be split."
            f" {remedy}"
        )
    kind = kind_of(targets)
    if kind not in (SINGLE_LABEL, BINARY):
        return
    pairs = {*zip(kind.strata(targets), groups, strict=True)}
    counts = Counter(stratum for stratum, _ in pairs)
    names = kind.class_names(target_names)
    for stratum, group in sorted(pairs, key=str):
        if counts[stratum] == 1:
            name = names[int(stratum)]  # type: ignore[call-overload]
            if are_single:
                raise DataError(
                    f"Only one image is {name}, so it cannot be in train and test. Add images of"
                    " this class."
                )
            raise DataError(
                f"All images of {name} are in one group, {group}, so {name} cannot be in both train"
                f" and test. Add images of {name} from other groups, or leave out this class."
                f" {remedy}"
            )


def describe_groups(groups: Sequence[str]) -> str:
    """The number of groups and the size of the largest."""
    ((largest, count),) = Counter(groups).most_common(1)
    if count == 1:
        return f"each of the {len(groups):,} images has its own group, so grouping has no effect"
    total = len(set(groups))
    return (
        f"{plural(total, 'group', 'groups')} of {len(groups):,} images; the largest is {largest}"
        f" with {count:,}"
    )
