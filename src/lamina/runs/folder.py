"""``RunFolder``: the files of a run, which are never left incomplete.

The files are ``run.json``, ``history.jsonl``, ``model.safetensors``, ``state.safetensors`` (the
checkpoint), ``report.json``, ``logits.npz``, ``calibration.json`` and, if lamina drew the splits,
``splits.json``. All but the history, which is only appended to, are written under another name and
renamed. Nothing is pickled or executed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from lamina.data.splits import Split
from lamina.errors import LaminaError, RunError, plural
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.outputs import REMEDY, Outputs, pack_outputs, unpack_outputs
from lamina.evaluation.reports import Report
from lamina.files import (
    blaming,
    damaged,
    lock_folder,
    open_atomically,
    read_bytes,
    read_object,
    write_atomically,
    write_json,
)
from lamina.runs.history import History
from lamina.runs.record import RunRecord, parse_record, record_to_json
from lamina.targets import kind_of
from lamina.training.checkpoint import Checkpoint, Standing, pack_tensors, unpack_tensors
from lamina.training.model import Model
from lamina.training.task import Task
from lamina.values import fields_to_json, from_json_values

NO_CHECKPOINT = (
    "Restore it from a copy, or delete it and history.jsonl and start over with lamina resume."
)
"""Advice for a checkpoint that cannot be used."""
BYTES_PER_WEIGHT = 4  # float32
INITIAL_FILE = "initial.safetensors"
"""The weights to start from, if the run started from the weights of another run."""
REPORT_FILE = "report.json"  # of a run that was trained and evaluated
STUDY_FILE = "study.json"
"""In the folder of a study: its settings and progress."""
WINNER_FILE = "winner.json"
"""In the folder of a tuning: its winner."""
WHOLE = "final"
"""In the folder of a cross-validation: its last run."""


class WriteError(RunError):
    """A file of a run cannot be written; earlier files are intact."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.reason = str(error.strerror or error)
        has_checkpoint = (path / "state.safetensors").exists()
        remains = "The last checkpoint is intact." if has_checkpoint else "No checkpoint was saved."
        super().__init__(
            f"Cannot write to {path}: {self.reason}. {remains}",
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
    def history(self) -> History:
        return History(self.path / "history.jsonl")

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
        version = None
        with suppress(OSError):
            state = self.record_file.stat()
            version = (state.st_mtime_ns, state.st_size, state.st_ino)
        return _read_record(self.record_file, version)

    def write_record(self, record: RunRecord) -> None:
        with self.writing():
            write_json(self.record_file, record_to_json(record))

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
        return unpack_tensors(read_bytes(file), str(file), self._weights_remedy)[0]

    def read_weights(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained weights, with the names and shapes of ``expected``."""
        weights = self.load_weights()
        if differing := find_difference(weights, expected):
            raise RunError(
                f"{self.weights_file} does not fit the net: {differing}. Pass the net that was"
                " trained, or restore the file from a copy."
            )
        return weights

    def check_size(self, parameters: int) -> None:
        """Raise ``RunError`` if fewer weights are stored, before memory is allocated for them."""
        file = self.weights_file
        size_bytes = file.stat().st_size if file.exists() else math.inf
        if size_bytes < BYTES_PER_WEIGHT * parameters:
            problem = f"it has {size_bytes:,} bytes, too few for {parameters:,} parameters"
            raise damaged(str(file), problem, self._weights_remedy)

    @property
    def _weights_remedy(self) -> str:
        return f"Restore it from a copy, or write it again with lamina resume {self.path}"

    def save_model(self, model: Model) -> None:
        """Replace the trained weights; just before, remove the outdated report and logits."""
        content = pack_tensors(model.state_dict(), {})
        with self.writing(), open_atomically(self.weights_file) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            for name in (REPORT_FILE, "calibration.json", "logits.npz"):
                (self.path / name).unlink(missing_ok=True)

    def read_report(self) -> Report | None:
        file = self.path / REPORT_FILE
        if not file.exists():
            return None
        with blaming(str(file)):
            values = read_object(file)
            try:
                report = Report.from_json(values)
            except LaminaError as error:
                raise RunError(f"{file}: {error}") from error
            report._repr_html_()  # fails if its values do not fit each other
            return report

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

    def load_out_of_fold(self, task: Task) -> Outputs | None:
        """The logits of the folds, for a cross-validation's run on all images; else ``None``."""
        if self.path.name != WHOLE or not self.is_of_folds():
            return None
        return RunFolder(self.path.parent).load_outputs(task).get("train")

    def is_of_folds(self) -> bool:
        """Whether the run belongs to a cross-validation."""
        is_named = self.path.name == WHOLE or self.path.name.startswith("fold-")
        return is_named and (self.path.parent / STUDY_FILE).exists()

    def is_trial(self) -> bool:
        """Whether the run is in a search, which never reads ``test``, or in unfinished finals."""
        study = self.path.parent
        if not (study / STUDY_FILE).exists():
            return False
        is_final = self.path.name.startswith("final-") and not (study / WINNER_FILE).exists()
        return is_final or self.path.name.startswith("trial-")

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


@lru_cache
def _read_record(file: Path, _version: tuple[int, int, int] | None) -> RunRecord:
    return parse_record(read_object(file), str(file))


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint, for files and other processes."""
    return pack_tensors(checkpoint.tensors, fields_to_json(checkpoint.standing))


def unpack_checkpoint(content: bytes, what: str) -> Checkpoint:
    """The checkpoint from :func:`pack_checkpoint`; raises ``RunError`` if it is damaged."""
    with blaming(what, NO_CHECKPOINT):
        tensors, values = unpack_tensors(content, what, NO_CHECKPOINT)
        return Checkpoint(tensors, from_json_values(Standing, values, "checkpoint"))
