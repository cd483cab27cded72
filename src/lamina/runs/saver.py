"""Saves a run while it trains: history, model and checkpoint, despite full disks and memory."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from lamina.errors import LaminaWarning
from lamina.runs.folder import RunFolder, WriteError
from lamina.training.device import is_out_of_memory
from lamina.training.loop import Training
from lamina.training.timing import SAVING_FRACTION


class Saver:
    """Writes the files of a run that trains, in one process of a group (``writes``).

    If the disk is full, training continues with a warning, and the next epoch tries again. A
    checkpoint is never ahead of the history.

    Attributes:
        epochs: The epochs of the history, those that wait to be written included.
        is_saved: Whether model and checkpoint have the state of the training.
    """

    def __init__(
        self, training: Training, folder: RunFolder, save_every_seconds: float, *, writes: bool
    ) -> None:
        self._training = training
        self._folder = folder
        self._save_every_seconds = save_every_seconds
        self._writes = writes
        self.epochs = folder.history.epochs() if writes else []
        self._rows: list[dict[str, Any]] = []  # of the history, to be written
        self._saved_at = time.perf_counter()
        self._saving_seconds = 0.0
        self.is_saved = True

    def add_row(self, row: dict[str, Any]) -> None:
        """Add a row to the history, at the latest with the next checkpoint."""
        if not self._writes:
            return
        self._rows.append(row)
        if row["event"] == "epoch":
            self.epochs.append(row)

    def is_time_to_save(self) -> bool:
        """Whether the last checkpoint is so old that one within an epoch is due."""
        return time.perf_counter() - self._saved_at >= self._save_every_seconds

    def is_worth_saving(self) -> bool:
        """Whether to save after this epoch: yes, unless saving takes too much of the time."""
        waited = time.perf_counter() - self._saved_at
        return self.is_time_to_save() or self._saving_seconds < SAVING_FRACTION * waited

    def save(self) -> None:
        """Save history, model and checkpoint; ``WriteError`` if that fails."""
        self._save_checkpoint(with_model=True)
        self.is_saved = True

    def try_to_save(self, *, with_model: bool) -> None:
        """Save, or warn that it failed."""
        self.attempt(self.save if with_model else self._save_checkpoint)

    def try_to_append(self) -> None:
        """Write the rows of the history, or warn that it failed."""
        self.attempt(self._append_rows)

    def go_back(self, row: dict[str, Any]) -> None:
        """Remove the epochs after the training's checkpoint, add a row, and save."""
        self._rows = [waiting for waiting in self._rows if waiting["event"] == "rewind"]
        self.add_row(row)
        if self._writes:
            history = self._folder.history
            with self._folder.writing():
                history.trim(self._training.epochs_done, self._training.rewinds)
            self.epochs = history.epochs()
        self.try_to_save(with_model=False)

    def _save_checkpoint(self, *, with_model: bool = False) -> None:
        if not self._writes:
            return
        began = time.perf_counter()
        rows = list(self._rows)
        checkpoint = self._training.checkpoint()  # first, because it rejects NaN and infinity
        try:
            self._append_rows()
            if with_model:
                self._folder.save_model(self._training.model)
            self._folder.save_checkpoint(checkpoint)
        except (WriteError, RuntimeError, MemoryError):
            # without a checkpoint, the history could not be resumed
            if not self._folder.checkpoint_file.exists():
                self._rows = rows
                with self._folder.writing():
                    self._folder.history.trim(0, 0)
            raise
        self._saved_at = time.perf_counter()
        self._saving_seconds = self._saved_at - began

    def _append_rows(self) -> None:
        while self._rows:
            self._folder.append_row(self._rows[0])
            del self._rows[0]

    def attempt(self, write: Callable[[], None]) -> None:
        """Write something, or warn that it failed."""
        if not self._writes:
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
            warnings.warn(
                f"cannot write to {self._folder.path}: {reason}. Training continues, and {remains}."
                f" Free some {room}.",
                LaminaWarning,
                stacklevel=4,
            )
