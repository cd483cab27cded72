"""Saves a run in training: history, model and checkpoint, despite full disks, NaN and infinity."""

from __future__ import annotations

import dataclasses
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lamina.data import Dataset, Images
from lamina.errors import GroupError, LaminaError, LaminaWarning, NotFiniteError, RecipeError
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.reports import Report
from lamina.runs.final import evaluate_final, score_split
from lamina.runs.limit import TimeLimit
from lamina.runs.processes import share_checkpoint
from lamina.runs.record import LateEnd, RunRecord
from lamina.runs.run_folder import RunFolder, WriteError
from lamina.training.device import is_out_of_memory
from lamina.training.diagnosis import find_overfitting
from lamina.training.events import (
    MOST_REWINDS,
    Cooldown,
    Diagnosis,
    EarlyEnd,
    Epoch,
    Event,
    FeatureProgress,
    HeadFit,
    Rewind,
    Step,
)
from lamina.training.group import ALONE, Group
from lamina.training.loop import Training
from lamina.training.parts import OwnMetric
from lamina.training.schedule import evaluation_interval
from lamina.training.tensors import digest_tensors
from lamina.training.timing import SAVING_FRACTION

RunEvent: TypeAlias = Event | Report
FINISHING_FRACTION = 0.1
"""The steps in which a training finishes on request, as a fraction of its steps so far."""


@dataclass
class Keeper:
    """Saves a run while it trains.

    If the disk is full, the training continues with a warning, and the next epoch retries. A
    checkpoint is never ahead of the history.
    """

    training: Training
    folder: RunFolder
    record: RunRecord
    dataset: Dataset
    save_every_seconds: float
    limit: TimeLimit | None = None
    finish: threading.Event | None = None
    stops_at_diagnosis: bool = False
    group: Group = ALONE
    metrics: Mapping[str, OwnMetric] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _saved_at: float = field(default_factory=time.perf_counter)
    _saving_seconds: float = 0.0
    _is_saved: bool = True
    _early_end: EarlyEnd | None = None
    _epochs: list[dict[str, Any]] | None = None  # of the history, and those to be written to it

    def train(self) -> Generator[RunEvent, None, None]:
        """Yield the events of the training, each after it is saved, then the final report."""
        if reason := self.group.lead_json(self.folder.history.early_end):
            self._early_end = EarlyEnd(self.training.epochs_done, reason)
        is_open = self.limit is not None and self.limit.is_open
        if is_open:
            self.training.ending.leave_open(self.training.steps_done)
        if is_open or self.record.late_end is not None:
            self._save_end()
        try:
            if self.group.is_leader and not self.folder.checkpoint_file.exists():
                self._try(self._save_checkpoint)
            while not (self.training.is_finished or self._early_end):
                try:
                    for event in self.training:
                        yield from self._keep(event)
                        if self._early_end:
                            break
                except NotFiniteError as error:
                    yield self._rewind(error)
            if not self._is_saved:
                self._save_all()
            if self._early_end:
                yield self._early_end
            if not (self._early_end and self._early_end.diagnosis):
                report = evaluate_final(
                    self.folder,
                    self.record,
                    self.training.model,
                    self.dataset,
                    self.group,
                    self.metrics,
                )
                if report is not None:
                    yield report
        except Exception as error:
            if not isinstance(error, LaminaError):  # from a custom function or module
                error.add_note(
                    f"The last checkpoint is in {self.folder.path}; load_run(…).train() resumes"
                    " from it."
                )
            raise
        except GeneratorExit:  # the caller left the loop; a group saves at an interrupt itself
            if not self._is_saved and self.group.size == 1:
                try:
                    self._save_all()
                except NotFiniteError as error:
                    self._rewind(error)
                    self._save_all()
            raise

    def _keep(self, event: FeatureProgress | HeadFit | Step | Epoch) -> Iterator[RunEvent]:
        # before the first step, so there is nothing to save
        if isinstance(event, FeatureProgress | HeadFit):
            yield event
            return
        self._is_saved = False
        if isinstance(event, Epoch):
            yield from self._keep_epoch(event)
        else:
            if self.group.any(self._is_time_to_save()) or self.training.is_interrupted:
                self._check_same(f"At step {event.step} of epoch {event.epoch}")
                self.training.check_weights()
                self._try(self._save_all if self.training.is_interrupted else self._save_checkpoint)
            yield event
        yield from self._look_at_the_clock(event)
        if self.training.ending.falls_at(self.training.steps_done):
            self._try(self._save_before_fall)

    def _look_at_the_clock(self, event: Step | Epoch) -> Iterator[RunEvent]:
        """Begin the fall of the learning rate when the time limit or the user asks for it."""
        training, limit = self.training, self.limit
        if training.is_finished or self._early_end:
            return
        is_asked = self.finish is not None and self.finish.is_set() and self.group.size == 1
        if training.ending.can_move and self.group.size == 1:
            if self.finish is not None and is_asked:
                self.finish.clear()
                steps = max(1, round(FINISHING_FRACTION * training.steps_done))
                yield self._start_fall(event.epoch, steps, "finishing on request")
                return
            chosen = (
                None
                if limit is None
                else limit.choose_fall_steps(training.ending, training.steps_done)
            )
            if chosen is not None:
                is_first = not training.ending.is_falling(training.steps_done)
                fall = self._start_fall(event.epoch, chosen, "the time limit")
                if is_first:
                    yield fall
            return
        if is_asked or (limit is not None and self.group.any(limit.is_over)):
            of = "" if training.ending.epochs is None else f" of {training.ending.epochs}"
            why = "finished on request" if is_asked else "time limit reached"
            self._early_end = EarlyEnd(
                training.epochs_done, f"{why} after {training.epochs_done}{of} epochs"
            )

    def _start_fall(self, epoch: int, steps: int, reason: str) -> Cooldown:
        self.training.ending.start_fall(self.training.steps_done, steps)
        self._save_end()
        return Cooldown(epoch, steps, reason)

    def _save_end(self) -> None:
        """Record how the training ends, where that is not as its recipe says."""
        ending = self.training.ending
        if not self.group.is_leader:
            return
        self.record = dataclasses.replace(
            self.record, late_end=LateEnd(ending.epochs, ending.plan.falls)
        )
        self._try(lambda: self.folder.replace_record(self.record))

    def _save_before_fall(self) -> None:
        """Keep the checkpoint from which more epochs can be trained."""
        if self.group.is_leader and self.training.ending.can_move:
            checkpoint = self.training.checkpoint()
            standing = dataclasses.replace(checkpoint.standing, falls=())
            kept = dataclasses.replace(checkpoint, standing=standing)
            self.folder.save_checkpoint(kept, self.folder.before_fall_file)

    def _keep_epoch(self, event: Epoch) -> Iterator[RunEvent]:
        report = self._evaluate_val(event)
        self._check_same(f"After epoch {event.epoch}")
        event = dataclasses.replace(event, weights=digest_tensors(self.training.model.state_dict()))
        if report is not None:
            own = {f"{report.split}_{name}": value for name, value in report.metrics.items()}
            metrics = {**report.headline(), f"{report.split}_loss": report.loss, **own}
            event = dataclasses.replace(event, score=report.score, metrics=metrics)
        overfitting, reason = self.group.lead_json(lambda: self._judge(event, report))
        if overfitting:
            diagnoses = (*event.diagnoses, Diagnosis(**overfitting))
            event = dataclasses.replace(event, diagnoses=diagnoses)
        if self._epochs is not None:
            self._epochs.append(event.to_json())
        if self.group.is_leader:
            self._rows.append(event.to_json())
        fall: Cooldown | None = None
        if reason and self.training.ending.can_move:
            if not self.training.ending.is_falling(self.training.steps_done):
                steps = self.training.ending.count_fall_steps(self.training.steps_done)
                fall = self._start_fall(event.epoch, steps, reason)
        elif reason:
            self._early_end = EarlyEnd(event.epoch, reason)
            if self.group.is_leader:
                self._rows.append(self._early_end.to_json())
        elif event.diagnoses and self.stops_at_diagnosis and not self.training.is_finished:
            kind = event.diagnoses[0].kind
            self._early_end = EarlyEnd(event.epoch, f"diagnosis {kind}", kind)
        is_due = event.diagnoses or self.training.is_interrupted or self._is_worth_saving()
        self._try(self._save_all if is_due else self._append_rows)
        if report is not None:
            yield report
        yield event
        if fall is not None:
            yield fall
        yield from event.diagnoses

    def _judge(self, event: Epoch, report: Report | None) -> tuple[dict[str, Any] | None, str]:
        """A diagnosis of overfitting on ``val``, as plain values, and a reason to end, if any."""
        if report is None:
            return None, ""
        if self._epochs is None:
            self._epochs = self.folder.history.epochs()
        rows = [*self._epochs, event.to_json()]
        name = report.score.name
        sign = 1 if report.score.lower_is_better else -1
        known = [one["kind"] for row in rows for one in row.get("diagnoses", ())]
        overfitting = None if "overfitting" in known else find_overfitting(rows, name, sign)
        ranked = [row for row in rows if row.get(f"val_{name}") is not None]
        best_row = min(ranked, key=lambda row: sign * row[f"val_{name}"], default={"epoch": 0})
        best = best_row["epoch"]
        recipe = self.training.recipe
        reason = ""
        if (
            recipe.patience
            and not self.training.is_finished
            and event.epoch - best >= recipe.patience
        ):
            reason = (
                f"{report.split} {report.score.title} has not improved since epoch {best} (patience"
                f" {recipe.patience})"
            )
        return dataclasses.asdict(overfitting) if overfitting else None, reason

    def _is_worth_saving(self) -> bool:
        """Whether to save after this epoch: yes, unless saving takes too much of the time."""
        waited = time.perf_counter() - self._saved_at
        is_last = self.training.is_finished or self._early_end is not None
        return (
            is_last
            or waited >= self.save_every_seconds
            or self._saving_seconds < SAVING_FRACTION * waited
        )

    def _evaluate_val(self, event: Epoch) -> Report | None:
        """The report on ``val`` after an epoch; ``None`` if evaluation is not due."""
        val = self.dataset.val
        if val is None:
            return None
        if (
            event.epoch % evaluation_interval(self.training.images, len(val))
            and not self.training.is_finished
        ):
            return None
        report = score_split(self.dataset, val, self._score)
        # it would fail after every epoch, which is no reason to end the training
        if report is None:
            self.dataset = dataclasses.replace(self.dataset, val=None)
        elif report.undefined and self._epochs is None:
            warnings.warn(report.summary_lines()[0], LaminaWarning, stacklevel=3)
        return report

    def _score(self, images: Images) -> Report:
        started = time.perf_counter()
        logits = self.training.predict_logits(images.pixels)
        return score_logits(
            self.training.model.task, logits, images, time.perf_counter() - started, self.metrics
        )

    def _is_time_to_save(self) -> bool:
        return (
            self.group.is_leader and time.perf_counter() - self._saved_at >= self.save_every_seconds
        )

    def _check_same(self, when: str) -> None:
        if self.group.size == 1:
            return
        if deviating := self.group.find_deviating(self.training.digest()):
            raise GroupError(
                f"{when}, the weights differ between the processes ({deviating}). Memory or a"
                " processor may be faulty, or the module may keep state outside of buffers. The"
                " last checkpoint is intact; resume it with lamina resume."
            )

    def _save_all(self) -> None:
        self._save_checkpoint(with_model=True)
        self._is_saved = True

    def _save_checkpoint(self, *, with_model: bool = False) -> None:
        if not self.group.is_leader:
            return
        began, rows = time.perf_counter(), list(self._rows)
        checkpoint = self.training.checkpoint()  # first, because it rejects NaN and infinity
        try:
            self._append_rows()
            if with_model:
                self.folder.save_model(self.training.model)
            self.folder.save_checkpoint(checkpoint)
        except (WriteError, RuntimeError, MemoryError):
            # without a checkpoint, the history could not be resumed
            if not self.folder.checkpoint_file.exists():
                self._rows = rows
                with self.folder.writing():
                    self.folder.history.trim(0, 0)
            raise
        self._saved_at = time.perf_counter()
        self._saving_seconds = self._saved_at - began

    def _append_rows(self) -> None:
        while self._rows:
            self.folder.append_row(self._rows[0])
            del self._rows[0]

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (WriteError, RuntimeError, MemoryError) as error:
            if isinstance(error, WriteError):
                reason, room = error.reason, "disk space"
            elif is_out_of_memory(error):
                reason, room = "out of memory while copying the weights", "memory"
            else:
                raise
            self._saved_at = time.perf_counter()
            warnings.warn(
                f"cannot write to {self.folder.path}: {reason}. Training continues, and the last"
                f" complete checkpoint is kept. Free some {room}.",
                LaminaWarning,
                stacklevel=4,
            )

    def _rewind(self, error: NotFiniteError) -> Rewind:
        """Return to the last checkpoint at half the learning rate, if allowed and not too often."""
        training, path = self.training, self.folder.path
        if not self.record.rewind_on_nan:
            raise NotFiniteError(
                f"{error} The last checkpoint is intact; lamina resume {path} --on-nan rewind (in"
                " Python, run.train(rewind_on_nan=True)) continues from it with half the learning"
                " rate."
            ) from error
        if training.rewinds == MOST_REWINDS:
            raise NotFiniteError(
                f"{error} Training has already returned to a checkpoint {MOST_REWINDS} times, so it"
                f" stops. The last checkpoint is in {path}."
            ) from error
        checkpoint = share_checkpoint(self.folder, self.group)
        if checkpoint is None:
            raise NotFiniteError(
                f"{error} There is no checkpoint in {path} to return to. Start a new run."
            ) from error
        standing = dataclasses.replace(checkpoint.standing, rewinds=training.rewinds + 1)
        training.restore(dataclasses.replace(checkpoint, standing=standing))
        rewind = Rewind(
            standing.rewinds, training.epochs_done, standing.steps_done, training.lr, str(error)
        )
        self._early_end = None
        if self.group.is_leader:
            # Epochs after the checkpoint are repeated; pending rewinds are kept.
            self._rows = [
                *(row for row in self._rows if row["event"] == "rewind"),
                rewind.to_json(),
            ]
            with self.folder.writing():
                self.folder.history.trim(training.epochs_done, training.rewinds)
            self._try(self._save_checkpoint)
            if self.record.late_end is not None:
                self._save_end()
        self._epochs = None
        return rewind


@contextmanager
def explain_lack_of_memory(training: Training) -> Iterator[None]:
    """Turn a lack of memory into a ``RecipeError``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = min(training.recipe.batch_size, training.images)
        remedy = (
            f"Try batch_size {size // 2}." if size > 1 else "Try smaller images or a smaller net."
        )
        raise RecipeError(
            f"Out of memory on {training.device.value} with batch_size"
            f" {training.recipe.batch_size}. {remedy}"
        ) from error
