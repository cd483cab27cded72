"""``history.jsonl``: one line per epoch (with its diagnoses), and one for the end."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from lamina.errors import warn
from lamina.files import damaged, parse_object, read_bytes
from lamina.training.events import Diagnosis, Epoch, LayerStatistics
from lamina.values import Range, from_json_values

if TYPE_CHECKING:
    import polars

BAD_LINE = (
    "Restore the file from a copy, or delete that line; weights and checkpoint are in other files."
)
Count: TypeAlias = Annotated[int, Range(1)]
Row: TypeAlias = dict[str, Any]
NOT_NUMBERS = ("event", "reason", "weights", "layers", "diagnoses")
"""Fields of a row that are not numbers."""
NOT_COLUMNS = (*NOT_NUMBERS, "score", "metrics")
NO_LAYERS = LayerStatistics(*[()] * 7)


@dataclass(frozen=True)
class _CheckedRow:
    """What a line may contain; ``numbers`` are all other fields, such as metrics."""

    event: Literal["epoch", "end"]
    numbers: dict[str, float | None]
    epoch: Count = 1
    reason: str = ""
    weights: str = ""
    layers: LayerStatistics = NO_LAYERS
    diagnoses: tuple[Diagnosis, ...] = ()


@dataclass(frozen=True)
class History:
    """The rows of a run's ``history.jsonl``, which can be read while training appends to it."""

    file: Path

    def append(self, row: Row) -> None:
        """Append an event and flush it to disk; after an ``OSError``, the file is unchanged."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with self.file.open("ab", buffering=0) as history:
            end = history.tell()
            try:
                if history.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(history.fileno())
            except OSError:
                history.truncate(end)
                raise

    def epochs(self) -> list[Row]:
        """The rows of completed epochs.

        Warns about an incomplete last line; raises ``RunError`` if a line is damaged.
        """
        return [row for row in self._rows(warns=True) if row["event"] == "epoch"]

    def diagnoses(self) -> list[Row]:
        return [diagnosis for row in self._rows() for diagnosis in row.get("diagnoses", ())]

    def end(self) -> str | None:
        """Why training has ended, empty if as planned; ``None`` if it has not ended."""
        for row in self._rows():
            if row["event"] == "end":
                return str(row.get("reason", ""))
        return None

    def frame(self) -> polars.DataFrame:
        import polars

        rows = self.epochs()
        if not rows:
            names = (field.name for field in fields(Epoch) if field.name not in NOT_COLUMNS)
            return polars.DataFrame(schema=dict.fromkeys(names, polars.Float64))
        names = (name for row in rows for name in row if name not in NOT_NUMBERS)
        columns = {name: [row.get(name) for row in rows] for name in names}
        return polars.DataFrame(columns, strict=False)

    def read_until(self, epochs: int) -> list[tuple[Row, bytes]]:
        """The rows before a checkpoint with these epochs, and their lines."""
        rows = []
        for row, line in self._lines():
            if row["epoch"] > epochs:
                break
            rows.append((row, line))
        return rows

    def trim(self, epochs: int) -> None:
        """Remove rows after a checkpoint with these epochs; needs no disk space."""
        if not self.file.exists():
            return
        end = sum(len(line) for _, line in self.read_until(epochs))
        if end < self.file.stat().st_size:
            with self.file.open("r+b") as history:
                history.truncate(end)
                os.fsync(history.fileno())

    def _rows(self, *, warns: bool = False) -> list[Row]:
        return [row for row, _ in self._lines(warns=warns)]

    def _lines(self, *, warns: bool = False) -> Iterator[tuple[Row, bytes]]:
        """The rows and their lines."""
        if not self.file.exists():
            return
        *lines, rest = read_bytes(self.file).split(b"\n")
        if rest and warns:
            warn(
                f"The last line of {self.file} is incomplete, probably after a crash, and is"
                " ignored.",
                stacklevel=3,
                remedy="lamina resume repeats that epoch.",
            )
        for number, line in enumerate(lines, start=1):
            yield _parse_row(line, f"Line {number} of {self.file}"), line + b"\n"


def _parse_row(line: bytes, what: str) -> Row:
    row = parse_object(line, what, BAD_LINE)
    values: Row = {"event": None, "numbers": {}}
    for name, value in row.items():
        if name in (*NOT_NUMBERS, "epoch"):
            values[name] = value
        else:
            values["numbers"][name] = value
    try:
        checked = from_json_values(_CheckedRow, values, "row")
    except ValueError as error:
        raise damaged(what, str(error).replace(".numbers", ""), BAD_LINE) from error
    if len({len(column) for column in vars(checked.layers).values()}) > 1:
        raise damaged(what, "row.layers must have one value for each name in its lists", BAD_LINE)
    if "epoch" not in row:
        raise damaged(what, "it lacks epoch", BAD_LINE)
    return row
