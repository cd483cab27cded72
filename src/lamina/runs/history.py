"""``history.jsonl``: a line for each epoch with its diagnoses, each rewind and an early end, as events give them."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.errors import LaminaWarning
from lamina.files import damaged, parse_object, read_bytes
from lamina.training.events import Epoch, LayerFigures

if TYPE_CHECKING:
    import polars

BAD_LINE = "Restore it from a copy, or delete that line: the weights and the checkpoint are in other files."
EVENTS = ("epoch", "rewind", "early_end")
TEXTS = ("event", "reason", "weights", "diagnosis", "kind", "layer", "finding", "advice")
"""The fields of a row that hold text; the others hold numbers, but for the nested ones."""
OPTIONAL_TEXTS = ("layer", "diagnosis")
NESTED = ("evidence", "layers", "diagnoses")
LAYER_COLUMNS = {field.name for field in fields(LayerFigures)}


@dataclass(frozen=True)
class History:
    """The rows of a run's ``history.jsonl``. It can be read while a training adds to it."""

    file: Path

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an event's values; on disk when this returns.

        Raises:
            OSError: the file cannot be written; it is unchanged.
        """
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with open(self.file, "ab", buffering=0, opener=_open_no_link) as history:
            end = history.tell()
            try:
                if history.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(history.fileno())
            except OSError:
                history.truncate(end)
                raise

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of the epochs so far; warns if the last line is incomplete, as after a crash, and ignores it.

        Raises:
            RunError: a line is damaged.
        """
        return [row for row in self._rows(warns=True) if row["event"] == "epoch"]

    def diagnoses(self) -> list[dict[str, Any]]:
        """What went wrong so far: a row for each diagnosis."""
        return [diagnosis for row in self._rows() for diagnosis in row.get("diagnoses", ())]

    def rewinds(self) -> list[dict[str, Any]]:
        """The rows of the rewinds so far."""
        return [row for row in self._rows() if row["event"] == "rewind"]

    def early_end(self) -> str | None:
        """Why the training ended before its last epoch, where its recipe's patience ended it."""
        return next((str(row["reason"]) for row in self._rows() if row["event"] == "early_end"), None)

    def frame(self) -> polars.DataFrame:
        """The epochs so far, a row for each, with their numbers."""
        import polars

        rows = self.epochs()
        known = rows or [dict.fromkeys(field.name for field in fields(Epoch) if field.name not in ("score", "metrics"))]
        names = dict.fromkeys(name for row in known for name in row if name not in (*TEXTS, *NESTED))
        columns = {name: [row.get(name) for row in rows] for name in names}
        schema = None if rows else dict.fromkeys(names, polars.Float64)
        return polars.DataFrame(columns, schema, strict=False)

    def trim(self, epochs: int, rewinds: int) -> None:
        """Cut off what is ahead of a checkpoint of so many epochs and rewinds; this needs no room on the disk."""
        if not self.file.exists():
            return
        content, end = read_bytes(self.file), 0
        *lines, _ = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            row = _parse_row(line, f"Line {number} of {self.file}")
            if row["rewind"] > rewinds if row["event"] == "rewind" else row["epoch"] > epochs:
                break
            end += len(line) + 1
        if end < len(content):
            with open(self.file, "r+b", opener=_open_no_link) as history:
                history.truncate(end)
                os.fsync(history.fileno())

    def _rows(self, *, warns: bool = False) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        *lines, rest = read_bytes(self.file).split(b"\n")
        if rest and warns:
            warnings.warn(
                f"The last line of {self.file} is incomplete, as after a crash, and is ignored. "
                "lamina resume repeats that epoch.",
                LaminaWarning,
                stacklevel=3,
            )
        return [_parse_row(line, f"Line {number} of {self.file}") for number, line in enumerate(lines, start=1)]


def _open_no_link(path: str, flags: int) -> int:
    # Windows has no such flag, and lets few accounts make links.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _parse_row(line: bytes, what: str) -> dict[str, Any]:
    row = parse_object(line, what, BAD_LINE)
    if row.get("event") not in EVENTS:
        raise damaged(
            what, f"its event should be one of {', '.join(EVENTS)}, but is {row.get('event')!r:.60}", BAD_LINE
        )
    key = "rewind" if row["event"] == "rewind" else "epoch"
    number = row.get(key)
    if type(number) is not int or number < 1:
        raise damaged(what, f"its {key} should be an integer of 1 or more, but is {number!r:.60}", BAD_LINE)
    _check_values(row, what)
    diagnoses = row.get("diagnoses", [])
    if not isinstance(diagnoses, list) or not all(isinstance(each, dict) for each in diagnoses):
        raise damaged(what, f"its diagnoses should be objects, but are {diagnoses!r:.60}", BAD_LINE)
    for diagnosis in diagnoses:
        evidence = diagnosis.get("evidence", {})
        if not isinstance(evidence, dict):
            raise damaged(what, f"its evidence should be an object, but is {evidence!r:.60}", BAD_LINE)
        _check_values(diagnosis, what)
        _check_values(evidence, what)
    if "layers" in row and not _holds_layers(row["layers"]):
        found = f"{row['layers']!r:.60}"
        raise damaged(what, f"its layers should be names and a number or null for each, but are {found}", BAD_LINE)
    return row


def _check_values(row: Mapping[str, Any], what: str) -> None:
    for name, value in row.items():
        if name in NESTED:
            continue
        is_text = isinstance(value, str) or (value is None and name in OPTIONAL_TEXTS)
        if not (is_text if name in TEXTS else _is_number(value)):
            kind = "text" if name in TEXTS else "a number"
            raise damaged(what, f"its {name:.60} should be {kind}, but is {value!r:.60}", BAD_LINE)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _holds_layers(layers: Any) -> bool:
    return (
        isinstance(layers, dict)
        and layers.keys() == LAYER_COLUMNS
        and all(isinstance(column, list) for column in layers.values())
        and all(isinstance(name, str) for name in layers["names"])
        and all(len(column) == len(layers["names"]) for column in layers.values())
        and all(_is_number(value) for name in LAYER_COLUMNS - {"names"} for value in layers[name])
    )
