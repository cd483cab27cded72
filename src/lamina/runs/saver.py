"""Saves a run while it trains: history, model and checkpoint."""

from __future__ import annotations

import time

from lamina.runs.folder import RunFolder
from lamina.runs.history import Row
from lamina.runs.processes import by_leader, is_leader
from lamina.training.loop import Training
from lamina.training.timing import SAVING_FRACTION


class Saver:
    """Writes the files of a run during training, in the leading process.

    A checkpoint is never ahead of the history. Methods that write raise ``WriteError``.

    Attributes:
        epochs: The epochs of the history.
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
        self._saved_at = time.perf_counter()
        self._saving_seconds = 0.0

    def is_time_to_save(self) -> bool:
        """Whether the last checkpoint is so old that another is due within the epoch."""
        return time.perf_counter() - self._saved_at >= self._save_every_seconds

    def is_worth_saving(self) -> bool:
        """Whether to save after this epoch: yes, unless saving takes too much of the time."""
        waited = time.perf_counter() - self._saved_at
        return self.is_time_to_save() or self._saving_seconds < SAVING_FRACTION * waited

    def append_row(self, row: Row) -> None:
        """Append a row to the history."""
        if row["event"] == "epoch":
            self.epochs.append(row)
        by_leader(lambda: self._append(row))

    def _append(self, row: Row) -> None:
        with self._folder.writing():
            self._folder.history.append(row)

    def save(self, *, with_model: bool = True) -> None:
        """Save the model, if asked to, and the checkpoint."""
        by_leader(lambda: self._write(with_model=with_model))
        if with_model:
            self.is_saved = True

    def _write(self, *, with_model: bool) -> None:
        began = time.perf_counter()
        checkpoint = self._training.checkpoint()  # first, because it rejects NaN and infinity
        if with_model:
            self._folder.save_model(self._training.model)
        self._folder.save_checkpoint(checkpoint)
        self._saved_at = time.perf_counter()
        self._saving_seconds = self._saved_at - began
