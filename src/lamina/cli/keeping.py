"""A run kept up to date while it is trained: history, model and checkpoint, also where room or numbers run out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamina.cli.terminal import Terminal
from lamina.errors import NotFiniteError

if TYPE_CHECKING:
    from lamina.runs.run import Run
    from lamina.training.checkpoint import Checkpoint
    from lamina.training.events import Epoch, Step
    from lamina.training.loop import Training

MOST_REWINDS = 3


@dataclass
class Keeper:
    """Keeps a run while its training goes on.

    Where the disk is full the training goes on with a warning; what could not be written is tried again with the next
    epoch, and a checkpoint never runs ahead of the history.

    Attributes:
        training: what is kept.
        run: where.
        save_every_seconds: between two checkpoints inside an epoch; each epoch ends with one in any case.
        terminal: who is told.
    """

    training: Training
    run: Run
    save_every_seconds: float
    terminal: Terminal
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _saved_at: float = field(default_factory=time.perf_counter)
    _is_saved: bool = True
    _wrong: NotFiniteError | None = None

    def train(self) -> Iterator[Step | Epoch]:
        """The training's records, to the end; where its numbers go wrong, on from the last checkpoint if it may."""
        if not (self.run.path / "state.safetensors").exists():
            self._try(self._save_checkpoint)
        while True:
            try:
                for event in self.training:
                    yield event
                    if self._wrong is not None:
                        raise self._wrong
            except NotFiniteError as error:
                self._wrong = None
                self._rewind(error)
            else:
                return

    def reject(self, error: NotFiniteError) -> None:
        """Let the training meet an error that was found in what it gave, as if it had been found in the step."""
        self._wrong = error

    def keep_epoch(self, row: dict[str, Any]) -> None:
        """Write what an epoch gave: its figures with a digest of the weights, the model, and a checkpoint."""
        from lamina.training.tensors import digest_tensors

        self._rows.append(row | {"weights": digest_tensors(self.training.model.state_dict())})
        self._try(self._write_all)

    def keep_step(self) -> None:
        """Write a checkpoint inside an epoch, if the last one is old enough."""
        if time.perf_counter() - self._saved_at >= self.save_every_seconds:
            self._try(self._save_checkpoint)

    def stop(self) -> None:
        """Write all as it stands, inside an epoch too; where its numbers are wrong, the last checkpoint if it may.

        Raises:
            OSError: there is no room for it.
            NotFiniteError: its numbers are wrong, and it may not go back.
        """
        try:
            self._write_all()
        except NotFiniteError as error:
            self._rewind(error)
            self._write_all()

    def finish(self) -> None:
        """Write what is not written yet.

        Raises:
            OSError: there is still no room for it.
        """
        if self._rows or not self._is_saved:
            self._write_all()

    def _write_all(self) -> None:
        checkpoint = self.training.checkpoint()  # first, since it refuses what is no number
        self._append_rows()
        self.run.save_model(self.training.model)
        self._save(checkpoint)

    def _append_rows(self) -> None:
        while self._rows:
            self.run.append_epoch(self._rows[0])
            del self._rows[0]

    def _save_checkpoint(self) -> None:
        checkpoint = self.training.checkpoint()
        self._append_rows()
        self._save(checkpoint)

    def _save(self, checkpoint: Checkpoint) -> None:
        self.run.save_checkpoint(checkpoint)
        self._saved_at = time.perf_counter()
        self._is_saved = True

    def _try(self, write: Callable[[], None]) -> None:
        from lamina.training.device import is_out_of_memory

        self._is_saved = False
        try:
            write()
        except NotFiniteError as error:
            self.reject(error)
        except (OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            self._saved_at = time.perf_counter()
            reason = error.strerror or error if isinstance(error, OSError) else "no memory for the copy that is written"
            self.terminal.remark(
                f"warning: cannot write to {self.run.path}: {reason}. The training goes on, and the last whole "
                "checkpoint stays; make room."
            )

    def _rewind(self, error: NotFiniteError) -> None:
        """Go back to the last checkpoint with half the learning rate, if the run is to do so and has not too often."""
        training, run = self.training, self.run
        if not run.record.rewind_on_nan:
            raise NotFiniteError(
                f"{error} The run keeps its last good checkpoint; with --on-nan rewind, lamina resume {run.path} goes "
                "on from there with half the lr."
            ) from error
        if training.rewinds == MOST_REWINDS:
            raise NotFiniteError(
                f"{error} It has gone back to a checkpoint {MOST_REWINDS} times already, and ends here; "
                f"{run.path} keeps its last good checkpoint."
            ) from error
        checkpoint = run.read_checkpoint()
        if checkpoint is None:
            raise NotFiniteError(f"{error} There is no checkpoint in {run.path} to go back to.") from error
        standing = dataclasses.replace(checkpoint.standing, rewinds=training.rewinds + 1)
        training.restore(dataclasses.replace(checkpoint, standing=standing))
        row = {
            "rewind": standing.rewinds,
            "to_epochs_done": training.epochs_done,
            "to_steps_done": standing.steps_done,
            "lr": training.lr,
            "reason": str(error),
        }
        # Epochs after the checkpoint are made again.
        self._rows = [row for row in self._rows if "rewind" in row] + [row]
        self._try(self._write_rewind)
        self.terminal.emit("rewind", run=str(run.path), **row)
        self.terminal.remark(
            f"warning: {error} Back to step {standing.steps_done} with half the lr, {training.lr:g} "
            f"({standing.rewinds} of {MOST_REWINDS} times)."
        )

    def _write_rewind(self) -> None:
        self.run.trim_history(self.training.epochs_done, self.training.rewinds)
        self._save_checkpoint()
