"""Groups of images, such as all images of a patient, which must stay in one split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lamina.data.option_files import describe_unknown, name_file, read_pairs
from lamina.errors import DataError, plural
from lamina.targets import BINARY, SINGLE_LABEL, Targets, kind_of


def find_groups(names: Sequence[str], rule: str) -> list[str]:
    """The groups by the rule of ``Preparation.group_from``; ``DataError`` if an image has none."""
    if "\n" in rule or rule.lower().endswith(".csv"):
        return _read_groups(names, rule)
    kind, _, detail = rule.partition(":")
    groups = [_find_group(name, kind, detail) for name in names]
    missing = [name for name, group in zip(names, groups, strict=True) if not group]
    if missing:
        what = "is in no folder" if kind == "parent" else "does not match"
        others = f", and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise DataError(
            f"--group-from {rule} (in Python, group_from): {missing[0]} {what}{others}. Change the"
            " rule."
        )
    return groups


def _find_group(name: str, kind: str, detail: str) -> str:
    """The group of an image by its path; empty if it has none."""
    folder, _, file = name.rpartition("/")
    if kind == "parent":
        return folder.rpartition("/")[2]
    if kind == "stem":
        stem = file.rpartition(".")[0] or file
        return stem.rpartition(detail)[0] or stem
    match = re.search(detail, name)
    return (match and match[1]) or ""


def _read_groups(names: Sequence[str], file: str) -> list[str]:
    """The groups in a CSV file; each image that it does not name forms its own group."""
    name = name_file(file, "group_from")
    rows = read_pairs(file, "group_from", "group", "Correct the first line.")
    groups = dict(rows)
    if not groups or "" in (*groups, *groups.values()):
        raise DataError(
            f"{name} must have an image and a group in each row, and at least one row. Complete it."
        )
    if unknown := describe_unknown(sorted(groups.keys() - {*names}), names):
        count = plural(len(unknown), "image that is", "images that are")
        raise DataError(
            f"{name} names {count} not in the data set; the first is {unknown[0]}. Use paths in the"
            f" data set, such as {names[0]}."
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
