"""``history.jsonl``: a line for each epoch, each rewind to a checkpoint and each diagnosis."""

from __future__ import annotations

import errno
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lamina.errors import LaminaWarning
from lamina.files import damaged, parse_object, read_bytes, write_atomically
from lamina.training.events import LayerFigures

BAD_LINE = "Restore it from a copy, or delete that line: the weights and the checkpoint are in other files."
TEXTS = ("reason", "weights", "diagnosis", "layer", "finding", "advice")
"""The fields of a row that hold text; the others hold numbers, but for these."""
NESTED = ("evidence", "layers")
LAYER_COLUMNS = {field.name for field in fields(LayerFigures)}


@dataclass(frozen=True)
class History:
    """The rows of a run's ``history.jsonl``. It only grows, and can be read while a training adds to it."""

    file: Path

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row of texts and numbers, and of mappings and sequences of these; on disk when this returns.

        NaN and infinity become null.

        Raises:
            OSError: the file cannot be written; it is unchanged.
        """
        line = (json.dumps(_replace_not_finite(row)) + "\n").encode()
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
        return [row for row in self._rows(warns=True) if "rewind" not in row and "diagnosis" not in row]

    def diagnoses(self) -> list[dict[str, Any]]:
        """The rows of what went wrong so far."""
        return [row for row in self._rows() if "diagnosis" in row]

    def rewinds(self) -> list[dict[str, Any]]:
        """The rows of the rewinds so far."""
        return [row for row in self._rows() if "rewind" in row]

    def trim(self, epochs: int, rewinds: int) -> None:
        """Keep the first ``epochs`` and ``rewinds`` only: what is ahead of the checkpoint after a crash is repeated."""
        if not self.file.exists():
            return
        rows = self._rows()
        kept = [row for row in rows if (row["rewind"] <= rewinds if "rewind" in row else row["epoch"] <= epochs)]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        if text.encode() != read_bytes(self.file):
            write_atomically(self.file, text)

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


def has_ended(rows: Sequence[Mapping[str, Any]], epochs: int) -> bool:
    """Whether the rows of the epochs so far are those of a whole training, or of one that ``Recipe.patience`` ended."""
    return len(rows) == epochs or bool(rows and "reason" in rows[-1])


def _replace_not_finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _replace_not_finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_not_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open_no_link(path: str, flags: int) -> int:
    # Windows has no such flag, and lets few accounts make links.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _parse_row(line: bytes, what: str) -> dict[str, Any]:
    row = parse_object(line, what, BAD_LINE)
    key = "rewind" if "rewind" in row else "epoch"
    number = row.get(key)
    if type(number) is not int or number < 1:
        raise damaged(what, f"its {key} should be an integer of 1 or more, but is {number!r:.60}", BAD_LINE)
    evidence = row.get("evidence", {})
    if not isinstance(evidence, dict):
        raise damaged(what, f"its evidence should be an object, but is {evidence!r:.60}", BAD_LINE)
    for name, value in (*((name, value) for name, value in row.items() if name not in NESTED), *evidence.items()):
        is_text = isinstance(value, str) or (value is None and name == "layer")
        if not (is_text if name in TEXTS else _is_number(value)):
            kind = "text" if name in TEXTS else "a number"
            raise damaged(what, f"its {name:.60} should be {kind}, but is {value!r:.60}", BAD_LINE)
    if "layers" in row and not _holds_layers(row["layers"]):
        found = f"{row['layers']!r:.60}"
        raise damaged(what, f"its layers should be names and a number or null for each, but are {found}", BAD_LINE)
    return row


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _holds_layers(layers: Any) -> bool:
    """Whether a row's layers are those of ``LayerFigures``: lists of equal length."""
    return (
        isinstance(layers, dict)
        and layers.keys() == LAYER_COLUMNS
        and all(isinstance(column, list) for column in layers.values())
        and all(isinstance(name, str) for name in layers["names"])
        and all(len(column) == len(layers["names"]) for column in layers.values())
        and all(_is_number(value) for name in LAYER_COLUMNS - {"names"} for value in layers[name])
    )
