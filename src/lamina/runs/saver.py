"""Saves a run while it trains: history, model and checkpoint, despite full disks and memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from lamina.errors import warn
from lamina.runs.folder import RunFolder, WriteError
from lamina.runs.history import Row
from lamina.runs.processes import is_leader
from lamina.training.device import is_out_of_memory
from lamina.training.loop import Training
from lamina.training.timing import SAVING_FRACTION


class Saver:
    """Writes the files of a run during training, in the leading process.

    If the disk is full, training continues with a warning, and the next epoch tries again. A
    checkpoint is never ahead of the history.

    Attributes:
        epochs: The epochs of the history, including epochs that are not written yet.
        is_saved: Whether model and checkpoint have the state of the training.
    """

    def __init__(self, training: Training, folder: RunFolder, save_every_seconds: float) -> None:
        self._training = training
        self._folder = folder
        self._save_every_seconds = save_every_seconds
        self.epochs: list[Row] = []
        if is_leader():
            self.epochs = folder.history.epochs()
        self.is_saved = True
        self._rows: list[Row] = []  # of the history, to be written
        self._saved_at = time.perf_counter()
        self._saving_seconds = 0.0

    def add_row(self, row: Row) -> None:
        """Add a row to the history; it is written with the next checkpoint at the latest."""
        self._rows.append(row)
        if row["event"] == "epoch":
            self.epochs.append(row)

    def is_time_to_save(self) -> bool:
        """Whether the last checkpoint is so old that another is due within the epoch."""
        return time.perf_counter() - self._saved_at >= self._save_every_seconds

    def is_worth_saving(self) -> bool:
        """Whether to save after this epoch: yes, unless saving takes too much of the time."""
        waited = time.perf_counter() - self._saved_at
        return self.is_time_to_save() or self._saving_seconds < SAVING_FRACTION * waited

    def save(self, *, with_model: bool = True) -> None:
        """Save history, checkpoint and model; ``WriteError`` if that fails."""
        if is_leader():
            self._write(with_model=with_model)
        if with_model:
            self.is_saved = True

    def try_to_save(self, *, with_model: bool) -> None:
        """Save, or warn that it failed."""
        self.attempt(lambda: self.save(with_model=with_model))

    def _write(self, *, with_model: bool) -> None:
        began = time.perf_counter()
        rows = list(self._rows)
        checkpoint = self._training.checkpoint()  # first, because it rejects NaN and infinity
        try:
            self.append_rows()
            if with_model:
                self._folder.save_model(self._training.model)
            self._folder.save_checkpoint(checkpoint)
        except (WriteError, RuntimeError, MemoryError):
            # without a checkpoint, the history could not be resumed
            if not self._folder.checkpoint_file.exists():
                self._rows = rows
                with self._folder.writing():
                    self._folder.history.trim(0)
            raise
        self._saved_at = time.perf_counter()
        self._saving_seconds = self._saved_at - began

    def append_rows(self) -> None:
        """Write the rows that are not written yet."""
        with self._folder.writing():
            while self._rows:
                self._folder.history.append(self._rows[0])
                del self._rows[0]

    def attempt(self, write: Callable[[], None]) -> None:
        """Write something, or warn that it failed."""
        if not is_leader():
            return
        try:
            write()
        except (WriteError, RuntimeError, MemoryError) as error:
            if isinstance(error, WriteError):
                reason = error.reason
                room = "disk space"
            elif is_out_of_memory(error):
                reason = "out of memory while copying the weights"
                room = "memory"
            else:
                raise
            self._saved_at = time.perf_counter()
            remains = "nothing is saved"
            if self._folder.checkpoint_file.exists():
                remains = "the last complete checkpoint is kept"
            warn(
                f"cannot write to {self._folder.path}: {reason}. Training continues, and {remains}."
                f" Free some {room}."
            )
