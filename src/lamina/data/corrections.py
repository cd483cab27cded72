"""Corrected labels and excluded images (``Preparation.labels_from``)."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

from lamina.data.groups import read_groups
from lamina.data.option_files import read_pairs
from lamina.data.preparation import Pairs, Preparation, is_group_file
from lamina.errors import DataError, plural, suggest
from lamina.targets import BINARY, MULTI_LABEL, SINGLE_LABEL, Targets, kind_of
from lamina.text import guard

COLUMNS = ("image", "split", "given", "likely", "score", "reason", "correct")
"""The columns of a table of label issues; lamina reads only ``image`` and ``correct``."""
EXCLUDE = "exclude"
ADVICE = (
    f"Write the correct label of an image into the column correct, or {EXCLUDE}; empty cells change"
    " nothing."
)
Place: TypeAlias = tuple[int, int]  # column and value of a label
Table: TypeAlias = tuple[str, Pairs]
"""The name of a file in messages, and its entries: an image and its label, or ``EXCLUDE``."""


@dataclass(frozen=True)
class Effect:
    """What corrections changed, the entries without effect, and the images not found."""

    corrected: int = 0
    excluded: int = 0
    unchanged: int = 0
    not_found: Sequence[str] = ()

    def __str__(self) -> str:
        return (
            f"{plural(self.corrected, 'label', 'labels')} corrected,"
            f" {plural(self.excluded, 'image', 'images')} excluded,"
            f" {plural(self.unchanged, 'entry', 'entries')} without a change,"
            f" {len(self.not_found):,} not found"
        )


UNCORRECTED = Effect()


def correct(
    tables: Sequence[Table],
    names: Sequence[str],
    targets: Targets,
    target_names: Sequence[str],
    *,
    is_part: bool = False,
) -> tuple[Targets, Bool[np.ndarray, " n"], Effect]:
    """Apply tables in turn; return the new targets, the images to keep, and the effect.

    Raises ``DataError`` for unknown labels, contradictions, and tables of other images, unless the
    images are only a part of the data set.
    """
    corrected = np.array(targets)
    are_kept = np.ones(len(names), np.bool_)
    if not tables:
        return corrected, are_kept, UNCORRECTED
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows_of[name].append(row)
    labels = _list_labels(targets, target_names)
    flat = corrected.reshape(len(names), -1)  # a view
    unchanged = 0
    not_found: list[str] = []
    for file, entries in tables:
        places_of = _find_places(file, entries, labels)
        missing = [image for image in places_of if image not in rows_of]
        if len(missing) == len(places_of) and not is_part:
            raise DataError(
                f"{file} names no image of the data set; the first of {len(missing):,} is"
                f" {missing[0]}.",
                remedy=f"Use names as lamina data prints them, such as {names[0]}.",
            )
        not_found += missing
        for image in places_of.keys() & rows_of.keys():
            rows = rows_of[image]
            for place in places_of[image].values():
                if place is None:
                    are_kept[rows] = False
                    continue
                column, value = place
                unchanged += bool((flat[rows, column] == value).all())
                flat[rows, column] = value
    excluded = int((~are_kept).sum())
    if excluded == len(names):
        raise DataError(
            f"All {len(names):,} images are excluded. Remove {EXCLUDE} from some rows of the table."
        )
    changed = (corrected != targets).reshape(len(names), -1)[are_kept]
    return corrected, are_kept, Effect(int(changed.sum()), excluded, unchanged, not_found)


def contain_files(preparation: Preparation) -> tuple[list[Table], Preparation]:
    """The corrections, and the preparation with the contents of its files in place of names.

    A run then does not depend on the files, and columns and rows without effect do not change the
    data set.
    """
    tables: list[Table] = []
    for table in preparation.labels_from:
        if isinstance(table, str):
            tables.append((table, _read_corrections(table)))
        else:
            tables.append(("The file of --labels-from", table))
    rule = preparation.group_from
    if isinstance(rule, str) and is_group_file(rule):
        rule = read_groups(rule)
    contents = tuple(entries for _, entries in tables)
    return tables, replace(preparation, labels_from=contents, group_from=rule)


def format_rows(rows: Sequence[Sequence[str | None]]) -> str:
    """A table as ``labels_from`` reads it."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
        [guard(cell or "") for cell in row] for row in rows
    )
    return text.getvalue()


def _read_corrections(file: str) -> Pairs:
    pairs = read_pairs(file, "labels_from", "correct", ADVICE)
    entries = tuple((image, label) for image, label in pairs if label)
    if not entries:
        raise DataError(
            f"{file} has no entry in the column correct, so it changes nothing. {ADVICE}"
        )
    return entries


def _find_places(
    file: str, entries: Pairs, labels: Mapping[str, Place]
) -> dict[str, dict[str, Place | None]]:
    """The labels that a table gives each image, with their places; ``None`` excludes the image."""
    places_of: defaultdict[str, dict[str, Place | None]] = defaultdict(dict)
    for image, label in entries:
        is_known = label in labels
        if label.lower() == EXCLUDE:
            if is_known:
                raise DataError(
                    f"{file} has {label} for {image}: this word names a class, but also leaves out"
                    " an image. Rename the class."
                )
            places_of[image][EXCLUDE] = None
        elif is_known:
            places_of[image][label] = labels[label]
        else:
            remedy = "The targets are numbers, which lamina cannot correct."
            if labels:
                remedy = suggest(label, labels)
            raise DataError(
                f"{file} has the label {label!r} for {image}, which is not in the data set."
                f" {remedy} To leave out an image, write {EXCLUDE}."
            )
    for image, places in places_of.items():
        columns = {place[0] for place in places.values() if place is not None}
        if 1 < len(places) > len(columns):
            raise DataError(
                f"{file} has {' and '.join(places)} for {image}. Keep one of these rows."
            )
    return places_of


def _list_labels(targets: Targets, target_names: Sequence[str]) -> dict[str, Place]:
    """The place of each label, such as ``dog``, ``yes`` or ``dog: yes``; none for regression."""
    kind = kind_of(targets)
    if kind is SINGLE_LABEL:
        return {name: (0, number) for number, name in enumerate(target_names)}
    prefixes = {BINARY: [""], MULTI_LABEL: [f"{name}: " for name in target_names]}.get(kind, [])
    return {
        f"{prefix}{word}": (column, value)
        for column, prefix in enumerate(prefixes)
        for value, word in enumerate(("no", "yes"))
    }
