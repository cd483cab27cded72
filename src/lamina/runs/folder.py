"""``RunFolder``: the files of a run, which are never left incomplete.

The files are ``run.json``, ``history.jsonl``, ``model.safetensors``, ``state.safetensors`` (the
checkpoint), ``report.json``, ``logits.npz``, ``calibration.json`` and, if lamina drew the splits,
``splits.json``. All but the history, which is only appended to, are written under another name and
renamed. Nothing is pickled or executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from lamina.data.splits import Split
from lamina.errors import LaminaError, RunError, plural, warn
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.outputs import REMEDY, Outputs, pack_outputs, unpack_outputs
from lamina.evaluation.report import Report
from lamina.files import (
    blaming,
    damaged,
    lock_folder,
    open_atomically,
    parse_object,
    read_bytes,
    read_object,
    write_atomically,
    write_json,
)
from lamina.runs.record import RunRecord, parse_record, record_to_json
from lamina.targets import kind_of
from lamina.training.checkpoint import Checkpoint, Standing, pack_tensors, unpack_tensors
from lamina.training.events import Epoch
from lamina.training.model import Model
from lamina.training.task import Task
from lamina.values import fields_to_json, from_json_values

if TYPE_CHECKING:
    import polars

Row: TypeAlias = dict[str, Any]
"""A line of the history: an epoch with its diagnoses, or the end."""
NOT_NUMBERS = ("event", "reason", "weights", "layers", "diagnoses")
"""Fields of a row that are not numbers."""
NOT_COLUMNS = (*NOT_NUMBERS, "score", "metrics")
BAD_LINE = (
    "Restore the file from a copy, or delete that line; weights and checkpoint are in other files."
)
NO_CHECKPOINT = (
    "Restore it from a copy, or delete it and history.jsonl and start over with lamina resume."
)
"""Advice for a checkpoint that cannot be used."""
SPLITS_FILE = "splits.json"
"""The file names of each split, if lamina drew the splits."""
INITIAL_FILE = "initial.safetensors"
"""The weights to start from, if the run started from the weights of another run."""
REPORT_FILE = "report.json"  # of a run that was trained and evaluated
STUDY_FILE = "study.json"
"""In the folder of a study: its settings and progress."""
WHOLE = "final"
"""In the folder of a cross-validation: its last run."""


class WriteError(RunError):
    """A file of a run cannot be written; earlier files are intact."""

    def __init__(self, path: Path, error: OSError) -> None:
        has_checkpoint = (path / "state.safetensors").exists()
        remains = "The last checkpoint is intact." if has_checkpoint else "No checkpoint was saved."
        super().__init__(
            f"Cannot write to {path}: {error.strerror or error}. {remains}",
            remedy=f"Free disk space, then run lamina resume {path}",
        )


@dataclass(frozen=True)
class RunFolder:
    """The files of the run in ``path``.

    Methods that read raise ``RunError`` for a damaged file and return ``None`` (or nothing) for a
    missing one. Methods that write raise ``WriteError`` and keep the old file.
    """

    path: Path

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def weights_file(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def initial_file(self) -> Path:
        return self.path / INITIAL_FILE

    @property
    def history_file(self) -> Path:
        return self.path / "history.jsonl"

    def lock(self) -> AbstractContextManager[None]:
        """Prevent other processes from training the run during the block."""
        return lock_folder(self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn ``OSError`` in the block into ``WriteError``."""
        try:
            yield
        except OSError as error:
            raise WriteError(self.path, error) from error

    def read_record(self) -> RunRecord:
        return parse_record(read_object(self.record_file), str(self.record_file))

    def write_record(self, record: RunRecord) -> None:
        with self.writing():
            write_json(self.record_file, record_to_json(record))

    def read_rows(self) -> list[Row]:
        """The rows of the history, which training may append to meanwhile.

        Warns about an incomplete last line; raises ``RunError`` if a line is damaged.
        """
        lines, rest = self._read_lines()
        if rest:
            warn(
                f"The last line of {self.history_file} is incomplete, probably after a crash, and"
                " is ignored.",
                remedy="lamina resume repeats that epoch.",
            )
        return [row for row, _ in lines]

    def read_epochs(self) -> list[Row]:
        """The rows of completed epochs."""
        return [row for row in self.read_rows() if row["event"] == "epoch"]

    def frame_history(self) -> polars.DataFrame:
        """A frame with the numbers of the epochs."""
        import polars

        rows = self.read_epochs()
        if not rows:
            numbers = (field.name for field in fields(Epoch) if field.name not in NOT_COLUMNS)
            return polars.DataFrame(schema=dict.fromkeys(numbers, polars.Float64))
        names = dict.fromkeys(name for row in rows for name in row if name not in NOT_NUMBERS)
        columns = {name: [row.get(name) for row in rows] for name in names}
        return polars.DataFrame(columns, strict=False)

    def append_row(self, row: Row) -> None:
        """Append a row to the history, and flush it to disk."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with self.writing(), self.history_file.open("ab") as history:
            history.write(line)
            history.flush()
            os.fsync(history.fileno())

    def trim_history(self, epochs: int) -> None:
        """Remove what was appended after a checkpoint with these epochs; needs no disk space."""
        lines, rest = self._read_lines()
        removed = sum(length for row, length in lines if row["epoch"] > epochs) + rest
        if removed:
            with self.writing(), self.history_file.open("r+b") as history:
                history.truncate(self.history_file.stat().st_size - removed)
                os.fsync(history.fileno())

    def _read_lines(self) -> tuple[list[tuple[Row, int]], int]:
        """The rows of complete lines with their bytes, and the bytes of an incomplete last line."""
        if not self.history_file.exists():
            return [], 0
        *lines, rest = read_bytes(self.history_file).split(b"\n")
        rows = []
        for number, line in enumerate(lines, start=1):
            row = parse_row(line, f"Line {number} of {self.history_file}")
            rows.append((row, len(line) + 1))
        return rows, len(rest)

    def read_checkpoint(self) -> Checkpoint | None:
        file = self.checkpoint_file
        return unpack_checkpoint(read_bytes(file), str(file)) if file.exists() else None

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        with self.writing():
            write_atomically(self.checkpoint_file, pack_checkpoint(checkpoint))

    def load_weights(self) -> dict[str, Tensor]:
        """The trained weights."""
        file = self.weights_file
        if not file.exists():
            raise RunError(
                f"{file} is missing; the run has not saved weights yet, or has lost them.",
                remedy=f"Train it with load_run({str(self.path)!r}).train() (on the command line,"
                f" lamina resume {self.path}).",
            )
        remedy = f"Restore it from a copy, or write it again with lamina resume {self.path}"
        return unpack_tensors(read_bytes(file), str(file), remedy)[0]

    def read_weights(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained weights, with the names and shapes of ``expected``."""
        weights = self.load_weights()
        if differing := find_difference(weights, expected):
            raise RunError(
                f"{self.weights_file} does not fit the net: {differing}. Pass the net that was"
                " trained, or restore the file from a copy."
            )
        return weights

    def save_model(self, model: Model) -> None:
        """Replace the trained weights; just before, remove the outdated report and logits."""
        content = pack_tensors(model.state_dict(), {})
        with self.writing(), open_atomically(self.weights_file) as file:
            file.write(content)
            for name in (REPORT_FILE, "calibration.json", "logits.npz"):
                (self.path / name).unlink(missing_ok=True)

    def read_report(self) -> Report | None:
        file = self.path / REPORT_FILE
        if not file.exists():
            return None
        with blaming(str(file)):
            try:
                return Report.from_json(read_object(file))
            except LaminaError as error:
                raise RunError(f"{file}: {error}") from error

    def save_report(self, report: Report) -> None:
        with self.writing():
            write_json(self.path / REPORT_FILE, report.to_json())

    def load_outputs(self, task: Task) -> dict[Split, Outputs]:
        """The logits by split; raises ``RunError`` if they do not fit the task."""
        file = self.path / "logits.npz"
        if not file.exists():
            return {}
        outputs = unpack_outputs(read_bytes(file), str(file))
        for split, values in outputs.items():
            if values.logits.shape[1] != task.outputs or kind_of(values.targets) is not task.kind:
                logits = plural(task.outputs, "logit", "logits")
                expected = f"expected {logits} per image and {task.kind} targets for {split}"
                raise damaged(str(file), expected, REMEDY)
        return outputs

    def save_outputs(self, outputs: Sequence[Outputs]) -> None:
        with self.writing():
            write_atomically(self.path / "logits.npz", pack_outputs(outputs))

    def load_out_of_fold(self, record: RunRecord) -> Outputs | None:
        """The logits of the folds, for a cross-validation's run on all images; else ``None``."""
        folds = record.data.preparation.folds()
        if folds is None or folds[0] != 0:
            return None
        return RunFolder(self.path.parent).load_outputs(record.task).get("train")

    def read_calibration(self, task: Task) -> Calibration | None:
        """The temperatures; raises ``RunError`` if they do not fit the task."""
        file = self.path / "calibration.json"
        if not file.exists():
            return None
        with blaming(str(file), REMEDY):
            values = read_object(file, REMEDY)
            calibration = from_json_values(Calibration, values, "calibration")
            calibration.check(task)
            return calibration

    def save_calibration(self, calibration: Calibration | None) -> None:
        file = self.path / "calibration.json"
        with self.writing():
            if calibration is None:
                file.unlink(missing_ok=True)
            else:
                write_json(file, fields_to_json(calibration))


def find_difference(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The first tensor by name whose shape differs; empty if there is none."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name in sorted({*shapes, *wanted}):
        if shapes.get(name) != wanted.get(name):
            shape = shapes.get(name, "none")
            return f"{name} has shape {shape}, expected {wanted.get(name, 'none')}"
    return ""


def parse_row(line: bytes, what: str) -> Row:
    """A line of the history; ``RunError`` if it is damaged. Checks what every reader relies on."""
    row = parse_object(line, what, BAD_LINE)
    event = row.get("event")
    if event not in ("epoch", "end"):
        raise damaged(what, f"event must be 'epoch' or 'end', got {event!r:.60}", BAD_LINE)
    epoch = row.get("epoch")
    if type(epoch) is not int or epoch < 1:
        problem = f"epoch must be a whole number of at least 1, got {epoch!r:.60}"
        raise damaged(what, problem, BAD_LINE)
    for name, value in row.items():
        if name not in NOT_NUMBERS and not isinstance(value, int | float | None):
            raise damaged(what, f"{name} must be a number, got {value!r:.60}", BAD_LINE)
    return row


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint, for files and other processes."""
    return pack_tensors(checkpoint.tensors, fields_to_json(checkpoint.standing))


def unpack_checkpoint(content: bytes, what: str) -> Checkpoint:
    """The checkpoint from :func:`pack_checkpoint`; raises ``RunError`` if it is damaged."""
    with blaming(what, NO_CHECKPOINT):
        tensors, values = unpack_tensors(content, what, NO_CHECKPOINT)
        return Checkpoint(tensors, from_json_values(Standing, values, "checkpoint"))
