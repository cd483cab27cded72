"""Corrected labels and excluded images: the files of ``Preparation.labels_from`` and ``Preparation.exclude``."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from lamina.data.preparation import Preparation
from lamina.errors import DataError, name_some, plural, suggest
from lamina.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Targets, kind_of
from lamina.text import guard, unguard

COLUMNS = ("image", "split", "given", "likely", "score", "reason", "action")
"""The columns of a table of label issues; ``label`` is another name for ``given``."""
ACTIONS = ("", "correct", "keep", "exclude")


class Row(NamedTuple):
    """A row of a table of label issues; ``given`` or ``likely`` is ``None`` if the cell is empty."""

    image: str
    given: str | None
    likely: str | None
    action: str


@dataclass(frozen=True)
class Corrected:
    """Targets after corrections, the images to keep, and the numbers of corrected labels and excluded images."""

    targets: Targets
    are_kept: Bool[np.ndarray, " n"]
    labels: int = 0
    images: int = 0


@dataclass(frozen=True)
class Corrections:
    """The content of all files, in the order in which they apply."""

    tables: tuple[tuple[str, tuple[Row, ...]], ...] = ()
    excluded: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def apply(self, names: Sequence[str], targets: Targets, target_names: Sequence[str]) -> Corrected:
        """Correct ``targets``; raises ``DataError`` for unknown images or labels, and for contradictions."""
        if not (self.tables or self.excluded):
            return Corrected(targets, np.ones(len(names), np.bool_))
        rows_of: defaultdict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(names):
            rows_of[_encode(name)].append(row)
        corrected, are_kept = np.array(targets), np.ones(len(names), np.bool_)
        for file, rows in self.tables:
            _check_images(file, [row.image for row in rows], rows_of)
            _correct(file, rows, rows_of, corrected, target_names)
        excluded = [(file, [row.image for row in rows if row.action == "exclude"]) for file, rows in self.tables]
        for file, images in (*excluded, *self.excluded):
            _check_images(file, images, rows_of)
            are_kept[[row for image in images for row in rows_of[image]]] = False
        if not are_kept.any():
            raise DataError(f"All {len(names):,} images are excluded. Leave some of them out of the list.")
        changed = (corrected != targets).reshape(len(names), -1)[are_kept]
        return Corrected(corrected, are_kept, int(changed.sum()), int((~are_kept).sum()))


def locate_corrections(preparation: Preparation) -> Preparation:
    """The preparation with absolute paths, so that a run finds the files from any folder."""
    files, exclude = preparation.labels_from, preparation.exclude
    return replace(
        preparation, labels_from=tuple(map(_locate, files)), exclude=None if exclude is None else _locate(exclude)
    )


def read_corrections(preparation: Preparation) -> Corrections:
    """Read the files of a preparation; raises ``DataError`` if one cannot be used."""
    tables = tuple((file, tuple(_read_table(file))) for file in preparation.labels_from)
    if preparation.exclude is None:
        return Corrections(tables)
    lines = [row for row in _read_rows(preparation.exclude, "exclude") if row[0]]
    names = [row[0] for row in lines if row[0].lower() != "image" or row is not lines[0]]
    if not names:
        raise DataError(f"{preparation.exclude} names no images; expected one name per line. Leave out --exclude.")
    return Corrections(tables, ((preparation.exclude, tuple(names)),))


def format_rows(rows: Iterable[Sequence[str]]) -> bytes:
    """A CSV file of text cells, with a mark that makes Excel read UTF-8, and without cells that run as formulas."""
    text = io.StringIO()
    csv.writer(text).writerows(map(guard, row) for row in rows)
    return text.getvalue().encode("utf-8-sig", "backslashreplace")


def _read_rows(file: str, option: str) -> list[list[str]]:
    flag = f"--{option.replace('_', '-')}"
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        mark = next((mark for mark in ",;\t" if mark in first), ",")
        read = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"Cannot read {file} for {flag} (in Python, {option}): {reason}. Check the path; the text must be UTF-8."
        ) from None
    rows = [list(map(unguard, row)) for row in read]
    return [row for row in rows if any(map(str.strip, row))]


def _read_table(file: str) -> list[Row]:
    head, *rows = _read_rows(file, "labels_from") or [[]]
    columns = ["given" if name == "label" else name for name in (cell.strip().lower() for cell in head)]
    if head and ("image" not in columns or not {"given", "likely"} & set(columns) or len(set(columns)) < len(columns)):
        raise DataError(
            f"{file} has the columns {', '.join(head)}; expected image, given, likely and action, as lamina data DATA "
            "--labels --output FILE.csv writes them, or image and label. Correct the first line."
        )
    if not rows:
        raise DataError(f"{file} has no rows, so there is nothing to correct. Leave out --labels-from {file}.")
    found = []
    for cells in rows:
        named = dict(zip(columns, cells, strict=False))
        action = named.get("action", "").strip().lower()
        if action not in ACTIONS:
            raise DataError(
                f"{file} has the action {action!r} for {named.get('image')}; it must be correct, keep, exclude or "
                "empty. Change it."
            )
        given, likely = (named.get(name, "").strip() or None for name in ("given", "likely"))
        found.append(Row(named.get("image", ""), given, likely, action))
    return found


def _check_images(file: str, images: Sequence[str], rows_of: dict[str, list[int]]) -> None:
    if unknown := [image for image in images if image not in rows_of]:
        count = plural(len(unknown), "image", "images")
        raise DataError(
            f"{file} names {count} that the data set does not have: {name_some(unknown)}. "
            f"{suggest(unknown[0], list(rows_of)) if len(rows_of) < 10 else ''} Use names as lamina data prints them."
        )


def _correct(
    file: str, rows: Sequence[Row], rows_of: dict[str, list[int]], targets: Targets, target_names: Sequence[str]
) -> None:
    """Correct the targets in place. If no given label was edited, the likely ones are taken."""
    if kind_of(targets) is REGRESSION:
        raise DataError(f"{file} corrects classes or labels, but the targets are numbers. Leave out --labels-from.")
    flat = targets.reshape(len(targets), -1)  # a view
    read = [[_read_label(text, targets, target_names, file) for text in (row.given, row.likely)] for row in rows]

    def differs(place: int) -> bool:  # whether the given label in the file is not that of the data set
        label = read[place][0]
        return label is not None and any(flat[row, label[0]] != label[1] for row in rows_of[rows[place].image])

    edited = [differs(place) for place in range(len(rows))]
    found: Counter[tuple[str, int]] = Counter()
    for row, (given, likely), is_edited in zip(rows, read, edited, strict=True):
        if row.action == "keep" and is_edited:
            raise DataError(
                f"{file} has the action keep for {row.image}, but its given label was changed to {row.given!r}. "
                "Undo the change, or write correct."
            )
        is_likely = row.action == "correct" and not is_edited
        label = likely if likely is not None and (is_likely or not any(edited)) else given
        if row.action in ("keep", "exclude"):
            label = given or likely
        if label is None:
            raise DataError(f"{file} has no label for {row.image}. Write one in the column given, or delete the row.")
        found[row.image, label[0]] += 1
        if row.action in ("", "correct"):
            flat[rows_of[row.image], label[0]] = label[1]
    if twice := [image for (image, _), count in found.items() if count > 1]:
        raise DataError(f"{file} has more than one row for {name_some(twice)}. Keep one row for each label.")


def _read_label(text: str | None, targets: Targets, target_names: Sequence[str], file: str) -> tuple[int, int] | None:
    """The column and value that a label stands for, such as ``dog``, ``yes`` or ``dog: yes``."""
    if text is None:
        return None
    kind, label, answer = kind_of(targets), "", text
    names = list(target_names) if kind is SINGLE_LABEL else ["no", "yes"]
    if kind is MULTI_LABEL:
        label, _, answer = text.rpartition(": ")
    if answer not in names or (kind is MULTI_LABEL and label not in target_names):
        known = [f"{name}: {one}" for name in target_names for one in names] if kind is MULTI_LABEL else names
        raise DataError(f"{file} has the label {text!r}, which is not in the data set. {suggest(text, known)}")
    return (list(target_names).index(label) if kind is MULTI_LABEL else 0), names.index(answer)


def _locate(file: str) -> str:
    return str(Path(file).expanduser().absolute())


def _encode(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
