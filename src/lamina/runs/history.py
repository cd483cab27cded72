"""``history.jsonl``: one line per epoch, with its diagnoses, per rewind and for an early end."""

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
from lamina.files import JSON_BYTES, damaged, parse_object, read_bytes
from lamina.training.events import Epoch, LayerStatistics

if TYPE_CHECKING:
    import polars

BAD_LINE = (
    "Restore the file from a copy, or delete that line; weights and checkpoint are in other files."
)
EVENTS = ("epoch", "rewind", "early_end")
TEXTS = ("event", "reason", "weights", "diagnosis", "kind", "layer", "finding", "advice")
"""Fields with text; all others but the nested ones are numbers."""
OPTIONAL_TEXTS = ("layer", "diagnosis")
NESTED = ("evidence", "change", "layers", "diagnoses")
LAYER_COLUMNS = {field.name for field in fields(LayerStatistics)}


@dataclass(frozen=True)
class History:
    """The rows of a run's ``history.jsonl``, which can be read while training appends to it."""

    file: Path

    def append(self, row: Mapping[str, Any]) -> None:
        """Append an event and flush it to disk; after an ``OSError``, the file is unchanged."""
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
        """The rows of completed epochs.

        Warns about an incomplete last line; raises ``RunError`` if a line is damaged.
        """
        return [row for row in self._rows(warns=True) if row["event"] == "epoch"]

    def diagnoses(self) -> list[dict[str, Any]]:
        return [diagnosis for row in self._rows() for diagnosis in row.get("diagnoses", ())]

    def rewinds(self) -> list[dict[str, Any]]:
        return [row for row in self._rows() if row["event"] == "rewind"]

    def early_end(self) -> str | None:
        """The reason of an early end by ``Recipe.patience``, or ``None``."""
        return next(
            (str(row["reason"]) for row in self._rows() if row["event"] == "early_end"), None
        )

    def frame(self) -> polars.DataFrame:
        import polars

        rows = self.epochs()
        known = rows or [
            dict.fromkeys(
                field.name for field in fields(Epoch) if field.name not in ("score", "metrics")
            )
        ]
        names = dict.fromkeys(
            name for row in known for name in row if name not in (*TEXTS, *NESTED)
        )
        columns = {name: [row.get(name) for row in rows] for name in names}
        schema = None if rows else dict.fromkeys(names, polars.Float64)
        return polars.DataFrame(columns, schema, strict=False)

    def read_until(self, epochs: int, rewinds: int) -> list[tuple[dict[str, Any], bytes]]:
        """The rows before a checkpoint with these epochs and rewinds, and their lines."""
        rows = []
        content = read_bytes(self.file, JSON_BYTES) if self.file.exists() else b""
        *lines, _ = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            row = _parse_row(line, f"Line {number} of {self.file}")
            if row["rewind"] > rewinds if row["event"] == "rewind" else row["epoch"] > epochs:
                break
            rows.append((row, line + b"\n"))
        return rows

    def trim(self, epochs: int, rewinds: int) -> None:
        """Remove rows after a checkpoint with these epochs and rewinds; needs no disk space."""
        if not self.file.exists():
            return
        end = sum(len(line) for _, line in self.read_until(epochs, rewinds))
        if end < self.file.stat().st_size:
            with open(self.file, "r+b", opener=_open_no_link) as history:
                history.truncate(end)
                os.fsync(history.fileno())

    def _rows(self, *, warns: bool = False) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        *lines, rest = read_bytes(self.file, JSON_BYTES).split(b"\n")
        if rest and warns:
            warnings.warn(
                f"The last line of {self.file} is incomplete, probably after a crash, and is"
                " ignored. lamina resume repeats that epoch.",
                LaminaWarning,
                stacklevel=3,
            )
        return [
            _parse_row(line, f"Line {number} of {self.file}")
            for number, line in enumerate(lines, start=1)
        ]


def _open_no_link(path: str, flags: int) -> int:
    # Windows lacks this flag, and lets few accounts create links.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _parse_row(line: bytes, what: str) -> dict[str, Any]:
    row = parse_object(line, what, BAD_LINE)
    if row.get("event") not in EVENTS:
        raise damaged(
            what,
            f"event must be one of {', '.join(EVENTS)}, but is {row.get('event')!r:.60}",
            BAD_LINE,
        )
    key = "rewind" if row["event"] == "rewind" else "epoch"
    number = row.get(key)
    if type(number) is not int or number < 1:
        raise damaged(
            what, f"{key} must be an integer of 1 or more, but is {number!r:.60}", BAD_LINE
        )
    _check_values(row, what)
    diagnoses = row.get("diagnoses", [])
    if not isinstance(diagnoses, list) or not all(isinstance(each, dict) for each in diagnoses):
        raise damaged(
            what, f"diagnoses must be a list of objects, but is {diagnoses!r:.60}", BAD_LINE
        )
    for diagnosis in diagnoses:
        evidence = diagnosis.get("evidence", {})
        if not isinstance(evidence, dict):
            raise damaged(what, f"evidence must be an object, but is {evidence!r:.60}", BAD_LINE)
        change = diagnosis.get("change", {})
        if not isinstance(change, dict) or not all(
            isinstance(text, str) for text in change.values()
        ):
            raise damaged(what, f"change must contain texts, but is {change!r:.60}", BAD_LINE)
        _check_values(diagnosis, what)
        _check_values(evidence, what)
    if "layers" in row and not _holds_layers(row["layers"]):
        found = f"{row['layers']!r:.60}"
        raise damaged(
            what,
            f"layers must contain names and a number or null for each, but is {found}",
            BAD_LINE,
        )
    return row


def _check_values(row: Mapping[str, Any], what: str) -> None:
    for name, value in row.items():
        if name in NESTED:
            continue
        is_text = isinstance(value, str) or (value is None and name in OPTIONAL_TEXTS)
        if not (is_text if name in TEXTS else _is_number(value)):
            kind = "text" if name in TEXTS else "a number"
            raise damaged(what, f"{name:.60} must be {kind}, but is {value!r:.60}", BAD_LINE)


def _is_number(value: Any) -> bool:
    return (
        value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
    )


def _holds_layers(layers: Any) -> bool:
    return (
        isinstance(layers, dict)
        and layers.keys() == LAYER_COLUMNS
        and all(isinstance(column, list) for column in layers.values())
        and all(isinstance(name, str) for name in layers["names"])
        and all(len(column) == len(layers["names"]) for column in layers.values())
        and all(_is_number(value) for name in LAYER_COLUMNS - {"names"} for value in layers[name])
    )
